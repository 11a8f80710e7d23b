"""Weighted nearest-neighbor classification on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

BLOCK_ENTRIES = 1 << 24  # similarities held at once, 64 MB of float32


def check_labels(labels: np.ndarray, count: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Returns labels as int32 `(count,)` and the number of classes, or says what is wrong.

    Args:
        labels: int array `(count,)`, values in [0, num_classes).
        count: int. Number of features the labels belong to.
        num_classes: int or None. None takes the largest label plus one.

    Returns:
        tuple of the labels and the number of classes.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ValueError(
            f"One label for each of the {count} features was expected. "
            f"Received: labels.shape={labels.shape}"
        )
    num_classes = int(labels.max()) + 1 if num_classes is None else int(num_classes)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels must lie in [0, {num_classes}). "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32), num_classes


@tf.function(reduce_retracing=True)
def _top_k(bank: tf.Tensor, queries: tf.Tensor, own: tf.Tensor, k: int) -> tuple:
    """Returns similarity and index of the k best rows of `bank`; row `own` (-1 = none) never wins."""
    similarity = tf.matmul(queries, bank, transpose_b=True)  # (block, bank)
    columns = tf.range(tf.shape(bank)[0], dtype=own.dtype)
    similarity = tf.where(columns[None, :] == own[:, None], -np.inf, similarity)
    return tf.math.top_k(similarity, k)


def _neighbor_blocks(
    bank: np.ndarray, queries: np.ndarray | None, k: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields (rows, similarity, index) of the k nearest, a bounded number of queries at a time."""
    for name, features in (("bank", bank), ("queries", bank if queries is None else queries)):
        if np.ndim(features) != 2 or not len(features):
            raise ValueError(
                f"Features must have the shape (samples, dim) with at least one sample. "
                f"Received: {name}.shape={np.shape(features)}"
            )
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    exclude_self = queries is None
    if exclude_self and len(bank) < 2:
        raise ValueError(f"Leaving one out needs two samples. Received: {len(bank)}")
    unit = tf.math.l2_normalize(tf.constant(bank, tf.float32), axis=1, epsilon=1e-24)
    k = min(k, len(bank) - exclude_self)
    total = len(bank if exclude_self else queries)
    size = max(1, min(total, BLOCK_ENTRIES // len(bank)))
    for start in range(0, total, size):
        rows = slice(start, min(start + size, total))
        if exclude_self:
            block, own = unit[rows], tf.range(rows.start, rows.stop)
        else:
            block = tf.constant(queries[rows], tf.float32)
            block = tf.math.l2_normalize(block, axis=1, epsilon=1e-24)
            own = tf.fill([rows.stop - rows.start], -1)
        similarity, index = _top_k(unit, block, own, k)
        yield rows, similarity.numpy(), index.numpy()


def nearest_neighbors(
    bank: np.ndarray, queries: np.ndarray | None = None, *, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest rows of a bank by cosine similarity, exactly and in bounded memory.

    Args:
        bank: float array `(samples, dim)`.
        queries: float array `(queries, dim)`. None asks for each bank row's neighbors other than itself.
            Defaults to `None`.
        k: int. Neighbors for each query; at most as many as there are.

    Returns:
        tuple of cosine float32 `(queries, k)`, largest first, and bank rows int32 `(queries, k)`; equal
        similarities are listed in the order of the bank.
    """
    blocks = list(_neighbor_blocks(bank, queries, k))
    return np.concatenate([b[1] for b in blocks]), np.concatenate([b[2] for b in blocks])


def _vote(
    similarity: np.ndarray, labels: np.ndarray, temperature: float, num_classes: int
) -> np.ndarray:
    """Returns the class with the largest sum of exp(cos / temperature) for each query, int32."""
    # The largest similarity is taken off first: it scales a query's scores alike and cannot overflow.
    weight = np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature)
    rows = np.arange(len(labels))[:, None]
    flat = (rows * num_classes + labels).ravel()
    scores = np.bincount(flat, weight.ravel(), len(labels) * num_classes)
    return scores.reshape(len(labels), num_classes).argmax(axis=1).astype(np.int32)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")


def knn_classify(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
    num_classes: int | None = None,
) -> np.ndarray:
    """Predicts classes by the similarity-weighted vote of the nearest training features.

    Features are L2-normalized; class score = sum over the k nearest of that class of exp(cos / temperature).
    Training features are expected to come from test-time transforms.

    Args:
        train_features: float array `(train, dim)`.
        train_labels: int array `(train,)`, values in [0, num_classes).
        test_features: float array `(test, dim)`. None leaves one out: each training sample is classified by
            the others. Defaults to `None`.
        k: int. Number of neighbors. Defaults to `20`.
        temperature: float > 0. Small values let the nearest decide, large ones count heads.
            Defaults to `0.07`.
        num_classes: int. None takes the largest label plus one. Defaults to `None`.

    Returns:
        int32 array `(test,)`, or `(train,)` when one is left out. Ties go to the lower class.

    Reference: Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
    CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4.
    """
    _check_temperature(temperature)
    labels, num_classes = check_labels(train_labels, len(train_features), num_classes)
    predictions = [
        _vote(similarity, labels[index], temperature, num_classes)
        for _, similarity, index in _neighbor_blocks(train_features, test_features, k)
    ]
    return np.concatenate(predictions)


def knn_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    *,
    ks: Sequence[int] = (1, 10, 20, 200),
    temperature: float = 0.07,
    num_classes: int | None = None,
) -> dict[int, float]:
    """Returns the share of correct predictions of `knn_classify` for several k at one search.

    Args:
        train_features: float array `(train, dim)`.
        train_labels: int array `(train,)`.
        test_features: float array `(test, dim)`. None leaves one out. Defaults to `None`.
        test_labels: int array `(test,)`, given exactly when `test_features` is. Defaults to `None`.
        ks: ints. Numbers of neighbors; those above the number available (maybe all) are left out, so that no
            accuracy stands under a wrong name. Defaults to `(1, 10, 20, 200)`.
        temperature: float > 0. Defaults to `0.07`.
        num_classes: int. None takes the largest label plus one. Defaults to `None`.

    Returns:
        dict from k to accuracy in [0, 1].
    """
    _check_temperature(temperature)
    if (test_features is None) != (test_labels is None):
        raise ValueError(
            "`test_features` and `test_labels` belong together. Received only "
            f"{'test_labels' if test_features is None else 'test_features'}"
        )
    if test_labels is None:
        labels, num_classes = check_labels(train_labels, len(train_features), num_classes)
        truth = labels
    else:
        both = np.concatenate([np.asarray(train_labels), np.asarray(test_labels)])
        both, num_classes = check_labels(
            both, len(train_features) + len(test_features), num_classes
        )
        labels, truth = both[: len(train_features)], both[len(train_features) :]
    available = len(train_features) - (test_features is None)
    ks = sorted(k for k in set(ks) if k <= available)
    if not ks:
        return {}
    correct = dict.fromkeys(ks, 0)
    for rows, similarity, index in _neighbor_blocks(train_features, test_features, ks[-1]):
        for k in ks:
            predicted = _vote(similarity[:, :k], labels[index[:, :k]], temperature, num_classes)
            correct[k] += int(np.sum(predicted == truth[rows]))
    return {k: count / len(truth) for k, count in correct.items()}
