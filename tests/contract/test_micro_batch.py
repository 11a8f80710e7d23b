"""A step in micro-batches against the whole step, in float64: gradients, state, refusals."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, optimizers, views
from keras_ssl.distribution import global_mean
from keras_ssl.layers import BatchNormalization
from keras_ssl.methods import RunInfo
from keras_ssl.methods.base import SSLModel
from tests.contract.rows import BATCH, ROWS, SIZE, bind, build, images

MICRO = 2
RATE = 2.0**-7  # without momentum, (weights before - after) / rate is the gradient
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "add_a_method.py"


@pytest.fixture(autouse=True, scope="module")
def float64():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def batch_norm_over_groups(size):
    """Batch-norm as the formula says, over the rows of `size` neighboring images; views of a batch lie one after
    the other. The running statistics move once, towards the mean over the groups."""

    def normalize(layer, x):
        rows, channels = x.shape[0], x.shape[-1]
        groups = BATCH // size
        parts = tf.reshape(x, (rows // BATCH, groups, size, -1, channels))
        mean = tf.reduce_mean(parts, (0, 2, 3), keepdims=True)
        variance = tf.reduce_mean((parts - mean) ** 2, (0, 2, 3), keepdims=True)
        y = (parts - mean) / tf.sqrt(variance + layer.epsilon)
        y = y if layer.gamma is None else y * layer.gamma
        y = y if layer.beta is None else y + layer.beta
        count = parts.shape[0] * size * parts.shape[3]
        unbiased = variance * count / (count - 1)
        for running, value in ((layer.moving_mean, mean), (layer.moving_variance, unbiased)):
            new = tf.reduce_mean(tf.reshape(value, (groups, channels)), 0)
            running.assign(layer.momentum * running + (1 - layer.momentum) * new)
        return tf.reshape(y, x.shape)

    original = BatchNormalization._normalize_by_batch
    BatchNormalization._normalize_by_batch = normalize
    try:
        yield
    finally:
        BatchNormalization._normalize_by_batch = original


def make(name, micro_batch=None):
    """Returns a method of the table, or of the example, compiled and bound."""
    optimizer = optimizers.SGD(RATE, momentum=0.0)
    if name in ROWS:
        return bind(build(name, optimizer=optimizer, micro_batch=micro_batch))
    spec = importlib.util.spec_from_file_location("add_a_method", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keras.utils.set_random_seed(0)
    backbone = backbones.ResNet(
        blocks=(1,), bottleneck=False, filters=(6,), stem="cifar", image_size=SIZE
    )
    model = module.BarlowTwins(backbone, projection_dim=8)
    recipe = views.customize(views.get("byol_cifar"), image_size=SIZE)
    model.compile(optimizer, views=recipe, micro_batch=micro_batch)
    return bind(model)


def batch_of(step):
    position = tf.range(step * BATCH, (step + 1) * BATCH, dtype=tf.int64)
    return {"inputs": {"image": tf.constant(images(BATCH, step))}, "position": position}


def train(model, steps=2):
    """Returns the gradient of the first step, all variables after the last one, and its logs."""
    start = [v.numpy() for v in model.trainable_variables]
    gradients = logs = None
    step = tf.function(model.train_step)
    for number in range(steps):
        logs = step(batch_of(number))
        if number == 0:
            after = [v.numpy() for v in model.trainable_variables]
            gradients = [(old - new) / RATE for old, new in zip(start, after, strict=True)]
    state = {f"{i}:{v.path}": v.numpy() for i, v in enumerate(model.variables)}
    return gradients, state, {name: float(value) for name, value in logs.items()}


def errors(one, other):
    """Returns the largest error of the gradient over its norm, and of the state."""
    norm = np.sqrt(sum(np.sum(g**2) for g in one[0]))
    assert norm > 1e-3 and len(one[1]) == len(other[1])
    gradient = max(np.max(np.abs(a - b)) / norm for a, b in zip(one[0], other[0], strict=True))
    state = max(
        np.max(np.abs(a - b)) for a, b in zip(one[1].values(), other[1].values(), strict=True)
    )
    return gradient, state


@pytest.mark.parametrize("name", [*ROWS, "example"])
def test_micro_batches_train_like_the_whole_batch(name):
    """Batch-norm statistics, queues, centers, prototypes and teachers are in the state."""
    with batch_norm_over_groups(MICRO):
        whole = train(make(name))
    pieces = train(make(name, MICRO))
    gradient, state = errors(whole, pieces)
    assert gradient < 1e-9
    assert state < 1e-9
    assert pieces[2]["loss"] == pytest.approx(whole[2]["loss"], abs=1e-9)
    assert pieces[2].keys() == whole[2].keys()
