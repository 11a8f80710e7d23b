"""Moving weights between a checkpoint in somebody else's layout and a network of ours, both ways.

A layout is a table: which tensor of the checkpoint is which variable of the network, and how its axes are turned. The
engine here does the accounting: every tensor is used once or named as left out, every variable is filled once, and
nothing is assigned before all of it fits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

Array = np.ndarray
Tensors = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Turn:
    """How a tensor's axes change on the way in (`to_keras`) and on the way out (`to_source`)."""

    to_keras: Callable[[Array], Array]
    to_source: Callable[[Array], Array]


def axes(*order: int) -> Turn:
    """Returns the turn that transposes: axis i of the variable is axis `order[i]` of the checkpoint's tensor."""
    return Turn(lambda x: x.transpose(order), lambda x: x.transpose(np.argsort(order)))


def shaped(source: Sequence[int], target: Sequence[int]) -> Turn:
    """Returns the turn that reshapes between the checkpoint's shape and the variable's."""
    return Turn(lambda x: x.reshape(target), lambda x: x.reshape(source))


SAME = Turn(lambda x: x, lambda x: x)
CONVOLUTION = axes(
    2, 3, 1, 0
)  # (out, in / groups, height, width) -> (height, width, in / groups, out)
DEPTHWISE = axes(2, 3, 0, 1)  # (channels, 1, height, width) -> (height, width, channels, 1)
DENSE = axes(1, 0)  # (out, in) -> (in, out)


@dataclasses.dataclass(frozen=True)
class Port:
    """One tensor of the checkpoint and the variable that it fills.

    Args:
        key: str. Name of the tensor, prefixes removed.
        variable: keras.Variable.
        turn: Turn. Defaults to `SAME`.
    """

    key: str
    variable: keras.Variable
    turn: Turn = SAME


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the files of one family are laid out.

    Args:
        name: str.
        ports: callable. From a network to its `Port`s, in the order of the official file.
        left_out: regular expressions (full match) of keys that are no part of the encoder: heads, counters.
        prepare: callable. Changes the tensors before the table is read: splits or masks what the network holds
            in another form. Defaults to `None`.
        restore: callable. `prepare` backwards, for `extract`. Defaults to `None`.
    """

    name: str
    ports: Callable[[keras.Model], list[Port]]
    left_out: tuple[str, ...] = ()
    prepare: Callable[[dict[str, Array]], dict[str, Array]] | None = None
    restore: Callable[[dict[str, Array]], dict[str, Array]] | None = None


def check_form(network: keras.Model, kind: type, layout: str, form: Mapping[str, Any]) -> None:
    """Refuses a network of another form than the one that the files of a layout were trained with.

    Such a network may have variables of the same shapes, and then gives other numbers.

    Args:
        network: keras.Model.
        kind: class that it must be of.
        layout: str. Name of the layout.
        form: what its `settings` must be.

    Raises:
        ValueError: if it is of another class or has another setting.
    """
    if not isinstance(network, kind):
        raise ValueError(f"Expected a `{kind.__name__}`. Received: {type(network).__name__}")
    other = {k: network.settings[k] for k, v in form.items() if network.settings[k] != v}
    if other:
        wanted = ", ".join(f"{key}={form[key]!r}" for key in other)
        received = ", ".join(f"{key}={value!r}" for key, value in other.items())
        raise ValueError(
            f"Expected a `{kind.__name__}` with {wanted}, as {layout} checkpoints were trained with. "
            f"Received: {received}"
        )


def batch_norm_ports(layer: Any, key: str) -> list[Port]:
    """Returns the four ports of a batch-norm under PyTorch's names; `key` without the last dot."""
    names = ("weight", "bias", "running_mean", "running_var")
    values = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    return [Port(f"{key}.{name}", value) for name, value in zip(names, values, strict=True)]


def convert(tensors: Tensors, network: keras.Model, layout: Layout) -> dict[str, Any]:
    """Fills a network with the tensors of a checkpoint; assigns nothing unless all of it fits.

    Args:
        tensors: mapping from key to array, prefixes removed.
        network: keras.Model. Every one of its variables is filled.
        layout: Layout.

    Returns:
        The certificate: `layout`, `tensors_used`, `variables_filled`, `left_out` (sorted keys) and `sha256` of the
        weights as `weights_digest` gives it.

    Raises:
        ValueError: if a tensor is missing, left over or of another shape.
    """
    tensors = dict(tensors)
    if layout.prepare is not None:
        tensors = layout.prepare(tensors)
    ports = layout.ports(network)
    unknown = _account(tensors, ports, network, layout)
    for port, value in [(port, _fitting(tensors[port.key], port)) for port in ports]:
        port.variable.assign(value)
    return {
        "layout": layout.name,
        "tensors_used": len(ports),
        "variables_filled": len({id(port.variable) for port in ports}),
        "left_out": sorted(unknown),
        "sha256": weights_digest(network),
    }


def extract(network: keras.Model, layout: Layout) -> dict[str, Array]:
    """Returns a network's weights under the names and with the axes of a layout: `convert` backwards."""
    tensors = {
        port.key: np.ascontiguousarray(port.turn.to_source(np.asarray(port.variable.numpy())))
        for port in layout.ports(network)
    }
    return tensors if layout.restore is None else layout.restore(tensors)


def weights_digest(network: keras.Model) -> str:
    """Returns the SHA-256 over the shapes and float32 bytes of all variables, in their order."""
    digest = hashlib.sha256()
    for variable in network.variables:
        value = np.ascontiguousarray(np.asarray(variable.numpy(), np.float32))
        digest.update(f"{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _account(
    tensors: Tensors, ports: Sequence[Port], network: keras.Model, layout: Layout
) -> list[str]:
    """Returns the keys that are left out on purpose; refuses what is missing, doubled or left over."""
    keys = [port.key for port in ports]
    filled = [id(port.variable) for port in ports]
    if len(set(keys)) != len(keys) or len(set(filled)) != len(filled):
        raise RuntimeError(f"The layout {layout.name!r} uses a key or a variable twice.")
    if missing := [key for key in keys if key not in tensors]:
        raise ValueError(
            f"Expected a {layout.name} checkpoint with {len(keys)} tensors. "
            f"Received: {len(tensors)} tensors, without {len(missing)} of them: {_some(missing)}; "
            f"there are {_some(sorted(tensors.keys() - set(keys)))}."
        )
    rest = [key for key in tensors if key not in set(keys)]
    if unknown := [key for key in rest if not _matches(key, layout.left_out)]:
        raise ValueError(
            f"Expected a {layout.name} checkpoint with no tensors but its own. "
            f"Received: {len(unknown)} more: {_some(unknown)}."
        )
    if forgotten := [v.path for v in network.variables if id(v) not in set(filled)]:
        raise ValueError(
            f"Expected a network that the layout {layout.name!r} fills. "
            f"Received: {network.name} with {_some(forgotten)}, which no tensor fills."
        )
    return rest


def _fitting(value: Array, port: Port) -> Array:
    """Returns the tensor as the variable's value, or says why it does not fit."""
    wanted = port.turn.to_source(np.zeros(tuple(port.variable.shape), np.bool_)).shape
    if np.shape(value) != wanted:
        raise ValueError(
            f"Expected {port.key!r} with shape {wanted}. Received: shape={np.shape(value)}; "
            "is it the checkpoint of another size?"
        )
    return port.turn.to_keras(np.asarray(value)).astype(port.variable.dtype)


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(repr(key) for key in list(keys)[:3]) or "none"
    return shown + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
