"""Nearest neighbors as a picture: what the encoder takes for alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_ssl.evaluation.knn import nearest_neighbors

_GAP, _WHITE = 2, 255


def neighbor_sheet(
    images: np.ndarray, features: np.ndarray, *, num_queries: int = 8, k: int = 8
) -> np.ndarray:
    """Draws queries with their nearest neighbors by cosine similarity.

    Queries are spread evenly over the images. Each row shows one query, a wider gap, and its neighbors, nearest
    first; no image is its own neighbor.

    Args:
        images: uint8 array `(samples, height, width, 3)`, or float in [0, 1]. At least two.
        features: float array `(samples, dim)` of the same images.
        num_queries: int. Rows, at most one for each image. Defaults to `8`.
        k: int. Neighbors in a row, at most all others. Defaults to `8`.

    Returns:
        uint8 array `(rows * (height + 2) - 2, width of the row, 3)`.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(features):
        raise ValueError(
            "One image (height, width, 3) for each feature was expected. "
            f"Received: images.shape={images.shape}, features.shape={np.shape(features)}"
        )
    if np.issubdtype(images.dtype, np.floating):
        images = np.rint(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)
    count = len(images)
    queries = np.arange(min(num_queries, count)) * count // min(num_queries, count)
    # One more than asked for, because the query finds itself; a duplicate of it must not be dropped in its place.
    _, found = nearest_neighbors(features, np.asarray(features)[queries], k=min(k + 1, count))
    rows = []
    for query, candidates in zip(queries, found, strict=True):
        others = candidates[candidates != query][: min(k, count - 1)]
        rows.append(_row(images[query], images[others]))
    gap = np.full((_GAP, *rows[0].shape[1:]), _WHITE, np.uint8)
    return np.concatenate([part for row in rows for part in (row, gap)][:-1])


def _row(query: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """Returns the query, a wide gap and the neighbors side by side."""
    narrow = np.full((len(query), _GAP, 3), _WHITE, np.uint8)
    parts = [query, narrow, narrow]
    for neighbor in neighbors:
        parts += [narrow, neighbor]
    return np.concatenate(parts, axis=1)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Writes an image as PNG.

    Args:
        path: path of the file; its folder must exist.
        image: uint8 array `(height, width, 3)` or `(height, width)`.
    """
    from PIL import Image

    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(
            "A uint8 image (height, width, 3) or (height, width) was expected. "
            f"Received: dtype={image.dtype}, shape={image.shape}"
        )
    Image.fromarray(image).save(path, format="PNG")
