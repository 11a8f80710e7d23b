"""Finding one's way in what a checkpoint holds: its tensors by dotted name, and the part that is an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_ssl.checkpoints.errors import CheckpointError, shown, some

MAX_DEPTH, MAX_VALUES = 64, 20_000_000
# What wrappers put into names: DistributedDataParallel and DataParallel, torch.compile.
_WRAPPERS = ("module", "_orig_mod")


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of nested dictionaries, lists and tuples by dotted name; everything else is left out.

    Args:
        tree: nested dictionaries, lists and tuples of arrays.

    Raises:
        CheckpointError: if two arrays have the same dotted name.
    """
    found: dict[str, np.ndarray] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, np.ndarray):
            if name in found:
                raise CheckpointError(
                    f"Expected one tensor of each name. Received: two of {shown(name)}."
                )
            found[name] = value
            return
        items = value.items() if isinstance(value, Mapping) else enumerate(_sequence(value))
        for key, item in items:
            if isinstance(item, (np.ndarray, Mapping, list, tuple)):
                walk(item, f"{name}.{key}" if name else str(key))

    walk(tree, "")
    return found


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def select_tensors(
    tree: Mapping[str, Any],
    top_key: str | Sequence[str] = "",
    prefixes: str | Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Returns the tensors of one part of a checkpoint, without the prefix of their names.

    A `module` that a parallel or compiled training put into a name, in front or inside as in `features.module.0`, is
    taken out of all names first, and is not needed in `prefixes`.

    Args:
        tree: mapping. What `read` gives.
        top_key: str or sequence of str. Dotted place of the tensors, for example
            `"classy_state_dict.base_model.model.trunk"`; of several the first that exists. `""` is the top.
        prefixes: str or sequence of str. The first that some name starts with is cut off, and what does not start
            with it is left out, for example `"encoder_q."`. `""` keeps all. Defaults to none.

    Returns:
        Dictionary from name to array, in the file's order.

    Raises:
        CheckpointError: if no `top_key` exists or no name starts with a prefix; the message says what is there.
    """
    keys = [top_key] if isinstance(top_key, str) else list(top_key)
    part = _find_part(tree, keys)
    tensors = _without_wrappers(flatten(part))
    wanted = [prefixes] if isinstance(prefixes, str) else list(prefixes)
    for prefix in map(_unwrapped, wanted):
        if chosen := {
            n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)
        }:
            return chosen
    if wanted or not tensors:
        start = f"names that start with {some(wanted)}" if wanted else "tensors"
        raise CheckpointError(
            f"Expected {start} under {some(keys)}. Received: {len(tensors)} tensors: "
            f"{some(tensors, 4)}; top keys: {some(tree)}."
        )
    return tensors


def subtree(tree: Any, key: str) -> Any:
    """Returns the value at a dotted place, whose keys may have dots themselves, or None."""
    if not key:
        return tree
    if not isinstance(tree, Mapping):
        return None
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in tree:
            found = subtree(tree[name], ".".join(parts[length:]))
            if found is not None:
                return found
    return None


def _find_part(tree: Mapping[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        if isinstance(part := subtree(tree, key), (Mapping, list, tuple, np.ndarray)):
            return part
    raise CheckpointError(
        f"Expected a checkpoint with {some(keys)}. Received: the top keys {some(tree)}."
    )


def _without_wrappers(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    plain: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if (short := _unwrapped(name)) in plain:
            raise CheckpointError(
                f"Expected one tensor of each name. Received: two of {shown(short)}."
            )
        plain[short] = array
    return plain


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def check_tree(tree: Any) -> None:
    """Refuses what others could not walk: a tree that contains itself, is nested deeply, or repeats without end."""
    measured: dict[
        int, tuple[int, int] | None
    ] = {}  # depth and number of values; None while inside
    stack = [(tree, False)]
    while stack:
        value, done = stack.pop()
        inside = value.values() if isinstance(value, dict) else value
        nested = [item for item in inside if isinstance(item, (dict, list, tuple))]
        if done:
            sizes = [measured[id(item)] or (0, 0) for item in nested]
            depth = 1 + max((size[0] for size in sizes), default=0)
            count = len(value) + sum(size[1] for size in sizes)
            if depth > MAX_DEPTH or count > MAX_VALUES:
                raise CheckpointError(
                    f"Expected at most {MAX_VALUES} values, nested at most {MAX_DEPTH} deep. Received: more."
                )
            measured[id(value)] = (depth, count)
        elif id(value) not in measured:
            measured[id(value)] = None
            stack.append((value, True))
            stack.extend((item, False) for item in nested)
        elif measured[id(value)] is None:
            raise CheckpointError("Expected a tree. Received: a container that contains itself.")
