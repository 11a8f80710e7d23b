"""A one-time cache of smaller pictures: how it is made, and how it is read as a source.

A cache is a folder of tar files, each with the next 500 pictures of the source, and `prepared.json`, which says
what it was made from. Record i of the cache is record i of the source: a broken picture is kept as it is, so that it is
found broken, listed and replaced by the same one.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data import decode
from keras_ssl.data.base import DataError, choose_canvas, digest
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.folder import FolderSource
from keras_ssl.data.shards import replacing
from keras_ssl.data.tar import TarShard

CACHE_NAME = ".keras_ssl-cache"  # in the folder of pictures: the cache, or a text with its place
_MANIFEST, _LABELS = "prepared.json", "labels.npy"
_PER_SHARD = 500  # pictures; what a kill can cost
_SETTINGS = ("source", "size", "quality")


class PreparedSource(EncodedSource):
    """The smaller pictures of a cache; numbers, labels, shapes and canvas are those of its source.

    Args:
        cache: str or Path. The folder that `prepare` wrote.
        original: `FolderSource` or None. What it was made from, for the names of broken pictures.
        **settings: see `EncodedSource`.

    Raises:
        DataError: if the cache is not complete.
    """

    def __init__(
        self, cache: str | Path, original: EncodedSource | None = None, **settings: Any
    ) -> None:
        self.cache = Path(cache)
        self.manifest = read_manifest(self.cache)
        if self.manifest is None or not is_complete(self.cache, self.manifest):
            raise DataError(
                f"Expected a complete cache of pictures in {self.cache}, but found "
                f"{'none' if self.manifest is None else 'a part of one'}: run `keras-ssl prepare` "
                "again with the same settings, it goes on."
            )
        self._original = original
        count = self.manifest["num_samples"]
        self._per_shard = self.manifest["per_shard"]
        self._shards = [TarShard(path) for path in _shard_paths(self.cache, self.manifest)]
        names, labels = self.manifest["class_names"], self.cache / _LABELS
        self.class_names = None if names is None else tuple(names)
        self._labels = np.load(labels) if names is not None else None
        super().__init__(count, **settings)
        # The canvas is the one that the originals would be given, and so are the shapes in between.
        sizes = [tuple(size) for size in self.manifest["sizes"]]
        self.canvas = choose_canvas(sizes, settings.get("canvas"), settings.get("view_size"))

    @property
    def labels(self) -> np.ndarray | None:
        return self._labels

    def record(self, index: int) -> bytes:
        return self._shards[index // self._per_shard][index % self._per_shard]

    def record_name(self, index: int) -> str:
        if self._original is not None:
            return self._original.record_name(index)
        shard = self._shards[index // self._per_shard]
        return f"{shard.path}[{shard.name(index % self._per_shard)}]"

    def fingerprint(self) -> str:
        """Covers the fingerprint of the source, size and quality."""
        return digest([str(self.manifest[key]) for key in _SETTINGS])

    @property
    def original_fingerprint(self) -> str:
        """Fingerprint of the pictures that the copies were made from."""
        return self.manifest["source"]

    def describe(self) -> str:
        size, quality = self.manifest["size"], self.manifest["quality"]
        return f"{super().describe()} (prepared: {size} pixels, quality {quality}, in {self.cache})"


def prepare(
    source: EncodedSource,
    cache: str | Path,
    *,
    size: int = 512,
    quality: int = 90,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes a cache of smaller pictures; goes on where an earlier call was stopped.

    A picture whose shorter side is above `size` is turned as its EXIF says, resized so that the
    shorter side is `size`, and saved as JPEG. All others, broken ones too, are copied as they are.
    A cache made from other pictures is made anew.

    Args:
        source: `EncodedSource`. Such as `open_source("DIR")`.
        cache: str or Path. Folder of the cache.
        size: int. Shorter side in pixels. Defaults to `512`.
        quality: int in [1, 95]. JPEG quality. Defaults to `90`.
        num_threads: int or None. Threads; None means one for each processor.
        progress: callable or None. Called with (pictures done, pictures in all) after each.

    Returns:
        int. How many pictures were written by this call.

    Raises:
        DataError: if the folder holds something else, or a cache with another size or quality.
    """
    if size < 1 or not 1 <= quality <= 95:
        raise ValueError(
            "`size` must be positive and `quality` in [1, 95]. Received: "
            f"size={size}, quality={quality}"
        )
    cache = Path(cache)
    manifest = _begin(source, cache, size, quality)
    count, most, written = source.num_samples, manifest["per_shard"], 0
    with ThreadPool(num_threads or source.num_threads) as pool:
        for number, path in enumerate(_shard_paths(cache, manifest)):
            rows = range(number * most, min(count, (number + 1) * most))
            if path.exists():
                continue
            made = pool.imap(lambda row: _smaller(source, row, size, quality), rows)
            with replacing(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
                for row, data in zip(rows, made, strict=True):
                    _add(tar, _member_name(source, row), data)
                    written += 1
                    if progress is not None:
                        progress(row + 1, count)
    if source.has_labels:
        with replacing(cache / _LABELS) as file:
            np.save(file, source.labels)
    return written


def read_manifest(cache: Path) -> dict[str, Any] | None:
    """Returns what a cache was made from, or None if there is none."""
    try:
        return json.loads((cache / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_complete(cache: Path, manifest: dict[str, Any]) -> bool:
    """Returns whether all files of a cache are there."""
    paths = _shard_paths(cache, manifest)
    labelled = manifest["class_names"] is not None
    return all(path.is_file() for path in [*paths, cache / _LABELS][: len(paths) + labelled])


def point_to(folder: Path, cache: Path) -> bool:
    """Notes in a folder of pictures where its cache is; returns whether that could be written."""
    pointer = folder / CACHE_NAME
    if pointer.is_dir() or cache.resolve() == pointer.resolve():
        return pointer.resolve() == cache.resolve()
    try:
        with replacing(pointer) as file:
            file.write(f"{cache.resolve()}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        return False
    return True


def open_folder(folder: str | Path, **settings: Any) -> EncodedSource:
    """Opens a folder of pictures, or the cache that was prepared from it.

    The cache is used if it is complete, was made from the pictures that are in the folder now, and
    is not smaller than the canvas. If one is there and is not used, `describe()` says why.

    Args:
        folder: str or Path. Pictures (`FolderSource`), or a cache itself.
        **settings: see `EncodedSource`.
    """
    folder = Path(folder)
    if read_manifest(folder) is not None:
        return PreparedSource(folder, **settings)
    source = FolderSource(folder, **settings)
    cache = folder / CACHE_NAME
    if cache.is_file():
        place = cache.read_bytes().decode("utf-8", "surrogateescape").strip()
        cache = Path(place)
    elif not cache.exists():
        return source
    reason = _objection(cache, source)
    if reason is None:
        return PreparedSource(cache, source, **settings)
    source.note = f"its cache in {cache} is not used: {reason}"
    return source


def _objection(cache: Path, source: EncodedSource) -> str | None:
    """Returns why a cache cannot stand for a folder, and what to do; None if it can."""
    manifest = read_manifest(cache)
    if manifest is None:
        return "there is none; run `keras-ssl prepare` again"
    if manifest["source"] != source.fingerprint():
        return "the pictures have changed since; run `keras-ssl prepare` again"
    if not is_complete(cache, manifest):
        return "it is not complete; run `keras-ssl prepare` again, it goes on"
    shrunk = any(min(size) > manifest["size"] for size in source.sizes)
    if shrunk and manifest["size"] < max(source.canvas):
        return (
            f"its {manifest['size']} pixels are fewer than the canvas's {max(source.canvas)}; "
            f"prepare another one with --size {max(source.canvas)}"
        )
    return None


def _begin(source: EncodedSource, cache: Path, size: int, quality: int) -> dict[str, Any]:
    """Writes and returns the manifest, or finds the same one there."""
    manifest = {
        "source": source.fingerprint(),
        "size": size,
        "quality": quality,
        "num_samples": source.num_samples,
        "per_shard": _PER_SHARD,
        "class_names": list(source.class_names or ()) if source.has_labels else None,
        "sizes": source.sizes,
    }
    there = read_manifest(cache)
    if there is None and cache.exists() and any(cache.iterdir()):
        raise DataError(
            f"Expected an empty or new folder, or a cache, at {cache}, but found other files "
            "there: choose another --to."
        )
    if there is not None and there["source"] == manifest["source"]:
        if (there["size"], there["quality"]) != (size, quality):
            raise DataError(
                f"Expected --size {there['size']} --quality {there['quality']}, as in the cache in "
                f"{cache}, but found --size {size} --quality {quality}: choose another --to, or "
                "remove the cache."
            )
        return there
    if there is not None:  # made from other pictures: what is there is of no use
        for path in [*_shard_paths(cache, there), cache / _LABELS]:
            path.unlink(missing_ok=True)
    with replacing(cache / _MANIFEST) as file:
        file.write((json.dumps(manifest) + "\n").encode())
    return manifest


def _smaller(source: EncodedSource, index: int, size: int, quality: int) -> bytes:
    try:
        data = source.record(index)
    except Exception:  # not readable now: nothing is what can be kept of it
        return b""
    try:
        return decode.shrink(data, size, quality)
    except Exception:  # Pillow raises a dozen kinds for damaged files
        return data


def _member_name(source: EncodedSource, index: int) -> str:
    """Returns the picture's own path, or its number, with an ending that counts as a picture's."""
    files = getattr(source, "files", None)
    return f"{index:09d}.jpg" if files is None else files[index]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _shard_paths(cache: Path, manifest: dict[str, Any]) -> list[Path]:
    count = -(-manifest["num_samples"] // manifest["per_shard"])
    return [cache / f"{number:06d}.tar" for number in range(count)]
