"""Pictures in plain .tar files, WebDataset's shards among them, with random access."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data.base import IMAGE_EXTENSIONS, DataError, digest
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.folder import class_folders
from keras_ssl.data.shards import ends_of, find_shards, locate, replacing, sidecar

_BLOCK = 512  # bytes; a tar file is made of such blocks
_INDEX_THREADS = 8  # building an index waits for the disk
_NO_CLASS = -1


class TarShard:
    """The pictures of one uncompressed .tar file, by number; safe to use from many threads.

    Counted are regular files with the endings of `FolderSource`, hidden ones left out, in the
    order of the archive. A member `KEY.cls` with an integer is the class of the pictures
    `KEY.<anything>`, as in WebDataset.

    Args:
        path: str or Path. The file.
        cache_dir: str, Path or None. Where the index is kept. None means next to the file as
            `<file>.index.npz`; if that cannot be written it is built again at every start.

    Raises:
        DataError: if the file is not a tar file, is cut short or is damaged between its members.
    """

    def __init__(self, path: str | Path, cache_dir: str | Path | None = None) -> None:
        self.path = Path(path)
        index = self._load_index(sidecar(self.path, ".index.npz", cache_dir))
        self.size = int(index["size"])
        self.offsets, self.sizes, self.labels = index["offsets"], index["sizes"], index["labels"]
        self._names, self._name_ends = index["names"], index["name_ends"]
        self.others = str(index["others"])

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> bytes:
        size = int(self.sizes[index])
        with self.path.open("rb", buffering=0) as file:
            file.seek(int(self.offsets[index]))
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.name(index)} is cut short in {self.path}")
        return data

    def name(self, index: int) -> str:
        """Returns the name of a picture in the archive."""
        start = int(self._name_ends[index - 1]) if index else 0
        raw = self._names[start : int(self._name_ends[index])].tobytes()
        return raw.decode("utf-8", "surrogateescape")

    def names(self) -> list[str]:
        """Returns the names of all pictures."""
        return [self.name(index) for index in range(len(self))]

    def digest(self) -> str:
        """Returns a digest of all names, places and classes."""
        columns = (self._names, self.offsets, self.sizes, self.labels)
        return digest([str(self.size), *(column.tobytes() for column in columns)])

    def _load_index(self, cache: Path) -> dict[str, np.ndarray]:
        status = self.path.stat()
        with contextlib.suppress(Exception):  # NumPy and zipfile raise several kinds
            if cache.stat().st_mtime >= status.st_mtime:
                with np.load(cache, allow_pickle=False) as stored:
                    index = dict(stored)
                if int(index["size"]) == status.st_size:
                    return index
        index = scan_tar(self.path)
        # In a read-only place it is built again next time.
        with contextlib.suppress(OSError), replacing(cache) as file:
            np.savez(file, **index)
        return index


class TarSource(EncodedSource):
    """The pictures of one or more .tar files, in the order of the sorted files.

    There are labels if every picture has a `.cls` member (classes are numbers without names), or
    if the names, without a folder that is common to all, are `class/picture` with at least two
    classes, as in `FolderSource`.

    Args:
        pattern: str. A file, folder or glob pattern; see `find_shards`.
        cache_dir: str, Path or None. See `TarShard`.
        **settings: see `EncodedSource`.

    Raises:
        DataError: if there are no such files, if one is compressed or damaged, or if they hold no
            pictures.
    """

    def __init__(
        self, pattern: str, *, cache_dir: str | Path | None = None, **settings: Any
    ) -> None:
        files, split = find_shards(pattern, "tar")
        with ThreadPool(min(_INDEX_THREADS, len(files))) as pool:
            shards = pool.map(lambda path: TarShard(path, cache_dir), files, chunksize=1)
        self._shards = [shard for shard in shards if len(shard)]
        if not self._shards:
            raise DataError(
                f"Expected files ending in {', '.join(IMAGE_EXTENSIONS)} in {files[0]}, but found "
                f"{shards[0].others or 'no files'}: choose an archive of pictures, or unpack the "
                "archives in it."
            )
        number = f"{len(files):,} tar file{'s' if len(files) != 1 else ''}"
        self.name = f"{number}{f' of {split}' if split else ''}"
        self._ends = ends_of(len(shard) for shard in self._shards)
        self._labels, self.class_names = _find_labels(self._shards)
        super().__init__(int(self._ends[-1]), **settings)

    @property
    def labels(self) -> np.ndarray | None:
        return self._labels

    def record(self, index: int) -> bytes:
        shard, row = locate(self._ends, index)
        return self._shards[shard][row]

    def record_name(self, index: int) -> str:
        shard, row = locate(self._ends, index)
        return f"{self._shards[shard].path}[{self._shards[shard].name(row)}]"

    def fingerprint(self) -> str:
        """Covers the files' names and sizes, and names, places and classes of all pictures."""
        return digest([f"{shard.path.name} {shard.digest()}" for shard in self._shards])

    def describe(self) -> str:
        return f"{self.name}: {super().describe()}"


