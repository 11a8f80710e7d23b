"""The run folder: whose it is, and the recipe in it."""

from __future__ import annotations

import json
from pathlib import Path

from keras_ssl.data import Source
from keras_ssl.pretraining.recipe import Recipe, SettingError, decisive, difference, load_recipe

_DRAFT = "recipe.json.writing"


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
        raise SettingError(
            f"Expected the data that the run in {workdir} began with. Received other ones "
            f"({source.describe()}); use another --workdir."
        )
    (workdir / _DRAFT).write_text(json.dumps(content, indent=2) + "\n")
    (workdir / _DRAFT).replace(workdir / "recipe.json")
    return stored["recipe"]["epochs"] if stored else None


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
    return any(path.name != _DRAFT for path in folder.iterdir())
