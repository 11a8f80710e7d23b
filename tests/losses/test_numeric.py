"""Unit vectors and precision."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.losses import l2_normalize, promote


def gradient_of(function, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


def test_unit_vectors_by_hand():
    np.testing.assert_allclose(l2_normalize([[3.0, 4.0], [0.0, -2.0]]), [[0.6, 0.8], [0.0, -1.0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_vector_gives_zero_and_a_finite_gradient(dtype):
    zeros = np.zeros((2, 3), dtype)
    np.testing.assert_array_equal(l2_normalize(zeros), zeros)
    assert np.all(np.isfinite(gradient_of(lambda x: tf.reduce_sum(l2_normalize(x)), zeros)))


def test_the_norm_is_clamped_not_its_square():
    """A vector of length 1e-8 is above 1e-12, so it becomes a unit vector; tf.math.l2_normalize makes it 0.01."""
    np.testing.assert_allclose(l2_normalize([[1e-8, 0.0]]), [[1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(l2_normalize([[1e-14, 0.0]]), [[0.01, 0.0]], rtol=1e-6)


def test_other_axis():
    np.testing.assert_allclose(l2_normalize([[3.0], [4.0]], axis=0), [[0.6], [0.8]])


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int32", "float32"),
        ("bool", "float32"),
    ],
)
def test_promote(given, result):
    assert promote(tf.ones(2, tf.as_dtype(given))).dtype == result


def test_gradient_is_orthogonal_to_the_vector():
    x = np.random.default_rng(0).normal(size=(4, 5))
    direction = np.random.default_rng(1).normal(size=(4, 5))
    gradient = gradient_of(lambda v: tf.reduce_sum(l2_normalize(v) * direction), x)
    np.testing.assert_allclose(np.sum(gradient * x, axis=1), 0.0, atol=1e-12)
