"""Convolutions padded as in PyTorch, in groups that also train on a CPU; the mean of a map."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_ssl")
class PaddedConvolution(keras.layers.Conv2D):
    """A square convolution with the same number of zeros on every side of the image.

    Groups are computed one after the other and joined: TensorFlow has no gradient of a grouped convolution on
    a CPU, and Keras's way around it needs XLA. A dilated one is computed on the image's every n-th pixels, for the
    same reason: it has no gradient in float64 there.

    Args:
        filters: int > 0. Channels that come out.
        kernel_size: int > 0.
        strides: int > 0. Defaults to `1`.
        border: int >= 0. Rows and columns of zeros on each side. Defaults to half the kernel, which keeps
            the size at stride 1.
        groups: int > 0. Divides the channels that come in and `filters`; each group of outputs sees one
            group of inputs, in order. Defaults to `1`.
        dilation: int > 0. Distance of the kernel's elements on the image; above 1 the strides must be 1. Defaults to
            `1`.
        use_bias: bool. Defaults to `False`.
        kernel_initializer: initializer. Defaults to He normal over the fan-out, as in torchvision's ResNet.

    Input: `(batch, height, width, channels)`. Output: `(batch, rows, columns, filters)` with
    rows = (height + 2 border - dilation (kernel_size - 1) - 1) // strides + 1. The kernel has the shape `(kernel_size,
    kernel_size, channels / groups, filters)`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        *,
        border: int | None = None,
        groups: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        size = kernel_size if isinstance(kernel_size, int) else kernel_size[0]
        kwargs.pop("padding", None)
        rate = kwargs.pop("dilation_rate", dilation)
        super().__init__(
            filters,
            size,
            strides,
            padding="valid",
            groups=groups,
            dilation_rate=rate,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer
            or keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            **kwargs,
        )
        self.border = size // 2 if border is None else border
        if self.border < 0:
            raise ValueError(f"`border` must not be negative. Received: border={border}")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        sides = (self.border, self.border)
        padded = tf.pad(inputs, ((0, 0), sides, sides, (0, 0))) if self.border else inputs
        return super().call(padded)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution of padded inputs, without bias; arguments as Keras gives them."""
        kernel, strides = tf.convert_to_tensor(kernel), self.strides
        rate = self.dilation_rate[0]
        parts = [
            tf.nn.atrous_conv2d(part, weights, rate, "VALID")
            if rate > 1
            else tf.nn.conv2d(part, weights, strides, "VALID")
            for part, weights in zip(
                tf.split(inputs, self.groups, -1), tf.split(kernel, self.groups, -1), strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else tf.concat(parts, -1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "border": self.border}


def mean_of_map(x: tf.Tensor) -> tf.Tensor:
    """Returns the mean over height and width, summed in at least float32, in the dtype of `x`."""
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    return tf.cast(tf.reduce_mean(wide, (1, 2)), x.dtype)
