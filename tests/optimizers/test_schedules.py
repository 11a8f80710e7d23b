"""Schedules against hand numbers and the formulas."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.optimizers import (
    Constant,
    CosineRamp,
    StepDecay,
    WarmupCosine,
    cosine_ramp,
    linear_ramp,
    scale_learning_rate,
    teacher_momentum,
)


def test_warmup_then_half_cosine_by_hand():
    """Peak 1, 4 warm-up steps of 12: 0, 1/4, .. 1 at step 4; half of the 8 left at step 8; 0 at 12 and after."""
    schedule = WarmupCosine(1.0, total_steps=12, warmup_steps=4)
    values = [float(schedule(step)) for step in (0, 1, 3, 4, 8, 12, 100)]
    np.testing.assert_allclose(values, [0, 0.25, 0.75, 1, 0.5, 0, 0], atol=1e-7)
    # a quarter of the cosine: (1 + cos(pi / 4)) / 2
    assert math.isclose(float(schedule(6)), 0.8535534, rel_tol=1e-6)


@pytest.mark.parametrize("warmup", [0, 1, 7, 20])
def test_warmup_cosine_equals_the_formula(warmup):
    peak, total, end, start = 4.8, 20, 0.0048, 0.3
    schedule = WarmupCosine(peak, total, warmup, end=end, start=start)
    for step in range(total + 1):
        if step < warmup:
            expected = start + (peak - start) * step / warmup
        elif warmup == total:
            expected = end
        else:
            t = (step - warmup) / (total - warmup)
            expected = end + 0.5 * (peak - end) * (1 + math.cos(math.pi * t))
        assert math.isclose(float(schedule(step)), expected, rel_tol=1e-5, abs_tol=1e-6), step


def test_schedules_accept_what_keras_passes():
    schedule = WarmupCosine(1.0, 10, 2)
    inside = tf.function(lambda step: schedule(step))
    variable = keras.Variable(5, dtype="int64")
    values = {
        float(schedule(5)),
        float(inside(tf.constant(5, tf.int64))),
        float(schedule(variable)),
    }
    assert len(values) == 1
    assert schedule(5).dtype == tf.float32


def test_float64_schedules_are_exact():
    keras.config.set_floatx("float64")
    try:
        value = WarmupCosine(0.1, 10, 3)(1)
        ramp = teacher_momentum(tf.constant(3), 10, 0.996)
    finally:
        keras.config.set_floatx("float32")
    assert value.dtype == tf.float64
    assert math.isclose(float(value), 0.1 / 3, rel_tol=1e-15)
    expected = 1 - (1 - 0.996) * (math.cos(math.pi * 3 / 10) + 1) / 2
    assert math.isclose(float(ramp), expected, rel_tol=1e-15)


def test_step_decay_by_hand():
    """RotNet on CIFAR-10: 0.1, 0.02, 0.004, 0.0008 with changes at 60, 120, 160."""
    schedule = StepDecay(0.1, [60, 120, 160], factor=0.2)
    values = [float(schedule(step)) for step in (0, 59, 60, 119, 120, 160, 199)]
    np.testing.assert_allclose(values, [0.1, 0.1, 0.02, 0.02, 0.004, 0.0008, 0.0008], rtol=1e-6)


def test_weight_decay_of_dino_at_half_time():
    assert math.isclose(float(cosine_ramp(50, 100, 0.04, 0.4)), 0.22, rel_tol=1e-6)
    assert math.isclose(float(CosineRamp(0.04, 0.4, 100)(50)), 0.22, rel_tol=1e-6)
    ends = [float(cosine_ramp(step, 100, 0.04, 0.4)) for step in (0, 100, 150)]
    np.testing.assert_allclose(ends, [0.04, 0.4, 0.4], rtol=1e-6)


def test_teacher_momentum_ends_and_half_time():
    """m0 at the start, 1 at the end, and half-way 1 - (1 - m0) / 2: 0.998 for DINO's 0.996."""
    values = [float(teacher_momentum(step, 1000, 0.996)) for step in (0, 500, 1000)]
    np.testing.assert_allclose(values, [0.996, 0.998, 1.0], rtol=1e-7)
    assert float(teacher_momentum(1000, 1000, 0.996)) == 1.0


def test_linear_ramp_of_the_teacher_temperature():
    values = [float(linear_ramp(step, 30, 0.04, 0.07)) for step in (0, 10, 30, 99)]
    np.testing.assert_allclose(values, [0.04, 0.05, 0.07, 0.07], rtol=1e-6)
    assert math.isclose(float(linear_ramp(0, 0, 0.04, 0.07)), 0.07, rel_tol=1e-6)


def test_scaled_learning_rates_of_simclr():
    """0.3 x 4096 / 256 = 4.8 = 0.075 x sqrt(4096)."""
    assert math.isclose(scale_learning_rate(0.3, 4096), 4.8)
    assert math.isclose(scale_learning_rate(0.075, 4096, "sqrt", reference=1), 4.8)
    assert math.isclose(scale_learning_rate(0.3, 1024, "sqrt"), 0.6)
    assert scale_learning_rate(0.3, 4096, "none") == 0.3


@pytest.mark.parametrize(
    "schedule",
    [
        WarmupCosine(0.5, 10, 2, 0.25, 0.125),
        StepDecay(0.5, [2, 4]),
        Constant(0.5),
        CosineRamp(0, 1, 9),
    ],
)
def test_config_round_trip(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(copy(s)) for s in range(10)] == [float(schedule(s)) for s in range(10)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmupCosine(1.0, 10, 11), "warmup_steps=11"),
        (lambda: WarmupCosine(1.0, 0), "total_steps=0"),
        (lambda: StepDecay(1.0, [4, 2]), "boundaries=\\[4, 2\\]"),
        (lambda: StepDecay(1.0, [4], factor=0.0), "factor=0.0"),
        (lambda: scale_learning_rate(1.0, 256, "square"), "rule='square'"),
        (lambda: scale_learning_rate(1.0, 0), "batch_size=0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
