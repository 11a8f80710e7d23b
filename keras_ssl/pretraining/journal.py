"""The written record of a run: `log.jsonl` and TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ssl.pretraining.errors import writing


class Journal:
    """Appends what happens to `log.jsonl` and to TensorBoard.

    Args:
        workdir: Path. The run folder.
        start_step: int. Lines of later steps, left by a killed process, are dropped; -1 drops all.
        writer: bool. Whether this process writes. Defaults to `True`.

    A line or event that cannot be written, as on a full disk, raises `TrainingError`. TensorFlow says so of an event
    only when it is flushed, at times one write later; the line, written first, has the same numbers.
    """

    def __init__(self, workdir: Path, start_step: int, *, writer: bool = True):
        self.path = Path(workdir) / "log.jsonl"
        self._events = None
        self._kept: set[tuple[str, int]] = set()
        if not writer:
            return
        if self.path.is_file():
            kept = [
                line for line in self.path.read_text().splitlines() if _step(line) <= start_step
            ]
            self._kept = {(json.loads(line).get("kind"), _step(line)) for line in kept}
            with writing(self.path):
                draft = self.path.with_suffix(".writing")
                draft.write_text("".join(line + "\n" for line in kept))
                draft.replace(self.path)
        with writing(workdir):
            self._events = tf.summary.create_file_writer(str(workdir))

    def wrote(self, kind: str, step: int) -> bool:
        """Returns whether an earlier process wrote a line of this kind at this step."""
        return (kind, step) in self._kept

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends one line.

        Args:
            kind: str. `"train"`, `"monitor"`, `"finding"` or `"event"`.
            step: int. Steps done.
            **values: Plain JSON values; the numbers also go to TensorBoard.
        """
        if self._events is None:
            return
        plain = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()  # JSON has no NaN
        }
        line = {"kind": kind, "step": step, "time": round(time.time(), 3), **plain}
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        with writing(self.path.parent), self._events.as_default(step=step):
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    tf.summary.scalar(f"{kind}/{name}", value)

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Shows a uint8 image `(height, width, 3)` in TensorBoard."""
        if self._events is not None:
            with writing(self.path.parent), self._events.as_default(step=step):
                tf.summary.image(name, image[None])

    def close(self) -> None:
        """Flushes the events."""
        if self._events is not None:
            with writing(self.path.parent):
                self._events.close()


def _step(line: str) -> int:
    """Returns the step of a line; a torn last line counts as never reached."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62
