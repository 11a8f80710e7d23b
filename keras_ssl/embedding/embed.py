"""Features of every image of a folder in one file; a killed call goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.conversion import weights_digest
from keras_ssl.data import Source, open_source
from keras_ssl.data.shards import replacing
from keras_ssl.embedding.files import Features, check_suffix, read_features, write_features
from keras_ssl.embedding.parts import Parts, refuse_other, remove_parts
from keras_ssl.evaluation import FeatureExtractor

DTYPES = ("float32", "float16")
_AHEAD = 3  # batches read while the encoder works on one


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What a call of `embed_folder` did.

    Attributes:
        path: Path. The file of features.
        count: int. Images in it.
        broken: int. Images left out.
        broken_path: Path or None. JSON lines `{"path", "error", "sample_id"}` of these, if there are any.
        computed: int. Images that this call looked at; the rest was there from earlier calls.
    """

    path: Path
    count: int
    broken: int
    broken_path: Path | None
    computed: int


def embed_folder(
    encoder: Callable,
    data: Any,
    out: str | Path,
    *,
    encoder_name: str = "",
    image_size: int | None = None,
    crop_ratio: float | None = None,
    batch_size: int = 64,
    normalize: bool = False,
    dtype: str = "float32",
    save_every: int = 1024,
    num_threads: int | None = None,
    data_dir: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Embedded:
    """Writes the features of all images of a folder, in the order of their paths.

    Images are decoded in threads ahead of the encoder and cut as evaluation cuts them (`FeatureExtractor`). After
    every `save_every` images a part is written beside `out`; the same call after a kill begins with the first part
    that is missing, and the file is the same to the byte. An image that cannot be read, or whose features are not
    finite, is left out and listed in `OUT.broken.jsonl`.

    Args:
        encoder: Keras model or callable from images in [0, 1] to features, as for `FeatureExtractor`.
        data: what `open_source` takes, such as a folder.
        out: path. `.npz`, or `.parquet` with `pyarrow`; see `Features` for what is in it.
        encoder_name: str. What `search` is to load the encoder by. Defaults to `""`.
        image_size: int. Side of the images. None takes the encoder's own. Defaults to `None`.
        crop_ratio: float in (0, 1]. None takes 1.0 up to 64 pixels and 0.875 above. Defaults to `None`.
        batch_size: int. Images at a time. Defaults to `64`.
        normalize: bool. Whether features are made unit length. Defaults to `False`.
        dtype: str. `"float32"` or `"float16"`. What is stored. Defaults to `"float32"`.
        save_every: int. Images in a part, rounded up to whole batches. Defaults to `1024`.
        num_threads: int. Decoding threads. None takes one for each processor. Defaults to `None`.
        data_dir: str. Where TFDS keeps its sets. Defaults to `None`.
        progress: callable `(done, total, broken)`, called after each batch. Defaults to `None`.

    Returns:
        Embedded.

    Raises:
        ValueError: If `out` was begun or made with other settings, images or weights, or no image can be read.
    """
    out = Path(out)
    check_suffix(out)
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}")
    if save_every < 1:
        raise ValueError(f"`save_every` must be at least 1. Received: save_every={save_every}")
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"`num_threads` must be at least 1. Received: num_threads={num_threads}")
    extractor = FeatureExtractor(
        encoder, image_size=image_size, batch_size=batch_size, crop_ratio=crop_ratio
    )
    save_every = -(-save_every // batch_size) * batch_size
    source = open_source(
        data, data_dir=data_dir, view_size=extractor.image_size, num_threads=num_threads
    )
    settings = {
        **_settings(data, source, extractor),
        "encoder": encoder_name,
        "normalized": normalize,
        "dtype": dtype,
        "save_every": save_every,
    }
    if out.is_file():
        return _finished(out, settings)
    parts = Parts(out, settings, source.num_samples, save_every)
    prefix = str(Path(data).expanduser()) if isinstance(data, str | Path) else ""
    computed = _fill(parts, source, extractor, prefix, progress)
    return _assemble(parts, out, computed)


def broken_path(out: Path) -> Path:
    """Returns the file that lists the images left out of a file of features."""
    return out.with_name(f"{out.name}.broken.jsonl")


def _settings(data: Any, source: Source, extractor: FeatureExtractor) -> dict[str, Any]:
    """Returns what the features depend on: images, weights, cut and batches."""
    known = hasattr(extractor.encoder, "variables")
    return {
        "data": _place(data),
        "data_fingerprint": source.fingerprint(),
        "encoder_sha256": weights_digest(extractor.encoder) if known else "",
        "image_size": extractor.image_size,
        "crop_ratio": extractor.crop_ratio,
        "canvas": list(source.canvas),
        "batch_size": extractor.batch_size,
        "class_names": list(source.class_names) if source.class_names else None,
    }


def _finished(out: Path, settings: dict[str, Any]) -> Embedded:
    found = read_features(out)
    refuse_other(found.meta, settings, str(out))
    remove_parts(out)  # what a kill left between the file and the removal
    listed = broken_path(out)
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    return Embedded(out, len(found), len(lines), listed if lines else None, 0)


def _fill(
    parts: Parts, source: Source, extractor: FeatureExtractor, prefix: str, progress: Any
) -> int:
    """Makes the missing parts and returns how many records were read for them."""
    missing = parts.missing()
    computed, broken = 0, len(parts.broken())
    done = source.num_samples - sum(len(parts.blocks[i]) for i in missing)
    kept: dict[str, list] = {"features": [], "ids": []}
    bad: list[dict[str, Any]] = []
    for number, ids, images, aspect, problems in _read(parts, missing, source, extractor):
        features = extractor.of_batch(images, aspect)
        if parts.settings["normalized"]:
            features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        for row in np.flatnonzero(~np.isfinite(features).all(1)):
            problems.setdefault(int(row), "the encoder's features are not finite")
        good = np.array([row not in problems for row in range(len(ids))], bool)
        kept["features"].append(_stored(features[good], parts.settings["dtype"]))
        kept["ids"].append(ids[good])
        bad += [
            {
                "path": _name(source, int(ids[row]), prefix),
                "error": problems[row],
                "sample_id": int(ids[row]),
            }
            for row in sorted(problems)
        ]
        if ids[-1] == parts.blocks[number][-1]:
            parts.write(number, _part(source, kept, prefix), bad)
            kept, bad = {"features": [], "ids": []}, []
        computed += len(ids)
        broken += len(problems)
        if progress is not None:
            progress(done + computed, source.num_samples, broken)
    return computed


def _read(
    parts: Parts, missing: list[int], source: Source, extractor: FeatureExtractor
) -> Iterator[tuple]:
    """Yields (part, ids, images, aspect, problems) of each batch; the next ones are read meanwhile."""
    batches = deque(
        (number, np.arange(start, min(start + extractor.batch_size, block.stop)))
        for number in missing
        for block in [parts.blocks[number]]
        for start in range(block.start, block.stop, extractor.batch_size)
    )
    waiting: deque = deque()
    with ThreadPoolExecutor(1) as reader:
        while batches or waiting:
            while batches and len(waiting) < _AHEAD:
                number, ids = batches.popleft()
                waiting.append((number, ids, reader.submit(source.read_each, ids)))
            number, ids, ready = waiting.popleft()
            yield number, ids, *ready.result()


def _part(source: Source, kept: dict[str, list], prefix: str) -> Features:
    ids = np.concatenate(kept["ids"])
    paths = np.array([_name(source, int(index), prefix) for index in ids], dtype=np.str_)
    labels = None
    if source.has_labels:
        labels = np.asarray(source.labels_of(ids), np.int32).reshape(len(ids))
    return Features(np.concatenate(kept["features"]), paths, ids, labels, {})


def _stored(features: np.ndarray, dtype: str) -> np.ndarray:
    largest = float(np.finfo(dtype).max)
    if np.abs(features).max(initial=0.0) > largest:
        raise ValueError(
            f"Expected features within the range of {dtype}, {largest:g}. "
            f"Received: {np.abs(features).max():g}; store float32, or normalize."
        )
    return features.astype(dtype)


def _assemble(parts: Parts, out: Path, computed: int) -> Embedded:
    """Writes the file and the list from the parts, and removes these."""
    count = sum(len(part) for part in parts)
    broken = parts.broken()
    if not count:
        raise ValueError(
            f"Expected at least one image that can be read. Received: {len(broken)} broken ones in "
            f"{parts.settings['data']}; the first is {broken[0]['path']} ({broken[0]['error']})."
        )
    listed = broken_path(out)
    if broken:
        with replacing(listed) as file:
            file.writelines((json.dumps(entry) + "\n").encode() for entry in broken)
    else:
        listed.unlink(missing_ok=True)
    meta = {**parts.settings, "format": "keras_ssl features", "broken": len(broken)}
    write_features(out, parts, meta, count)
    remove_parts(out)
    return Embedded(out, count, len(broken), listed if broken else None, computed)


def _place(data: Any) -> str:
    """Returns what `data` is to be opened by later, from any folder."""
    if not isinstance(data, str | Path):
        return ""
    path = Path(data).expanduser()
    return os.path.abspath(path) if path.exists() else str(data)


def _name(source: Source, index: int, data: str) -> str:
    """Returns a record's path below the folder, or what else names it."""
    return source.record_name(index).removeprefix(f"{data}/")
