"""Caffe's `.caffemodel`: the wire format of protocol buffers, read by hand.

Field numbers after src/caffe/proto/caffe.proto of https://github.com/BVLC/caffe.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_ssl.checkpoints.errors import CheckpointError, shown

# Field of the layers in NetParameter -> fields of (name, blobs) in a layer; 2 is what Caffe wrote until 2014.
_LAYERS = {100: (1, 7), 2: (4, 6)}
_STARTS = (b"\x0a", b"\x12", b"\xa2\x06")  # name, legacy layer, layer
_OTHERS = (1, 3, 4, 5, 6, 7, 8)  # name, inputs and their shapes, flags


def looks_like_caffemodel(start: bytes) -> bool:
    """Returns whether a file may be a caffemodel, which has no magic number: a name or a layer comes first."""
    return start.startswith(_STARTS)


def read_caffemodel(data: mmap.mmap) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of each layer that has any, in Caffe's order: weight, bias, or a batch-norm's three.

    Shapes are as in the file: the legacy form always has the four axes num, channels, height, width.
    """
    tree: dict[str, list[np.ndarray]] = {}
    for field, kind, value in _fields(memoryview(data)):
        if field not in _LAYERS and field not in _OTHERS:
            raise CheckpointError(f"Expected a network of Caffe. Received: field {field} in it.")
        if field not in _LAYERS or kind != 2:
            continue
        name, blobs = _layer(value, *_LAYERS[field])
        if blobs and name in tree:
            raise CheckpointError(
                f"Expected layers of different names. Received: {shown(name)} twice."
            )
        if blobs:
            tree[name] = blobs
    if not tree:
        raise CheckpointError("Expected a network of Caffe with weights. Received: one without.")
    return tree


def _layer(message: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for field, kind, value in _fields(message):
        if kind == 2 and field == name_field:
            name = str(value, "utf-8")
        elif kind == 2 and field == blobs_field:
            blobs.append(value)
    return name, [_blob(blob, name) for blob in blobs]


def _blob(message: memoryview, layer: str) -> np.ndarray:
    """Fields of BlobProto: 1 to 4 are the legacy shape, 7 the shape, 5 float and 8 double elements."""
    legacy, shape = [1, 1, 1, 1], None
    parts: dict[int, list[memoryview | bytearray]] = {5: [], 8: []}
    for field, kind, value in _fields(message):
        if field in parts and kind == 2:
            parts[field].append(value)
        elif field in parts and kind == (
            5 if field == 5 else 1
        ):  # not packed: one element at a time
            if not parts[field] or not isinstance(parts[field][-1], bytearray):
                parts[field].append(bytearray())
            parts[field][-1] += value
        elif field == 7 and kind == 2:
            shape = _shape(value)
        elif 1 <= field <= 4 and kind == 0:
            legacy[field - 1] = value
    field, dtype = (8, "<f8") if parts[8] else (5, "<f4")
    data = parts[field][0] if len(parts[field]) == 1 else b"".join(parts[field])
    shape = tuple(legacy) if shape is None else shape
    if len(shape) > 32 or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise CheckpointError(
            f"Expected {shown(shape)} elements in the layer {shown(layer)}. Received: {len(data)} bytes."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _shape(message: memoryview) -> tuple[int, ...]:
    """Field 1 of BlobShape: the sizes, packed or one by one."""
    sizes: list[int] = []
    for field, kind, value in _fields(message):
        if field == 1 and kind == 0:
            sizes.append(value)
        elif field == 1 and kind == 2:
            position = 0
            while position < len(value):
                size, position = _varint(value, position)
                sizes.append(size)
    return tuple(sizes)


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yields (field, wire type, value) of a message: numbers of kind 0, bytes of kinds 1, 2 and 5."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield field, kind, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = struct.calcsize("<d" if kind == 1 else "<f")
        else:
            raise CheckpointError(
                f"Expected a message of protocol buffers. Received: wire type {kind}."
            )
        if not field or position + size > len(message):
            raise CheckpointError(
                "Expected a whole message of protocol buffers. Received: one that is cut off."
            )
        yield field, kind, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CheckpointError(
        "Expected a whole message of protocol buffers. Received: a number without end."
    )
