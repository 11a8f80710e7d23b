"""A step in micro-batches against the whole step, in float64: gradients, state, refusals."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, optimizers, views
from keras_ssl.layers import BatchNormalization
from keras_ssl.methods import gradients
from keras_ssl.methods.micro_batch import PiecewiseViews, check_model, comes_in_pieces
from tests.contract.rows import BATCH, ROWS, SIZE, bind, build, images

MICRO = 2
RATE = 2.0**-7  # without momentum, (weights before - after) / rate is the gradient
# One whose loss couples the batch, and one that needs a single pass.
QUICK = ("simclr", "mae")
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
    for name in [*ROWS, "example"]
]
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


@functools.cache
def ready_views(name, step):
    """Views made beforehand: tracing how they are made is most of the time of a first step."""
    batch = batch_of(step)
    return {"views": dict(make(name).make_views(batch)), "position": batch["position"]}


def train(model, name=None, steps=2):
    """Returns the gradient of the first step, all variables after the last one, and its logs.

    With a name the views are ready-made.
    """
    start = [v.numpy() for v in model.trainable_variables]
    slopes = logs = None
    step = tf.function(model.train_step)
    for number in range(steps):
        logs = step(batch_of(number) if name is None else ready_views(name, number))
        if number == 0:
            after = [v.numpy() for v in model.trainable_variables]
            slopes = [(old - new) / RATE for old, new in zip(start, after, strict=True)]
    state = [v.numpy() for v in model.variables]
    return slopes, state, {key: float(value) for key, value in logs.items()}


@functools.cache
def whole(name, size=MICRO):
    with batch_norm_over_groups(size):
        return train(make(name), name)


def errors(one, other):
    """Returns the largest error of the gradient over its norm, and of the state."""
    norm = np.sqrt(sum(np.sum(g**2) for g in one[0]))
    assert norm > 1e-3
    gradient = max(np.max(np.abs(a - b)) / norm for a, b in zip(one[0], other[0], strict=True))
    state = max(np.max(np.abs(a - b)) for a, b in zip(one[1], other[1], strict=True))
    return gradient, state


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_train_like_the_whole_batch(name):
    """Batch-norm statistics, queues, centers, prototypes and teachers are in the state."""
    expected, pieces = whole(name), train(make(name, MICRO), name)
    gradient, state = errors(expected, pieces)
    assert gradient < 1e-9
    assert state < 1e-9
    assert pieces[2]["loss"] == pytest.approx(expected[2]["loss"], abs=1e-9)
    assert pieces[2].keys() == expected[2].keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ROWS, "example"])
def test_views_of_a_micro_batch_are_those_of_the_batch(name):
    """Here the step makes them, from the images and keys of one micro-batch at a time."""
    gradient, state = errors(whole(name), train(make(name, MICRO)))
    assert gradient < 1e-9
    assert state < 1e-9


@pytest.mark.slow
def test_blocks_may_be_recomputed_too():
    model = make("rotnet", MICRO)
    model.backbone.recompute = True
    gradient, state = errors(whole("rotnet"), train(model, "rotnet"))
    assert gradient < 1e-9
    assert state < 1e-9


def test_a_micro_batch_of_the_whole_batch_is_the_plain_step():
    model = make("simclr", BATCH)
    assert not comes_in_pieces(model.in_pieces(ready_views("simclr", 0)["views"]))
    assert comes_in_pieces(make("simclr", BATCH // 2).make_views(batch_of(0)))


def test_sabotage_a_loss_for_each_micro_batch_is_noticed():
    """SimCLR as plain accumulation: the negatives are those of the micro-batch alone."""
    model = make("simclr", MICRO)
    model.loss_averages_samples = True
    gradient, _ = errors(whole("simclr"), train(model, "simclr", steps=1))
    assert gradient > 1e-2


@pytest.mark.slow
def test_sabotage_statistics_counted_in_both_passes_is_noticed(monkeypatch):
    """The example's loss needs two passes; the second one must not move the running statistics again."""
    monkeypatch.setattr(gradients, "_follow", lambda *_: None)
    _, state = errors(whole("example"), train(make("example", MICRO), "example"))
    assert state > 1e-3


def test_batch_norm_groups_matter_here():
    """So that the comparisons above would notice batch-norm over anything but the micro-batch."""
    gradient, state = errors(whole("simclr"), whole("simclr", BATCH))
    assert gradient > 1e-2
    assert state > 1e-3


def test_a_loss_that_reads_views_gets_those_of_the_whole_batch():
    model = make("rotnet", MICRO)
    pieces, plain = model.make_views(batch_of(0)), ready_views("rotnet", 0)["views"]
    assert isinstance(pieces, PiecewiseViews) and (pieces.count, len(pieces)) == (4, len(plain))
    for name, expected in plain.items():
        np.testing.assert_allclose(pieces[name], expected, atol=1e-12)
        joined = [pieces.piece(tf.constant(index))[name] for index in range(4)]
        axis = 0 if name == "keys" else 1
        np.testing.assert_allclose(np.concatenate(joined, axis), expected, atol=1e-12)


def test_what_does_not_fit_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"int above 0. Received: micro_batch=0"):
        make("rotnet", 0)
    with pytest.raises(ValueError, match=r"divide the 8 images .* Received: micro_batch=3"):
        make("rotnet", 3)
    model = make("rotnet", MICRO)
    with pytest.raises(ValueError, match=r"divide the 7 images"):
        model.in_pieces({"rotations": tf.zeros((4, 7, SIZE, SIZE, 3))})
    free = tf.TensorSpec((4, None, SIZE, SIZE, 3))
    count = tf.function(lambda x: model.in_pieces({"rotations": x}).count, input_signature=[free])
    assert int(count(tf.zeros((4, 6, SIZE, SIZE, 3)))) == 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="Expected micro_batch=2 to divide"):
        count(tf.zeros((4, 7, SIZE, SIZE, 3)))
    model.backbone.replica_exact = False
    with pytest.raises(ValueError, match="its own dropout or batch-norm"):
        check_model(model, MICRO)


def test_synchronized_batch_norm_is_refused_on_several_replicas(monkeypatch):
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    for name in ("rotnet", "mae"):
        model = make(name)
        monkeypatch.setattr(type(model), "distribute_strategy", two)
        if name == "mae":
            check_model(model, MICRO)  # no batch-norm
            continue
        with pytest.raises(ValueError, match="synchronized over 2 replicas"):
            check_model(model, MICRO)
