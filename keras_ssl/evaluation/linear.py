"""Linear probe on cached features: all learning rates trained at once, one of them tested once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ssl.evaluation.knn import check_labels

LEARNING_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
MOMENTUM = 0.9


@dataclass(frozen=True)
class SweepRow:
    """One setting of the sweep and how it did on the held-out slice of the training set."""

    learning_rate: float
    standardize: bool
    accuracy: float
    loss: float


@dataclass(frozen=True)
class LinearProbeResult:
    """What a linear probe found.

    Attributes:
        accuracy: float in [0, 1]. On the test set, scored once, with the chosen setting.
        loss: float. Cross-entropy on the test set.
        learning_rate: float. Chosen on the held-out slice.
        standardize: bool. Chosen on the held-out slice.
        train_accuracy: float in [0, 1]. Of the final head on the whole training set.
        num_classes: int.
        sweep: tuple of `SweepRow`, one for each setting.
    """

    accuracy: float
    loss: float
    learning_rate: float
    standardize: bool
    train_accuracy: float
    num_classes: int
    sweep: tuple[SweepRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain numbers, ready for JSON."""
        return asdict(self)


def linear_probe(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    standardize: Sequence[bool] = (False, True),
    epochs: int = 100,
    batch_size: int = 256,
    holdout: float = 0.1,
    num_classes: int | None = None,
    seed: int = 0,
) -> LinearProbeResult:
    """Trains linear classifiers on frozen features and tests the best one.

    SGD with momentum 0.9, no weight decay, cosine schedule to 0, heads that start at zero. Every learning rate, with
    raw and with standardized features, is trained in the same pass on the training set less a held-out slice;
    the setting with the best held-out accuracy (then the smaller loss) is trained anew on the whole training set
    and scored once on the test set. The same input and seed give the same result.

    Args:
        train_features: float array `(train, dim)`.
        train_labels: int array `(train,)`, values in [0, num_classes).
        test_features: float array `(test, dim)`.
        test_labels: int array `(test,)`.
        learning_rates: floats. For the batch as it is, not scaled with its size. Defaults to the eight values
            from 0.01 to 30.
        standardize: bools. Whether to subtract the training mean and divide by the training standard deviation,
            per dimension; both are tried by default. Defaults to `(False, True)`.
        epochs: int. Defaults to `100`.
        batch_size: int. At most the number of samples trained on. Defaults to `256`.
        holdout: float in (0, 0.5]. Share of the training set that the choice is made on. Defaults to `0.1`.
        num_classes: int. None takes the largest label plus one. Defaults to `None`.
        seed: int. Draws the held-out slice and the order of the samples. Defaults to `0`.

    Returns:
        `LinearProbeResult`.

    Reference: protocol of Chen et al., "Improved Baselines with Momentum Contrastive Learning",
    https://arxiv.org/abs/2003.04297 (SGD 0.9, no decay, batch 256, 100 epochs), with heads for many learning
    rates at once as in Oquab et al., "DINOv2", https://arxiv.org/abs/2304.07193, appendix B.
    """
    _check_settings(learning_rates, standardize, epochs, batch_size, holdout)
    train, test = (np.asarray(x, np.float32) for x in (train_features, test_features))
    both = np.concatenate([np.asarray(train_labels), np.asarray(test_labels)])
    both, num_classes = check_labels(both, len(train) + len(test), num_classes)
    train_labels, test_labels = both[: len(train)], both[len(train) :]
    if len(train) < 2 or not len(test):
        raise ValueError(
            "A linear probe needs two training samples and one test sample. "
            f"Received: train={len(train)}, test={len(test)}"
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(train))
    held = min(max(1, round(holdout * len(train))), len(train) - 1)
    kept, held_out = order[held:], order[:held]
    settings = [(rate, scaled) for scaled in standardize for rate in learning_rates]
    training = {"epochs": epochs, "batch_size": batch_size, "num_classes": num_classes}

    heads = _fit(train[kept], train_labels[kept], settings, generator, **training)
    scores = heads.evaluate(train[held_out], train_labels[held_out])
    sweep = tuple(SweepRow(*s, *score) for s, score in zip(settings, scores, strict=True))
    best = max(sweep, key=lambda row: (row.accuracy, -row.loss))
    chosen = [(best.learning_rate, best.standardize)]
    final = _fit(train, train_labels, chosen, generator, **training)
    [(accuracy, loss)] = final.evaluate(test, test_labels)
    [(train_accuracy, _)] = final.evaluate(train, train_labels)
    return LinearProbeResult(
        accuracy, loss, best.learning_rate, best.standardize, train_accuracy, num_classes, sweep
    )


