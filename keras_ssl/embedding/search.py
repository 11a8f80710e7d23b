"""The nearest images of a file of features, by cosine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_ssl.conversion import weights_digest
from keras_ssl.data.decode import decode
from keras_ssl.embedding.files import Features
from keras_ssl.evaluation import FeatureExtractor

_BLOCK_ENTRIES = 1 << 24  # numbers of the bank in float32 at a time, 64 MB
_MOST_QUERIES = 16  # through the encoder at a time


class Query(NamedTuple):
    """A picture to look for.

    Attributes:
        path: str. As it was given.
        features: float32 `(feature_dim,)`.
        own: int. Row of the same file among the features, or -1.
    """

    path: str
    features: np.ndarray
    own: int


def embed_queries(
    encoder: Callable, found: Features, paths: Sequence[str | Path], data: str | None = None
) -> list[Query]:
    """Returns pictures with features made exactly as those of a file of features.

    Args:
        encoder: As for `embed_folder`; the one that the features were made with.
        found: Features.
        paths: Image files.
        data: str. Folder of the embedded images, if it has moved. Defaults to `None`.

    Raises:
        ValueError: If a picture cannot be read, or the encoder is another one.
    """
    own = weights_digest(encoder) if hasattr(encoder, "variables") else ""
    if own != found.meta["encoder_sha256"]:
        raise ValueError(
            f"Expected the encoder that the features were made with, {found.meta['encoder']!r}. "
            "Received: an encoder with other weights; name the right one with --encoder, or embed again."
        )
    canvas = tuple(found.meta["canvas"])
    decoded = [_decode(path, canvas) for path in paths]
    extractor = FeatureExtractor(
        encoder,
        image_size=found.meta["image_size"],
        batch_size=min(len(paths), _MOST_QUERIES),
        crop_ratio=found.meta["crop_ratio"],
    )
    features = []
    for start in range(0, len(paths), _MOST_QUERIES):
        some = decoded[start : start + _MOST_QUERIES]
        aspect = np.array([aspect for _, aspect in some], np.float32)
        features.append(extractor.of_batch(np.stack([image for image, _ in some]), aspect))
    rows = {str(path): row for row, path in enumerate(found.paths)}
    folder = data or found.meta["data"]
    return [
        Query(str(path), vector, rows.get(_below(path, folder), -1))
        for path, vector in zip(paths, np.concatenate(features), strict=True)
    ]


def find_neighbors(
    features: np.ndarray, queries: np.ndarray, *, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest rows by cosine, exactly; the bank is gone through in blocks and may be float16.

    Args:
        features: float `(images, feature_dim)`. The bank.
        queries: float `(queries, feature_dim)`.
        k: int. Neighbors of each query; at most as many as there are.
        exclude: int `(queries,)`. A row that is no neighbor of each query; -1 for none. Defaults to `None`.

    Returns:
        tuple of cosines float32 `(queries, k)`, largest first, and rows int64 `(queries, k)`; equal cosines are in
        the order of the bank. A vector of zeros has the cosine 0 with everything.
    """
    check_search(features.shape, np.shape(queries), k)
    unit = to_unit(queries)
    exclude = np.full(len(unit), -1) if exclude is None else np.asarray(exclude)
    k = min(k, len(features) - int((exclude >= 0).any()))
    best = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in unit]
    step = max(1, _BLOCK_ENTRIES // features.shape[1])
    for start in range(0, len(features), step):
        cosine = unit @ to_unit(features[start : start + step]).T  # (queries, block)
        for number, row in enumerate(cosine):
            if start <= exclude[number] < start + len(row):
                row[exclude[number] - start] = -np.inf
            near = _largest(row, k)
            values = np.concatenate([best[number][0], row[near]])
            rows = np.concatenate([best[number][1], near + start])
            order = np.argsort(-values, kind="stable")[:k]
            best[number] = values[order], rows[order]
    return np.stack([pair[0] for pair in best]), np.stack([pair[1] for pair in best])


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Returns where the k largest values are, in order of place; of equal ones the first."""
    if len(values) <= k:
        return np.arange(len(values))
    least = np.partition(values, len(values) - k)[len(values) - k]
    above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
    return np.sort(np.concatenate([above, equal[: k - len(above)]]))


def neighbor_records(
    found: Features, queries: Sequence[Query], cosine: np.ndarray, rows: np.ndarray
) -> list[dict[str, Any]]:
    """Returns what was found as JSON values: for each query its path and the neighbors, nearest first."""
    names = found.meta.get("class_names")
    records = []
    for query, values, own_rows in zip(queries, cosine, rows, strict=True):
        neighbors = []
        for rank, (value, row) in enumerate(zip(values, own_rows, strict=True), start=1):
            entry = {"rank": rank, "path": str(found.paths[row]), "cosine": round(float(value), 6)}
            if found.labels is not None:
                label = int(found.labels[row])
                entry["label"] = label
                if names and 0 <= label < len(names):
                    entry["class"] = names[label]
            neighbors.append(entry)
        records.append({"query": query.path, "neighbors": neighbors})
    return records


def to_unit(vectors: np.ndarray) -> np.ndarray:
    """Returns rows of length 1 in float32; zeros stay zeros."""
    wide = np.asarray(vectors, np.float32)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, 1)


def check_search(bank: tuple[int, ...], queries: tuple[int, ...], k: int) -> None:
    """Refuses features and queries that do not go together."""
    if len(bank) != 2 or len(queries) != 2 or bank[1] != queries[1] or not bank[0]:
        raise ValueError(
            f"Expected features and queries (count, dim) of one dim. Received: shapes {bank} and {queries}"
        )
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")


def _decode(path: str | Path, canvas: tuple[int, int]) -> tuple[np.ndarray, float]:
    try:
        return decode(Path(path), canvas)
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise ValueError(
            f"Expected an image file as query. Received: {path} ({type(error).__name__}: {error})."
        ) from error


def _below(path: str | Path, folder: str) -> str:
    """Returns the path as the features name it, if it lies below the folder."""
    return os.path.relpath(os.path.realpath(path), os.path.realpath(folder)).replace(os.sep, "/")
