"""SimCLR's ResNets, version 1 and 2, with and without selective kernels: TF1 checkpoints and TF2 SavedModels."""

from __future__ import annotations

import functools
import os
import re
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_ssl.backbones import ResNet
from keras_ssl.checkpoints import tensorflow_files
from keras_ssl.conversion.engine import Array, Layout, Port
from keras_ssl.conversion.torchvision import checked_resnet

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # TensorFlow's name for the tensor that says how objects hang together
ENCODER = ("initial_conv_relu_max_pool", "block_groups")  # what only the encoder's object has
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
PARTS = {
    *("layers", "projection_layers", "conv_relu_dropblock_layers"),
    *("conv2d", "bn", "conv2d_fixed_padding", "batch_norm_relu", "batch_norm_relu_1"),
    *("conv2d_0", "conv2d_1", "kernel", *NORM),
}
DEEPEST = (
    8  # slashes in block_groups/0/layers/0/conv_relu_dropblock_layers/3/batch_norm_relu/bn/gamma
)


# Of TF1 files: where the trained encoder is and where its average, and the layout to take for a file with the other.
SCOPES = {"base_model/": "simclr_tf1_ema", "ema_model/base_model/": "simclr_tf1"}


class Unit(NamedTuple):
    """A convolution with its batch-norm, if it has one, and their paths in the authors' TF2 objects."""

    conv: Any
    norm: Any
    conv_path: str
    norm_path: str


def units(network: ResNet) -> list[Unit]:
    """Returns the convolutions in the order in which the authors' code makes them: a shortcut before its block."""
    found, pairs = [], list(zip(network.stem_convs, network.stem_norms, strict=True))
    for index, (conv, norm) in enumerate(pairs):
        after = 2 * index + (2 if index == len(pairs) - 1 else 1)  # a layer without weights comes
        path = "initial_conv_relu_max_pool"
        found.append(Unit(conv, norm, f"{path}/{2 * index}/conv2d", f"{path}/{after}/bn"))
    for stage, blocks in enumerate(network.stages):
        for index, block in enumerate(blocks):
            found += _block_units(block, f"block_groups/{stage}/layers/{index}")
    return found


def _block_units(block: Any, path: str) -> list[Unit]:
    found = []
    if block.shortcut_conv is not None:
        # Selective kernels: a mean over 2x2 comes first, and padding before it where the map is halved.
        first = (1 if block.stride == 1 else 2) if block.selective_kernels else 0
        keys = (
            f"{path}/projection_layers/{first}/conv2d",
            f"{path}/projection_layers/{first + 1}/bn",
        )
        found.append(Unit(block.shortcut_conv, block.shortcut_norm, *keys))
    place = 0
    for conv, norm in zip(block.convs, block.norms, strict=True):
        key = f"{path}/conv_relu_dropblock_layers/{place}"
        if norm is None:
            found += _selective_units(conv, key)
            place += 2  # itself and the drop-block that nothing uses
        else:
            key_of_norm = f"{path}/conv_relu_dropblock_layers/{place + 1}/bn"
            found.append(Unit(conv, norm, f"{key}/conv2d", key_of_norm))
            place += 3
    return found


def _selective_units(layer: Any, path: str) -> list[Unit]:
    streams = f"{path}/conv2d_fixed_padding/conv2d", f"{path}/batch_norm_relu/bn"
    squeeze = f"{path}/conv2d_0", f"{path}/batch_norm_relu_1/bn"
    return [
        Unit(layer.streams, layer.streams_norm, *streams),
        Unit(layer.squeeze, layer.squeeze_norm, *squeeze),
        Unit(layer.expand, None, f"{path}/conv2d_1", ""),
    ]


def norm_ports(norm: Any, key: str) -> list[Port]:
    """Returns the four ports of a batch-norm under TensorFlow's names; `key` without the last slash."""
    return [Port(f"{key}/{name}", getattr(norm, name)) for name in NORM]


def _tf1_ports(network: keras.Model) -> list[Port]:
    found, norms = [], 0
    for index, unit in enumerate(units(checked_resnet(network, "simclr", selective=True))):
        found.append(Port(f"base_model/{counted('conv2d', index)}/kernel", unit.conv.kernel))
        if unit.norm is not None:
            found += norm_ports(unit.norm, f"base_model/{counted('batch_normalization', norms)}")
            norms += 1
    return found


def _tf2_ports(network: keras.Model) -> list[Port]:
    found = []
    for unit in units(checked_resnet(network, "simclr", selective=True)):
        found.append(Port(f"{unit.conv_path}/kernel", unit.conv.kernel))
        if unit.norm is not None:
            found += norm_ports(unit.norm, unit.norm_path)
    return found


def counted(name: str, number: int) -> str:
    """Returns the name that TF1 gives to the layer `number` of a kind."""
    return f"{name}_{number}" if number else name


