"""`read`: any of the supported files by what is in it, whatever it is called; `describe`: what is in it, in words."""

from __future__ import annotations

import dataclasses
import mmap
import os
from typing import Any

import numpy as np

from keras_ssl.checkpoints import torch_files
from keras_ssl.checkpoints.caffe import looks_like_caffemodel, read_caffemodel
from keras_ssl.checkpoints.errors import CheckpointError, shown, some
from keras_ssl.checkpoints.files import Archive, map_file
from keras_ssl.checkpoints.numpy_files import is_npz, read_npz, read_pickle
from keras_ssl.checkpoints.safetensors import looks_like_safetensors, read_safetensors
from keras_ssl.checkpoints.tensorflow_files import checkpoint_prefix, read_tensorflow
from keras_ssl.checkpoints.tree import check_tree, flatten, subtree
from keras_ssl.checkpoints.values import Opaque

_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(1, 6)) + (
    b"(d",
    b"(l",
    b"}q",
    b"ccollections\n",
)
_SUPPORTED = "a file of torch.save, safetensors, TensorFlow, NumPy, BYOL, Caffe or Caffe2"
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive; unpack it and give the file inside",
    b"Rar!": "a RAR archive; unpack it and give the file inside",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself",
    b"<": "a page of a web site; the download failed",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is in a checkpoint file.

    Attributes:
        path: str.
        container: str. `"torch-zip"`, `"torch-stream"`, `"torch-tar"`, `"safetensors"`, `"tensorflow"`, `"npz"`,
            `"byol-pickle"`, `"caffemodel"` or `"caffe2-pickle"`.
        tree: nested dictionaries of arrays and plain values. Arrays are read-only views of the file where it is not
            compressed: they cost memory when they are used, and the file must stay as it is until then. Objects
            of other libraries are `Opaque`: their name and what the file says, without their code.
    """

    path: str
    container: str
    tree: dict[str, Any]


def read(path: str | os.PathLike[str], *, key: str | None = None) -> Checkpoint:
    """Reads a checkpoint file of PyTorch, safetensors, TensorFlow, NumPy, BYOL, Caffe or Caffe2; runs nothing in it.

    Which format it is, is seen from the content. Pickles are read by a machine of our own that calls nothing but
    a short list of builders; sizes that a file claims are held against its length. TensorFlow's checkpoints are
    read by TensorFlow, which is imported for them alone.

    Args:
        path: str or path. A file; for TensorFlow also a prefix or a folder.
        key: str. Dotted place of the only part that is wanted, for example `"state_dict"`; of a TensorFlow
            checkpoint only the variables below that name are read. Defaults to `None`: all.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: a `ValueError`, if the file is damaged, of another kind, could run code, or has no such key.
    """
    path = os.fspath(path)
    if (prefix := checkpoint_prefix(path)) is not None:
        return Checkpoint(path, "tensorflow", read_tensorflow(prefix, key or ""))
    data = map_file(path)
    try:
        container, tree = _read_file(path, data)
    except CheckpointError as error:
        raise _at(error, path) from error
    except Exception as error:
        raise CheckpointError(
            f"Expected a whole checkpoint at {path}. Received: a damaged one "
            f"({type(error).__name__}: {shown(str(error))})."
        ) from error
    if key:
        part = subtree(tree, key)
        if not isinstance(part, dict):
            raise CheckpointError(
                f"Expected the key {key!r} in {path}. Received: the top keys {some(tree)}."
            )
        tree = part
    return Checkpoint(path, container, tree)


def _at(error: CheckpointError, path: str) -> CheckpointError:
    return error if path in str(error) else CheckpointError(f"{path}: {error}")


def _read_file(path: str, data: mmap.mmap) -> tuple[str, dict[str, Any]]:
    """Returns (container, tree) of a single file."""
    start = data[:512]
    if start.startswith(b"PK"):
        archive = Archive(path, data)
        if is_npz(archive):
            container, tree = "npz", read_npz(archive)
        elif torch_files.is_torch_zip(archive):
            container, tree = "torch-zip", torch_files.read_zip(archive)
        else:
            raise CheckpointError(
                f"Expected a zip of torch.save or numpy.savez. Received: one with {some(archive.members, 4)}."
            )
    elif start.startswith(torch_files.STREAM_START):
        container, tree = "torch-stream", torch_files.read_stream(data)
    elif start[257:262] == b"ustar":
        container, tree = "torch-tar", torch_files.read_tar(data)
    elif looks_like_safetensors(start):
        container, tree = "safetensors", read_safetensors(data)
    elif start.startswith(_PICKLE_STARTS):
        container, tree = read_pickle(data)
    elif kind := next(
        (kind for begin, kind in _OTHERS.items() if start.lstrip().startswith(begin)), None
    ):
        raise CheckpointError(f"Expected {_SUPPORTED}. Received: {kind}.")
    elif looks_like_caffemodel(start):
        container, tree = "caffemodel", read_caffemodel(data)
    else:
        raise CheckpointError(
            f"Expected {_SUPPORTED}. Received: one that starts with {start[:8]!r}."
        )
    return container, _as_tree(tree)


def _as_tree(tree: Any) -> dict[str, Any]:
    if isinstance(tree, Opaque):
        raise CheckpointError(
            f"Expected a dictionary of tensors. Received: an object of {tree.name!r}; save its state_dict()."
        )
    if not isinstance(tree, dict):
        raise CheckpointError(
            f"Expected a dictionary of tensors. Received: a {type(tree).__name__}."
        )
    check_tree(tree)
    return tree


def describe(path: str | os.PathLike[str], *, limit: int = 12) -> str:
    """Returns what is in a checkpoint file: its container, top keys, and the first tensors with their shapes.

    Args:
        path: str or path. As for `read`.
        limit: int. How many tensors to list. Defaults to `12`.

    Raises:
        CheckpointError: as `read`.
    """
    path = os.fspath(path)
    if (prefix := checkpoint_prefix(path)) is not None:
        checkpoint = Checkpoint(path, "tensorflow", read_tensorflow(prefix, values=False))
    else:
        checkpoint = read(path)
    tensors = flatten(checkpoint.tree)
    size = sum(array.nbytes for array in tensors.values())
    lines = [
        f"{checkpoint.path}: {checkpoint.container}, {len(tensors)} tensors, {size / 1e6:.1f} MB",
        "top keys: "
        + ", ".join(_top(name, value) for name, value in list(checkpoint.tree.items())[:limit]),
    ]
    if len(checkpoint.tree) > limit:
        lines[-1] += f" and {len(checkpoint.tree) - limit} more"
    listed = list(tensors.items())[:limit]
    width = max((len(name) for name, _ in listed), default=0)
    lines += [f"  {name:<{width}}  {array.dtype.name} {array.shape}" for name, array in listed]
    if len(tensors) > limit:
        lines.append(f"  and {len(tensors) - limit} more")
    return "\n".join(lines)


def _top(name: Any, value: Any) -> str:
    """Returns a top key and, for what is neither a tensor nor many, its value."""
    if isinstance(value, (dict, list, tuple)):
        return f"{name} ({len(value)})"
    if isinstance(value, (bool, int, float, str, np.generic)) and len(str(value)) <= 40:
        return f"{name}={value}"
    return str(name)
