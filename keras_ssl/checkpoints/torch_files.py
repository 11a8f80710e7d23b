"""Files of `torch.save`: the zip format, the stream before it and the tar archive before that; without torch.

Formats after torch/serialization.py and torch/_utils.py of PyTorch 2.13.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

from keras_ssl.checkpoints import storages
from keras_ssl.checkpoints.dtypes import in_native_order
from keras_ssl.checkpoints.errors import CheckpointError, shown, some
from keras_ssl.checkpoints.files import Archive
from keras_ssl.checkpoints.machine import Machine
from keras_ssl.checkpoints.names import find
from keras_ssl.checkpoints.values import Opaque

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
STREAM_START = b"\x80\x02\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little")
_TAR_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_MAX_PICKLE = 1 << 30  # bytes


def read_zip(archive: Archive) -> Any:
    """Returns the object of a zip file of torch 1.6 or later."""
    (pickle_name,) = [name for name in archive.members if _is_pickle(name)]
    root = pickle_name.removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") for name in archive.members):
        raise CheckpointError(
            "Expected a checkpoint of torch.save. Received: a TorchScript archive; save its state_dict()."
        )
    order = (
        bytes(archive.read(f"{root}byteorder")) if f"{root}byteorder" in archive.members else b""
    )
    if order.strip() not in (b"", b"little", b"big"):
        raise CheckpointError(f"Expected byteorder little or big. Received: {shown(order)}.")
    content = archive.read(pickle_name)
    if len(content) > _MAX_PICKLE:
        raise CheckpointError(f"Expected a pickle below 1 GiB. Received: {len(content)} bytes.")

    kept: dict[
        tuple[str, Any], memoryview
    ] = {}  # a compressed storage is unpacked once, however often it is named

    def persistent(key: Any) -> Any:
        if (parts := storages.persistent_storage(key)) is None:
            return key[1]
        dtype, name, count, _ = parts
        if (name, dtype) not in kept:
            data = archive.read(f"{root}data/{name}")
            kept[name, dtype] = in_native_order(data, dtype, order.strip() == b"big")
        return storages.stored(dtype, count, kept[name, dtype], name)

    return Machine(bytes(content), find, persistent).load()


def is_torch_zip(archive: Archive) -> bool:
    """Returns whether an archive has exactly one pickle at the place where torch keeps it."""
    return sum(_is_pickle(name) for name in archive.members) == 1


def _is_pickle(name: str) -> bool:
    return name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)


def read_stream(data: mmap.mmap) -> Any:
    """Returns the object of a stream of torch 0.1.10 to 1.5: three headers, the pickle, its keys, the storages."""
    position = 0
    headers = []
    for _ in range(3):
        value, position = _load(data, position)
        headers.append(value)
    if headers[:2] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
        raise CheckpointError(
            f"Expected magic number and protocol {PROTOCOL_VERSION}. Received: {shown(tuple(headers[:2]))}."
        )
    declared: dict[str, Any] = {}

    def declare(key: Any) -> Any:
        if (parts := storages.persistent_storage(key)) is None:
            return key[1]
        dtype, name, count, _ = parts
        if declared.setdefault(name, (dtype, count)) != (dtype, count):
            raise CheckpointError(f"Expected one size of the storage {name!r}. Received: two.")
        return Opaque("torch.Storage")

    # Where the storages are is known only after the pickle: it is read twice, first for their names and sizes.
    _, end = _load(data, position, declare)
    found = _stream_storages(data, end, declared)

    def fetch(key: Any) -> Any:
        if (parts := storages.persistent_storage(key)) is None:
            return key[1]
        _, name, _, view = parts
        return found[name] if view is None else found[name].part(*_view(view))

    return _load(data, position, fetch)[0]


def _stream_storages(
    data: mmap.mmap, position: int, declared: dict[str, Any]
) -> dict[str, storages.Storage]:
    """Returns the storages: after the list of their names, each with its number of elements."""
    names, position = _load(data, position)
    named = isinstance(names, list) and all(isinstance(name, (str, int)) for name in names)
    if not named or sorted(map(str, names)) != sorted(declared):
        raise CheckpointError(
            "Expected the list of all storages after the pickle. Received: another."
        )
    found = {}
    for name in map(str, names):
        dtype, count = declared[name]
        found[name], position = _storage_at(data, position, len(data), dtype, name)
        if found[name].count != count:
            raise CheckpointError(
                f"Expected {count} elements in {name!r}. Received: {found[name].count}."
            )
    return found


def _view(view: Any) -> tuple[int, int]:
    """Returns offset and count of the metadata (key, offset, count) of a view, in elements."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise CheckpointError(f"Expected a view of a storage. Received: {type(view).__name__}.")
    return view[1], view[2]


