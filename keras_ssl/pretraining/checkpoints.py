"""Checkpoints that are whole or not there: written beside, flushed, renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.pretraining.recipe import SettingError

_NAME = re.compile(r"step-(\d{12})$")


class Checkpoints:
    """The checkpoints of a run folder.

    Args:
        directory: Path. Folder of the checkpoints; made at the first save.
        variables: list of Keras variables: networks, optimizer, state, step.
        identity: str. Identity of the recipe; a checkpoint of another one is refused.
        keep: int. How many of the newest to keep. Defaults to `2`.
        writer: bool. Whether this process writes; one worker of several does. Defaults to `True`.
    """

    def __init__(
        self,
        directory: Path,
        variables: list[keras.Variable],
        identity: str,
        *,
        keep: int = 2,
        writer: bool = True,
    ):
        self.directory, self.identity = Path(directory), identity
        self.keep, self.writer = keep, writer
        self._variables = list({id(variable): variable for variable in variables}.values())
        self._checkpoint = tf.train.Checkpoint(
            variables=[variable.value for variable in self._variables]
        )

    def manifest(self) -> list[list[Any]]:
        """Returns [path, shape, dtype] of every variable, in order."""
        return [
            [variable.path, list(variable.shape), str(variable.dtype)]
            for variable in self._variables
        ]

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.match(path.name) for path in self.directory.iterdir())
        return sorted(int(match.group(1)) for match in found if match)

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of this step."""
        return self.directory / f"step-{step:012d}"

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Writes a checkpoint; the older ones stay until it is complete.

        Args:
            step: int. Steps done.
            facts: dict. Plain JSON facts to keep with it.
        """
        if not self.writer or step in self.steps():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(".writing-*"):
            shutil.rmtree(leftover)
        draft = self.directory / f".writing-{step:012d}"
        draft.mkdir()
        self._checkpoint.write(str(draft / "state"))
        content = {
            "step": step,
            "identity": self.identity,
            "facts": facts,
            "variables": self.manifest(),
        }
        (draft / "manifest.json").write_text(json.dumps(content))
        for path in [*draft.iterdir(), draft]:
            _flush(path)
        draft.rename(self.path(step))
        _flush(self.directory)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint.

        Returns:
            dict with `step` and `facts`, or None when there is no checkpoint.

        Raises:
            SettingError: If it belongs to another recipe or other variables.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self.path(steps[-1])
        content = json.loads((folder / "manifest.json").read_text())
        if content["identity"] != self.identity:
            raise SettingError(
                f"Expected a checkpoint of this recipe in {folder}. Received: one of another recipe; "
                "use another --workdir."
            )
        mine = self.manifest()
        stored = content["variables"]
        pairs = zip(mine, stored, strict=False)
        for own, old in [([len(mine)], [len(stored)]), *pairs]:
            if own[1:] != old[1:] or (len(own) == 1 and own != old):
                raise SettingError(
                    f"Expected the checkpoint {folder} to hold {own}. Received: {old}; it was written "
                    "by another version; use another --workdir."
                )
        self._checkpoint.read(str(folder / "state")).assert_consumed()
        return content


def _flush(path: Path) -> None:
    """Forces a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
