"""The linear probe against a NumPy loop, and what keeps its number honest."""

import dataclasses
import math

import numpy as np
import pytest

from keras_ssl.evaluation import linear


def blobs(count, dim=5, classes=3, noise=1.0, seed=0, spread=1.0):
    generator = np.random.default_rng(seed)
    centers = spread * np.random.default_rng(99).normal(size=(classes, dim))
    labels = generator.integers(0, classes, count)
    features = centers[labels] + noise * generator.normal(size=(count, dim))
    return features.astype(np.float32), labels


def numpy_head(features, labels, classes, rate, epochs, batch, generator):
    """SGD with momentum 0.9 and a cosine schedule, one sample and one class at a time."""
    features = features.astype(np.float64)
    weight, bias = np.zeros((features.shape[1], classes)), np.zeros(classes)
    weight_momentum, bias_momentum = np.zeros_like(weight), np.zeros_like(bias)
    steps = len(features) // batch
    for epoch in range(epochs):
        order = generator.permutation(len(features))
        for step in range(steps):
            weight_gradient, bias_gradient = np.zeros_like(weight), np.zeros_like(bias)
            for row in order[step * batch : (step + 1) * batch]:
                logits = features[row] @ weight + bias
                shares = np.exp(logits) / np.exp(logits).sum()
                shares[labels[row]] -= 1.0
                weight_gradient += np.outer(features[row], shares) / batch
                bias_gradient += shares / batch
            done = (epoch * steps + step) / (epochs * steps)
            rate_now = rate * 0.5 * (1.0 + math.cos(math.pi * done))
            weight_momentum = 0.9 * weight_momentum + weight_gradient
            bias_momentum = 0.9 * bias_momentum + bias_gradient
            weight, bias = weight - rate_now * weight_momentum, bias - rate_now * bias_momentum
    return weight, bias


@pytest.mark.parametrize("scaled", [False, True])
def test_heads_equal_the_numpy_loop(scaled):
    features, labels = blobs(50)
    features = features * 2.0 + 3.0
    settings = [(0.05, scaled), (0.3, scaled)]
    heads = linear._fit(
        features,
        labels.astype(np.int32),
        settings,
        np.random.default_rng(1),
        epochs=3,
        batch_size=16,
        num_classes=3,
    )
    seen = (features - features.mean(0)) / features.std(0) if scaled else features
    kernel, bias = (w.numpy() for w in heads.groups[0]["weights"])
    for head, (rate, _) in enumerate(settings):
        expected = numpy_head(seen, labels, 3, rate, 3, 16, np.random.default_rng(1))
        columns = slice(3 * head, 3 * head + 3)
        np.testing.assert_allclose(kernel[:, columns], expected[0], atol=2e-5)
        np.testing.assert_allclose(bias[columns], expected[1], atol=2e-5)


def test_untrained_heads_have_the_loss_of_a_guess():
    features, labels = blobs(30, classes=7)
    heads = linear._Heads(features, [(0.1, False), (1.0, True)], 7)
    for _, loss in heads.evaluate(features, labels.astype(np.int32), block=8):
        assert loss == pytest.approx(math.log(7), rel=1e-6)


def test_separable_classes_are_separated():
    features, labels = blobs(300, noise=0.05, spread=3.0)
    test_features, test_labels = blobs(100, noise=0.05, spread=3.0, seed=1)
    result = linear.linear_probe(features, labels, test_features, test_labels, epochs=5)
    assert result.accuracy == 1.0
    assert result.train_accuracy == 1.0
    assert len(result.sweep) == 16


def test_choice_never_sees_the_test_set_and_repeats_exactly():
    features, labels = blobs(200, noise=1.5)
    test_features, test_labels = blobs(80, seed=1, noise=1.5)
    arguments = {"learning_rates": (0.01, 1.0, 30.0), "epochs": 4, "num_classes": 3}
    before = features.copy()
    first = linear.linear_probe(features, labels, test_features, test_labels, **arguments)
    again = linear.linear_probe(features, labels, test_features, test_labels, **arguments)
    assert first == again
    np.testing.assert_array_equal(features, before)
    wrong = (test_labels + 1) % 3
    cheated = linear.linear_probe(features, labels, test_features, wrong, **arguments)
    kept = [(r.sweep, r.learning_rate, r.standardize, r.train_accuracy) for r in (first, cheated)]
    assert kept[0] == kept[1]
    assert first.accuracy > 0.5 > cheated.accuracy
    chosen = max(first.sweep, key=lambda row: (row.accuracy, -row.loss))
    assert (first.learning_rate, first.standardize) == (chosen.learning_rate, chosen.standardize)


def test_badly_scaled_features_choose_standardization():
    """One dimension of size 1e4 carries no class; raw heads cannot see past it."""
    features, labels = blobs(400, noise=0.3)
    test_features, test_labels = blobs(100, noise=0.3, seed=1)
    noise = np.random.default_rng(7)
    for part in (features, test_features):
        part[:, 0] = 1e4 * noise.normal(size=len(part))
    result = linear.linear_probe(features, labels, test_features, test_labels, epochs=10)
    assert result.standardize
    assert result.accuracy > 0.8


def test_a_diverging_head_spoils_no_other():
    features, labels = blobs(100)
    arguments = {"epochs": 2, "batch_size": 25, "standardize": (False,)}
    alone = linear.linear_probe(
        features, labels, features, labels, learning_rates=(0.1,), **arguments
    )
    beside = linear.linear_probe(
        features, labels, features, labels, learning_rates=(0.1, 1e38), **arguments
    )
    assert beside.sweep[1].accuracy == 0.0
    assert beside.sweep[1].loss == math.inf
    assert beside.sweep[0].loss == pytest.approx(alone.sweep[0].loss, rel=1e-5)
    assert beside.learning_rate == 0.1


def test_result_turns_into_plain_numbers():
    features, labels = blobs(20)
    result = linear.linear_probe(
        features, labels, features, labels, learning_rates=(0.1,), epochs=1
    )
    assert result.to_dict()["sweep"][1] == dataclasses.asdict(result.sweep[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": (0.1, -1.0)}, "`learning_rates` must be positive"),
        ({"standardize": ()}, "`standardize` must list True, False or both"),
        ({"epochs": 0}, "`epochs` must be at least 1. Received: epochs=0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"holdout": 0.7}, r"`holdout` must lie in \(0, 0.5\]. Received: holdout=0.7"),
        ({"num_classes": 2}, r"Labels must lie in \[0, 2\)"),
    ],
)
def test_wrong_settings_are_named(change, message):
    features, labels = blobs(20)
    with pytest.raises(ValueError, match=message):
        linear.linear_probe(features, labels, features, labels, **change)
