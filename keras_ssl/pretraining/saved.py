"""A run's model as one of its checkpoints has it, without the run's data."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path

from keras_ssl.methods import SSLModel
from keras_ssl.pretraining import build
from keras_ssl.pretraining.checkpoints import Checkpoints, Damaged, read_manifest
from keras_ssl.pretraining.recipe import Recipe, SettingError, load_recipe


@dataclasses.dataclass
class SavedRun:
    """What a checkpoint of a run folder holds.

    Attributes:
        model: SSLModel. Built as in the run, with the weights and the state of the checkpoint.
        recipe: Recipe. Of the run.
        step: int. Steps done at the checkpoint.
        unchanged_since: int. From this step on the weights were those; `step` unless steps were skipped.
    """

    model: SSLModel
    recipe: Recipe
    step: int
    unchanged_since: int


def load_saved(folder: str | Path, *, near: int | None = None) -> SavedRun:
    """Builds the model of a run and restores a checkpoint; nothing in the folder is changed.

    Args:
        folder: str or Path. Run folder.
        near: int. Restores the checkpoint whose weights are nearest to those after so many steps. Defaults to the
            newest one. A damaged one is passed over.

    Returns:
        SavedRun.

    Raises:
        SettingError: If there is no run, no checkpoint, or one of another version.
    """
    folder = Path(folder)
    stored = load_recipe(folder)
    if stored is None:
        raise SettingError(f"Expected a run folder. Received: {folder}, which has no recipe.json.")
    facts = _whole(folder / "checkpoints")
    if not facts:
        raise SettingError(
            f"Expected a run with a checkpoint in {folder}. Received: one without; let it go on with the command "
            "that began it."
        )
    wanted = max(facts) if near is None else near
    nearest = sorted(facts, key=lambda s: (_distance(wanted, s, facts[s]), s))
    recipe, known = Recipe(**stored["recipe"]), facts[nearest[0]]
    if not {"num_samples", "steps_per_epoch"} <= known.keys():
        raise SettingError(
            f"Expected checkpoints of this version in {folder}. Received: older ones, which do not say how many "
            "images there were; let the run go on to its next checkpoint."
        )
    stream = types.SimpleNamespace(
        source=types.SimpleNamespace(num_samples=known["num_samples"]),
        steps_per_epoch=known["steps_per_epoch"],
    )
    with build.precision_scope(recipe.precision):
        model = build.build_model(recipe, stream, jit=False, steps_per_execution=1)
    checkpoints = Checkpoints(
        folder / "checkpoints",
        [*model.variables, *model.optimizer.variables],
        recipe.identity(),
        recipe=recipe.to_dict(),
        writer=False,
    )
    step = _read_first_whole(checkpoints, nearest)
    return SavedRun(model, recipe, step, facts[step].get("unchanged_since", step))


def _read_first_whole(checkpoints: Checkpoints, steps: list[int]) -> int:
    """Restores the first of these checkpoints that is as it was written and returns its step."""
    for step in steps:
        try:
            checkpoints.read(step)
        except Damaged as error:
            damaged = error
        else:
            return step
    raise SettingError(
        f"Expected a checkpoint that is as it was written in {checkpoints.directory}. Received: {damaged}; let the "
        "run begin again."
    )


def _whole(directory: Path) -> dict[int, dict[str, int]]:
    """Returns step -> facts of the checkpoints whose manifest can be read."""
    found = {}
    for folder in sorted(directory.glob("step-*")):
        try:
            content = read_manifest(folder)
        except Damaged:
            continue
        found[content["step"]] = content["facts"]
    return found


def _distance(near: int, step: int, facts: dict[str, int]) -> int:
    """Returns how many changes of the weights lie between; skipped steps are none."""
    return max(facts.get("unchanged_since", step) - near, near - step, 0)
