"""Files of the formats, made without torch, Haiku, Caffe or Python 2: what the readers are tried on."""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, read

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
DICT = b"\x80\x02}"  # an empty dictionary, open


def arrays(seed=0):
    """Returns three arrays of different element types and ranks."""
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(size=(4, 3, 3, 2)).astype(np.float32),
        "bn.running_var": rng.uniform(0.5, 2, 5).astype(np.float16),
        "steps": np.asarray(7, np.int64),
    }


def refused(path, match="Expected.*Received"):
    """Returns the message with which a file is refused: one short sentence and what was received."""
    with pytest.raises(CheckpointError, match=match) as raised:
        read(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 700
    return str(raised.value)


def text(value):
    """Pickle code of a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def entry(key, code):
    """Pickle code of one item of the dictionary below on the stack."""
    return text(key) + code + b"s"


def tensor(key, count, size, stride, offset=0, kind="FloatStorage", view=None):
    """Pickle code of a tensor, as torch 0.4 and later write it; with `view` as torch 0.1 to 1.5 do."""

    def number(n):
        return b"\x8a\x08" + struct.pack("<q", n)

    def numbers(ns):
        return b"(" + b"".join(map(number, ns)) + b"t"

    stored = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + number(count)
    )
    if view is not None:
        stored += (
            b"N"
            if view == "none"
            else b"(" + text(view[0]) + number(view[1]) + number(view[2]) + b"t"
        )
    stored += b"tQ"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + numbers(size) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def write_zip(
    path: Path, code: bytes, storages=None, compression=zipfile.ZIP_STORED, **members
) -> Path:
    """Writes a file of torch's zip format around the code of its pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", code)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def write_stream(path: Path, code: bytes, storages: dict[str, np.ndarray]) -> Path:
    """Writes a file of torch's format before 1.6 around the code of its pickle."""
    headers = [
        STREAM_MAGIC,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    ]
    content = b"".join(pickle.dumps(header, 2) for header in headers) + code
    content += pickle.dumps(list(storages), 2)
    for array in storages.values():
        content += struct.pack("<q", array.size) + array.tobytes()
    path.write_bytes(content)
    return path


def write_tar(path: Path, members: dict[str, bytes], kind=tarfile.REGTYPE, link="") -> Path:
    """Writes a tar archive."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mtime = kind, link, 1.5  # a fraction needs a PAX header
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def torch_tar_members(
    storage: np.ndarray, tensors: dict[int, tuple], code: bytes
) -> dict[str, bytes]:
    """Returns the four members of torch's first format: one storage of floats 10, half of it as storage 11.

    Args:
        storage: float32 array of rank 1.
        tensors: from key to (storage, sizes, strides, offset).
        code: the pickle, which names tensors by key.
    """
    kind = b"ctorch\nFloatStorage\n"
    storages = pickle.dumps(1, 2) + b"\x80\x02(K\x0a" + text("cpu") + kind + b"t."
    storages += struct.pack("<q", storage.size) + storage.tobytes()
    storages += pickle.dumps([(11, 10, storage.size // 2, storage.size - storage.size // 2)], 2)
    listed = pickle.dumps(len(tensors), 2)
    for key, (root, size, stride, offset) in tensors.items():
        listed += b"\x80\x02(K" + bytes([key]) + b"K" + bytes([root]) + b"ctorch\nFloatTensor\nt."
        listed += struct.pack(f"<q{len(size)}q{len(stride)}qq", len(size), *size, *stride, offset)
    system = pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2)
    return {"sys_info": system, "pickle": code, "storages": storages, "tensors": listed}


def write_caffemodel(
    path: Path, layers: dict[str, list[np.ndarray]], legacy=False, packed=True
) -> Path:
    """Writes a network of Caffe with Google's own protobuf library, from a description written afresh."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"caffe_{packed}.proto", package=f"p{packed}")
    fields = descriptor_pb2.FieldDescriptorProto
    layout = {
        "BlobShape": [("dim", 1, fields.TYPE_INT64, True, "")],
        "BlobProto": [
            *[
                (n, i + 1, fields.TYPE_INT32, False, "")
                for i, n in enumerate(("num", "channels", "height", "width"))
            ],
            ("data", 5, fields.TYPE_FLOAT, True, ""),
            ("shape", 7, fields.TYPE_MESSAGE, False, "BlobShape"),
        ],
        "Layer": [
            ("name", 1, 9, False, ""),
            ("type", 2, 9, False, ""),
            ("blobs", 7, 11, True, "BlobProto"),
        ],
        "OldLayer": [
            ("name", 4, 9, False, ""),
            ("type", 5, 5, False, ""),
            ("blobs", 6, 11, True, "BlobProto"),
        ],
        "Net": [
            ("name", 1, 9, False, ""),
            ("layers", 2, 11, True, "OldLayer"),
            ("layer", 100, 11, True, "Layer"),
        ],
    }
    for name, members in layout.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated, of in members:
            label = fields.LABEL_REPEATED if repeated else fields.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, type=kind, label=label)
            if of:
                made.type_name = f".p{packed}.{of}"
            elif repeated:
                made.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p{packed}.Net"))(
        name="CaffeNet"
    )
    for name, blobs in {"data": [], **layers}.items():
        layer = (net.layers if legacy else net.layer).add(name=name)
        for blob in blobs:
            made = layer.blobs.add(data=blob.ravel().tolist())
            if legacy:
                four = (1,) * (4 - blob.ndim) + blob.shape
                made.num, made.channels, made.height, made.width = four
            else:
                made.shape.dim.extend(blob.shape)
    path.write_bytes(net.SerializeToString())
    return path


