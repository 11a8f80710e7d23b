"""BYOL's and MAE's losses against hand numbers, slow loops and invariances."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.losses import byol_loss, mae_loss, normalize_patches, normalized_regression_loss


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("target", "value"), [([0.0, 7.0], 0.0), ([3.0, 0.0], 4.0), ([0.0, -1.0], 8.0)]
)
def test_byol_same_orthogonal_opposite(target, value):
    """Both directions: 4 - 2 cos - 2 cos."""
    p, z = np.array([[0.0, 2.0]]), np.array([target])
    assert math.isclose(float(byol_loss(p, p, z, z)), value, abs_tol=1e-12)


def test_byol_equals_the_formula():
    p_a, p_b, z_a, z_b = (draw(5, 7, seed=seed) for seed in range(4))
    terms = []
    for i in range(5):
        first = p_a[i] / np.linalg.norm(p_a[i]) - z_b[i] / np.linalg.norm(z_b[i])
        second = p_b[i] / np.linalg.norm(p_b[i]) - z_a[i] / np.linalg.norm(z_a[i])
        terms.append(first @ first + second @ second)
    assert math.isclose(float(byol_loss(p_a, p_b, z_a, z_b)), np.mean(terms), rel_tol=1e-12)


def test_byol_in_terms_of_the_cosines():
    """4 - 2 (c1 + c2), which is 4 + 4 L_SimSiam with L_SimSiam = -(c1 + c2) / 2."""
    p_a, p_b, z_a, z_b = (draw(5, 7, seed=seed) for seed in range(4))

    def mean_cosine(a, b):
        return np.mean(np.sum(a * b, 1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))

    simsiam = -(mean_cosine(p_a, z_b) + mean_cosine(p_b, z_a)) / 2
    assert math.isclose(float(byol_loss(p_a, p_b, z_a, z_b)), 4 + 4 * simsiam, rel_tol=1e-12)


def test_byol_invariances():
    p_a, p_b, z_a, z_b = (draw(5, 7, seed=seed) for seed in range(4))
    value = float(byol_loss(p_a, p_b, z_a, z_b))
    lengths = np.exp(draw(5, 1, seed=5))
    assert math.isclose(float(byol_loss(p_b, p_a, z_b, z_a)), value, rel_tol=1e-12)
    assert math.isclose(
        float(byol_loss(p_a * lengths, p_b, z_a, z_b / lengths)), value, rel_tol=1e-12
    )
    assert not math.isclose(float(byol_loss(p_a, p_b, z_b, z_a)), value, rel_tol=1e-3)


def test_byol_gradient_stops_at_the_teacher():
    tensors = [tf.constant(draw(5, 7, seed=seed)) for seed in range(4)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = byol_loss(*tensors)
    g_p_a, g_p_b, g_z_a, g_z_b = tape.gradient(loss, tensors)
    assert g_z_a is None
    assert g_z_b is None
    assert np.linalg.norm(g_p_a) > 1e-3
    assert np.linalg.norm(g_p_b) > 1e-3


def test_regression_is_one_number_for_each_sample():
    loss = normalized_regression_loss([[1.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(loss, [0.0, 2.0], atol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        normalized_regression_loss(draw(2, 3), draw(2, 4))


def test_byol_in_half_precision():
    tensors = [tf.cast(draw(5, 7, seed=seed), tf.bfloat16) for seed in range(4)]
    loss = byol_loss(*tensors)
    exact = byol_loss(*(tf.cast(t, tf.float64) for t in tensors))
    assert loss.dtype == tf.float32
    assert math.isclose(float(loss), float(exact), rel_tol=1e-5)


def reference_mae(prediction, target, mask):
    total, count = 0.0, 0
    for b in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            if mask[b, j]:
                total += np.mean((prediction[b, j] - target[b, j]) ** 2)
                count += 1
    return total / count


def test_mae_equals_the_loop():
    """Also with another number of hidden patches in each sample: the mean is over all of them at once."""
    prediction, target = draw(3, 6, 4), draw(3, 6, 4, seed=1)
    mask = np.random.default_rng(2).random((3, 6)) < 0.5
    assert len(set(mask.sum(1))) > 1
    expected = reference_mae(prediction, target, mask)
    assert math.isclose(float(mae_loss(prediction, target, mask)), expected, rel_tol=1e-12)


def test_mae_ignores_visible_patches():
    prediction, target = draw(2, 4, 3), draw(2, 4, 3, seed=1)
    mask = np.array([[True, False, False, True], [False, False, True, True]])
    changed = np.where(mask[..., None], prediction, 100.0)
    assert float(mae_loss(prediction, target, mask)) == float(mae_loss(changed, target, mask))
    x = tf.constant(prediction)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = mae_loss(x, target, mask)
    moved = np.any(tape.gradient(loss, x).numpy() != 0, axis=-1)
    np.testing.assert_array_equal(moved, mask)


def test_normalized_patches_and_the_zero_predictor():
    """With 16 x 16 x 3 = 768 values the mean square of a normalized patch is 767 / 768; a flat patch is 0."""
    patches = draw(2, 3, 768) * 5 + 2
    target = normalize_patches(patches).numpy()
    mask = np.ones((2, 3), bool)
    np.testing.assert_allclose(target.mean(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(target.var(-1, ddof=1), 1.0, rtol=1e-6)
    assert math.isclose(
        float(mae_loss(np.zeros_like(target), target, mask)), 767 / 768, rel_tol=1e-6
    )
    assert float(mae_loss(target, target, mask)) == 0.0
    np.testing.assert_array_equal(normalize_patches(np.ones((1, 1, 768), "float32")), 0.0)


def test_normalized_patches_ignore_brightness_and_contrast():
    patches = draw(2, 3, 48)
    np.testing.assert_allclose(
        normalize_patches(patches * 3 + 7), normalize_patches(patches), rtol=1e-4, atol=1e-5
    )


def test_mae_errors():
    with pytest.raises(ValueError, match="mask \\(2, 5\\)"):
        mae_loss(draw(2, 4, 3), draw(2, 4, 3), np.ones((2, 5), bool))
    with pytest.raises(ValueError, match="one shape"):
        mae_loss(draw(2, 4, 3), draw(2, 4, 5), np.ones((2, 4), bool))
    with pytest.raises(ValueError, match="at least two values"):
        normalize_patches(draw(2, 4, 1))
