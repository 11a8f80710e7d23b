"""Files mapped into memory, zip archives whose stored members are views, and writing that is all or nothing."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from typing import IO

from keras_ssl.checkpoints.errors import CheckpointError, shown

MAX_RATIO = 200  # of a compressed member; weights compress little
_SMALL = 1 << 20  # bytes; members up to here may compress better
_LOCAL_HEADER = "<4s22xHH"


def map_file(path: str) -> mmap.mmap:
    """Returns a file's bytes, mapped and read-only."""
    if not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "no file of that name"
        raise CheckpointError(f"Expected a checkpoint file at {path}. Received: {kind}.")
    if os.path.getsize(path) == 0:
        raise CheckpointError(f"Expected a checkpoint file at {path}. Received: an empty file.")
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Archive:
    """A zip archive; nothing is extracted, and what is stored without compression is a view of the file.

    Args:
        path: str.
        data: mmap. The file's bytes.
    """

    def __init__(self, path: str, data: mmap.mmap):
        self.path, self.data = path, data
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        self.members = {member.filename: member for member in members}
        if len(self.members) != len(members):
            raise CheckpointError("Expected members of different names. Received: a name twice.")
        unpacked = sum(m.file_size for m in members if m.compress_type != zipfile.ZIP_STORED)
        if unpacked > max(MAX_RATIO * len(data), _SMALL):
            raise CheckpointError(
                f"Expected weights. Received: an archive of {len(data)} bytes that would unpack to {unpacked}."
            )

    def read(self, name: str) -> memoryview:
        """Returns the bytes of a member."""
        member = self.members.get(name)
        if member is None:
            raise CheckpointError(
                f"Expected a member {shown(name)}. Received: an archive without it."
            )
        if member.flag_bits & 1:
            raise CheckpointError(f"Expected no encryption. Received: {shown(name)}, encrypted.")
        if member.compress_type == zipfile.ZIP_STORED:
            return self._stored(member)
        limit = max(MAX_RATIO * member.compress_size, _SMALL)
        if member.file_size > limit:
            raise CheckpointError(
                f"Expected weights. Received: {shown(name)}, {member.compress_size} bytes that claim "
                f"to unpack to {member.file_size}."
            )
        with zipfile.ZipFile(self.path) as archive, archive.open(member) as file:
            content = file.read(member.file_size)
        if len(content) != member.file_size:
            raise CheckpointError(
                f"Expected {member.file_size} bytes in {shown(name)}. Received: fewer."
            )
        return memoryview(content)

    def _stored(self, member: zipfile.ZipInfo) -> memoryview:
        offset = member.header_offset
        size = struct.calcsize(_LOCAL_HEADER)
        signature, name, extra = struct.unpack(_LOCAL_HEADER, self.data[offset : offset + size])
        start = offset + size + name + extra
        stop = start + member.file_size
        if (
            signature != b"PK\3\4"
            or member.compress_size != member.file_size
            or stop > len(self.data)
        ):
            raise CheckpointError(
                f"Expected a whole archive. Received: one whose member {shown(member.filename)} is not all there."
            )
        return memoryview(self.data)[start:stop]


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Yields a file that takes the place of `path` when the block ends well, and vanishes if it does not."""
    path = os.path.abspath(os.fspath(path))
    folder = os.path.dirname(path)
    scratch = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}.part")
    try:
        with open(scratch, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(scratch)
        raise
    if os.name == "posix":
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
