"""An encoder as an ONNX file."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ssl
from keras_ssl import env
from keras_ssl.data.shards import replacing
from keras_ssl.export.agreement import features_of, generated_images, measure_agreement
from keras_ssl.export.facts import encoder_settings
from keras_ssl.export.traced import features_function, images_spec, in_float32

OPSET = 17  # the first with LayerNormalization; every runtime since 2022 reads it
_INSTALL = "run `pip install 'keras_ssl[onnx]'`"


def write_onnx(
    encoder: keras.Model,
    path: str | Path,
    *,
    image_size: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an encoder as an ONNX file, operator set 17, in float32.

    Input: `images` float32 `(batch, image_size, image_size, 3)` in [0, 1], any batch; output: `features` float32
    `(batch, feature_dim)`. Normalization is inside. The model's metadata has an entry `keras_ssl`, JSON.

    Args:
        encoder: Keras model that can be rebuilt from its config, or what `load_encoder` returned.
        path: path. The file; an older one is replaced.
        image_size: int. Side of the images. None takes the encoder's own. Defaults to `None`.
        facts: dict of JSON values. Where the encoder is from. Defaults to `None`.

    Returns:
        Path. The file.

    Raises:
        ImportError: If the packages `onnx` and `tf2onnx` are not installed.
        ValueError: If the encoder has more than 2 GB, or an operation of it has no counterpart.
    """
    convert, checker = _package("tf2onnx.convert"), _package("onnx.checker")
    image_size, crop_ratio = encoder_settings(encoder, image_size, None)
    function = features_function(in_float32(encoder, "ONNX"), image_size, batch_size=None)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        with env.quiet_stderr():
            model, _ = convert.from_function(
                function, input_signature=[images_spec(image_size, None)], opset=OPSET
            )
            checker.check_model(model)
    except Exception as error:  # the converter raises several kinds
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"Expected an encoder whose operations ONNX has. Received: {encoder.name} ({first[0]})."
        ) from error
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    entry = model.metadata_props.add()
    entry.key = "keras_ssl"
    entry.value = json.dumps(
        {
            "keras_ssl_version": keras_ssl.__version__,
            "image_size": image_size,
            "input": "RGB float32 in [0, 1], channels last; normalization is inside",
            "crop_ratio": crop_ratio,
            "source": dict(facts or {}),
        }
    )
    path = Path(path)
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return path


class ONNXEncoder:
    """An ONNX file as a function from images to features, run by ONNX Runtime on the CPU.

    Args:
        path: path. What `write_onnx` wrote.
        num_threads: int. Defaults to `1`.

    Raises:
        ImportError: If the package `onnxruntime` is not installed.
    """

    def __init__(self, path: str | Path, num_threads: int = 1) -> None:
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = num_threads
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `(images, feature_dim)` for `images` float `(images, side, side, 3)` in [0, 1]."""
        return self._session.run(["features"], {"images": np.asarray(images, np.float32)})[0]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(
            f"Expected the package {package} for ONNX, but it cannot be imported ({error}): {_INSTALL}."
        ) from error


def write(
    encoder: keras.Model, to: Path, *, image_size: int, facts: Mapping[str, Any]
) -> list[str]:
    """Writes an ONNX file, measures it where ONNX Runtime is installed, and returns what the command prints."""
    write_onnx(encoder, to, image_size=image_size, facts=facts)
    side, _ = encoder_settings(encoder, image_size, None)
    line = (
        f"{to} holds the encoder for ONNX (operator set {OPSET}; {to.stat().st_size / 1e6:,.1f} MB): images float32 "
        f"(batch, {side}, {side}, 3) in [0, 1] to features."
    )
    try:
        run = ONNXEncoder(to)
    except ImportError:
        return [line, f"Not measured, as onnxruntime is not installed: {_INSTALL} to do so."]
    images = generated_images(side)
    agreement = measure_agreement(features_of(encoder, images), run(images))
    return [line, agreement.line("generated images")]
