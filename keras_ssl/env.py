"""The one reader of environment variables."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its start-up notes, which are shown only if the import fails.

    They are written before any log level is read, so `TF_CPP_MIN_LOG_LEVEL` alone does not hide them; set it to 0 to
    see everything.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_stderr():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hides what is written to the standard error, by libraries too, and shows it if the block raises."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(shown, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)


def debug() -> bool:
    """Returns whether errors show where they were raised: `KERAS_SSL_DEBUG` is set and not `0`."""
    return os.environ.get("KERAS_SSL_DEBUG", "0") not in ("", "0")


def home() -> Path:
    """Returns the folder of what is fetched: `KERAS_SSL_HOME`, else `keras_ssl` in the user's cache folder.

    That is `XDG_CACHE_HOME` if it is set, else `~/.cache`.
    """
    if chosen := os.environ.get("KERAS_SSL_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "keras_ssl"


def accepted_licences() -> frozenset[str]:
    """Returns the licences that `KERAS_SSL_ACCEPT_LICENCES` names, with commas in between, in lower case."""
    names = os.environ.get("KERAS_SSL_ACCEPT_LICENCES", "").split(",")
    return frozenset(name.strip().lower() for name in names if name.strip())


def tpu_name() -> str:
    """Returns the TPU that `TPU_NAME` names, or `"local"`: the one of this TPU VM."""
    return os.environ.get("TPU_NAME") or "local"


def tf_config() -> str | None:
    """Returns `TF_CONFIG`, which names the workers of a run, or None; an empty one counts as none."""
    return os.environ.get("TF_CONFIG") or None
