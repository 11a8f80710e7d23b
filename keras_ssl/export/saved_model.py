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
from keras_ssl.export.card import write_card
from keras_ssl.export.facts import encoder_settings, fingerprint
from keras_ssl.export.module import ExportedEncoder
from keras_ssl.export.warmup import model_name, write_warmup

METADATA, CARD = Path("assets.extra") / "keras_ssl.json", "model_card.md"
_FILES = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra", CARD}


def export_encoder(
    encoder: keras.Model,
    directory: str | Path,
    *,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    extra_metadata: Mapping[str, Any] | None = None,
    train_signature: bool = False,
) -> Path:
    """Writes an encoder as a reusable SavedModel in float32.

    Signatures: `"serving_default"`, `images` float32 `(batch, height, width, 3)` in [0, 1] to `features`; `"bytes"`,
    `image_bytes` strings `(batch,)`, JPEG, PNG or BMP files of any sizes, to `features`; `"tokens"` or
    `"feature_map"` where the encoder has them. What `tf.saved_model.load` returns can be called and trained, see
    `ExportedEncoder`. Height and width are free where the encoder permits it, else `image_size`. All weights can be
    trained, whether or not they were here.

    Beside the model lie `assets.extra/keras_ssl.json`, what the images are to be like and the features of one fixed
    image; `model_card.md`, the same for people; and `assets.extra/tf_serving_warmup_requests`, which TensorFlow
    Serving replays when it loads the model: one request for each signature and for batches of 1 and 8.

    The encoder may have been trained under any dtype policy and strategy: a copy in float32 is written. The folder
    appears whole or not at all.

    Args:
        encoder: Keras model that can be rebuilt from its config, from images to a dict with `"features"`.
        directory: path. A new folder, an empty one, or an older SavedModel, which is replaced.
        image_size: int. None takes the encoder's own `image_size`. Defaults to `None`.
        crop_ratio: float in (0, 1]. Share of the shorter side that `"bytes"` keeps. None takes 1.0 up to 64
            pixels and 0.875 above. Defaults to `None`.
        extra_metadata: dict of JSON values. Stored as `"source"`: method, recipe, step, license. Defaults to `None`.
        train_signature: bool. Whether there is a signature `"train"` as well, `images` to `features` with batch
            statistics, which move the running ones: for loaders that know signatures only, such as
            `keras.layers.TFSMLayer`. Not for servers, whose callers could change the model. Defaults to `False`.

    Returns:
        Path. The folder.

    Raises:
        ValueError: If the folder holds something else, or the encoder cannot be rebuilt.
    """
    directory = Path(directory)
    _check_target(directory)
    image_size, crop_ratio = encoder_settings(encoder, image_size, crop_ratio)
    if tf.distribute.has_strategy():
        raise ValueError("Export an encoder outside `strategy.scope()`: its copy is made there.")
    module = ExportedEncoder(float32_copy(encoder), image_size, crop_ratio)
    signatures = module.make_signatures(train=train_signature)
    metadata = _metadata(module, signatures, extra_metadata)

    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        draft = scratch / "new"
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(module, str(draft), signatures, options)
        _write_beside(draft, directory, module, signatures, metadata)
        put_in_place(draft, directory, scratch / "old")
    finally:
        shutil.rmtree(scratch)
    return directory


def put_in_place(draft: Path, directory: Path, old: Path) -> None:
    """Renames a finished folder to its name; what was there goes to `old`, and back if the renaming fails.

    Args:
        draft: path. The new folder.
        directory: path. Where it is to be.
        old: path on the same disk. Where an older folder goes.
    """
    if directory.exists():
        os.rename(directory, old)
    try:
        os.rename(draft, directory)
    except OSError:
        if old.exists():
            os.rename(old, directory)
        raise


def _write_beside(
    draft: Path,
    directory: Path,
    module: ExportedEncoder,
    signatures: Mapping[str, Any],
    metadata: dict[str, Any],
) -> None:
    """Writes metadata, model card and warm-up requests into the folder that is to become `directory`."""
    (draft / METADATA).parent.mkdir(exist_ok=True)
    (draft / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    weights = sum(int(np.prod(v.shape)) * v.dtype.size for v in module.variables)
    (draft / CARD).write_text(write_card(metadata, weights / 1e6), encoding="utf-8")
    inputs = {
        name: {spec.name: spec for spec in function.input_signature}
        for name, function in signatures.items()
        if name != "train"  # a warm-up must not move the statistics
    }
    write_warmup(draft, inputs, image_size=module.image_size, model=model_name(directory))


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


def _metadata(
    module: ExportedEncoder, signatures: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> dict[str, Any]:
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
            "bytes": "JPEG, PNG, BMP; EXIF orientation is not applied, alpha is dropped",
        },
        "signatures": sorted(signatures),
        "fingerprint": fingerprint(module.outputs, size),
        "source": dict(extra or {}),
    }


def _check_target(directory: Path) -> None:
    """Refuses all but a new or empty folder and one with a SavedModel's files only: it is going to be removed."""
    if not directory.exists():
        return
    found = {path.name for path in directory.iterdir()} if directory.is_dir() else {"no folder"}
    if found and not ("saved_model.pb" in found and found <= _FILES):
        raise ValueError(
            "An encoder is written to a new or empty folder or over an older SavedModel. "
            f"Received: directory={str(directory)!r}, which holds something else"
        )
