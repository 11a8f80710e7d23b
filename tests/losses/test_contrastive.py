"""NT-Xent and InfoNCE against hand numbers, slow loops and invariances."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.losses import info_nce_loss, nt_xent_loss


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def reference_nt_xent(z_a, z_b, temperature):
    """For each of the 2N views: candidates are the 2N - 1 others, the positive is the sibling; mean over 2N."""
    views, count = [*z_a, *z_b], len(z_a)
    losses = []
    for i in range(2 * count):
        sibling = (i + count) % (2 * count)
        total = sum(
            math.exp(cosine(views[i], views[j]) / temperature) for j in range(2 * count) if j != i
        )
        losses.append(-math.log(math.exp(cosine(views[i], views[sibling]) / temperature) / total))
    return float(np.mean(losses))


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_equals_the_loop(count, temperature):
    z_a, z_b = draw(count, 5), draw(count, 5, seed=1)
    loss, _ = nt_xent_loss(z_a, z_b, temperature=temperature)
    assert math.isclose(float(loss), reference_nt_xent(z_a, z_b, temperature), rel_tol=1e-12)


@pytest.mark.parametrize(("count", "value"), [(2, 1.0986), (256, 6.2364)])
def test_nt_xent_of_equal_embeddings(count, value):
    """All 2N views equal: each of the 2N - 1 candidates has the same probability, so ln(2N - 1)."""
    z = np.ones((count, 3), "float32")
    loss, aux = nt_xent_loss(z, z)
    assert math.isclose(float(loss), math.log(2 * count - 1), rel_tol=1e-5)
    assert math.isclose(float(loss), value, abs_tol=1e-4)
    assert math.isclose(float(aux["contrast_entropy"]), math.log(count), rel_tol=1e-5)


def test_nt_xent_of_two_orthogonal_images():
    """T = 0.5, siblings equal, images orthogonal: -ln(e^2 / (e^2 + 1 + 1)) = 0.2395; the sibling is always nearest."""
    z = np.eye(2)
    loss, aux = nt_xent_loss(z, z, temperature=0.5)
    assert math.isclose(float(loss), -math.log(math.e**2 / (math.e**2 + 2)), rel_tol=1e-12)
    assert math.isclose(float(loss), 0.2395, abs_tol=1e-4)
    assert float(aux["contrast_accuracy"]) == 1.0
    # second views: softmax of (2, 0)
    p = math.e**2 / (math.e**2 + 1)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert math.isclose(float(aux["contrast_entropy"]), entropy, rel_tol=1e-12)


def test_contrast_accuracy_counts_only_second_views():
    """The first view of image 0 points at image 1's second view: one of two is right."""
    z_a, z_b = np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert float(nt_xent_loss(z_a, z_b)[1]["contrast_accuracy"]) == 0.5


def test_nt_xent_invariances():
    z_a, z_b = draw(6, 4), draw(6, 4, seed=1)
    value = float(nt_xent_loss(z_a, z_b)[0])
    rotation = np.linalg.qr(draw(4, 4, seed=2))[0]
    lengths = np.exp(draw(6, 1, seed=3))
    order = np.random.default_rng(4).permutation(6)
    for other in [
        (z_b, z_a),
        (z_a @ rotation, z_b @ rotation),
        (z_a * lengths, z_b / lengths),
        (z_a[order], z_b[order]),
    ]:
        assert math.isclose(float(nt_xent_loss(*other)[0]), value, rel_tol=1e-12)
    assert not math.isclose(float(nt_xent_loss(z_a, z_b[order])[0]), value, rel_tol=1e-3)


def test_nt_xent_gradient_reaches_both_views_and_is_orthogonal():
    z_a, z_b = tf.constant(draw(5, 4)), tf.constant(draw(5, 4, seed=1))
    with tf.GradientTape() as tape:
        tape.watch([z_a, z_b])
        loss, _ = nt_xent_loss(z_a, z_b)
    for z, gradient in zip((z_a, z_b), tape.gradient(loss, [z_a, z_b]), strict=True):
        assert np.linalg.norm(gradient) > 1e-3
        np.testing.assert_allclose(np.sum(gradient * z, axis=1), 0.0, atol=1e-12)


