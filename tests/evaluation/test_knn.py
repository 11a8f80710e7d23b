"""The weighted k-NN vote against hand-worked cases and a slow loop."""

import math
from collections import Counter

import numpy as np
import pytest

from keras_ssl.evaluation import knn


def clusters(count, dim=6, classes=3, noise=0.6, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    centers = generator.normal(size=(classes, dim))
    return (centers[labels] + noise * generator.normal(size=(count, dim))), labels


def slow_predictions(train, labels, test, k, temperature, leave_out):
    predictions = []
    for i, query in enumerate(test):
        scored = []
        for j, row in enumerate(train):
            if not (leave_out and i == j):
                cosine = np.dot(query, row) / (np.linalg.norm(query) * np.linalg.norm(row))
                scored.append((-cosine, j))
        scores = Counter()
        for negative, j in sorted(scored)[:k]:
            scores[labels[j]] += math.exp(-negative / temperature)
        predictions.append(max(sorted(scores), key=lambda c: scores[c]))
    return predictions


def angles(*degrees):
    return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)


def test_weights_decide_between_one_near_and_two_far_neighbors():
    """Query 0 deg; class 0 at 10 deg, class 1 twice at 60 deg.

    T = 0.07: exp(0.985/0.07) against 2 exp(0.5/0.07): class 0. T = 10: 1.10 against 2.10: class 1.
    """
    train, labels = angles(10, 60, -60), np.array([0, 1, 1])
    query = angles(0) * 5.0
    assert knn.knn_classify(train, labels, query, k=3).tolist() == [0]
    assert knn.knn_classify(train, labels, query, k=3, temperature=10.0).tolist() == [1]
    assert knn.knn_classify(train, labels, query, k=1, temperature=10.0).tolist() == [0]


@pytest.mark.parametrize("k", [1, 4, 15])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("leave_out", [False, True])
def test_equals_the_slow_loop(k, temperature, leave_out):
    train, labels = clusters(40)
    test = train if leave_out else clusters(25, seed=0)[0] + 0.1
    expected = slow_predictions(train, labels, test, k, temperature, leave_out)
    given = None if leave_out else test
    got = knn.knn_classify(train, labels, given, k=k, temperature=temperature)
    assert got.tolist() == expected
    assert got.dtype == np.int32


def test_high_temperature_is_the_majority_vote():
    train, labels = clusters(60, noise=2.0)
    test, _ = clusters(30, seed=1, noise=2.0)
    _, index = knn.nearest_neighbors(train, test, k=7)
    majority = [np.bincount(labels[row], minlength=3) for row in index]
    decided = [i for i, c in enumerate(majority) if np.sum(c == c.max()) == 1]
    got = knn.knn_classify(train, labels, test, k=7, temperature=1e6)
    assert len(decided) > 10
    assert [got[i] for i in decided] == [int(np.argmax(majority[i])) for i in decided]


def test_training_set_as_query_is_perfect_but_leaving_one_out_is_not():
    train, labels = clusters(50, noise=3.0)
    assert knn.knn_accuracy(train, labels, train, labels, ks=(1,)) == {1: 1.0}
    assert knn.knn_accuracy(train, labels, ks=(1,))[1] < 0.9


def test_leaving_one_out_excludes_the_row_not_its_duplicate():
    train, labels = angles(0, 0, 90, 90), np.array([0, 1, 2, 2])
    assert knn.knn_classify(train, labels, k=1).tolist() == [1, 0, 2, 2]
    _, index = knn.nearest_neighbors(train, k=1)
    assert index[:, 0].tolist() == [1, 0, 3, 2]


def test_blocks_change_nothing(monkeypatch):
    train, labels = clusters(40)
    test, test_labels = clusters(23, seed=5)
    whole = knn.knn_accuracy(train, labels, test, test_labels, ks=(1, 5))
    left_out = knn.knn_classify(train, labels, k=5)
    monkeypatch.setattr(knn, "BLOCK_ENTRIES", 200)
    assert len(list(knn._neighbor_blocks(train, test, 5))) == 5
    assert knn.knn_accuracy(train, labels, test, test_labels, ks=(1, 5)) == whole
    assert knn.knn_classify(train, labels, k=5).tolist() == left_out.tolist()


def test_accuracy_agrees_with_classify_and_leaves_out_impossible_k():
    train, labels = clusters(40)
    test, test_labels = clusters(23, seed=5)
    accuracy = knn.knn_accuracy(train, labels, test, test_labels, ks=(1, 10, 200))
    assert list(accuracy) == [1, 10]
    predicted = knn.knn_classify(train, labels, test, k=10)
    assert knn.knn_accuracy(train, labels, ks=(40, 200)) == {}
    assert accuracy[10] == np.mean(predicted == test_labels)


def test_tiny_temperature_does_not_overflow():
    train, labels = clusters(20)
    got = knn.knn_classify(train, labels, train, k=5, temperature=1e-4)
    assert got.tolist() == labels.tolist()


def test_classes_and_scale_of_features_do_not_matter():
    train, labels = clusters(30)
    test, _ = clusters(10, seed=2)
    base = knn.knn_classify(train, labels, test, k=5)
    scaled = knn.knn_classify(train * 1e-8, labels, test * 1e8, k=5, num_classes=50)
    assert base.tolist() == scaled.tolist()


def test_wrong_input_is_named():
    train, labels = clusters(10)
    with pytest.raises(ValueError, match=r"`temperature` must be positive.*temperature=0"):
        knn.knn_classify(train, labels, train, temperature=0)
    with pytest.raises(ValueError, match=r"`k` must be at least 1.*k=0"):
        knn.knn_classify(train, labels, train, k=0)
    with pytest.raises(ValueError, match=r"Labels must lie in \[0, 2\)"):
        knn.knn_classify(train, labels, train, num_classes=2)
    with pytest.raises(ValueError, match=r"Labels must lie in.*from -1"):
        knn.knn_classify(train, np.where(labels == 0, -1, labels), train)
    with pytest.raises(ValueError, match="One label for each of the 10 features"):
        knn.knn_classify(train, labels[:5], train)
    with pytest.raises(ValueError, match=r"shape \(samples, dim\).*queries"):
        knn.knn_classify(train, labels, train[0])
    with pytest.raises(ValueError, match="belong together"):
        knn.knn_accuracy(train, labels, train)
