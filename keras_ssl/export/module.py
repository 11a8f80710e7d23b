"""The object that is written as SavedModel: an encoder in plain TensorFlow, with no Keras left in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_ssl.evaluation.features import encoder_outputs
from keras_ssl.export.decode import decode_batch

# Signatures beside "serving_default" and "bytes", and the encoder's output that each returns.
MAP_SIGNATURES = {"tokens": "tokens", "feature_map": "map"}


class ExportedEncoder(tf.Module):
    """What `tf.saved_model.load` gives back: the reusable SavedModel interface for image features.

    - `module(inputs, training=False)`: features, float32 `(batch, feature_dim)`;
    - `module.outputs(inputs, training=False)`: all outputs, a dict of float32 tensors;
    - `variables`, `trainable_variables`, `regularization_losses` (functions without arguments).

    `inputs` is float32 `(batch, height, width, 3)` in [0, 1]; `training=True` uses batch statistics, moves the
    running ones, and drops paths at random where the encoder does. The variables are the encoder's own
    `tf.Variable`s, in its order; the Keras objects are not tracked, so no weight is stored twice.

    Args:
        encoder: Keras model whose weights and computations are float32.
        image_size: int. Side of the images.
        crop_ratio: float in (0, 1]. Of the `"bytes"` signature.
    """

    variables, trainable_variables = (
        None,
        None,
    )  # lists to be saved, in place of tf.Module's properties

    def __init__(self, encoder: keras.Model, image_size: int, crop_ratio: float) -> None:
        super().__init__()

        def run(inputs: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
            keys = _random_keys(encoder, inputs) if training else {}
            outputs = encoder_outputs(
                lambda images: encoder(images, training=training, **keys), inputs
            )
            return {name: tf.cast(value, tf.float32) for name, value in outputs.items()}

        self.outputs = tf.function(run)
        self.image_size, self.crop_ratio = image_size, crop_ratio
        self.any_size = _takes_any_size(run, image_size)
        self.side = None if self.any_size else image_size
        spec = self._images("inputs")
        for training in (True, False):
            self.outputs.get_concrete_function(spec, training=training)
            self.__call__.get_concrete_function(spec, training=training)
        self.variables = [v.value for v in encoder.variables]
        self.trainable_variables = [v.value for v in encoder.trainable_variables]
        regularized = [v for v in encoder.trainable_variables if v.regularizer is not None]
        self.regularization_losses = [_penalty(v) for v in regularized]

    @tf.function
    def __call__(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.outputs(inputs, training=training)["features"]

    def make_signatures(self, train: bool = False) -> dict[str, Callable]:
        """Returns the functions to serve, by name.

        Args:
            train: bool. Whether `"train"` is one of them: features with batch statistics, which move the running ones.
        """
        size, crop_ratio = self.image_size, self.crop_ratio

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            images = decode_batch(image_bytes, size, crop_ratio)
            return {"features": self(images, training=False)}

        def returning(name: str, key: str, training: bool = False) -> Callable:
            @tf.function(input_signature=[self._images("images")])
            def signature(images: tf.Tensor) -> dict[str, tf.Tensor]:
                return {name: self.outputs(images, training=training)[key]}

            return signature

        served = {
            "serving_default": returning("features", "features"),
            "bytes": from_bytes,
        }
        available = self.outputs.get_concrete_function(self._images("inputs"), training=False)
        for name, key in MAP_SIGNATURES.items():
            if key in available.structured_outputs:
                served[name] = returning(name, key)
        if train:
            served["train"] = returning("features", "features", training=True)
        return served

    def _images(self, name: str) -> tf.TensorSpec:
        return tf.TensorSpec((None, self.side, self.side, 3), tf.float32, name=name)


def _random_keys(encoder: keras.Model, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns keys for drop-path where the encoder takes any: fresh at each call, as no sample number is known."""
    if "keys" not in inspect.signature(encoder.call).parameters:
        return {}
    words = tf.random.uniform([tf.shape(inputs)[0], 2], maxval=2**31 - 1, dtype=tf.int32)
    return {"keys": tf.cast(words, tf.uint32)}


def _penalty(variable: keras.Variable) -> Callable:
    """Returns the regularization term of a variable as a saved function."""
    value, regularizer = variable.value, variable.regularizer
    penalty = tf.function(lambda: regularizer(value), input_signature=[])
    penalty.get_concrete_function()
    return penalty


def _takes_any_size(run: Callable, image_size: int) -> bool:
    """Returns whether the encoder, traced without height and width, still computes the same.

    A transformer looks up its positions while it is traced and cannot; a convnet can.
    """
    images = np.random.default_rng(0).random((1, image_size, image_size, 3)).astype(np.float32)
    free = tf.function(run, input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
    try:
        got = free(images)["features"].numpy()
    except Exception:  # each kind of encoder refuses in its own way; the fixed size is traced next
        return False
    return bool(np.allclose(got, run(tf.constant(images))["features"], rtol=1e-3, atol=1e-4))