def test_nt_xent_of_blocks_is_that_of_the_whole():
    """Two replicas with gathered candidates: the mean of their losses and the sum of half gradients."""
    z_a, z_b = tf.constant(draw(6, 4)), tf.constant(draw(6, 4, seed=1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([z_a, z_b])
        whole, _ = nt_xent_loss(z_a, z_b)
        blocks = [
            nt_xent_loss(
                z_a[start : start + 3],
                z_b[start : start + 3],
                all_z_a=z_a,
                all_z_b=z_b,
                offset=tf.constant(start),
            )[0]
            for start in (0, 3)
        ]
        mean = (blocks[0] + blocks[1]) / 2
    assert math.isclose(float(whole), float(mean), rel_tol=1e-12)
    for z in (z_a, z_b):
        np.testing.assert_allclose(tape.gradient(whole, z), tape.gradient(mean, z), atol=1e-14)


def test_wrong_offset_is_seen():
    """A forgotten offset takes other images for siblings: the loss jumps far above that of the right rows."""
    z = draw(6, 8)
    right, _ = nt_xent_loss(z[3:], z[3:], all_z_a=z, all_z_b=z, offset=3)
    wrong, _ = nt_xent_loss(z[3:], z[3:], all_z_a=z, all_z_b=z, offset=0)
    assert float(wrong) > float(right) + 3


def test_nt_xent_in_half_precision_is_computed_in_float32():
    z_a, z_b = (tf.cast(draw(8, 16, seed=seed), tf.bfloat16) for seed in (0, 1))
    loss, _ = nt_xent_loss(z_a, z_b)
    exact, _ = nt_xent_loss(tf.cast(z_a, tf.float64), tf.cast(z_b, tf.float64))
    assert loss.dtype == tf.float32
    assert exact.dtype == tf.float64
    assert math.isclose(float(loss), float(exact), rel_tol=1e-5)


def test_nt_xent_errors():
    with pytest.raises(ValueError, match="at least two images"):
        nt_xent_loss(draw(1, 4), draw(1, 4))
    with pytest.raises(ValueError, match="z_b \\(3, 4\\)"):
        nt_xent_loss(draw(2, 4), draw(3, 4))
    with pytest.raises(ValueError, match="Received: temperature=0"):
        nt_xent_loss(draw(2, 4), draw(2, 4), temperature=0)
    with pytest.raises(ValueError, match="Received: one of them"):
        nt_xent_loss(draw(2, 4), draw(2, 4), all_z_a=draw(4, 4))
    with pytest.raises(ValueError, match="2 axes"):
        nt_xent_loss(draw(2, 4, 1), draw(2, 4, 1))


def reference_info_nce(queries, positives, negatives, temperature):
    losses = []
    for i, (query, positive) in enumerate(zip(queries, positives, strict=True)):
        own = negatives[i] if negatives.ndim == 3 else negatives
        top = math.exp(cosine(query, positive) / temperature)
        rest = sum(math.exp(cosine(query, negative) / temperature) for negative in own)
        losses.append(-math.log(top / (top + rest)))
    return float(np.mean(losses))


@pytest.mark.parametrize("shape", [(1, 4), (6, 4), (3, 5, 4)])
def test_info_nce_equals_the_loop(shape):
    q, k, negatives = draw(3, 4), draw(3, 4, seed=1), draw(*shape, seed=2)
    for temperature in (0.07, 1.0):
        loss = info_nce_loss(q, k, negatives, temperature=temperature)
        expected = reference_info_nce(q, k, negatives, temperature)
        assert math.isclose(float(loss), expected, rel_tol=1e-12)


def test_info_nce_of_equal_keys_is_the_log_of_the_candidates():
    """The positive counts exactly once: ln(1 + K)."""
    q, keys = np.ones((2, 3)), np.ones((5, 3))
    assert math.isclose(float(info_nce_loss(q, q, keys)), math.log(6), rel_tol=1e-12)


def test_info_nce_errors():
    with pytest.raises(ValueError, match="count of at least 1"):
        info_nce_loss(draw(2, 4), draw(2, 4), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="one shape"):
        info_nce_loss(draw(2, 4), draw(3, 4), draw(5, 4))
    with pytest.raises(ValueError, match="temperature=-1"):
        info_nce_loss(draw(2, 4), draw(2, 4), draw(5, 4), temperature=-1)
