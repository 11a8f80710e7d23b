"""An index over a file of features, for many searches of many images; kept beside the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data.base import sampled_indices
from keras_ssl.data.shards import replacing
from keras_ssl.embedding.files import Features
from keras_ssl.embedding.search import check_search, find_neighbors, to_unit

_LINKS, _BUILD_WIDTH, _SEARCH_WIDTH = 32, 200, 128  # of the graph: quality against memory and time
_BLOCK = 65536  # rows added at a time
_RECALL_QUERIES, _RECALL_K = 200, 10


class SearchIndex:
    """A graph of near neighbors (HNSW) over unit vectors, by the package `faiss`.

    Args:
        index: faiss index.
        recall: float. Share of the exact 10 nearest neighbors that it finds, measured on 200 of its own rows when it
            was built.
    """

    def __init__(self, index: Any, recall: float) -> None:
        self._index, self.recall = index, recall

    def search(
        self, queries: np.ndarray, *, k: int, exclude: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds near rows by cosine; arguments and results as of `find_neighbors`, but a few may be missed."""
        check_search((self._index.ntotal, self._index.d), np.shape(queries), k)
        exclude = np.full(len(queries), -1) if exclude is None else np.asarray(exclude)
        k = min(k, self._index.ntotal - int((exclude >= 0).any()))
        self._index.hnsw.efSearch = max(_SEARCH_WIDTH, 4 * k)
        asked = min(k + 1, self._index.ntotal)
        cosine, rows = self._index.search(to_unit(queries), asked)
        cosine = np.where(rows == exclude[:, None], -np.inf, cosine)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosine, order, 1), np.take_along_axis(rows, order, 1)


def build_index(found: Features, path: str | Path) -> SearchIndex:
    """Returns the index of a file of features: the one beside it, or a new one, which is then written there.

    Args:
        found: Features. What `read_features(path)` gave.
        path: path. The file of features; the index becomes `PATH.faiss`, with `PATH.faiss.json`.

    Raises:
        ImportError: If `faiss` is not installed.
    """
    faiss = _faiss()
    path = Path(path)
    stored, facts_path = (
        path.with_name(f"{path.name}.faiss"),
        path.with_name(f"{path.name}.faiss.json"),
    )
    facts = _read_facts(facts_path)
    if facts.get("features") == found.digest() and stored.is_file():
        return SearchIndex(faiss.read_index(str(stored)), facts["recall"])
    index = faiss.IndexHNSWFlat(found.features.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_WIDTH
    for start in range(0, len(found), _BLOCK):
        index.add(to_unit(found.features[start : start + _BLOCK]))
    recall = measure_recall(SearchIndex(index, 1.0), found.features)
    facts_path.unlink(missing_ok=True)  # so that no kill leaves facts of another index
    with replacing(stored) as file:
        file.write(faiss.serialize_index(index).tobytes())
    with replacing(facts_path) as file:
        file.write(json.dumps({"features": found.digest(), "recall": recall}).encode())
    return SearchIndex(index, recall)


def measure_recall(index: SearchIndex, features: np.ndarray) -> float:
    """Returns the share of the exact 10 nearest neighbors that an index finds, for up to 200 rows of the bank."""
    chosen = np.asarray(sampled_indices(len(features), _RECALL_QUERIES))
    queries = features[chosen]
    _, exact = find_neighbors(features, queries, k=_RECALL_K, exclude=chosen)
    _, found = index.search(queries, k=_RECALL_K, exclude=chosen)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(exact, found, strict=True))
    return hits / max(exact.size, 1)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "Expected the package faiss for --index, but it is not installed: run "
            "`pip install 'keras_ssl[search]'`, or search without --index, which is exact."
        ) from error
    return faiss
