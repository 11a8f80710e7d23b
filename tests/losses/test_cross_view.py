"""SwAV's and DINO's losses against hand numbers, slow loops and bounds."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.losses import center_and_sharpen, dino_loss, swav_loss


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def swav(scores, codes, temperature=0.1):
    return swav_loss(scores, codes, temperature=temperature)


def dino(logits, probabilities, temperature=0.1):
    return dino_loss(logits, probabilities, student_temperature=temperature)


def reference_swav(scores, codes, temperature):
    """(1 / A) sum_i (1 / (V - 1)) sum_{v != i} mean_b -sum_k q_i log softmax(s_v / T)."""
    batch, views, _ = scores.shape
    total = 0.0
    for i in range(codes.shape[1]):
        for v in range(views):
            if v != i:
                terms = [
                    -codes[b, i] @ np.log(softmax(scores[b, v] / temperature)) for b in range(batch)
                ]
                total += np.mean(terms) / (views - 1) / codes.shape[1]
    return total


def reference_dino(logits, probabilities, temperature):
    """The mean over all ordered pairs of a teacher view and another student view; also counts them."""
    pairs = []
    for q in range(probabilities.shape[1]):
        for v in range(logits.shape[1]):
            if v != q:
                log_s = np.log(softmax(logits[:, v] / temperature))
                pairs.append(np.mean(-np.sum(probabilities[:, q] * log_s, axis=-1)))
    return float(np.mean(pairs)), len(pairs)


@pytest.mark.parametrize(("views", "assigning"), [(2, 2), (8, 2), (3, 1), (3, 3)])
def test_losses_equal_the_loops(views, assigning):
    scores, codes = draw(4, views, 5), softmax(draw(4, assigning, 5, seed=1))
    for temperature in (0.1, 1.0):
        value = float(swav(scores, codes, temperature))
        assert math.isclose(value, reference_swav(scores, codes, temperature), rel_tol=1e-12)
        expected, _ = reference_dino(scores, codes, temperature)
        assert math.isclose(float(dino(scores, codes, temperature)), expected, rel_tol=1e-12)


@pytest.mark.parametrize(("local", "pairs"), [(0, 2), (8, 18), (10, 22)])
def test_pairs_of_dino(local, pairs):
    """2 (2 + L) - 2 pairs. One view that is wrong by e meets both teachers: 2 e / pairs."""
    views = 2 + local
    assert reference_dino(draw(1, views, 3), softmax(draw(1, 2, 3)), 1.0)[1] == pairs
    if not local:
        return
    uniform = np.zeros((1, views, 2))
    teacher = np.tile([[[1.0, 0.0]]], (1, 2, 1))
    base = float(dino(uniform, teacher, 1.0))
    bad = uniform.copy()
    bad[0, -1] = [-50.0, 0.0]  # -log softmax of the first class = 50 against ln 2
    added = (50.0 - math.log(2)) * 2 / pairs
    assert math.isclose(float(dino(bad, teacher, 1.0)) - base, added, rel_tol=1e-9)


@pytest.mark.parametrize("loss", [swav, dino])
@pytest.mark.parametrize(("count", "value"), [(3000, 8.006), (65536, 11.0904)])
def test_uniform_prediction_gives_log_k(loss, count, value):
    scores = np.ones((1, 2, count), "float32")
    one_hot = np.zeros((1, 2, count), "float32")
    one_hot[..., 0] = 1.0
    for targets in (np.full((1, 2, count), 1.0 / count, "float32"), one_hot):
        assert math.isclose(float(loss(scores, targets)), value, abs_tol=1e-3)


@pytest.mark.parametrize("loss", [swav, dino])
def test_never_below_the_entropy_of_the_targets(loss):
    for seed in range(5):
        targets = softmax(3 * draw(4, 2, 6, seed=seed))
        entropy = float(np.mean(-np.sum(targets * np.log(targets), -1)))
        assert float(loss(draw(4, 3, 6, seed=seed + 9), targets)) >= entropy - 1e-6
    # equality where the prediction is the target: one target for all views, logits = T log q
    same = np.repeat(targets[:, :1], 2, axis=1)
    entropy = float(np.mean(-np.sum(same * np.log(same), -1)))
    assert math.isclose(float(loss(0.1 * np.log(same), same)), entropy, rel_tol=1e-12)


def test_swapping_the_two_large_views_changes_nothing():
    scores, codes = draw(4, 2, 5), softmax(draw(4, 2, 5, seed=1))
    swapped = swav(scores[:, ::-1].copy(), codes[:, ::-1].copy())
    assert math.isclose(float(swav(scores, codes)), float(swapped), rel_tol=1e-12)


def test_view_does_not_predict_its_own_code():
    """Two views: view 0 must predict code 1 and the other way round."""
    codes = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    own, other = 20 * codes, 20 * codes[:, ::-1].copy()
    assert float(swav(other, codes, 1.0)) < 1e-6
    assert float(swav(own, codes, 1.0)) > 19


@pytest.mark.parametrize("loss", [swav, dino])
def test_gradient_reaches_the_prediction_only(loss):
    scores, targets = tf.constant(draw(4, 3, 5)), tf.constant(softmax(draw(4, 2, 5, seed=1)))
    with tf.GradientTape() as tape:
        tape.watch([scores, targets])
        value = loss(scores, targets)
    towards_scores, towards_targets = tape.gradient(value, [scores, targets])
    assert towards_targets is None
    assert np.all(np.abs(towards_scores).max(axis=(0, 2)) > 1e-3)  # every view


@pytest.mark.parametrize("loss", [swav, dino])
def test_losses_in_half_precision_are_computed_in_float32(loss):
    scores, targets = (
        tf.cast(draw(4, 3, 5), tf.float16),
        tf.cast(softmax(draw(4, 2, 5)), tf.float32),
    )
    exact = loss(tf.cast(scores, tf.float64), tf.cast(targets, tf.float64))
    assert loss(scores, targets).dtype == tf.float32
    assert math.isclose(float(loss(scores, targets)), float(exact), rel_tol=1e-5)


@pytest.mark.parametrize("loss", [swav, dino])
def test_errors(loss):
    with pytest.raises(ValueError, match="views=1"):
        loss(draw(4, 1, 5), draw(4, 1, 5))
    with pytest.raises(ValueError, match="targets=3"):
        loss(draw(4, 2, 5), draw(4, 3, 5))
    with pytest.raises(ValueError, match="as many target probabilities"):
        loss(draw(4, 2, 5), draw(4, 2, 6))
    with pytest.raises(ValueError, match="3 axes"):
        loss(draw(4, 5), draw(4, 5))
    with pytest.raises(ValueError, match="temperature=0"):
        loss(draw(4, 2, 5), draw(4, 2, 5), 0)


def test_center_and_sharpen_by_hand():
    """Logits (1, 0) with center (0.96, 0) at T = 0.04: softmax(1, 0) = (0.731059, 0.268941)."""
    p = center_and_sharpen([[1.0, 0.0]], center=tf.constant([0.96, 0.0]), temperature=0.04)
    np.testing.assert_allclose(p, [[0.731059, 0.268941]], atol=1e-5)


def test_center_and_sharpen_stops_the_gradient_and_takes_a_schedule():
    logits = tf.constant(draw(2, 2, 4))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        p = center_and_sharpen(logits, center=tf.zeros(4), temperature=tf.constant(0.5))
    assert tape.gradient(p, logits) is None
    np.testing.assert_allclose(p, softmax(logits.numpy() / 0.5), rtol=1e-12)
    with pytest.raises(ValueError, match="temperature=0.0"):
        center_and_sharpen(logits, center=tf.zeros(4), temperature=0.0)
