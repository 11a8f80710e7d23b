"""Embeds a folder and kills itself in the middle, as the system does: `kill_worker.py FOLDER OUT IMAGES`."""

import os
import signal
import sys

import tensorflow as tf

from keras_ssl.embedding import embed_folder


def quarters(images):
    size = images.shape[1] // 2
    means = tf.nn.avg_pool2d(images, size, size, "VALID")
    return {"features": tf.reshape(means, (-1, 12))}


def kill(done, total, broken):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)


embed_folder(
    quarters, sys.argv[1], sys.argv[2], image_size=16, batch_size=2, save_every=4, progress=kill
)
