"""What ends a run that was set up well: one sentence for the user, exit code 1."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf


class TrainingError(RuntimeError):
    """The run cannot go on: one sentence for the user."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns a write that fails, as on a full disk, into one sentence.

    Args:
        path: str or Path. What is being written, to be named in the sentence.

    Raises:
        TrainingError: In place of an error of the file system, from Python or from TensorFlow.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise TrainingError(
            f"Expected to write {path}. Received: {_reason(error)}{_room(Path(path))}. Make room, or mend what is "
            "wrong there, and give the same command again: what was saved before is kept."
        ) from error


def _reason(error: Exception) -> str:
    """Returns the system's own words: TensorFlow puts them last, after the name of the file."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text.splitlines()[0].split(" [Op:")[0] if text else repr(error)
    return text.rsplit("; ", 1)[-1].rstrip(".")


def _room(path: Path) -> str:
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                return f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free)"
            break
    return ""
