"""Numbers that judge an embedding without any label, in NumPy and float64."""

from __future__ import annotations

import math

import numpy as np

RANKME_EPSILON = 1e-7
_BLOCK_ENTRIES = 1 << 22  # similarities held at once, 32 MB of float64


def _matrix(embeddings: np.ndarray, least: int = 1) -> np.ndarray:
    """Returns the embeddings as float64 `(samples, dim)` or says what is wrong with them."""
    matrix = np.asarray(embeddings, dtype=np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"Embeddings must have the shape (samples, dim). Received: shape={matrix.shape}"
        )
    if len(matrix) < least:
        raise ValueError(
            f"At least {least} embedding(s) are needed. Received: shape={matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise ValueError("Embeddings must be finite. Received: embeddings with NaN or infinity")
    return matrix


def l2_normalize(embeddings: np.ndarray) -> np.ndarray:
    """Scales each row to unit length; a row of zeros stays zero.

    Args:
        embeddings: float array `(samples, dim)`.

    Returns:
        float64 array `(samples, dim)`.
    """
    matrix = _matrix(embeddings)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def _exponential_entropy(shares: np.ndarray) -> float:
    """Returns exp(-sum p log p); a share of zero adds nothing."""
    positive = shares[shares > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def rankme(embeddings: np.ndarray, epsilon: float = RANKME_EPSILON) -> float:
    """Returns the smooth rank of an embedding matrix, which is not centered.

    Between 1 (all embeddings on one line) and min(samples, dim). The paper takes 25,600 samples; fewer give a
    smaller number, so compare only values from equal sample counts.

    Args:
        embeddings: float array `(samples, dim)`.
        epsilon: float. Added to each share of the singular values. Defaults to `1e-7`.

    Returns:
        float, exp of the entropy of the singular values' shares.

    Reference: Garrido, Balestriero, Najman, LeCun, "RankMe", ICML 2023, https://arxiv.org/abs/2210.02885,
    equation 1.
    """
    values = np.linalg.svd(_matrix(embeddings), compute_uv=False)
    total = values.sum()
    if total == 0:
        return 1.0
    shares = values / total + epsilon
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_rank(embeddings: np.ndarray) -> float:
    """Returns exp of the entropy of the covariance's normalized eigenvalues.

    Unlike RankMe it is centered and uses variances (squared singular values). It reveals dimensional collapse,
    which a healthy per-dimension standard deviation can hide. A constant embedding gives 1.

    Args:
        embeddings: float array `(samples, dim)`, at least two samples.

    Returns:
        float between 1 and min(samples - 1, dim).

    Reference: Roy and Vetterli, "The effective rank", EUSIPCO 2007, definition 1, on the covariance.
    """
    matrix = _matrix(embeddings, least=2)
    variances = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    floor = (np.finfo(np.float64).eps * max(matrix.shape)) ** 2 * np.sum(matrix**2)
    variances = np.where(variances > floor, variances, 0.0)
    return _exponential_entropy(variances / variances.sum()) if variances.sum() > 0 else 1.0


def embedding_std(embeddings: np.ndarray) -> float:
    """Returns the mean over dimensions of the standard deviation of the L2-normalized embeddings.

    About `1 / sqrt(dim)` when directions are spread evenly, 0 when all embeddings coincide.

    Args:
        embeddings: float array `(samples, dim)`, at least two samples.

    Returns:
        float in [0, 1 / sqrt(dim)].

    Reference: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
    https://arxiv.org/abs/2011.10566, section 4.1.
    """
    _matrix(embeddings, least=2)
    return float(l2_normalize(embeddings).std(axis=0).mean())


def alignment(view_a: np.ndarray, view_b: np.ndarray) -> float:
    """Returns the mean squared distance between the unit embeddings of two views of the same images.

    Args:
        view_a: float array `(samples, dim)`.
        view_b: float array `(samples, dim)`. Row i belongs to the same image as row i of `view_a`.

    Returns:
        float in [0, 4]: 0 for identical views, 2 for unrelated ones in high dimension.

    Reference: Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242, with alpha = 2.
    """
    if np.shape(view_a) != np.shape(view_b):
        raise ValueError(
            "The two views must have equal shapes. "
            f"Received: view_a.shape={np.shape(view_a)}, view_b.shape={np.shape(view_b)}"
        )
    difference = l2_normalize(view_a) - l2_normalize(view_b)
    return float(np.mean(np.sum(difference**2, axis=1)))


def uniformity(embeddings: np.ndarray, scale: float = 2.0) -> float:
    """Returns log of the mean Gaussian potential over distinct pairs of unit embeddings.

    0 is the worst value (all points coincide); evenly spread points on the sphere give about `-4 + 8 / dim` for
    the default scale.

    Args:
        embeddings: float array `(samples, dim)`, at least two samples.
        scale: float > 0. The paper's t. Defaults to `2.0`.

    Returns:
        float, at most 0.

    Reference: Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242, with t = 2.
    """
    _matrix(embeddings, least=2)
    unit = l2_normalize(embeddings)
    squared_norm = np.sum(unit**2, axis=1)
    count = len(unit)
    rows = max(1, _BLOCK_ENTRIES // count)
    total = 0.0
    for start in range(0, count, rows):
        block = slice(start, start + rows)
        distance = squared_norm[block, None] + squared_norm - 2.0 * unit[block] @ unit.T
        total += np.exp(-scale * np.maximum(distance, 0.0)).sum()
    # Each point's pair with itself has distance 0 and adds exactly 1.
    return float(min(0.0, math.log(max(total - count, 1e-300) / (count * (count - 1)))))


def mean_pairwise_cosine(embeddings: np.ndarray) -> float:
    """Returns the mean cosine over distinct pairs: 1 when all embeddings point the same way.

    Args:
        embeddings: float array `(samples, dim)`, at least two samples.

    Returns:
        float in [-1, 1].
    """
    _matrix(embeddings, least=2)
    unit = l2_normalize(embeddings)
    total = np.sum(unit.sum(axis=0) ** 2) - np.sum(unit**2)
    return float(total / (len(unit) * (len(unit) - 1)))


def unused_share(assignments: np.ndarray, num_prototypes: int) -> float:
    """Returns the share of prototypes that no sample was assigned to.

    Args:
        assignments: int array of any shape, values in [0, num_prototypes).
        num_prototypes: int. Number of prototypes.

    Returns:
        float in [0, 1].
    """
    used = np.unique(np.asarray(assignments))
    if used.size and (used.min() < 0 or used.max() >= num_prototypes):
        raise ValueError(
            f"Assignments must lie in [0, {num_prototypes}). "
            f"Received: assignments from {used.min()} to {used.max()}"
        )
    return 1.0 - used.size / num_prototypes


def view_stats(view_a: np.ndarray, view_b: np.ndarray) -> dict[str, float]:
    """Returns the statistics of two views that `doctor.diagnose` reads.

    `view_agreement` is the probability that the other view of an image is more alike than a view of another
    image, by the correlation of 4 x 4 thumbnails: 0.5 for unrelated views, 0.7 to 0.8 for SimCLR's views of
    CIFAR-10. It is left out below 32 images, where chance alone reaches 0.65.

    Args:
        view_a: float array `(batch, height, width, channels)` in [0, 1], sides of at least 4 pixels.
        view_b: float array of the same shape. Row i is another view of the image of row i.

    Returns:
        dict of floats: `view_difference` (mean absolute), `view_contrast` (mean standard deviation of the pixels
        inside a view), `view_agreement`.
    """
    a, b = np.asarray(view_a, np.float32), np.asarray(view_b, np.float32)
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            "Two view batches of one shape (batch, height, width, channels) were expected. "
            f"Received: view_a.shape={a.shape}, view_b.shape={b.shape}"
        )
    contrast = np.concatenate([a.std(axis=(1, 2)), b.std(axis=(1, 2))])
    stats = {
        "view_difference": float(np.abs(a - b).mean()),
        "view_contrast": float(contrast.mean()),
    }
    if len(a) >= 32:
        likeness = _thumbnails(a) @ _thumbnails(b).T  # (batch, batch)
        others = len(a) * (len(a) - 1)
        stats["view_agreement"] = float(np.sum(np.diag(likeness)[:, None] > likeness) / others)
    return stats


def _thumbnails(images: np.ndarray, side: int = 4) -> np.ndarray:
    """Returns block means `(batch, side * side * channels)`, centered and of unit length per image."""
    count, height, width, channels = images.shape
    rows, columns = height // side, width // side
    cut = images[:, : rows * side, : columns * side]
    means = cut.reshape(count, side, rows, side, columns, channels).mean(axis=(2, 4))
    flat = means.reshape(count, -1)
    return l2_normalize(flat - flat.mean(axis=1, keepdims=True))


def label_free_report(embeddings: np.ndarray, limit: int = 25_600) -> dict[str, float]:
    """Returns all label-free measures of one embedding set.

    Args:
        embeddings: float array `(samples, dim)`, at least two samples.
        limit: int. Only the first `limit` rows are used; the default is RankMe's sample count.
            Defaults to `25600`.

    Returns:
        dict of floats: `rankme`, `effective_rank`, `embedding_std`, `uniformity`, `mean_cosine`.
    """
    rows = np.asarray(embeddings)[:limit]
    return {
        "rankme": rankme(rows),
        "effective_rank": effective_rank(rows),
        "embedding_std": embedding_std(rows),
        "uniformity": uniformity(rows[:4096]),
        "mean_cosine": mean_pairwise_cosine(rows),
    }
