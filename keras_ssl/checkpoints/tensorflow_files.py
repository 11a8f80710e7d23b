"""TensorFlow's checkpoints, read by TensorFlow's own reader; the only files here that need it."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_ssl import env
from keras_ssl.checkpoints.errors import CheckpointError, shown, some

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def checkpoint_prefix(path: str) -> str | None:
    """Returns the prefix of the TensorFlow checkpoint that a path names, or None.

    Args:
        path: str. The `.index` file, the prefix, or a folder: that of a SavedModel, one whose file `checkpoint`
            names the latest, or one with a single `.index` file.
    """
    if path.endswith(".index") and os.path.isfile(path):
        return path.removesuffix(".index")
    if os.path.isfile(f"{path}.index"):
        return path
    if not os.path.isdir(path):
        return None
    if os.path.isfile(os.path.join(path, "variables", "variables.index")):
        return os.path.join(path, "variables", "variables")
    found = sorted(glob.glob(os.path.join(glob.escape(path), "*.index")))
    if os.path.isfile(os.path.join(path, "checkpoint")):
        tf = _tensorflow()
        latest = tf.train.latest_checkpoint(path)
        # A file may name any path; only what lies in the folder is read.
        if latest and f"{os.path.join(path, os.path.basename(latest))}.index" in found:
            return os.path.join(path, os.path.basename(latest))
    if len(found) != 1:
        raise CheckpointError(
            f"Expected a folder with one checkpoint at {path}. Received: {len(found)} .index files: "
            f"{some(os.path.basename(name) for name in found)}; name one of them."
        )
    return found[0].removesuffix(".index")


def read_tensorflow(prefix: str, key: str = "", *, values: bool = True) -> dict[str, Any]:
    """Returns the numeric variables of a checkpoint by name, for example `base_model/conv2d/kernel`.

    TensorFlow 2 stores variables by the path of attributes that leads to them, and their names beside them. The
    names are used if each variable has its own; if not, the paths are.

    Args:
        prefix: str. Path without `.index`.
        key: str. Only variables below this name are read, and it is cut off theirs. Defaults to all.
        values: bool. Without them, arrays of the right shapes that take no memory. Defaults to `True`.
    """
    tf = _tensorflow()
    below = key.strip("/") + "/" if key else ""
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        keys = _keys_by_name(reader, [key for key in shapes if numeric(dtypes[key])])
        chosen = {name: keys[name] for name in sorted(keys) if name.startswith(below)}
        check_sizes(prefix, chosen.values(), shapes, dtypes)
        if not chosen:
            raise CheckpointError(
                f"Expected variables below {shown(key)}. Received: {some(sorted(keys))}."
            )
        return {
            name.removeprefix(below): np.asarray(reader.get_tensor(stored))
            if values
            else np.broadcast_to(np.zeros((), dtypes[stored].as_numpy_dtype), shapes[stored])
            for name, stored in chosen.items()
        }
    except (tf.errors.OpError, RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"Expected a whole TensorFlow checkpoint at {prefix}. Received: {shown(first, 200)}."
        ) from error


def check_sizes(
    prefix: str,
    names: Iterable[str],
    shapes: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, Any],
) -> None:
    """Raises `CheckpointError` if numeric variables, each or all, claim more bytes than the data files have."""
    size = sum(os.path.getsize(name) for name in glob.glob(f"{glob.escape(prefix)}.data-*"))
    total = 0
    for name in names:
        claimed = math.prod(shapes[name]) * dtypes[name].size
        if claimed > size:
            raise CheckpointError(
                f"Expected {shown(tuple(shapes[name]))} elements of {shown(name)}. Received: data of {size} bytes."
            )
        total += claimed
    if total > size:
        raise CheckpointError(
            f"Expected {total} bytes, which the variables take together. Received: data of {size} bytes."
        )


def _keys_by_name(reader: Any, keys: list[str]) -> dict[str, str]:
    """Returns the key of each variable by its name, or by the key itself where names are missing or shared."""
    if reader.get_variable_to_shape_map().get(_OBJECT_GRAPH) != []:  # none, or not one string
        return {key: key for key in keys}
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH))
    except Exception as error:  # protobuf's own class, which differs between its versions
        raise CheckpointError("Expected a whole object graph. Received: a damaged one.") from error
    names = {
        attribute.checkpoint_key: attribute.full_name
        for node in graph.nodes
        for attribute in node.attributes
    }
    named = {names.get(key): key for key in keys if names.get(key)}
    unnamed = {key: key for key in keys if not names.get(key)}  # such as the counter of saves
    if len(named) + len(unnamed) != len(keys) or named.keys() & unnamed.keys():
        return {key: key for key in keys}
    return {**named, **unnamed}


def _tensorflow() -> Any:
    env.import_tensorflow_quietly()
    import tensorflow as tf

    return tf


def numeric(dtype: Any) -> bool:
    """Returns whether a TensorFlow type is one of numbers."""
    return dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex
