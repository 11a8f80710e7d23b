"""One step of a network without shortcuts: a convolution or dense layer, batch-norm, ReLU and pool."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.batch_norm import BatchNormalization


@dataclasses.dataclass(frozen=True)
class Unit:
    """One convolution and what follows it.

    Args:
        filters: int > 0.
        kernel_size: int > 0. Defaults to `3`.
        stride: int > 0. Defaults to `1`.
        border: int >= 0. Zeros on each side. Defaults to `1`.
        groups: int > 0. Defaults to `1`.
        batch_norm: bool. Whether there is one. Defaults to `True`.
        pool: (size, stride) of a max-pool without padding, or None. Defaults to `None`.
        response_norm: bool. Whether `local_response_norm` follows the pool. Defaults to `False`.
        ceil_pool: bool. Whether the pool's last window may reach over the edge of the map, as in Caffe, instead of
            leaving out what no whole window covers, as in PyTorch. Defaults to `False`.
        dilation: int > 0. Distance of the kernel's elements on the map. Defaults to `1`.
        norm_last: bool. Whether the batch-norm follows the ReLU instead of standing before it. Defaults to `False`.
        affine: bool. Whether the batch-norm has a factor and an offset. Defaults to `True`.
    """

    filters: int
    kernel_size: int = 3
    stride: int = 1
    border: int = 1
    groups: int = 1
    batch_norm: bool = True
    pool: tuple[int, int] | None = None
    response_norm: bool = False
    ceil_pool: bool = False
    dilation: int = 1
    norm_last: bool = False
    affine: bool = True

    def side(self, side: int) -> tuple[int, int]:
        """Returns the side of the map after the convolution and after the pool for an input of a given side."""
        span = self.dilation * (self.kernel_size - 1) + 1
        after = (side + 2 * self.border - span) // self.stride + 1
        if self.pool is None:
            return after, after
        over = (self.pool[0] - after) % self.pool[1] if self.ceil_pool else 0
        return after, (after + over - self.pool[0]) // self.pool[1] + 1

    def pooled(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the pool makes of a map without negative numbers `(batch, height, width, channels)`."""
        if self.pool is None:
            return x
        size, stride = self.pool
        if (
            self.ceil_pool
        ):  # zeros are as good as -inf: every window has a number of the map, at least 0
            sides = (side or tf.shape(x)[axis] for axis, side in ((1, x.shape[1]), (2, x.shape[2])))
            over = [(0, (size - side) % stride) for side in sides]
            x = tf.pad(x, ((0, 0), *over, (0, 0)))
        return tf.nn.max_pool2d(x, size, stride, "VALID")


@keras.saving.register_keras_serializable(package="keras_ssl")
class PlainUnit(keras.layers.Layer):
    """A convolution or a dense layer, batch-norm if wanted, and a ReLU.

    Args:
        layer: keras.layers.Layer. The convolution or dense layer.
        batch_norm: bool. Whether there is a batch-norm.
        relu: bool. Whether there is a ReLU. Defaults to `True`.
        norm_last, affine: see `Unit`. Default to `False` and `True`.
        synchronized: bool. See `BatchNormalization`. Defaults to `True`.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        *,
        batch_norm: bool,
        relu: bool = True,
        norm_last: bool = False,
        affine: bool = True,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self.relu, self.norm_last, self.affine = relu, norm_last, affine
        self.synchronized = synchronized
        self.norm = None
        if batch_norm:
            self.norm = BatchNormalization(
                center=affine,
                scale=affine,
                synchronized=synchronized,
                dtype=self.dtype_policy,
                name="norm",
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.layer.build(input_shape)
        if self.norm is not None:
            width = self.layer.units if hasattr(self.layer, "units") else self.layer.filters
            self.norm.build((*input_shape[:-1], width))
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = self.layer(x)
        if self.norm is None:
            return self._active(x)
        if self.norm_last:
            return self.norm(self._active(x), training=training)
        return self._active(self.norm(x, training=training))

    def _active(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x) if self.relu else x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "batch_norm": self.norm is not None,
            "relu": self.relu,
            "norm_last": self.norm_last,
            "affine": self.affine,
            "synchronized": self.synchronized,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PlainUnit:
        """Returns a new layer of the same form."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
