"""What sources of several files share: finding the files, numbering their records, keeping an index."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from keras_ssl.data.base import DataError

# What the files of each kind are called; in a pattern that somebody wrote, any name counts.
KINDS = {
    "tfrecord": re.compile(r"\.tfrecords?(-\d+-of-\d+)?$|-\d+-of-\d+$", re.IGNORECASE),
    "tar": re.compile(r"\.tar$", re.IGNORECASE),
    "parquet": re.compile(r"\.parquet$", re.IGNORECASE),
}
_PACKED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)
_SIDECARS = (".offsets.npy", ".index.npz")
_TEXTS = (".csv", ".json", ".jsonl", ".md", ".txt", ".yaml", ".yml", "LICENSE", "README")
_SPLIT = re.compile(r"(?:^|[-_.])(train|test|validation|valid|val|dev)(?=[-_.])", re.IGNORECASE)


def find_shards(pattern: str, kind: str) -> tuple[list[Path], str]:
    """Finds the files of a set.

    Args:
        pattern: str. A file, a folder (its files of that kind, at any depth), or a glob pattern
            such as `/data/train-*` (all files that match, whatever they are called).
        kind: str. One of `KINDS`.

    Returns:
        The files in sorted order, and a split's name or "". Files of a folder that carry the names
        of several splits (`train-00000.parquet`, `test-00000.parquet`) are those of `train`.

    Raises:
        DataError: if there are none, if they are packed, or if the splits have no `train`.
    """
    pattern = str(Path(pattern).expanduser())
    folder, split = Path(pattern), ""
    if folder.is_file():
        files = [folder]
    elif folder.is_dir():
        paths = (Path(name) for name in _walk(folder))
        files = sorted(path for path in paths if _is_kind(path, kind) or _is_packed(path, kind))
    else:
        found = (Path(name) for name in glob.glob(pattern, recursive=True))
        files = sorted(
            path for path in found if path.is_file() and not path.name.endswith(_SIDECARS)
        )
    if not files:
        raise DataError(
            f"Expected {kind} files at {pattern}, but found none: give a file, a folder or a "
            "pattern in quotes, such as 'DIR/train-*'."
        )
    packed = [path for path in files if _is_packed(path, kind)]
    if packed:
        raise DataError(
            f"Expected an uncompressed .tar file, but found {packed[0]}: a packed archive has no "
            "random access, so unpack it to a .tar or a folder."
        )
    if folder.is_dir():
        files, split = _one_split(files, folder)
    return files, split


def kind_of(path: str) -> str | None:
    """Returns the kind of what lies at a path, file, folder or pattern; None if it is none of ours.

    A folder is of a kind if it holds files of that kind, at any depth, and nothing else but texts
    and hidden files.
    """
    place = Path(path)
    if not place.is_dir():
        if place.is_file() and _PACKED.search(path):
            return "tar"  # refused there, with the reason
        return next((kind for kind, name in KINDS.items() if name.search(path)), None)
    kinds: set[str | None] = set()
    for name in _walk(place):
        kinds.add(next((kind for kind, pattern in KINDS.items() if pattern.search(name)), None))
        if None in kinds:  # the first picture ends it
            return None
    return kinds.pop() if len(kinds) == 1 else None


def ends_of(counts: Iterable[int]) -> np.ndarray:
    """Returns int64 `(shards,)`: the number of the first record after each shard."""
    return np.cumsum(np.fromiter(counts, np.int64))


def locate(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Returns the shard of a record and its row there."""
    shard = int(np.searchsorted(ends, index, side="right"))
    return shard, index - (int(ends[shard - 1]) if shard else 0)


def sidecar(path: Path, suffix: str, cache_dir: str | Path | None) -> Path:
    """Returns where the index of a file is kept: next to it, or in `cache_dir`."""
    if cache_dir is None:
        return path.with_name(path.name + suffix)
    place = hashlib.sha256(str(path.resolve().parent).encode("utf-8", "surrogateescape"))
    return Path(cache_dir) / f"{path.name}.{place.hexdigest()[:8]}{suffix}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to write that becomes `path` when it is whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other hosts may write to the same folder, and may have a process of this number too.
    partial = path.with_name(f".{secrets.token_hex(6)}-{path.name}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _walk(folder: Path) -> Iterator[str]:
    """Yields the paths of files below a folder as they come, but for hidden ones and texts."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            beside = name.startswith(".") or name.endswith(_SIDECARS) or name in _TEXTS
            if not beside and os.path.splitext(name)[1].lower() not in _TEXTS:
                yield os.path.join(root, name)


def _is_kind(path: Path, kind: str) -> bool:
    return KINDS[kind].search(path.name) is not None


def _is_packed(path: Path, kind: str) -> bool:
    return kind == "tar" and _PACKED.search(path.name) is not None


def _one_split(files: Sequence[Path], folder: Path) -> tuple[list[Path], str]:
    """Returns the files of `train` if the names tell of several splits, else all."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        named = _SPLIT.search(path.name)
        splits.setdefault(named[1].lower() if named else "", []).append(path)
    if len(splits) == 1 or "" in splits:
        return list(files), ""
    if "train" not in splits:
        raise DataError(
            f"Expected files of one split in {folder}, but found {', '.join(sorted(splits))}: "
            f"choose with a pattern such as '{folder}/{sorted(splits)[0]}-*'."
        )
    return splits["train"], "train"
