"""Label-free measures against hand-worked values, slow loops and invariances."""

import math

import numpy as np
import pytest

from keras_ssl.evaluation import measures


def random_rotation(dim, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def test_rankme_of_singular_values_three_and_one():
    """Shares 3/4 and 1/4: entropy 0.75 ln(4/3) + 0.25 ln 4 = 0.56234, exp = 1.7548."""
    left, right = random_rotation(5)[:, :2], random_rotation(2, seed=1)
    matrix = left @ np.diag([3.0, 1.0]) @ right
    assert measures.rankme(matrix) == pytest.approx(1.7548, abs=1e-4)


def test_rankme_of_equal_singular_values_is_the_dimension():
    matrix = np.concatenate([np.eye(6), -np.eye(6)])
    assert measures.rankme(matrix) == pytest.approx(6.0, rel=1e-5)


def test_rankme_of_one_direction_is_one_and_is_not_centered():
    """One direction plus noise-free offset: a centered version would have nothing left."""
    line = np.outer(np.ones(10), np.arange(1.0, 9.0))
    assert measures.rankme(line) == pytest.approx(1.0, abs=1e-4)
    assert measures.rankme(np.zeros((4, 3))) == 1.0


@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-2])
def test_rankme_epsilon_enters_each_share(epsilon):
    matrix = np.diag([4.0, 2.0, 2.0])
    shares = [0.5 + epsilon, 0.25 + epsilon, 0.25 + epsilon]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert measures.rankme(matrix, epsilon=epsilon) == pytest.approx(expected, rel=1e-12)


def test_rankme_ignores_scale_and_rotation():
    matrix = np.random.default_rng(3).normal(size=(40, 7))
    turned = 5.0 * matrix @ random_rotation(7)
    assert measures.rankme(turned) == pytest.approx(measures.rankme(matrix), rel=1e-9)


def test_effective_rank_uses_centered_variances():
    """Variances 9 and 1 in proportion: shares 0.9 and 0.1, exp entropy = 1.3841."""
    points = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 100.0
    expected = math.exp(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert measures.effective_rank(points) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(1.3841, abs=1e-4)


def test_effective_rank_sees_dimensional_collapse_that_std_does_not():
    """Copies of one coordinate keep a healthy std per dimension but have rank one."""
    base = np.random.default_rng(0).choice([-1.0, 1.0], size=(64, 1))
    copied = np.repeat(base, 16, axis=1)
    assert measures.embedding_std(copied) > 0.9 / math.sqrt(16)
    assert measures.effective_rank(copied) == pytest.approx(1.0, abs=1e-6)
    assert measures.effective_rank(np.full((8, 4), 7.3)) == 1.0


def test_embedding_std_of_spread_and_collapsed_points():
    axes = np.concatenate([np.eye(8), -np.eye(8)]) * 12.0
    assert measures.embedding_std(axes) == pytest.approx(1.0 / math.sqrt(8), rel=1e-12)
    assert measures.embedding_std(np.ones((5, 8))) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("dim", [128, 256])
def test_embedding_std_of_random_directions_is_one_over_root_dim(dim):
    points = np.random.default_rng(1).normal(size=(4000, dim))
    assert measures.embedding_std(points) == pytest.approx(1.0 / math.sqrt(dim), rel=0.02)


def test_alignment_by_hand_and_limits():
    """Unit vectors at a right angle are sqrt(2) apart, opposite ones 2: mean of 2 and 4 is 3."""
    view_a = np.array([[2.0, 0.0], [0.0, 1.0]])
    view_b = np.array([[0.0, 5.0], [0.0, -3.0]])
    assert measures.alignment(view_a, view_b) == pytest.approx(3.0)
    assert measures.alignment(view_a, 7.0 * view_a) == pytest.approx(0.0, abs=1e-15)
    generator = np.random.default_rng(0)
    unrelated = generator.normal(size=(2, 3000, 64))
    assert measures.alignment(unrelated[0], unrelated[1]) == pytest.approx(2.0, abs=0.05)


def test_uniformity_of_antipodal_and_equal_points():
    assert measures.uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert measures.uniformity(np.ones((6, 3))) == pytest.approx(0.0, abs=1e-12)


def test_uniformity_of_the_sphere_is_near_its_formula():
    points = np.random.default_rng(2).normal(size=(2000, 64))
    assert measures.uniformity(points) == pytest.approx(-4.0 + 8.0 / 64, abs=0.02)


def test_pair_measures_equal_slow_loops_whatever_the_block(monkeypatch):
    points = np.random.default_rng(4).normal(size=(9, 3))
    unit = [row / math.sqrt(sum(row**2)) for row in points]
    potentials, cosines = [], []
    for i in range(9):
        for j in range(9):
            if i != j:
                potentials.append(math.exp(-2.0 * sum((unit[i] - unit[j]) ** 2)))
                cosines.append(float(np.dot(unit[i], unit[j])))
    expected = math.log(sum(potentials) / len(potentials))
    assert measures.uniformity(points) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(measures, "_BLOCK_ENTRIES", 20)
    assert measures.uniformity(points) == pytest.approx(expected, rel=1e-10)
    assert measures.mean_pairwise_cosine(points) == pytest.approx(np.mean(cosines), rel=1e-10)


def test_unused_share():
    assert measures.unused_share(np.array([[0, 0], [3, 3]]), 4) == 0.5
    assert measures.unused_share(np.arange(4), 4) == 0.0
    with pytest.raises(ValueError, match=r"lie in \[0, 4\).*from 0 to 4"):
        measures.unused_share(np.array([0, 4]), 4)


def test_report_limits_the_rows():
    points = np.random.default_rng(0).normal(size=(30, 5))
    points[20:] = 1.0
    assert measures.label_free_report(points, limit=20) == measures.label_free_report(points[:20])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(samples, dim\).*shape=\(3,\)"):
        measures.rankme(np.ones(3))
    with pytest.raises(ValueError, match="At least 2 embedding"):
        measures.uniformity(np.ones((1, 3)))
    with pytest.raises(ValueError, match="must be finite"):
        measures.embedding_std(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="equal shapes"):
        measures.alignment(np.ones((2, 3)), np.ones((3, 3)))
