"""Small convolutional networks, XCiT and Swin, by name."""

import numpy as np
import tensorflow as tf

from keras_ssl import backbones, random

F = (4, 8, 12, 12, 8)
NETWORKS = {
    "regnet": lambda **kw: backbones.RegNet((1, 2), (8, 12), 4, **{"image_size": 16, **kw}),
    "alexnet": lambda **kw: backbones.AlexNet(
        F, groups=(1, 2, 1, 2, 2), response_norm=True, **{"image_size": 64, **kw}
    ),
    "alexnet_dense": lambda **kw: backbones.AlexNet(
        F, sobel=True, dense=(6, 10), **{"image_size": 64, "dropout": 0.5, **kw}
    ),
    "alexnet_lab": lambda **kw: backbones.AlexNet(
        F, first_border=0, first_norm=6, ceil_pool=True, lab=True, **{"image_size": 80, **kw}
    ),
    "vgg": lambda **kw: backbones.VGG((1, 2), filters=(4, 8), **{"image_size": 16, **kw}),
    "vgg_dilated": lambda **kw: backbones.DilatedVGG(
        (1, 2, 1), filters=(4, 6, 8), halved=2, dilations=(1, 1, 2), **{"image_size": 16, **kw}
    ),
    "preact": lambda **kw: backbones.PreActResNet(
        (1, 2), filters=(4, 6), **{"image_size": 32, **kw}
    ),
    "xcit": lambda **kw: backbones.XCiT(
        8, 2, 2, patch_size=4, drop_path=0.3, **{"image_size": 16, **kw}
    ),
    "convnext": lambda **kw: backbones.ConvNeXt(
        (1, 2), (4, 8), drop_path=0.3, layer_scale=0.5, **{"image_size": 16, **kw}
    ),
    "swin": lambda **kw: backbones.Swin(
        4, (1, 2), (1, 2), patch_size=2, window_size=2, drop_path=0.2, **{"image_size": 16, **kw}
    ),
}


def pictures(network, count=4, dtype="float32"):
    shape = (count, network.image_size, network.image_size, 3)
    return np.random.default_rng(0).uniform(size=shape).astype(dtype)


def keys(count=4):
    return random.sample_keys(0, tf.range(count, dtype=tf.int64))
