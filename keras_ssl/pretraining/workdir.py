"""The run folder: whose it is, and the recipe in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from keras_ssl.data import PreparedSource, Source
from keras_ssl.data.prepared import CACHE_NAME
from keras_ssl.pretraining.differences import difference
from keras_ssl.pretraining.errors import writing
from keras_ssl.pretraining.recipe import Recipe, SettingError, decisive, load_recipe

_DRAFT, _LOCK = "recipe.json.writing", ".lock"


def claim(recipe: Recipe, folder: str | None) -> Path:
    """Returns the run folder; nothing is written yet.

    Args:
        recipe: Recipe.
        folder: str. As the user names it, or None for `runs/METHOD-BACKBONE`.

    Raises:
        SettingError: If it belongs to another recipe, to a longer run, or holds other files.
    """
    name = f"{recipe.method}-{recipe.backbone.replace(':', '_').replace('/', '_')}"
    workdir = Path(folder or Path("runs") / name)
    stored = load_recipe(workdir)
    if stored is not None:
        _check_same(recipe, stored["recipe"], workdir)
    elif workdir.exists() and (not workdir.is_dir() or _holds_other_files(workdir)):
        raise SettingError(
            f"Expected an empty or new --workdir, or that of a run. Received: {workdir}, which holds other files."
        )
    return workdir


def write_recipe(workdir: Path, recipe: Recipe, source: Source) -> int | None:
    """Writes `recipe.json`; a longer run over the old one is an extension.

    Returns:
        The epochs of the run that was there, or None.

    Raises:
        SettingError: If that run began with other data.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    stored = load_recipe(workdir)
    content = {"recipe": recipe.to_dict(), "data": source.fingerprint()}
    if stored is not None and stored["data"] != content["data"]:
        hint = "use another --workdir"
        if isinstance(source, PreparedSource) and source.original_fingerprint == stored["data"]:
            hint = f"it began before copies were prepared; move the pictures' {CACHE_NAME} away to go on"
        raise SettingError(
            f"Expected the data that the run in {workdir} began with. Received other ones "
            f"({source.describe()}); {hint}."
        )
    with writing(workdir / "recipe.json"):
        (workdir / _DRAFT).write_text(json.dumps(content, indent=2) + "\n")
        (workdir / _DRAFT).replace(workdir / "recipe.json")
    return stored["recipe"]["epochs"] if stored else None


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of the run folder; the system ends the lock with the process, however it ends.

    Raises:
        SettingError: If a process works in the folder already.
    """
    with writing(workdir / _LOCK):
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / _LOCK).open("a+")  # never removed: two processes could lock two files
    with file:
        _lock(file, fcntl.LOCK_EX, workdir)
        with contextlib.suppress(OSError):  # a full disk: who holds it is only for the sentence
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
        yield


def check_unlocked(workdir: Path) -> None:
    """Says early what `locked` would say; writes nothing.

    Raises:
        SettingError: If a process works in the folder already.
    """
    if (workdir / _LOCK).is_file():
        with (workdir / _LOCK).open() as file:
            _lock(file, fcntl.LOCK_SH, workdir)


def _lock(file: TextIO, kind: int, workdir: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise SettingError(
            f"Expected a --workdir in which no other process works. Received: {workdir}, where "
            f"{file.read() or 'one'} does; wait for it, stop it, or use another --workdir."
        ) from error
    except OSError:
        return  # a file system without locks


def _check_same(recipe: Recipe, stored: dict, workdir: Path) -> None:
    changed = difference(decisive(stored), decisive(recipe.to_dict()))
    before, after = changed.pop("epochs", (0, 0))
    if changed:
        text = ", ".join(f"{name} {old!r} -> {new!r}" for name, (old, new) in changed.items())
        raise SettingError(
            f"Expected the recipe of the run in {workdir}. Received another one ({text}); "
            "use another --workdir, or the same settings to resume."
        )
    if after < before:
        raise SettingError(
            f"Expected at least the {before} epochs of the run in {workdir}. Received: {after}."
        )


def _holds_other_files(folder: Path) -> bool:
    """Returns whether there is anything but what a run leaves that was killed at its very beginning."""
    return any(path.name not in (_DRAFT, _LOCK) for path in folder.iterdir())