def _load(
    data: mmap.mmap, position: int, persistent: Any = None, end: int | None = None
) -> tuple[Any, int]:
    """Returns the object of the pickle at a place of the file, and where it ends."""
    machine = Machine(data, find, persistent, position, end)
    return machine.load(), machine.position


def _storage_at(data: mmap.mmap, position: int, end: int, dtype: Any, name: str) -> tuple[Any, int]:
    """Returns the storage that starts with its number of elements, eight bytes, and where it ends."""
    (count,) = _numbers(data, position, end, "<q")
    body = memoryview(data)[position + 8 : end]
    storage = storages.stored(dtype, count, body, name)
    return storage, position + 8 + count * dtype.itemsize


def _numbers(data: mmap.mmap, position: int, end: int, form: str) -> tuple[int, ...]:
    if position + struct.calcsize(form) > end:
        raise CheckpointError("Expected a whole file. Received: one that is cut off.")
    return struct.unpack_from(form, data, position)


# the tar archive ---------------------------------------------------------------------------------------------


def read_tar(data: mmap.mmap) -> Any:
    """Returns the object of an archive of torch before 0.1.10; its members are read where they are."""
    members = _tar_members(data)
    found = _tar_storages(data, *members["storages"])
    tensors = _tar_tensors(data, *members["tensors"], found)

    def persistent(key: Any) -> Any:
        if isinstance(key, tuple) and key:
            return key[0]
        return tensors[int(key)] if int(key) in tensors else found[int(key)]

    position, end = members["pickle"]
    return _load(data, position, persistent, end)[0]


def _tar_members(data: mmap.mmap) -> dict[str, tuple[int, int]]:
    """Returns where each member starts and ends; only plain files of the four expected names are accepted."""
    members: dict[str, tuple[int, int]] = {}
    position = 0
    while position + 512 <= len(data) and (header := data[position : position + 512]).strip(b"\0"):
        name = header[:100].rstrip(b"\0").decode("utf-8", "replace")
        kind = header[156:157]
        start, size = position + 512, int(header[124:136].strip(b"\0 ") or b"0", 8)
        if size < 0 or start + size > len(data):
            raise CheckpointError(f"Expected a whole archive. Received: {shown(name)}, cut off.")
        if kind not in (b"x", b"g"):  # headers that carry times and the like
            if kind not in (b"0", b"\0") or name not in _TAR_MEMBERS or name in members:
                raise CheckpointError(
                    f"Expected a tar archive of {some(_TAR_MEMBERS)}. Received: {shown(name)} in it; if it is a "
                    "pack of other files, unpack it and give the file."
                )
            members[name] = (start, start + size)
        position = start + -(-size // 512) * 512
    if missing := [name for name in _TAR_MEMBERS if name not in members]:
        raise CheckpointError(
            f"Expected a tar archive with {some(missing)}. Received: one without."
        )
    return members


def _tar_storages(data: mmap.mmap, position: int, end: int) -> dict[int, storages.Storage]:
    found: dict[int, storages.Storage] = {}
    count, position = _load(data, position, None, end)
    for _ in range(storages.checked_count(count)):
        (key, _, kind), position = _load(data, position, None, end)
        key = int(key)
        found[key], position = _storage_at(
            data, position, end, storages.storage_dtype(kind), str(key)
        )
    views, position = _load(data, position, None, end)
    for target, root, offset, size in views:
        found[int(target)] = found[int(root)].part(offset, size)
    return found


def _tar_tensors(
    data: mmap.mmap, position: int, end: int, found: dict[int, storages.Storage]
) -> dict[int, Any]:
    """Each tensor: (key, storage, class), number of axes in eight bytes, sizes, strides, offset."""
    tensors = {}
    count, position = _load(data, position, None, end)
    for _ in range(storages.checked_count(count)):
        (key, storage, _), position = _load(data, position, None, end)
        (axes,) = _numbers(data, position, end, "<i")
        if not 0 <= axes <= 32:
            raise CheckpointError(f"Expected at most 32 axes. Received: {axes}.")
        size = _numbers(data, position + 8, end, f"<{axes}q")
        stride = _numbers(data, position + 8 + 8 * axes, end, f"<{axes}q")
        (offset,) = _numbers(data, position + 8 + 16 * axes, end, "<q")
        tensors[int(key)] = storages.rebuild_tensor(found[int(storage)], offset, size, stride)
        position += 16 + 16 * axes
    return tensors
