"""What the commands `evaluate` and `export` do, without their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_ssl import evaluation
from keras_ssl import export as exporting
from keras_ssl.data import Source, open_source
from keras_ssl.pretraining.finish import load_any_encoder
from keras_ssl.pretraining.recipe import SettingError, load_recipe


def evaluate(
    encoder: str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    data_dir: str | None = None,
    image_size: int | None = None,
    limit: int | None = None,
    batch_size: int = 256,
    epochs: int = 100,
    seed: int = 0,
    to: str | None = None,
) -> int:
    """Prints k-NN, linear probe and label-free measures of an encoder.

    Args:
        encoder: str. Run folder, `.keras` file, SavedModel or zoo entry.
        data: str. Labelled images to train on. Defaults to the data of the run.
        test_data: str. Labelled images to score. Defaults to a held-out fifth of `data`.
        data_dir: str. Where TFDS keeps its prepared data sets.
        image_size: int. Side of the images, pixels. Defaults to the encoder's.
        limit: int. At most so many images of each set.
        batch_size: int. Images at a time. Defaults to `256`.
        epochs: int. Of the linear probe. Defaults to `100`.
        seed: int. Of splits and probe. Defaults to `0`.
        to: str. JSON file for the results. Defaults to `evaluation.json` in the run folder, if it is one.

    Returns:
        The exit code 0.
    """
    stored = load_recipe(Path(encoder))
    if data is None and stored is None:
        raise SettingError(
            "Expected --data for an encoder that is not a run folder. Received: nothing."
        )
    if stored is not None:
        if data is None and stored["recipe"]["data"] == "array":
            raise SettingError(
                "Expected --data: the run was made from arrays in memory. Received: nothing."
            )
        data = data or stored["recipe"]["data"]
        data_dir = data_dir or stored["recipe"]["data_dir"]
    network = load_any_encoder(encoder)
    size = image_size or getattr(network, "image_size", None)

    def source(name: str) -> Source:
        return open_source(name, data_dir=data_dir, view_size=size)

    results = evaluation.evaluate_encoder(
        network,
        source(data),
        None if test_data is None else source(test_data),
        image_size=size,
        batch_size=batch_size,
        limit=limit,
        epochs=epochs,
        seed=seed,
    )
    results["encoder"], results["data"], results["test_data"] = str(encoder), data, test_data
    evaluation.print_results(results)
    if to is None and stored is not None:
        to = str(Path(encoder) / "evaluation.json")
    if to is not None:
        evaluation.write_json(to, results)
        print(f"Results in {to}")
    return 0


def export(
    encoder: str, *, to: str, image_size: int | None = None, crop_ratio: float | None = None
) -> int:
    """Writes an encoder as a reusable SavedModel.

    Args:
        encoder: str. Run folder, `.keras` file or zoo entry.
        to: str. Folder of the SavedModel.
        image_size: int. Side of the images, pixels. Defaults to the encoder's.
        crop_ratio: float. Share of the shorter side that the central crop keeps.

    Returns:
        The exit code 0.
    """
    network = load_any_encoder(encoder)
    stored = load_recipe(Path(encoder))
    facts: dict[str, Any] = {"source": str(encoder)}
    if stored is not None:
        facts |= {"method": stored["recipe"]["method"], "backbone": stored["recipe"]["backbone"]}
    settings = {} if crop_ratio is None else {"crop_ratio": crop_ratio}
    exporting.export_encoder(
        network,
        to,
        image_size=image_size or network.image_size,
        extra_metadata=facts,
        **settings,
    )
    print(f"{to} holds the encoder: `tf.saved_model.load` it, or serve it as it is.")
    return 0
