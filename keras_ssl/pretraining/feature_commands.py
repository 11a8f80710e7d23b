"""What the commands `embed` and `search` do, without their flags."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl import embedding, evaluation
from keras_ssl.pretraining.console import Reporter, duration
from keras_ssl.pretraining.errors import writing
from keras_ssl.pretraining.finish import load_any_encoder
from keras_ssl.pretraining.recipe import SettingError


def embed(
    data: str,
    *,
    encoder: str,
    out: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    batch_size: int = 64,
    normalize: bool = False,
    dtype: str = "float32",
    save_every: int = 1024,
    threads: int | None = None,
) -> int:
    """Writes the features of a folder of images; see `keras_ssl.embedding.embed_folder`.

    Args:
        data: str. Folder, or what else `pretrain --data` takes.
        encoder: str. Run folder, `.keras` file, SavedModel or zoo entry.
        out: str. `.npz` or `.parquet`.
        data_dir: str. Where TFDS keeps its sets.
        image_size: int. Side of the images, pixels. Defaults to the encoder's.
        crop_ratio: float. Share of the shorter side that the crop keeps.
        batch_size: int. Images at a time. Defaults to `64`.
        normalize: bool. Whether features are made unit length. Defaults to `False`.
        dtype: str. `"float32"` or `"float16"`. Defaults to `"float32"`.
        save_every: int. Images in a part. Defaults to `1024`.
        threads: int. Decoding threads. Defaults to one for each processor.

    Returns:
        The exit code 0.
    """
    if threads is not None and threads < 1:
        raise SettingError(f"Expected --threads of at least 1. Received: {threads}.")
    network, shown = load_any_encoder(encoder), _Progress()
    begun = time.monotonic()
    try:
        with writing(out):
            done = embedding.embed_folder(
                network,
                data,
                out,
                encoder_name=_lasting(encoder),
                image_size=image_size,
                crop_ratio=crop_ratio,
                batch_size=batch_size,
                normalize=normalize,
                dtype=dtype,
                save_every=save_every,
                num_threads=threads,
                data_dir=data_dir,
                progress=shown,
            )
    finally:
        shown.close()
    left_out = f"; {done.broken:,} left out, listed in {done.broken_path}" if done.broken else ""
    rate = done.computed / max(time.monotonic() - begun, 1e-9)
    note = f"; {rate:,.1f} images/s in all" if done.computed else " (it was complete)"
    print(f"{done.path} holds the features of {done.count:,} images{left_out}{note}.")
    return 0


def search(
    features: str,
    *,
    query: Sequence[str],
    encoder: str | None = None,
    data: str | None = None,
    k: int = 10,
    out: str | None = None,
    as_json: bool = False,
    index: bool = False,
    include_query: bool = False,
) -> int:
    """Shows the images whose features are nearest to those of other images.

    Args:
        features: str. What `embed` wrote.
        query: paths of images.
        encoder: str. As for `embed`. Defaults to the one that the features name.
        data: str. Where the embedded images are. Defaults to where they were.
        k: int. Neighbors of each query. Defaults to `10`.
        out: str. PNG file for the contact sheet.
        as_json: bool. Whether to print JSON. Defaults to `False`.
        index: bool. Whether to search a faiss index beside the file, built at the first call. Defaults to `False`.
        include_query: bool. Whether a query that is itself among the images may be found. Defaults to `False`.

    Returns:
        The exit code 0.
    """
    if out is not None and Path(out).suffix.lower() != ".png":
        raise SettingError(f"Expected a file ending in .png in --out. Received: {out}.")
    found = embedding.read_features(features)
    name = encoder or found.meta["encoder"]
    if not name:
        raise SettingError("Expected --encoder, which the features do not name. Received: nothing.")
    queries = embedding.embed_queries(load_any_encoder(name), found, query, data)
    vectors = np.stack([one.features for one in queries])
    exclude = None if include_query else np.array([one.own for one in queries])
    facts = {"encoder": name, "images": len(found), "index": "exact"}
    if index:
        graph = embedding.build_index(found, features)
        cosine, rows = graph.search(vectors, k=k, exclude=exclude)
        facts |= {"index": "faiss", "recall_at_10": round(graph.recall, 4)}
    else:
        cosine, rows = embedding.find_neighbors(found.features, vectors, k=k, exclude=exclude)
    if out is not None:
        sheet = embedding.search_sheet(found, queries, cosine, rows, data=data)
        evaluation.write_png(out, sheet)
    records = embedding.neighbor_records(found, queries, cosine, rows)
    if as_json:
        print(json.dumps({**facts, "results": records}, indent=1))
    else:
        _print_records(records)
        if index:
            print(f"Found by a faiss index with a recall of {graph.recall:.1%} at 10.")
    return 0


class _Progress:
    """The line or bar of `embed`: images, images per second of this call, time left."""

    def __init__(self) -> None:
        self._reporter: Reporter | None = None
        self._begun = (0.0, 0)

    def __call__(self, done: int, total: int, broken: int) -> None:
        now = time.monotonic()
        if self._reporter is None:
            self._reporter = Reporter(total, done, title="embedding")
            self._begun = (now, done)  # the first batch holds the compilation
        rate = (done - self._begun[1]) / max(now - self._begun[0], 1e-9)
        text = f"{done:,} of {total:,} images" + (f", {broken:,} broken" if broken else "")
        if rate:
            text += f", {rate:,.1f} images/s, {duration((total - done) / rate)} left"
        self._reporter.progress(done, text, last=done == total)

    def close(self) -> None:
        if self._reporter is not None:
            self._reporter.close()


def _print_records(records: list[dict[str, Any]]) -> None:
    for record in records:
        print(f"{record['query']}:")
        for entry in record["neighbors"]:
            kind = f"  {entry['class']}" if "class" in entry else ""
            print(f"  {entry['rank']:>3}  {entry['cosine']:.4f}  {entry['path']}{kind}")


def _lasting(encoder: str) -> str:
    """Returns a name that is good from any folder: an absolute path, or the name of a zoo entry."""
    path = Path(encoder)
    return str(path.resolve()) if path.exists() else encoder
