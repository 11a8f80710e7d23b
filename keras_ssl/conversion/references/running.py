"""From the tensors of a file to what a reference network says about images."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Tensors = Mapping[str, Array]
Run = Callable[[Array], dict[str, Array]]


class Ledger(Mapping):
    """Tensors that remember which of them were read.

    Args:
        tensors: mapping from name to array.
    """

    def __init__(self, tensors: Tensors) -> None:
        self.tensors, self.used = dict(tensors), set()

    def __getitem__(self, key: str) -> Array:
        self.used.add(key)
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, key: object) -> bool:
        return key in self.tensors


def matches(key: str, patterns: Sequence[str]) -> bool:
    """Returns whether a whole name is one of some regular expressions."""
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def normalized(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Returns `(images - mean) / std` in float32; images `(batch, height, width, 3)` in [0, 1]."""
    mean, std = (np.asarray(value, np.float32) for value in (mean, std))
    return ((images - mean) / std).astype(np.float32)


def load_strictly(module: Any, tensors: Tensors, left_out: Sequence[str] = ()) -> Any:
    """Returns a PyTorch module that holds the tensors, which it shares where they are float32 already.

    Args:
        module: torch.nn.Module. May have been made on the device `meta`.
        tensors: mapping from name to array. Every one must be one of the module's, or be left out.
        left_out: regular expressions (full match) of names that the module may be without.

    Raises:
        ValueError: if names or shapes differ; it says which.
    """
    import torch

    own = module.state_dict().keys()
    state = {}
    for key, value in tensors.items():
        if key in own or not matches(key, left_out):
            integer = np.asarray(value).dtype.kind in "iu"
            array = np.ascontiguousarray(value, None if integer else np.float32)
            with (
                warnings.catch_warnings()
            ):  # of arrays that may not be written to; nothing writes here
                warnings.simplefilter("ignore", UserWarning)
                state[key] = torch.from_numpy(array.reshape(np.shape(value)))
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ValueError(
            f"Expected the names and shapes of the reference network. Received: {lines}"
        ) from error
    return module.eval().requires_grad_(False)


def torch_run(module: Any, prepared: Callable[[Array], Array]) -> Run:
    """Returns the function from images in [0, 1] to a module's outputs as arrays, channels last.

    Args:
        module: torch.nn.Module. Returns a dict of tensors.
        prepared: callable. From images `(batch, height, width, 3)` in [0, 1] to what the module gets, channels last.
    """
    import torch

    @torch.no_grad()
    def run(images: Array) -> dict[str, Array]:
        x = np.ascontiguousarray(prepared(images).transpose(0, 3, 1, 2), np.float32)
        outputs = module(torch.from_numpy(x))
        return {k: v.numpy() for k, v in outputs.items() if k in ("features", "tokens", "map")}

    return run


def numpy_run(
    network: Callable[[Tensors, Array], dict[str, Array]],
    tensors: Tensors,
    left_out: Sequence[str],
    prepared: Callable[[Array], Array],
) -> Run:
    """Returns the function from images in [0, 1] to what a network in NumPy says about them.

    The network must read every tensor that is not left out.

    Args:
        network: callable. From tensors and prepared images to a dict of arrays.
        tensors: mapping from name to array.
        left_out: regular expressions (full match) of names that the network may be without.
        prepared: callable. From images `(batch, height, width, 3)` in [0, 1] to what the network gets.
    """

    def run(images: Array) -> dict[str, Array]:
        ledger = Ledger(tensors)
        try:
            outputs = network(ledger, prepared(images))
        except KeyError as error:
            raise ValueError(
                f"Expected the tensors of the reference network. Received: none called {error}"
            ) from error
        rest = sorted(
            key for key in tensors if key not in ledger.used and not matches(key, left_out)
        )
        if rest:
            raise ValueError(
                f"Expected only tensors that the reference network reads. Received: {len(rest)} more, "
                f"{', '.join(map(repr, rest[:3]))}"
            )
        return outputs

    return run
