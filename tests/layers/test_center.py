"""The running center of the teacher's logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import Center


def test_first_step_and_limit():
    """From 0 the first step gives 0.1 x mean; a constant shift b of all logits is found in the end."""
    center, shift = Center(3), np.array([1.0, -2.0, 0.5], "float32")
    center.update(shift)
    np.testing.assert_allclose(center.value, 0.1 * shift, rtol=1e-6)
    for _ in range(200):
        center.update(shift)
    np.testing.assert_allclose(center.value, shift, rtol=1e-5)


def test_equals_the_formula():
    center, expected = Center(2, momentum=0.75), np.zeros(2)
    for mean in np.random.default_rng(0).normal(size=(5, 2)):
        center.update(mean)
        expected = 0.75 * expected + 0.25 * mean
    np.testing.assert_allclose(center.value, expected, rtol=1e-5)


def test_half_precision_mean_is_added_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        center = Center(1)
    finally:
        keras.config.set_dtype_policy("float32")
    for _ in range(3):
        center.update(tf.constant([1.0], tf.float16))
    assert center.value.dtype == tf.float32
    np.testing.assert_allclose(center.value, [1 - 0.9**3], rtol=1e-6)


def test_state_is_not_trained_and_config_round_trips():
    center = Center(3, momentum=0.5, name="c")
    assert center.trainable_weights == []
    assert Center.from_config(center.get_config()).get_config() == center.get_config()


def test_errors():
    with pytest.raises(ValueError, match="dim=0"):
        Center(0)
    with pytest.raises(ValueError, match="momentum=1.5"):
        Center(3, momentum=1.5)
    with pytest.raises(ValueError, match="shape \\(4,\\)"):
        Center(3).update(np.zeros(4))
