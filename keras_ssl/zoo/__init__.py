"""Published encoders, ours and other people's: `list()` them, read a `card()`, `load()` one.

Listing does not import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

from keras_ssl.zoo.catalog import Entry
from keras_ssl.zoo.catalog import find_all as list
from keras_ssl.zoo.catalog import write_card as card
from keras_ssl.zoo.published import Published

__all__ = ["Entry", "Published", "card", "list", "load", "pack_entry"]

_NEED_TENSORFLOW = {"load": "keras_ssl.zoo.weights", "pack_entry": "keras_ssl.zoo.publish"}


def __getattr__(name: str) -> Any:
    if name in _NEED_TENSORFLOW:
        return getattr(importlib.import_module(_NEED_TENSORFLOW[name]), name)
    raise AttributeError(f"module 'keras_ssl.zoo' has no attribute {name!r}")
