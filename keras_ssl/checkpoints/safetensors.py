"""The safetensors format: eight bytes of length, a JSON header, the elements of all tensors one after the other.

Format after the specification in the README of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_ssl.checkpoints.dtypes import dtype_named
from keras_ssl.checkpoints.errors import CheckpointError, shown
from keras_ssl.checkpoints.files import written
from keras_ssl.checkpoints.storages import checked_count

MAX_HEADER = 100_000_000  # bytes, as in the reference implementation
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
_NAMES = {name: code for code, name in DTYPES.items()}


def looks_like_safetensors(start: bytes) -> bool:
    """Returns whether a file that starts so has a JSON header after a length below 2^48."""
    return len(start) > 8 and start[8:9] == b"{" and start[6:8] == b"\0\0"


def read_safetensors(data: mmap.mmap) -> dict[str, Any]:
    """Returns the tensors by name as views of the file, and `__metadata__` if there is any."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"Expected a header of at most {min(MAX_HEADER, len(data) - 8)} bytes. Received: one that "
            f"claims {length}; is the file cut off?"
        )
    header = _header(data[8 : 8 + length])
    metadata = header.pop("__metadata__", None)
    body = memoryview(data)[8 + length :]
    tree = {name: _tensor(name, entry, body) for name, entry in header.items()}
    _check_contiguous(header, len(body))
    return tree if metadata is None else {**tree, "__metadata__": _texts(metadata)}


def _header(text: bytes) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise CheckpointError("Expected each name once in the header. Received: one twice.")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=once)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            "Expected a header of JSON. Received: one that is damaged."
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"Expected a JSON object. Received: {type(header).__name__}.")
    return header


def _texts(metadata: Any) -> dict[str, str]:
    texts = metadata.values() if isinstance(metadata, dict) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise CheckpointError(
            "Expected __metadata__ from texts to texts. Received: something else."
        )
    return metadata


def _tensor(name: str, entry: Any, body: memoryview) -> np.ndarray:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"Expected dtype, shape and data_offsets of {shown(name)}. Received: other fields."
        )
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise CheckpointError(f"Expected a known dtype of {shown(name)}. Received: {shown(code)}.")
    if (
        not isinstance(shape, list)
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or len(shape) > 32
    ):
        raise CheckpointError(
            f"Expected a shape and two offsets of {shown(name)}. Received: other values."
        )
    dtype = dtype_named(DTYPES[code])
    start, stop = (checked_count(offset) for offset in offsets)
    size = math.prod(checked_count(axis) for axis in shape) * dtype.itemsize
    if not start <= stop <= len(body) or stop - start != size:
        raise CheckpointError(
            f"Expected {size} bytes of {shown(name)} inside the file. Received: offsets {shown(tuple(offsets))} in "
            f"{len(body)} bytes; is the file cut off?"
        )
    return np.frombuffer(body[start:stop], dtype).reshape(shape)


def _check_contiguous(header: Mapping[str, Any], size: int) -> None:
    end = 0
    for start, stop in sorted(tuple(entry["data_offsets"]) for entry in header.values()):
        if start != end:
            raise CheckpointError(
                f"Expected tensors without holes or overlap. Received: one at {start} after {end}."
            )
        end = stop
    if end != size:
        raise CheckpointError(f"Expected {end} bytes of tensors. Received: {size}.")


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays as a safetensors file; an old file of that name is replaced only when the new one is whole.

    Args:
        path: str or path.
        tensors: mapping from name to array of any shape; float, integer, bool or complex64.
        metadata: mapping from text to text, kept as the header's `__metadata__`. Defaults to `None`.

    Raises:
        CheckpointError: if an element type has no name in the format or the metadata are no texts.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": _texts(dict(metadata))}
    arrays, end = {}, 0
    # Largest elements first, as the reference implementation does, so that every tensor is aligned.
    for name in sorted(tensors, key=lambda name: (-np.asarray(tensors[name]).dtype.itemsize, name)):
        array = _little_endian(np.asarray(tensors[name]))
        if name == "__metadata__" or array.dtype.name not in _NAMES:
            raise CheckpointError(
                f"Expected tensors of known types. Received: {shown(name)}, {array.dtype}."
            )
        arrays[name] = array
        offsets = [end, end + array.nbytes]
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with written(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(element_bytes(array))


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def element_bytes(array: np.ndarray) -> memoryview:
    """Returns an array's elements in C order as bytes, without a copy if they are so already."""
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
