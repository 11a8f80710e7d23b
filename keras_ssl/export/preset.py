"""An encoder as a folder laid out like a KerasHub preset, and the way back."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

import keras_ssl
import keras_ssl.backbones  # registers the classes that config.json names
from keras_ssl.export.facts import check_fingerprint, encoder_settings, fingerprint, folder_size
from keras_ssl.export.saved_model import float32_copy, put_in_place

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
IMAGE_CONVERTER = "image_converter.json"
_FILES = {CONFIG, METADATA, WEIGHTS, IMAGE_CONVERTER}


def write_preset(
    encoder: keras.Model,
    directory: str | Path,
    *,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an encoder in float32 as `config.json`, `metadata.json`, `model.weights.h5` and `image_converter.json`.

    The names and the layout are those of KerasHub's presets. `keras_ssl.export.from_preset` reads the folder;
    `keras_hub`'s own `from_preset` builds only classes of KerasHub and refuses it. `image_converter.json` holds the
    config of KerasHub's `ImageConverter`, for `keras.saving.deserialize_keras_object`: it takes pictures in [0, 255],
    resizes and crops them to `image_size` and scales them to [0, 1]. `crop_ratio` is in `metadata.json` only.

    Args:
        encoder: Keras model that can be rebuilt from its config, from images to a dict with `"features"`.
        directory: path. A new or empty folder, or an older preset, which is replaced: a folder with these four
            files and nothing else.
        image_size: int. None takes the encoder's own `image_size`. Defaults to `None`.
        crop_ratio: float in (0, 1]. Share of the shorter side that evaluation keeps. None takes 1.0 up to 64
            pixels and 0.875 above. Defaults to `None`.
        facts: dict of JSON values. Where the encoder is from. Defaults to `None`.

    Returns:
        Path. The folder.

    Raises:
        ValueError: If the folder holds something else, or the encoder cannot be rebuilt from a config.
    """
    directory = Path(directory)
    _check_target(directory)
    image_size, crop_ratio = encoder_settings(encoder, image_size, crop_ratio)
    if hasattr(encoder, "directory"):
        raise ValueError(
            "A preset is written from a run folder, a .keras file or a zoo entry. "
            "Received: a SavedModel, whose network has no config."
        )
    copy = float32_copy(encoder)
    own = {
        "image_size": image_size,
        "crop_ratio": crop_ratio,
        "fingerprint": fingerprint(copy, image_size),
        "source": dict(facts or {}),
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        draft = scratch / "new"
        draft.mkdir()
        _write_json(draft / CONFIG, keras.saving.serialize_keras_object(copy))
        _write_json(draft / METADATA, _metadata(copy, own))
        _write_json(draft / IMAGE_CONVERTER, _image_converter(image_size))
        copy.save_weights(draft / WEIGHTS)
        put_in_place(draft, directory, scratch / "old")
    finally:
        shutil.rmtree(scratch)
    return directory


def from_preset(directory: str | Path) -> keras.Model:
    """Returns the encoder of a folder that `write_preset` wrote.

    Args:
        directory: path.

    Returns:
        keras.Model in float32: images in [0, 1] to a dict with `"features"`.

    Raises:
        ValueError: If the folder is no such preset, or its encoder does not compute what it computed when written.
    """
    directory = Path(directory)
    missing = [name for name in (CONFIG, METADATA, WEIGHTS) if not (directory / name).is_file()]
    if missing:
        raise ValueError(
            "A folder with config.json, metadata.json and model.weights.h5 was expected. "
            f"Received: directory={str(directory)!r}, where there is no {missing[0]}"
        )
    encoder = keras.saving.deserialize_keras_object(_read_json(directory / CONFIG))
    encoder.load_weights(directory / WEIGHTS)
    check_fingerprint(
        encoder, _read_json(directory / METADATA).get("keras_ssl", {}).get("fingerprint"), directory
    )
    return encoder


def write(
    encoder: keras.Model,
    to: Path,
    *,
    image_size: int,
    facts: Mapping[str, Any],
    crop_ratio: float | None = None,
) -> list[str]:
    """Writes a preset and returns what the command prints."""
    write_preset(encoder, to, image_size=image_size, crop_ratio=crop_ratio, facts=facts)
    return [
        f"{to} holds the encoder ({folder_size(to) / 1e6:,.1f} MB): `keras_ssl.export.from_preset({str(to)!r})`."
    ]


def _check_target(directory: Path) -> None:
    """Refuses everything but a new or empty folder and one with a preset's files only: it is going to be removed."""
    if not directory.exists():
        return
    found = {path.name for path in directory.iterdir()} if directory.is_dir() else {"no folder"}
    if found and found != _FILES:
        raise ValueError(
            "A preset is written to a new or empty folder or over an older preset. "
            f"Received: directory={str(directory)!r}, which holds something else"
        )


def _metadata(encoder: keras.Model, own: dict[str, Any]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "keras_version": keras.__version__,
        "keras_ssl_version": keras_ssl.__version__,
        "parameter_count": encoder.count_params(),
        "date_saved": now.strftime("%Y-%m-%d@%H:%M:%S"),
        "keras_ssl": own,
    }


def _image_converter(image_size: int) -> dict[str, Any]:
    """Returns the config of KerasHub's `ImageConverter` that gives the encoder its input."""
    return {
        "module": "keras_hub.src.layers.preprocessing.image_converter",
        "class_name": "ImageConverter",
        "config": {
            "name": "image_converter",
            "trainable": False,
            "dtype": "float32",
            "image_size": [image_size, image_size],
            "scale": 1.0 / 255.0,
            "offset": None,
            "crop_to_aspect_ratio": True,
            "pad_to_aspect_ratio": False,
            "interpolation": "bilinear",
            "antialias": True,
            "data_format": "channels_last",
        },
        "registered_name": "keras_hub>ImageConverter",
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