def _with_scope(tensors: dict[str, Array], scope: str) -> dict[str, Array]:
    """Returns TF1 tensors with those of the encoder in `scope` under `base_model/`, all others under `other/`.

    A file without any scope, as one whose prefix was removed, is taken as it is.

    Raises:
        ValueError: if the file has the other encoder only: the average for the trained one, or the reverse.
    """
    there = {name for name in SCOPES if any(key.startswith(name) for key in tensors)}
    if not there:
        return {_scoped(key): value for key, value in tensors.items()}
    if scope not in there:
        raise ValueError(
            f"Expected a SimCLR checkpoint with its encoder under {scope!r}. Received: one with "
            f"{there.pop()!r} only; take the layout {SCOPES[scope]!r} for that."
        )
    renamed = {}
    for key, value in tensors.items():
        inside = key.startswith(scope)
        renamed["base_model/" + key.removeprefix(scope) if inside else f"other/{key}"] = value
    return renamed


def _scoped(key: str) -> str:
    return f"base_model/{key}" if re.match(r"(conv2d|batch_normalization)(_\d+)?/", key) else key


def _by_object_path(tensors: dict[str, Array]) -> dict[str, Array]:
    """Returns TF2 tensors under their path from the encoder's object.

    A checkpoint names a variable by the shortest path from the root, which in these files may be its place in
    a list of all trainable variables. The object graph, which the checkpoint holds too, knows the other paths.
    """
    if GRAPH in tensors:
        return _from_graph(tensors)
    tail = re.compile(rf"(?:.*/)?((?:{'|'.join(ENCODER)})/.*?)(?:/\.ATTRIBUTES/VARIABLE_VALUE)?")
    matches = {key: tail.fullmatch(key) for key in tensors}
    return {match[1] if match else key: tensors[key] for key, match in matches.items()}


def _from_graph(tensors: dict[str, Array]) -> dict[str, Array]:
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        graph.ParseFromString(_bytes_of(tensors[GRAPH]))
    except Exception as error:  # protobuf's own class, which differs between its versions
        raise ValueError("Expected a whole object graph. Received: a damaged one.") from error
    children = [{child.local_name: child.node_id for child in n.children} for n in graph.nodes]
    roots = [
        index for index, named in enumerate(children) if all(name in named for name in ENCODER)
    ]
    if not roots:
        raise ValueError(
            "Expected a SimCLR checkpoint with an object that has `initial_conv_relu_max_pool` and "
            f"`block_groups`. Received: {len(children)} objects, none with both."
        )
    paths: dict[str, str] = {}  # key in the checkpoint -> path from the encoder

    def walk(node: int, path: str) -> None:
        for attribute in graph.nodes[node].attributes:
            paths[attribute.checkpoint_key] = path
        for name, child in children[node].items():
            if (name.isdigit() or name in PARTS) and path.count("/") < DEEPEST:
                walk(child, f"{path}/{name}")

    for name in ENCODER:
        walk(children[roots[0]][name], name)
    rest = {key: value for key, value in tensors.items() if key not in paths and key != GRAPH}
    return {**{path: tensors[key] for key, path in paths.items() if key in tensors}, **rest}


def _bytes_of(value: Any) -> bytes:
    """Returns the one string of a tensor; NumPy's own strings would lose the zeros at its end."""
    if isinstance(value, bytes):
        return value
    value = np.asarray(value)
    return value.tobytes() if value.dtype.kind == "S" else bytes(value.item())


def read_saved_model(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Returns the tensors of a TF2 SavedModel or object-based checkpoint for the layout `simclr_tf2`.

    Args:
        path: folder of the SavedModel, or prefix of a checkpoint.

    Returns:
        dict from the checkpoint's key to array of numbers; one more is the object graph.

    Raises:
        ValueError: if there is no whole SavedModel, or its variables claim more bytes than its data files have.
    """
    import tensorflow as tf

    path = os.fspath(path)
    prefix = os.path.join(path, "variables", "variables") if os.path.isdir(path) else path
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        keys = [key for key in shapes if tensorflow_files.numeric(dtypes[key])]
        tensorflow_files.check_sizes(prefix, keys, shapes, dtypes)
        keys += [GRAPH] if shapes.get(GRAPH) == [] else []
        return {key: reader.get_tensor(key) for key in keys}
    except (tf.errors.OpError, RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected a whole SavedModel at {path}. Received: {first}.") from error


LEFT_OUT_TF1 = (
    r"other/.*",
    r"(head_contrastive|head_supervised)/.*",
    r".*/(Momentum|Adam|Adam_1)",
    r"global_step|beta[12]_power",
)
LEFT_OUT_TF2 = (
    r"(.*/)?(_projection_head|supervised_head|optimizer|global_step|save_counter)(/.*)?",
    r"(.*/)?(trainable_variables_list|trainable_variables|variables|all_variables)/\d+(/.*)?",
    r"(.*/)?\.OPTIMIZER_SLOT/.*",
    GRAPH,
)

SIMCLR_TF1 = Layout(
    "simclr_tf1",
    _tf1_ports,
    left_out=LEFT_OUT_TF1,
    prepare=functools.partial(_with_scope, scope="base_model/"),
)
# The average of the encoder, if the file has one. No published entry takes it; that the scope is `ema_model/` is not
# verified.
SIMCLR_TF1_EMA = Layout(
    "simclr_tf1_ema",
    _tf1_ports,
    left_out=LEFT_OUT_TF1,
    prepare=functools.partial(_with_scope, scope="ema_model/base_model/"),
)
SIMCLR_TF2 = Layout("simclr_tf2", _tf2_ports, left_out=LEFT_OUT_TF2, prepare=_by_object_path)
