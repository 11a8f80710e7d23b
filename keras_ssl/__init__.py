"""Self-supervised pre-training of image encoders with TensorFlow and Keras.

`keras_ssl.pretrain(...)` is the command of this name from Python. `import keras_ssl` is quick: a part of the library,
and TensorFlow with it, is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

_PARTS = (
    "random",
    "env",
    "losses",
    "optimizers",
    "views",
    "distribution",
    "layers",
    "backbones",
    "methods",
    "data",
    "evaluation",
    "export",
    "zoo",
    "embedding",
    "pretraining",
    "cli",
)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "pretrain":
        return importlib.import_module(f"{__name__}.pretraining.run").pretrain
    raise AttributeError(f"module 'keras_ssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *_PARTS, "pretrain"))
