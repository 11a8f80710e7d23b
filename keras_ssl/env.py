"""The one reader of environment variables."""

from __future__ import annotations

import json
import os
from pathlib import Path


def quiet_tensorflow() -> None:
    """Hides TensorFlow's start-up notes unless `TF_CPP_MIN_LOG_LEVEL` is set. Call it before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def cache_folder() -> Path:
    """Returns the folder for files that can be made again: `KERAS_SSL_CACHE`, else `~/.cache/keras_ssl`."""
    chosen = os.environ.get("KERAS_SSL_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "keras_ssl"


def cluster() -> dict | None:
    """Returns what `TF_CONFIG` says about this worker and its peers, or None when it is not set.

    Raises:
        ValueError: if `TF_CONFIG` is not a JSON object with `cluster` and `task`.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG must be JSON ({error}). Received: TF_CONFIG={text}") from error
    if not isinstance(config, dict) or not {"cluster", "task"} <= config.keys():
        raise ValueError(
            'TF_CONFIG must look like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            f'"index": 0}}}}. Received: TF_CONFIG={text}'
        )
    return config


def tpu_address() -> str:
    """Returns the name or address of the TPU in `TPU_NAME`; empty means the TPU of this machine."""
    return os.environ.get("TPU_NAME", "")