def _check_settings(
    learning_rates: Sequence[float],
    standardize: Sequence[bool],
    epochs: int,
    batch_size: int,
    holdout: float,
) -> None:
    if not len(learning_rates) or min(learning_rates) <= 0:
        raise ValueError(
            f"`learning_rates` must be positive. Received: learning_rates={learning_rates}"
        )
    if not len(standardize) or len(set(standardize)) != len(standardize):
        raise ValueError(
            f"`standardize` must list True, False or both. Received: standardize={standardize}"
        )
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    if not 0 < holdout <= 0.5:
        raise ValueError(f"`holdout` must lie in (0, 0.5]. Received: holdout={holdout}")


class _Heads(tf.Module):
    """Linear heads side by side: `(dim, heads * classes)` is one matrix product for all of them."""

    def __init__(self, features: np.ndarray, settings: list, num_classes: int) -> None:
        super().__init__()
        dim = features.shape[1]
        self.num_classes = num_classes
        self.groups = []  # one for raw, one for standardized features
        for scaled in dict.fromkeys(s for _, s in settings):
            rates = [rate for rate, s in settings if s == scaled]
            mean, std = np.zeros(dim, np.float32), np.ones(dim, np.float32)
            if scaled:
                mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
                std = features.std(axis=0, dtype=np.float64).astype(np.float32)
            width = len(rates) * num_classes
            shapes = ((dim, width), (width,))
            self.groups.append(
                {
                    "mean": tf.constant(mean),
                    "scale": tf.constant(1.0 / np.maximum(std, 1e-6)),
                    "rates": tf.constant(np.repeat(rates, num_classes), tf.float32),
                    "weights": [tf.Variable(tf.zeros(shape)) for shape in shapes],
                    "momenta": [tf.Variable(tf.zeros(shape)) for shape in shapes],
                }
            )

    def logits(self, group: dict, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the group's own features and logits `(batch, heads, classes)`."""
        features = (features - group["mean"]) * group["scale"]
        kernel, bias = group["weights"]
        logits = tf.matmul(features, kernel) + bias
        return features, tf.reshape(logits, [tf.shape(features)[0], -1, self.num_classes])

    def step(self, features: tf.Tensor, labels: tf.Tensor, decay: tf.Tensor) -> None:
        """One step of SGD with momentum; the cross-entropy's gradient is softmax less one-hot."""
        target = tf.one_hot(labels, self.num_classes)[:, None, :]
        for group in self.groups:
            own, logits = self.logits(group, features)
            error = tf.reshape(tf.nn.softmax(logits) - target, [tf.shape(own)[0], -1])
            error /= tf.cast(tf.shape(own)[0], tf.float32)
            gradients = tf.matmul(own, error, transpose_a=True), tf.reduce_sum(error, axis=0)
            for weight, momentum, gradient in zip(
                group["weights"], group["momenta"], gradients, strict=True
            ):
                momentum.assign(MOMENTUM * momentum + gradient)
                weight.assign_sub(decay * group["rates"] * momentum)

    def evaluate(
        self, features: np.ndarray, labels: np.ndarray, block: int = 8192
    ) -> list[tuple[float, float]]:
        """Returns (accuracy, cross-entropy) of each head; a head that diverged scores (0, inf)."""
        correct, loss = 0.0, 0.0
        for start in range(0, len(features), block):
            x = tf.constant(features[start : start + block])
            y = tf.constant(labels[start : start + block])
            logits = tf.concat([self.logits(g, x)[1] for g in self.groups], axis=1)
            truth = tf.broadcast_to(y[:, None], tf.shape(logits)[:2])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(truth, logits)
            hits = tf.argmax(logits, axis=-1, output_type=tf.int32) == truth
            correct += tf.reduce_sum(tf.cast(hits, tf.float64), axis=0).numpy()
            loss += tf.reduce_sum(tf.cast(losses, tf.float64), axis=0).numpy()
        finite = np.isfinite(loss)
        accuracy = np.where(finite, correct / len(features), 0.0)
        loss = np.where(finite, loss / len(features), math.inf)
        return [(float(a), float(x)) for a, x in zip(accuracy, loss, strict=True)]


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    settings: list,
    generator: np.random.Generator,
    *,
    epochs: int,
    batch_size: int,
    num_classes: int,
) -> _Heads:
    """Trains one head for each setting on all samples, in the order the generator draws."""
    heads = _Heads(features, settings, num_classes)
    batch_size = min(batch_size, len(features))
    steps = len(features) // batch_size  # an epoch's last, smaller batch is dropped
    all_features, all_labels = tf.constant(features), tf.constant(labels)

    @tf.function
    def epoch(order: tf.Tensor, first_step: tf.Tensor) -> None:
        for i in tf.range(steps):
            rows = order[i * batch_size : (i + 1) * batch_size]
            progress = tf.cast(first_step + i, tf.float32) / float(epochs * steps)
            decay = 0.5 * (1.0 + tf.cos(math.pi * progress))
            heads.step(tf.gather(all_features, rows), tf.gather(all_labels, rows), decay)

    for index in range(epochs):
        order = tf.constant(generator.permutation(len(features))[: steps * batch_size], tf.int32)
        epoch(order, tf.constant(index * steps))
    return heads
