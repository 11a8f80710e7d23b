"""The methods, by name. Importing this package does not import TensorFlow; reading a method does."""

from __future__ import annotations

import importlib
from typing import Any

METHODS = {
    "simclr": "SimCLR",
    "swav": "SwAV",
    "byol": "BYOL",
    "dino": "DINO",
    "mae": "MAE",
    "rotnet": "RotNet",
}

_FILES = {name: file for file, name in METHODS.items()}
_FILES |= {"SSLModel": "base", "RunInfo": "inputs"}
__all__ = ["METHODS", "get_method", *_FILES]


def get_method(name: str) -> type:
    """Returns the method class of this name.

    Args:
        name: str. A key of `METHODS`.

    Raises:
        ValueError: If there is no such method.
    """
    if name not in METHODS:
        raise ValueError(f"Expected method to be one of {', '.join(METHODS)}. Received: {name!r}.")
    return __getattr__(METHODS[name])


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
