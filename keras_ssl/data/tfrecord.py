"""Random access to TFRecord files through an index of byte offsets.

A TFRecord file is a chain of records: length (uint64), checksum of the length (uint32), data,
checksum of the data (uint32), all little-endian. The index is the list of record starts.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np

from keras_ssl.data.base import DataError
from keras_ssl.data.shards import replacing, sidecar

_HEADER, _FOOTER = 12, 4
_GZIP, _ZLIB = b"\x1f\x8b\x08", 0x78  # first bytes, RFC 1952 and RFC 1950
_UNPACK = "a compressed file has no random access, so write it again without compression"


class TFRecordShard:
    """One uncompressed TFRecord file, read by record number; safe to use from many threads.

    Args:
        path: str or Path. The file.
        cache_dir: str, Path or None. Where the index is kept. None means next to the file as
            `<file>.offsets.npy`; if that cannot be written it is built again at every start.

    Raises:
        DataError: if the file is missing, ends inside a record or is not a TFRecord file.
    """

    def __init__(self, path: str | Path, cache_dir: str | Path | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                f"Expected a TFRecord file at {self.path}, but found nothing there: the data set "
                "is incomplete, prepare it again."
            )
        self.starts = self._load_index(sidecar(self.path, ".offsets.npy", cache_dir))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> bytes:
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        with self.path.open("rb") as file:
            file.seek(start)
            framed = file.read(end - start)
        length = end - start - _HEADER - _FOOTER
        if len(framed) != end - start or struct.unpack_from("<Q", framed)[0] != length:
            raise OSError(f"record {index} of {self.path} is not where its index says")
        return framed[_HEADER:-_FOOTER]

    def _load_index(self, cache: Path) -> np.ndarray:
        status = self.path.stat()
        with contextlib.suppress(OSError, ValueError, EOFError):
            if cache.stat().st_mtime >= status.st_mtime:
                starts = np.load(cache, allow_pickle=False)
                if starts[-1] == status.st_size:
                    return starts
        starts = scan_offsets(self.path)
        # In a read-only place it is built again next time.
        with contextlib.suppress(OSError), replacing(cache) as file:
            np.save(file, starts)
        return starts


def scan_offsets(path: Path) -> np.ndarray:
    """Returns int64 `(records + 1,)`: where each record starts, and the file's size.

    Reads only the headers.

    Raises:
        DataError: if the chain of records does not end exactly at the end of the file.
    """
    size = path.stat().st_size
    starts = [0]
    with path.open("rb", buffering=0) as file:
        while starts[-1] < size:
            file.seek(starts[-1])
            header = file.read(_HEADER)
            length = struct.unpack_from("<Q", header)[0] if len(header) == _HEADER else size
            starts.append(starts[-1] + _HEADER + length + _FOOTER)
    if starts[-1] != size:
        reason, advice = _advice(path)
        raise DataError(
            f"Expected an uncompressed TFRecord file at {path}, but its record {len(starts) - 2:,} "
            f"does not fit in the file's {size:,} bytes: {reason}; {advice}."
        )
    return np.array(starts, np.int64)


def _advice(path: Path) -> tuple[str, str]:
    """Returns what a file that is no chain of records seems to be, and what to do."""
    with path.open("rb") as file:
        first = file.read(3)
    if first == _GZIP:
        return "it is GZIP-compressed", _UNPACK
    if len(first) > 1 and first[0] == _ZLIB and int.from_bytes(first[:2], "big") % 31 == 0:
        return "it is ZLIB-compressed", _UNPACK
    return "it is cut short or of another format", "copy or prepare it again"