def scan_tar(path: Path) -> dict[str, np.ndarray]:
    """Returns the index of a .tar file. Reads only the headers, and the `.cls` members.

    Returns:
        `offsets` and `sizes` int64 `(pictures,)` in bytes, `labels` int32 `(pictures,)` (-1 for
        none), `names` uint8 (UTF-8, joined) with `name_ends` int64 `(pictures,)`, `size` of the
        file, and `others`: what else it holds, for people.

    Raises:
        DataError: see `TarShard`.
    """
    pictures: list[tuple[str, int, int]] = []
    classes: dict[str, int] = {}
    others: Counter[str] = Counter()
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # TarFile would keep them all
                base = member.name.rsplit("/", 1)[-1]
                hidden = any(part.startswith(".") for part in member.name.split("/") if part != ".")
                if hidden or not member.isfile() or member.issparse():
                    continue
                if base.lower().endswith(IMAGE_EXTENSIONS):
                    pictures.append((member.name, member.offset_data, member.size))
                elif base.endswith(".cls"):
                    classes[_key(member.name)] = int(tar.extractfile(member).read(32))
                else:
                    others[os.path.splitext(base)[1].lower() or "no extension"] += 1
            _check_end(tar, path)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(
            f"Expected an uncompressed .tar file at {path}, but found {error}: if it is packed, "
            "unpack it, else copy it again."
        ) from error
    names = [name.encode("utf-8", "surrogateescape") for name, _, _ in pictures]
    return {
        "offsets": np.array([offset for _, offset, _ in pictures], np.int64),
        "sizes": np.array([size for _, _, size in pictures], np.int64),
        "labels": np.array(
            [classes.get(_key(name), _NO_CLASS) for name, _, _ in pictures], np.int32
        ),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": ends_of(len(name) for name in names),
        "size": np.array(path.stat().st_size, np.int64),
        "others": np.array(", ".join(f"{n} x {kind}" for kind, n in others.most_common(4))),
    }


def _check_end(tar: tarfile.TarFile, path: Path) -> None:
    """Raises if reading ended at something else than the end: `tarfile` stops there silently."""
    with path.open("rb") as file:
        file.seek(tar.offset)
        block = file.read(_BLOCK)
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"damage at byte {tar.offset:,}")


def _key(name: str) -> str:
    """Returns what the members of one WebDataset sample share: the path up to the name's first dot."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _find_labels(shards: Sequence[TarShard]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    labels = np.concatenate([shard.labels for shard in shards])
    if (labels != _NO_CLASS).all():
        return labels, ()
    names = [name.removeprefix("./") for shard in shards for name in shard.names()]
    if len({name.split("/", 1)[0] for name in names}) == 1:  # a folder that holds all
        names = [name.split("/", 1)[-1] for name in names]
    return class_folders(names)