@dataclasses.dataclass
class _Mapping:
    """Pickles as Haiku's mappings do: a class called with a dictionary."""

    items: dict

    def __reduce__(self):
        return sys.modules["haiku._src.data_structures"].FlatMapping, (self.items,)


def byol_pickle(params: dict, state: dict, protocol=4) -> bytes:
    """Returns the pickle of a BYOL run: the classes are made up, their names and the way they pickle are not."""
    from typing import NamedTuple

    class _ByolExperimentState(NamedTuple):
        online_params: object
        target_params: object
        online_state: object
        target_state: object
        opt_state: object

    class TraceState(NamedTuple):
        trace: object

    class FlatMapping:
        pass

    places = {
        "byol.byol_experiment": _ByolExperimentState,
        "haiku._src.data_structures": FlatMapping,
        "optax._src.transform": TraceState,
    }
    parents = ["byol", "haiku", "haiku._src", "optax", "optax._src"]
    assert not sys.modules.keys() & {*parents, *places}, "the real packages are in use"
    sys.modules.update({module: types.ModuleType(module) for module in [*parents, *places]})
    for module, cls in places.items():
        setattr(sys.modules[module], cls.__name__, cls)
        cls.__module__, cls.__qualname__ = module, cls.__name__
    try:
        wrapped = {name: _Mapping(values) for name, values in params.items()}
        experiment = _ByolExperimentState(
            _Mapping(wrapped),
            _Mapping(wrapped),
            _Mapping(state),
            _Mapping(state),
            TraceState(_Mapping(wrapped)),
        )
        rng = np.asarray([0, 42], np.uint32)
        return pickle.dumps({"experiment_state": experiment, "step": 1000, "rng": rng}, protocol)
    finally:
        for module in [*parents, *places]:
            del sys.modules[module]


def python2_pickle(blobs: dict[str, np.ndarray]) -> bytes:
    """Returns what Python 2's pickle of {"blobs": arrays} is: strings of bytes without a type of their own."""

    def string(value: bytes) -> bytes:
        return (
            b"U" + bytes([len(value)]) + value
            if len(value) < 256
            else b"T" + struct.pack("<i", len(value)) + value
        )

    code = b"\x80\x02}" + string(b"blobs") + b"}("
    for name, array in blobs.items():
        shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
        kind = (
            b"cnumpy\ndtype\n("
            + string(array.dtype.str[1:].encode())
            + b"K\0K\1tRq\1(K\3"
            + string(b"<")
        )
        kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        code += string(name.encode())
        code += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\0tU\1b\x87Rq\2"
        code += b"(K\1" + shape + kind + b"\x89" + string(array.tobytes()) + b"tb"
    return code + b"us."
