"""The two ends of a run: starting weights, and the encoder that leaves it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import keras

import keras_ssl.backbones  # noqa: F401, registers the classes that a .keras file names
from keras_ssl import export, zoo
from keras_ssl.methods import SSLModel
from keras_ssl.pretraining.errors import writing
from keras_ssl.pretraining.origin import recipe_facts
from keras_ssl.pretraining.recipe import SettingError
from keras_ssl.pretraining.saved import load_saved
from keras_ssl.zoo.cache import ZooError

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run


def export_run(run: Run, step: int) -> None:
    """Writes `encoder/` (SavedModel) and `encoder.keras` into the run folder.

    Raises:
        TrainingError: If they cannot be written, as on a full disk.
    """
    encoder = run.model.encoders()["image"]
    facts = {
        **recipe_facts(vars(run.recipe)),
        "step": step,
        "network": run.model.exported,
    }
    draft, folder = run.workdir / "writing.encoder.keras", run.workdir / "encoder"
    with writing(run.workdir / "encoder.keras"):
        try:
            encoder.save(draft)
            draft.replace(run.workdir / "encoder.keras")
        finally:
            draft.unlink(missing_ok=True)  # half a file on a full disk
    with writing(folder):
        export.export_encoder(
            encoder, folder, image_size=run.recipe.image_size, extra_metadata=facts
        )


def load_any_encoder(name: str | Path) -> keras.Model:
    """Returns an encoder from a run folder, a checkpoint, a `.keras` file, a SavedModel or a zoo entry.

    Args:
        name: str or Path. Looked for in this order. Of a run that is not finished the newest checkpoint is taken.

    Returns:
        An encoder: images in [0, 1] to a dict with "features".

    Raises:
        SettingError: If there is no such encoder.
    """
    path = Path(name)
    if (path / "entry.json").is_file():
        return zoo.load(path.resolve().name)
    if (path / "recipe.json").is_file():
        file = path / "encoder.keras"
        if file.is_file():
            return keras.saving.load_model(file)
        saved = load_saved(path)
        print(
            f"{path} is not finished: its checkpoint of step {saved.step} is taken.",
            file=sys.stderr,
        )
        return saved.model.encoders()["image"]
    if (path / "manifest.json").is_file():
        step = int(path.resolve().name.removeprefix("step-"))
        return load_saved(path.resolve().parents[1], near=step).model.encoders()["image"]
    if path.suffix == ".keras" and path.is_file():
        return keras.saving.load_model(path)
    if (path / "saved_model.pb").is_file():
        return export.load_encoder(path)
    if path.exists():
        raise SettingError(
            f"Expected a run folder, a .keras file or a SavedModel. Received: {path}, which is none of them."
        )
    try:
        return zoo.load(str(name))
    except ZooError:
        raise  # the entry is known; the sentence says why it cannot be had
    except ValueError as error:
        raise SettingError(
            f"Expected a run folder, a .keras file, a SavedModel or a zoo entry. Received: {str(name)!r}, "
            f"which does not exist here ({error})"
        ) from error


def initialize(model: SSLModel, name: str) -> None:
    """Starts the backbone from published or own weights.

    Args:
        model: SSLModel.
        name: str. Zoo entry, run folder, finished or not, checkpoint or `.keras` file.

    Raises:
        SettingError: If the weights do not fit the backbone.
    """
    source = load_any_encoder(name)
    own, other = model.backbone.variables, getattr(source, "variables", [])
    if [tuple(v.shape) for v in own] != [tuple(v.shape) for v in other]:
        raise SettingError(
            f"Expected --init with the weights of this backbone ({len(own)} arrays). Received: {name} with "
            f"{len(other)} arrays of other shapes; choose the --backbone that it was made with."
        )
    for variable, value in zip(own, other, strict=True):
        variable.assign(value)
    for teacher, student in model.ema_pairs:
        teacher.set_weights(student.get_weights())
