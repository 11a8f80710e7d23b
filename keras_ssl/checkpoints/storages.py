"""PyTorch's storages and the tensors that are views of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_ssl.checkpoints.dtypes import dtype_named
from keras_ssl.checkpoints.errors import CheckpointError, shown
from keras_ssl.checkpoints.values import Global, Opaque

MAX_EXPANSION = 1 << 20  # elements; tensors up to here may repeat elements of a smaller storage

# Element types by the class of the storage; the same names in torch, torch.cuda and torch.storage.
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of elements of one type: `data` holds `count` of them."""

    dtype: np.dtype
    data: memoryview
    count: int

    def part(self, offset: int, count: int) -> Storage:
        """Returns the elements from `offset` on, as the views of old files."""
        checked_count(offset), checked_count(count)
        if offset + count > self.count:
            raise CheckpointError(
                f"Expected a view inside its storage of {self.count} elements. "
                f"Received: {shown(count)} from {shown(offset)} on."
            )
        size = self.dtype.itemsize
        return Storage(self.dtype, self.data[offset * size : (offset + count) * size], count)


def storage_dtype(storage_type: Any) -> np.dtype:
    """Returns the element type of a storage class as a pickle names it."""
    name = storage_type.name if isinstance(storage_type, Global) else ""
    package, _, last = name.rpartition(".")
    if last not in STORAGES or package.split(".")[0] != "torch":
        raise CheckpointError(f"Expected a torch storage. Received: {shown(name or storage_type)}.")
    return dtype_named(STORAGES[last])


def checked_count(value: Any) -> int:
    """Returns a number that counts something, or raises `CheckpointError`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise CheckpointError(f"Expected a count. Received: {shown(value)}.")
    return value


def stored(dtype: np.dtype, count: Any, data: memoryview, name: str) -> Storage:
    """Returns the storage of `count` elements at the start of `data`, if they are all there."""
    if checked_count(count) * dtype.itemsize > len(data):
        raise CheckpointError(
            f"Expected {count} elements of {dtype} in the storage {shown(name)}. "
            f"Received: {len(data)} bytes; is the file cut off?"
        )
    return Storage(dtype, data[: count * dtype.itemsize], count)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """Returns the tensor that a storage, an offset, a size and strides in elements make: a read-only view."""
    if isinstance(storage, Opaque):  # first pass over an old file, in which storages come last
        return storage
    if not isinstance(storage, Storage):
        raise CheckpointError(f"Expected a storage. Received: {type(storage).__name__}.")
    shape = tuple(checked_count(n) for n in size)
    steps = tuple(checked_count(n) for n in stride)
    if len(shape) != len(steps) or len(shape) > 32:
        raise CheckpointError(
            f"Expected a stride for each axis. Received: {shown(shape)}, {shown(steps)}."
        )
    elements = math.prod(shape)
    last = checked_count(offset) + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if elements and last >= storage.count or elements > max(storage.count, MAX_EXPANSION):
        raise CheckpointError(
            f"Expected a tensor inside its storage of {storage.count} elements. Received: "
            f"shape {shown(shape)}, strides {shown(steps)}, offset {offset}."
        )
    item = storage.dtype.itemsize
    if not elements:
        return np.frombuffer(b"", storage.dtype).reshape(shape)
    flat = np.frombuffer(storage.data, storage.dtype)
    return np.lib.stride_tricks.as_strided(
        flat[offset:], shape, tuple(step * item for step in steps), writeable=False
    )


def rebuild_typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Any:
    """The same for a storage of bytes and an element type beside it, as torch saves its newer types."""
    if isinstance(storage, Storage):
        name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
        element = dtype_named(name)
        storage = Storage(element, storage.data, len(storage.data) // element.itemsize)
        storage = stored(element, storage.count, storage.data, name)
    return rebuild_tensor(storage, offset, size, stride)


def persistent_storage(key: Any) -> tuple[np.dtype, str, Any, Any] | None:
    """Returns (element type, key, count, view) of a persistent id, or None for one of a module."""
    if isinstance(key, tuple) and len(key) == 4 and key[0] == "module":
        return None
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise CheckpointError(
            f"Expected the persistent id of a storage. Received: {type(key).__name__}."
        )
    if not isinstance(key[2], (str, int)):
        raise CheckpointError(f"Expected the name of a storage. Received: {type(key[2]).__name__}.")
    return (
        storage_dtype(key[1]),
        str(key[2]),
        checked_count(key[4]),
        (key[5] if len(key) == 6 else None),
    )
