"""Checkpoints that are whole or not there: written beside, flushed, renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.pretraining.differences import difference
from keras_ssl.pretraining.errors import TrainingError, writing
from keras_ssl.pretraining.recipe import SettingError

_NAME = re.compile(r"step-(\d{12})$")
_DRAFT, _DAMAGED = ".writing-", "damaged-"


class Damaged(ValueError):
    """A checkpoint that is not what was written, and in what."""


class Checkpoints:
    """The checkpoints of a run folder.

    Args:
        directory: Path. Folder of the checkpoints; made at the first save.
        variables: list of Keras variables: networks, optimizer, state, step.
        identity: str. Identity of the recipe; a checkpoint of another one is refused.
        recipe: dict. The recipe itself, kept with each checkpoint, to say in what another one differs.
        keep: int. How many of the newest to keep. Defaults to `2`.
        writer: bool. Whether this process writes; one worker of several does. Defaults to `True`.
    """

    def __init__(
        self,
        directory: Path,
        variables: list[keras.Variable],
        identity: str,
        *,
        recipe: dict[str, Any] | None = None,
        keep: int = 2,
        writer: bool = True,
    ):
        self.directory, self.identity = Path(directory), identity
        self.recipe = recipe or {}
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

        Raises:
            TrainingError: If it cannot be written, as on a full disk; the older ones are untouched.
        """
        if not self.writer or step in self.steps():
            return
        draft = self.directory / f"{_DRAFT}{step:012d}"
        try:
            with writing(self.path(step)):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._remove_drafts()
                draft.mkdir()
                self._fill(draft, step, facts)
                draft.rename(self.path(step))
                _flush(self.directory)
        except TrainingError:
            shutil.rmtree(draft, ignore_errors=True)  # leaves room on a full disk
            raise
        for old in self.steps()[: -self.keep]:
            unused = self.directory / f"{_DRAFT}old-{old:012d}"
            self.path(old).rename(unused)  # killed half-way it is no half checkpoint
            shutil.rmtree(unused)

    def restore(self) -> dict[str, Any] | None:
        """Restores the newest checkpoint that is whole; damaged ones are set aside under another name.

        Returns:
            dict with `step`, `facts` and `damaged`, one sentence for each newer checkpoint that was damaged; or None
            when there is no checkpoint.

        Raises:
            SettingError: If it belongs to another recipe or other variables.
            TrainingError: If there are checkpoints and none is whole.
        """
        if self.writer:
            self._remove_drafts()
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                content = self.read(step)
            except Damaged as error:
                damaged[step] = f"{self.path(step).name}: {error}"
                continue
            for bad in damaged if self.writer else ():
                self._set_aside(bad)
            return {**content, "damaged": list(damaged.values())}
        if damaged:
            raise TrainingError(
                f"Expected a whole checkpoint in {self.directory}. Received: only damaged ones "
                f"({'; '.join(damaged.values())}); restore them from a copy, or begin again in another --workdir."
            )
        return None

    def _fill(self, draft: Path, step: int, facts: dict[str, Any]) -> None:
        self._checkpoint.write(str(draft / "state"))
        content = {
            "step": step,
            "identity": self.identity,
            "recipe": self.recipe,
            "facts": facts,
            "files": {path.name: _sum(path) for path in sorted(draft.iterdir())},
            "variables": self.manifest(),
        }
        (draft / "manifest.json").write_text(json.dumps(content))
        for path in [*draft.iterdir(), draft]:
            _flush(path)

    def read(self, step: int) -> dict[str, Any]:
        """Restores the checkpoint of this step and returns its manifest.

        Raises:
            Damaged: If it is not what was written.
            SettingError: If it belongs to another recipe or other variables.
        """
        folder = self.path(step)
        content = read_manifest(folder)
        self._check_recipe(folder, content)
        mine, stored = self.manifest(), content["variables"]
        pairs = zip(mine, stored, strict=False)
        for own, old in [([len(mine)], [len(stored)]), *pairs]:
            if own[1:] != old[1:] or (len(own) == 1 and own != old):
                raise SettingError(
                    f"Expected the checkpoint {folder} to hold {own}. Received: {old}; it was written "
                    "by another version; use another --workdir."
                )
        for name, expected in content.get("files", {}).items():
            found = _sum(folder / name) if (folder / name).is_file() else "no such file"
            if found != expected:
                size = f"{found[0]:,}" if isinstance(found, list) else "no"
                raise Damaged(f"{name} is not as it was written ({size} of {expected[0]:,} bytes)")
        try:
            self._checkpoint.read(str(folder / "state")).assert_consumed()
        except (tf.errors.OpError, OSError, ValueError, IndexError, RuntimeError) as error:
            if "files" in content:  # those are whole, so it is something else: memory, for example
                raise
            raise Damaged(f"state cannot be read ({type(error).__name__})") from error
        return content

    def _check_recipe(self, folder: Path, content: dict[str, Any]) -> None:
        if content["identity"] == self.identity:
            return
        changed = difference(content.get("recipe", {}), self.recipe) if self.recipe else {}
        changed.pop("epochs", None)
        text = ", ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items())
        raise SettingError(
            f"Expected a checkpoint of this recipe in {folder}. Received: one of another recipe"
            f"{f' ({text})' if content.get('recipe') and text else ''}; use another --workdir."
        )

    def _remove_drafts(self) -> None:
        for leftover in self.directory.glob(f"{_DRAFT}*"):
            shutil.rmtree(leftover)

    def _set_aside(self, step: int) -> None:
        target = self.directory / f"{_DAMAGED}{self.path(step).name}"
        shutil.rmtree(target, ignore_errors=True)
        self.path(step).rename(target)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest of a checkpoint: step, identity, recipe, facts, files and variables.

    Raises:
        Damaged: If it is not there or not whole.
    """
    try:
        content = json.loads((folder / "manifest.json").read_text())
        whole = {"step", "identity", "facts", "variables"} <= content.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise Damaged(f"manifest.json cannot be read ({type(error).__name__})") from error
    if not whole or folder.name != f"step-{content['step']:012d}":
        raise Damaged("manifest.json is not that of this checkpoint")
    return content


def _sum(path: Path) -> list[int]:
    """Returns size and CRC-32 of a file."""
    size = total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, total = size + len(block), zlib.crc32(block, total)
    return [size, total]


def _flush(path: Path) -> None:
    """Forces a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
