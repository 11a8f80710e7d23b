"""An encoder as one function of TensorFlow, which the converters to other formats begin with."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ssl.evaluation.features import encoder_outputs
from keras_ssl.export.saved_model import float32_copy

_LARGEST = 2_000_000_000  # bytes that a file of one protocol buffer or flat buffer can hold


def in_float32(encoder: keras.Model, format: str) -> keras.Model:
    """Returns the encoder in float32, ready to be converted to a format that is one file.

    Args:
        encoder: Keras model that can be rebuilt from its config, or an exported encoder, which is in float32 already.
        format: str. Named in the message.

    Raises:
        ValueError: If the weights are more than 2 GB, which no such file can hold.
    """
    size = sum(int(np.prod(v.shape)) * 4 for v in encoder.variables)
    if size >= _LARGEST:
        raise ValueError(
            f"Expected an encoder of less than 2 GB, the most that one {format} file can hold. "
            f"Received: {size / 1e9:.1f} GB of weights; export it as saved_model."
        )
    return encoder if hasattr(encoder, "directory") else float32_copy(encoder)


def features_function(encoder: Any, image_size: int, batch_size: int | None) -> tf.Function:
    """Returns `images` -> `{"features"}` in inference mode, with one input signature.

    Args:
        encoder: Keras layer or model in float32.
        image_size: int. Side of the images, pixels.
        batch_size: int or None. None leaves it free.
    """

    @tf.function(input_signature=[images_spec(image_size, batch_size)], autograph=False)
    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": tf.cast(encoder_outputs(encoder, images)["features"], tf.float32)}

    return features


def images_spec(image_size: int, batch_size: int | None) -> tf.TensorSpec:
    """Returns the spec of float32 images in [0, 1], named `images`."""
    return tf.TensorSpec((batch_size, image_size, image_size, 3), tf.float32, name="images")
