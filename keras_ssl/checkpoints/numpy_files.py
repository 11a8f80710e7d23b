"""NumPy's `.npz` archives, and the pickles of arrays of BYOL and Caffe2."""

from __future__ import annotations

import io
import math
import mmap
from typing import Any

import numpy as np

from keras_ssl.checkpoints.errors import CheckpointError, shown, some
from keras_ssl.checkpoints.files import Archive
from keras_ssl.checkpoints.machine import Machine
from keras_ssl.checkpoints.names import find
from keras_ssl.checkpoints.values import Opaque

# The fields of the state that BYOL's authors pickle, in their order (byol/byol_experiment.py).
BYOL_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")
_MAX_HEADER = 10_000  # bytes of an array's description


def is_npz(archive: Archive) -> bool:
    """Returns whether all members are arrays."""
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def read_npz(archive: Archive) -> dict[str, np.ndarray]:
    """Returns the arrays by name, as views of the file where they are not compressed."""
    return {name.removesuffix(".npy"): _array(name, archive.read(name)) for name in archive.members}


def _array(name: str, content: memoryview) -> np.ndarray:
    start = io.BytesIO(content[: _MAX_HEADER + 64])
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise CheckpointError(
            f"Expected .npy version 1 or 2. Received: {version} in {shown(name)}."
        )
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(start, max_header_size=_MAX_HEADER)
    body = content[start.tell() :]
    if dtype.hasobject or not dtype.itemsize:
        raise CheckpointError(
            f"Expected numbers in {shown(name)}. Received: {shown(str(dtype))}, which only pickle can read."
        )
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise CheckpointError(
            f"Expected {shown(shape)} elements of {shown(str(dtype))} in {shown(name)}. Received: {len(body)} bytes."
        )
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_pickle(data: mmap.mmap) -> tuple[str, dict[str, Any]]:
    """Returns (container, tree) of a pickle that has no storages of torch: BYOL's or Caffe2's."""
    tree = Machine(data, find).load()
    if isinstance(tree, dict) and "experiment_state" in tree:
        return "byol-pickle", {**tree, "experiment_state": _named(tree["experiment_state"])}
    if isinstance(tree, dict) and isinstance(tree.get("blobs"), dict):
        return "caffe2-pickle", tree
    held = f"the keys {some(tree)}" if isinstance(tree, dict) else f"a {type(tree).__name__}"
    raise CheckpointError(
        f"Expected a pickle with 'experiment_state' (BYOL) or 'blobs' (Caffe2). Received: {held}."
    )


def _named(state: Any) -> dict[str, Any]:
    """Returns the fields of BYOL's state by name."""
    if isinstance(state, dict):
        return state
    if not isinstance(state, Opaque) or len(state.args) != len(BYOL_FIELDS):
        raise CheckpointError(
            f"Expected an experiment_state of {len(BYOL_FIELDS)} fields. Received: {shown(state)}."
        )
    return dict(zip(BYOL_FIELDS, state.args, strict=True))
