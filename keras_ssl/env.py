"""The one reader of environment variables."""

from __future__ import annotations

import os


def quiet_tensorflow() -> None:
    """Hides TensorFlow's start-up notes unless `TF_CPP_MIN_LOG_LEVEL` is set. Call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def debug() -> bool:
    """Returns whether errors show where they were raised: `KERAS_SSL_DEBUG` is set and not `0`."""
    return os.environ.get("KERAS_SSL_DEBUG", "0") not in ("", "0")
