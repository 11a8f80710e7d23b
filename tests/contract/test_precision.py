"""Mixed precision: each method in bfloat16 and float16 beside float32, and steps that overflow."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import optimizers
from keras_ssl.methods.scaling import LossScale, clip_gradients
from tests.contract.rows import BATCH, ROWS, bind, build, images

# Largest difference of the first loss from float32's, as a share of it: a few roundings of 8 or 11 bits.
BANDS = {"mixed_bfloat16": 0.02, "mixed_float16": 0.002}
QUICK = ("simclr", "rotnet")
METHODS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in ROWS
]


@contextlib.contextmanager
def policy(name):
    old = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(old)


def batch_of(step):
    position = tf.range(step * BATCH, (step + 1) * BATCH, dtype=tf.int64)
    return {"inputs": {"image": tf.constant(images(BATCH, step))}, "position": position}


def three_steps(name, precision):
    """Returns the method, and what it reports of three steps."""
    with policy(precision):
        model = bind(build(name, optimizer=optimizers.SGD(0.01, momentum=0.0)))
        step = tf.function(model.train_step)
        logs = [{key: float(v) for key, v in step(batch_of(i)).items()} for i in range(3)]
    return model, logs


@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_stays_near_float32(name):
    _, exact = three_steps(name, "float32")
    for precision, band in BANDS.items():
        model, logs = three_steps(name, precision)
        assert model.backbone.compute_dtype == precision.removeprefix("mixed_")
        kinds = {variable.dtype for variable in [*model.variables, *model.optimizer.variables]}
        assert kinds <= {"float32", "int64"}  # weights, state and slots keep their precision
        losses = [entry["loss"] for entry in logs]
        assert np.isfinite(losses).all()
        error = abs(losses[0] / exact[0]["loss"] - 1)
        assert 0 < error < band, (precision, losses[0], exact[0]["loss"])
        if precision == "mixed_bfloat16":  # as wide as float32: no scaling
            assert model.loss_scale is None and "loss_scale" not in logs[0]
            assert all(math.isfinite(entry["gradient_norm"]) for entry in logs)
        else:
            skipped = np.cumsum([not math.isfinite(entry["gradient_norm"]) for entry in logs])
            assert [entry["loss_scale"] for entry in logs] == list(2.0 ** (15 - skipped))


def test_an_overflow_skips_the_step_and_halves_the_scale():
    """Infinity in one element of one gradient, in the second of three steps."""
    planted = tf.Variable(0.0, trainable=False)

    @tf.custom_gradient
    def plant(kernel):
        where = tf.one_hot(0, tf.size(kernel), dtype=kernel.dtype)
        return tf.zeros(()), lambda _: tf.reshape(
            where * tf.cast(planted, kernel.dtype), kernel.shape
        )

    with policy("mixed_float16"):
        model = bind(build("rotnet", optimizer=optimizers.SGD(0.01, momentum=0.9)))
        plain = model.loss

        def loss(embeddings, views):
            value, aux = plain(embeddings, views)
            return value + plant(model.classifier.kernel.value), aux

        model.loss = loss
        step = tf.function(model.train_step)
        state = [*model.trainable_variables, *model.optimizer.variables[2:]]
        assert len(state) == 2 * len(model.trainable_variables)  # slots of the momentum
        seen = []
        for number, value in enumerate((0.0, math.inf, 0.0)):
            planted.assign(value)
            before = [variable.numpy() for variable in state]
            logs = step(batch_of(number))
            assert math.isfinite(float(logs["loss"]))
            moved = [
                not np.array_equal(old, new.numpy()) for old, new in zip(before, state, strict=True)
            ]
            seen.append((any(moved), float(logs["loss_scale"]), float(logs["gradient_norm"])))
        assert int(model.step) == int(model.optimizer.iterations) == 3
    assert [moved for moved, _, _ in seen] == [True, False, True]
    assert [scale for _, scale, _ in seen] == [2.0**15, 2.0**14, 2.0**14]
    assert [math.isfinite(norm) for _, _, norm in seen] == [True, False, True]


def test_a_copy_made_under_another_policy_scales_its_loss_too():
    with policy("mixed_float16"):
        model = build("rotnet")
    copy = type(model).from_config(model.get_config())
    copy.compile("adam")
    assert copy.backbone.compute_dtype == "float16" and copy.loss_scale is not None
    assert build("rotnet").loss_scale is None


def test_the_scale_grows_and_has_ends():
    scale = LossScale(initial=8.0, growth_steps=2)
    values = []
    for good in (True, True, True, False, True, True, True):
        scale.update(tf.constant(good))
        values.append(float(scale.value))
    assert values == [8.0, 16.0, 16.0, 8.0, 8.0, 16.0, 16.0]
    least, most = LossScale(initial=1.0), LossScale(initial=2.0**24, growth_steps=1)
    least.update(tf.constant(False))
    most.update(tf.constant(True))
    assert (float(least.value), float(most.value)) == (1.0, 2.0**24)
    assert float(scale.scale(tf.constant(0.5))) == 8.0
    assert float(scale.unscale([tf.constant(8.0)])[0]) == 0.5


@pytest.mark.parametrize(
    "mode, limit, expected",
    [
        ("global", None, [[3.0, 0.0], [0.0, 4.0]]),
        ("global", 2.5, [[1.5, 0.0], [0.0, 2.0]]),
        ("global", 9.0, [[3.0, 0.0], [0.0, 4.0]]),
        ("tensor", 3.5, [[3.0, 0.0], [0.0, 3.5]]),
    ],
)
def test_clipping(mode, limit, expected):
    """Norms 3 and 4, together 5."""
    gradients = [tf.constant([3.0, 0.0]), tf.constant([0.0, 4.0])]
    clipped, norm, finite = clip_gradients(gradients, limit, mode)
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)
    assert float(norm) == 5.0 and bool(finite)


def test_clipping_sees_what_is_not_finite():
    for bad in (math.inf, math.nan):
        _, _, finite = clip_gradients([tf.ones(2), tf.constant([1.0, bad])], 1.0, "tensor")
        assert not bool(finite)


# Two replicas: a process of its own ------------------------------------------------------------------------------

WORKER = Path(__file__).with_name("overflow_worker.py")


@functools.cache
def overflow(precision, sabotage=""):
    """Returns what both replicas did in four steps; replica 1 has an infinity in its gradient in the second."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(WORKER.parents[2]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, str(WORKER), precision, *([sabotage] if sabotage else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "precision", ["mixed_float16", pytest.param("float32", marks=pytest.mark.slow)]
)
def test_an_overflow_on_one_replica_skips_the_step_on_all(precision):
    """SGD of rate 0.5, clipped at norm 2: a step has half the norm's length, 1 at most, and 0 if refused."""
    steps = overflow(precision)
    assert [step["equal"] for step in steps] == [True] * 4
    for step in steps:
        for name in ("gradient_norm", "step_length"):
            assert step[name][0] == step[name][1]  # of the sum, so the same on both
    norms, lengths = (
        [step[name][0] for step in steps] for name in ("gradient_norm", "step_length")
    )
    assert [math.isfinite(norm) for norm in norms] == [True, False, True, True]
    assert lengths[0] == pytest.approx(norms[0] / 2, rel=1e-4) and 0 < norms[0] < 2
    assert lengths[1] == 0
    assert lengths[2] == pytest.approx(norms[2] / 2, rel=1e-4) and 0 < norms[2] < 2
    assert lengths[3] == pytest.approx(1.0, rel=1e-4) and norms[3] > 10
    assert all(math.isfinite(loss) for step in steps for loss in step["loss"])
    if precision == "mixed_float16":
        assert [step["loss_scale"] for step in steps] == [[2.0**15] * 2] + [[2.0**14] * 2] * 3


@pytest.mark.slow
def test_looking_at_the_own_gradient_only_is_noticed():
    """Replica 0 finds its own gradient finite, takes the step, and the infinity is in its weights."""
    second = overflow("float32", "own_gradient")[1]
    assert not second["equal"] or second["step_length"][0] != 0
