"""Writing an encoder as SavedModel, which loads, serves and fine-tunes with TensorFlow alone."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_ssl
from keras_ssl.evaluation.features import default_crop_ratio
from keras_ssl.export.module import ExportedEncoder

METADATA = Path("assets.extra") / "keras_ssl.json"


def export_encoder(
    encoder: keras.Model,
    directory: str | Path,
    *,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    extra_metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an encoder as a reusable SavedModel in float32.

    Signatures: `"serving_default"`, `images` float32 `(batch, height, width, 3)` in [0, 1] to `features`; `"bytes"`,
    `image_bytes` strings `(batch,)`, JPEG, PNG, GIF or BMP files of any sizes, to `features`; `"tokens"` or
    `"feature_map"` where the encoder has them. What `tf.saved_model.load` returns can be called and trained, see
    `ExportedEncoder`. Height and width are free where the encoder permits it, else `image_size`. All weights can be
    trained, whether or not they were here. `assets.extra/keras_ssl.json` says what the images are to be like.

    The encoder may have been trained under any dtype policy and strategy: a copy in float32 is written. The folder
    appears whole or not at all.

    Args:
        encoder: Keras model that can be rebuilt from its config, from images to a dict with `"features"`.
        directory: path. A new folder, an empty one, or an older SavedModel, which is replaced.
        image_size: int. None takes the encoder's own `image_size`. Defaults to `None`.
        crop_ratio: float in (0, 1]. Share of the shorter side that `"bytes"` keeps. None takes 1.0 up to 64
            pixels and 0.875 above. Defaults to `None`.
        extra_metadata: dict of JSON values. Stored as `"source"`: method, recipe, step. Defaults to `None`.

    Returns:
        Path. The folder.

    Raises:
        ValueError: If the folder holds something else, or the encoder cannot be rebuilt.
    """
    directory = Path(directory)
    _check_target(directory)
    image_size = getattr(encoder, "image_size", None) if image_size is None else image_size
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"`image_size` must be a positive int. Received: image_size={image_size}")
    crop_ratio = default_crop_ratio(image_size) if crop_ratio is None else float(crop_ratio)
    if not 0.0 < crop_ratio <= 1.0:
        raise ValueError(f"`crop_ratio` must be in (0, 1]. Received: crop_ratio={crop_ratio}")
    if tf.distribute.has_strategy():
        raise ValueError("Export an encoder outside `strategy.scope()`: its copy is made there.")
    module = ExportedEncoder(float32_copy(encoder), image_size, crop_ratio)
    metadata = json.dumps(_metadata(module, extra_metadata), indent=2) + "\n"

    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        draft = scratch / "new"
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(module, str(draft), module.make_signatures(), options)
        (draft / METADATA).parent.mkdir(exist_ok=True)
        (draft / METADATA).write_text(metadata)
        if directory.exists():
            os.rename(directory, scratch / "old")
        os.rename(draft, directory)
    finally:
        shutil.rmtree(scratch)
    return directory


def read_metadata(directory: str | Path) -> dict[str, Any]:
    """Returns the metadata of an exported encoder; empty for a SavedModel from elsewhere."""
    path = Path(directory) / METADATA
    return json.loads(path.read_text()) if path.is_file() else {}


def float32_copy(encoder: keras.Model) -> keras.Model:
    """Returns the same network in float32, with the weights of this one, all of them trainable, none recomputed.

    Args:
        encoder: Keras model that can be rebuilt from its config.

    Returns:
        A new model of the same class, on one device whatever the strategy of the original.
    """
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    try:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
        copy = type(encoder).from_config(_in_float32(encoder.get_config()))
        _copy_weights(encoder, copy)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "Only a Keras model that `from_config(get_config())` rebuilds can be exported "
            f"({error}). Received: encoder={type(encoder).__name__}"
        ) from error
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    copy.trainable = True
    if getattr(copy, "recompute", False):
        copy.recompute = False
    return copy


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    shapes = [[tuple(v.shape) for v in model.variables] for model in (source, target)]
    if shapes[0] != shapes[1]:
        raise ValueError("the rebuilt model has other weights")
    for old, new in zip(source.variables, target.variables, strict=True):
        new.assign(np.asarray(old.numpy()).astype(new.dtype))


def _in_float32(config: Any) -> Any:
    """Returns a config in which every floating dtype policy is float32."""
    if isinstance(config, Mapping):
        return {
            key: "float32" if key == "dtype" and _is_floating(value) else _in_float32(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_in_float32(item) for item in config)
    return config


def _is_floating(dtype: Any) -> bool:
    if isinstance(dtype, keras.DTypePolicy):
        dtype = dtype.name
    if isinstance(dtype, Mapping):
        dtype = dtype.get("config", {}).get("name", "")
    return isinstance(dtype, str) and "float" in dtype


def _metadata(module: ExportedEncoder, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    size = module.image_size
    features = module.outputs.get_concrete_function(module._images("inputs"), training=False)
    return {
        "format": "keras_ssl encoder",
        "keras_ssl_version": keras_ssl.__version__,
        "feature_dim": features.structured_outputs["features"].shape[-1],
        "image_size": size,
        "any_image_size": module.any_size,
        "preprocessing": {
            "input": f"RGB float32 in [0, 1], (batch, {size}, {size}, 3); normalization is inside",
            "resize": "antialiased bilinear, central square",
            "crop_ratio": module.crop_ratio,
            "bytes": "JPEG, PNG, GIF, BMP; EXIF orientation is not applied, alpha is dropped",
        },
        "source": dict(extra or {}),
    }


def _check_target(directory: Path) -> None:
    if not directory.exists() or (directory / "saved_model.pb").is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise ValueError(
            "An encoder is written to a new or empty folder or over an older SavedModel. "
            f"Received: directory={str(directory)!r}, which holds something else"
        )
