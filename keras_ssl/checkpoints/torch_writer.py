"""Writing files that `torch.load(weights_only=True)` reads, without torch: the zip format and its pickle by hand."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ssl.checkpoints.errors import CheckpointError, shown
from keras_ssl.checkpoints.files import written
from keras_ssl.checkpoints.safetensors import element_bytes
from keras_ssl.checkpoints.storages import STORAGES

_STORAGES = {name: storage for storage, name in STORAGES.items() if storage != "UntypedStorage"}
_ALIGNMENT = 64  # bytes, as torch does, so that a file can be mapped
_DATE = (1980, 1, 1, 0, 0, 0)  # the same tensors give the same file
_MAX_DEPTH = 50


def write_torch(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    extra: Mapping[str, Any] | None = None,
    *,
    key: str = "",
) -> None:
    """Writes arrays as a PyTorch checkpoint; an old file of that name is replaced only when the new one is whole.

    Args:
        path: str or path.
        tensors: mapping from name to array: float16, bfloat16, float32, float64, int8 to int64, uint8, bool or
            complex, any shape.
        extra: mapping. What stands beside the tensors at the top of the file: numbers, texts, None, and lists, tuples,
            dictionaries and arrays of them. Defaults to `None`.
        key: str. Dotted place of the tensors, for example `"state_dict"`. Defaults to `""`, the top.

    Raises:
        CheckpointError: for a value or an element type that such a file cannot hold.
    """
    tree: dict[str, Any] = dict(extra or {})
    place = tree
    for name in key.split(".") if key else []:
        place[name] = dict(place.get(name, {}))
        place = place[name]
    if doubled := place.keys() & tensors.keys():
        raise CheckpointError(
            f"Expected names of their own in extra. Received: {shown(sorted(doubled)[0])}."
        )
    place.update(tensors)
    pickle = _Pickle()
    pickle.object(tree)
    root = os.path.basename(os.fspath(path)).split(".")[0] or "archive"
    with written(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{root}/data.pkl", b"\x80\x02" + bytes(pickle.code) + b".")
        _add(archive, f"{root}/byteorder", b"little")
        for number, array in enumerate(pickle.arrays):
            _add(archive, f"{root}/data/{number}", element_bytes(_little_endian(array)))
        _add(archive, f"{root}/version", b"3\n")


def _little_endian(array: np.ndarray) -> np.ndarray:
    return (
        array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.kind != "V"
        else array
    )


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Adds a member whose content starts at a multiple of 64 bytes."""
    member = zipfile.ZipInfo(name, _DATE)
    member.external_attr = 0o644 << 16
    large = len(content) >= 1 << 31
    header = 30 + len(name.encode()) + 4 + (20 if large else 0)
    padding = -(archive.fp.tell() + header) % _ALIGNMENT
    member.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(member, "w", force_zip64=large) as target:
        target.write(content)


class _Pickle:
    """Pickle code of plain values and arrays; the arrays are collected, their elements stand outside."""

    def __init__(self):
        self.code, self.arrays = bytearray(), []

    def object(self, value: Any, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise CheckpointError(
                f"Expected values nested at most {_MAX_DEPTH} deep. Received: deeper ones."
            )
        if isinstance(value, Mapping):
            self.code += b"}("
            for name, item in value.items():
                self.object(name, depth + 1)
                self.object(item, depth + 1)
            self.code += b"u"
        elif isinstance(value, (list, tuple)):
            self.code += b"](" if isinstance(value, list) else b"("
            for item in value:
                self.object(item, depth + 1)
            self.code += b"e" if isinstance(value, list) else b"t"
        elif isinstance(value, np.ndarray):
            self._tensor(value)
        else:
            self._scalar(value)

    def _scalar(self, value: Any) -> None:
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or isinstance(value, bool):
            self.code += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            size = value.bit_length() // 8 + 1
            if size > 255:
                raise CheckpointError(
                    "Expected numbers of at most 255 bytes. Received: a longer one."
                )
            self.code += b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        elif isinstance(value, float):
            self.code += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass")
            self.code += b"X" + struct.pack("<I", len(text)) + text
        else:
            raise CheckpointError(
                "Expected arrays, numbers, texts, None, lists, tuples and dictionaries. "
                f"Received: {type(value).__name__}."
            )

    def _tensor(self, array: np.ndarray) -> None:
        """`_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`."""
        if array.dtype.name not in _STORAGES:
            raise CheckpointError(
                f"Expected one of {', '.join(_STORAGES)}. Received: {array.dtype}."
            )
        strides = [1]
        for size in array.shape[:0:-1]:
            strides.insert(0, strides[0] * size)
        self.code += b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
        self.code += f"ctorch\n{_STORAGES[array.dtype.name]}\n".encode()
        for part in (str(len(self.arrays)), "cpu", array.size):
            self._scalar(part)
        self.code += b"tQ"
        for part in (0, tuple(array.shape), tuple(strides[: array.ndim])):
            self.object(part)
        self.code += b"\x89ccollections\nOrderedDict\n)RtR"
        self.arrays.append(array)
