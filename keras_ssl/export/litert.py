"""An encoder as a LiteRT (TensorFlow Lite) file, in float32, float16 or int8."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Private: TensorFlow has no public name for it, and its own converter begins with it.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_ssl import env, views
from keras_ssl.data import open_source
from keras_ssl.data.base import sampled_indices
from keras_ssl.data.shards import replacing
from keras_ssl.evaluation.features import default_crop_ratio
from keras_ssl.export.agreement import features_of, generated_images, measure_agreement
from keras_ssl.export.facts import encoder_settings
from keras_ssl.export.traced import features_function, images_spec, in_float32

QUANTIZE = ("float32", "float16", "int8")
_CALIBRATION, _HELD_OUT = 128, 16  # images: of the ranges, and of the agreement


def write_litert(
    encoder: keras.Model,
    path: str | Path,
    *,
    image_size: int | None = None,
    quantize: str = "float32",
    calibration: np.ndarray | None = None,
) -> Path:
    """Writes an encoder as a LiteRT file for one image at a time.

    The signature is `serving_default`: `images` float32 `(1, image_size, image_size, 3)` in [0, 1] to `features`
    float32 `(1, feature_dim)`; normalization is inside.

    Args:
        encoder: Keras model that can be rebuilt from its config, or what `load_encoder` returned.
        path: path. The file; an older one is replaced.
        image_size: int. Side of the images. None takes the encoder's own. Defaults to `None`.
        quantize: str. `"float32"`; `"float16"`: weights of half the size; `"int8"`: weights of a quarter of the size.
            Defaults to `"float32"`.
        calibration: float `(images, image_size, image_size, 3)` in [0, 1]. With `"int8"` the ranges of the
            activations are measured on these, and the arithmetic is in 8 bits too; without them only the weights are
            in 8 bits, and the ranges are found anew for each image. Defaults to `None`.

    Returns:
        Path. The file.

    Raises:
        ValueError: If `quantize` is unknown, the encoder has more than 2 GB, or an operation of it has no counterpart.
    """
    if quantize not in QUANTIZE:
        raise ValueError(f"`quantize` must be one of {QUANTIZE}. Received: quantize={quantize!r}")
    image_size, _ = encoder_settings(encoder, image_size, None)
    if calibration is not None and np.shape(calibration)[1:] != (image_size, image_size, 3):
        raise ValueError(
            f"`calibration` must be images (count, {image_size}, {image_size}, 3) in [0, 1]. "
            f"Received: shape={np.shape(calibration)}"
        )
    function = features_function(in_float32(encoder, "LiteRT"), image_size, batch_size=1)
    try:
        data = _convert(function, image_size, quantize, calibration)
    except Exception as error:  # the converter raises several kinds, with pages of text
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"Expected an encoder whose operations LiteRT has. Received: {encoder.name} ({first[0]})."
        ) from error
    path = Path(path)
    with replacing(path) as file:
        file.write(data)
    return path


def _convert(
    function: tf.Function, image_size: int, quantize: str, calibration: np.ndarray | None
) -> bytes:
    with tempfile.TemporaryDirectory() as folder, env.quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the converter moves to another package
        # Weights as constants: of a SavedModel with variables the converter keeps some as variables without a value.
        frozen = convert_variables_to_constants_v2(function.get_concrete_function())
        module = tf.Module()
        module.run = tf.function(
            lambda images: {"features": frozen(images)[0]},
            input_signature=[images_spec(image_size, 1)],
            autograph=False,
        )
        options = tf.saved_model.SaveOptions(
            experimental_custom_gradients=False
        )  # SiLU's would fail
        tf.saved_model.save(module, folder, {"serving_default": module.run}, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantize != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8" and calibration is not None:
            converter.representative_dataset = lambda: _one_by_one(calibration)
        return converter.convert()


def _one_by_one(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for image in np.asarray(images, np.float32):
        yield [image[None]]


class LiteRTEncoder:
    """A LiteRT file as a function from images to features, one image at a time on the CPU.

    Runs with the package `ai-edge-litert`, or without it with the interpreter inside TensorFlow.

    Args:
        path: path. What `write_litert` wrote.
        num_threads: int. Defaults to `1`.
    """

    def __init__(self, path: str | Path, num_threads: int = 1) -> None:
        with env.quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TensorFlow's own interpreter will go
            interpreter = _interpreter_class()(model_path=str(path), num_threads=num_threads)
            self._run = interpreter.get_signature_runner("serving_default")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `(images, feature_dim)` for `images` float `(images, side, side, 3)` in [0, 1]."""
        images = np.asarray(images, np.float32)
        return np.concatenate([self._run(images=image[None])["features"] for image in images])


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter
    return Interpreter


def calibration_images(
    data: Any, image_size: int, count: int = _CALIBRATION + _HELD_OUT
) -> np.ndarray:
    """Returns images spread evenly over a source, under the evaluation transform.

    Args:
        data: what `open_source` takes, such as a folder.
        image_size: int. Side of the result.
        count: int. At most so many. Defaults to `144`.

    Returns:
        float32 `(images, image_size, image_size, 3)` in [0, 1].
    """
    source = open_source(data, view_size=image_size)
    indices = np.asarray(sampled_indices(source.num_samples, count))
    images, aspect, _ = source.read_batch(indices)
    ratio = default_crop_ratio(image_size)
    cropped = views.center_crop(images, aspect, size=image_size, crop_ratio=ratio)
    return tf.cast(cropped, tf.float32).numpy()


def write(
    encoder: keras.Model,
    to: Path,
    *,
    image_size: int,
    facts: Mapping[str, Any],
    quantize: str = "float32",
    calibration: str | None = None,
) -> list[str]:
    """Writes a LiteRT file, measures it and returns what the command prints."""
    del facts  # the format has no place for them
    image_size, _ = encoder_settings(encoder, image_size, None)
    images = generated_images(image_size)
    shown = ranges = None
    if calibration is not None:
        given = calibration_images(calibration, image_size)
        shown, ranges = (
            (given[::9], np.delete(given, np.s_[::9], 0)) if len(given) > 9 else (given,) * 2
        )
    write_litert(encoder, to, image_size=image_size, quantize=quantize, calibration=ranges)
    seen = images if shown is None else shown
    agreement = measure_agreement(features_of(encoder, seen), LiteRTEncoder(to)(seen), quantize)
    kind = quantize
    if quantize == "int8":
        kind = (
            "int8, weights only: give --calibration FOLDER for the rest"
            if ranges is None
            else (f"int8, ranges from {len(ranges)} images")
        )
    measured = "generated images" if shown is None else f"images of {calibration}"
    if shown is not None and shown is ranges and quantize == "int8":
        measured += ", the same that the ranges are from: more than 9 are needed to hold some out"
    return [
        f"{to} holds the encoder for LiteRT ({kind}; {to.stat().st_size / 1e6:,.1f} MB): images float32 "
        f"(1, {image_size}, {image_size}, 3) in [0, 1] to features.",
        agreement.line(measured),
    ]
