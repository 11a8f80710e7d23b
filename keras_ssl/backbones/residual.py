"""What residual networks are made of: padded convolutions, selective kernels and the residual block."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.batch_norm import BatchNormalization

PADDINGS = ("torch", "same", "simclr")


def pad(x: tf.Tensor, size: int) -> tf.Tensor:
    """Pads height and width with `size` zeros on each side."""
    return tf.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))


def max_pool(x: tf.Tensor, padding: str) -> tf.Tensor:
    """Returns the 3x3 max-pool with stride 2 of something without negative numbers.

    Args:
        x: float `(batch, height, width, channels)`, at least 0: then zeros around it are as good as -inf.
        padding: str. `"torch"`: one pixel on every side. Otherwise TensorFlow's `"same"`, which for an even size
            pads below and to the right only.
    """
    if padding == "torch":
        return tf.nn.max_pool2d(pad(x, 1), 3, 2, "VALID")
    return tf.nn.max_pool2d(x, 3, 2, "SAME")


@keras.saving.register_keras_serializable(package="keras_ssl")
class Convolution(keras.layers.Conv2D):
    """A square convolution without bias, padded by kernel_size // 2 on every side as in PyTorch.

    TensorFlow's `"same"` puts the odd pixel of a strided convolution below and to the right only; `padding="same"`
    asks for that. Kernels start as in torchvision: He normal over the fan-out.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs: Any) -> None:
        settings = {
            "use_bias": False,
            "padding": "same" if strides == 1 else "valid",
            "kernel_initializer": keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
        }
        super().__init__(filters, kernel_size, strides, **{**settings, **kwargs})

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        size = self.kernel_size[0] // 2
        return super().call(inputs if self.padding == "same" or size == 0 else pad(inputs, size))


def convolution(filters: int, size: int, stride: int, padding: str, **kwargs: Any) -> Convolution:
    """Returns a `Convolution` that is padded as a network with this `padding` is; see `ResNet`."""
    if padding == "same":
        kwargs["padding"] = "same"
    return Convolution(filters, size, stride, **kwargs)


@keras.saving.register_keras_serializable(package="keras_ssl")
class SelectiveKernel(keras.layers.Layer):
    """Two 3x3 convolutions, each with batch-norm and ReLU, mixed channel by channel with weights that sum to 1.

    The weights come from the mean over the map of the sum of both: 1x1 convolution to max(filters / 16, 32)
    channels, batch-norm, ReLU, 1x1 convolution, softmax over the two.

    Args:
        filters: int > 0. Channels of the output.
        stride: int. 1 or 2.
        padding: str. See `ResNet`. Defaults to `"torch"`.
        synchronized: bool. See `BatchNormalization`. Defaults to `True`.

    Input: `(batch, height, width, channels)`. Output: `(batch, ceil(height / stride), ceil(width / stride),
    filters)`, not negative.

    Reference: Li et al., 2019, https://arxiv.org/abs/1903.06586. Reference code: google-research/simclr `resnet.py`,
    `sk_conv2d`, which differs from the paper: both kernels are 3x3 without dilation.
    """

    def __init__(
        self,
        filters: int,
        stride: int,
        *,
        padding: str = "torch",
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride
        self.padding, self.synchronized = padding, synchronized
        squeezed = max(filters // 16, 32)
        common = {"dtype": self.dtype_policy}
        self.streams = convolution(2 * filters, 3, stride, padding, name="streams", **common)
        self.squeeze = Convolution(squeezed, 1, name="squeeze", **common)
        self.expand = Convolution(2 * filters, 1, name="expand", **common)
        self.streams_norm, self.squeeze_norm = (
            BatchNormalization(synchronized=synchronized, name=name, **common)
            for name in ("streams_norm", "squeeze_norm")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        both, squeezed = 2 * self.filters, self.squeeze.filters
        self.streams.build(input_shape)
        self.streams_norm.build((None, None, None, both))
        self.squeeze.build((None, 1, 1, self.filters))
        self.squeeze_norm.build((None, 1, 1, squeezed))
        self.expand.build((None, 1, 1, squeezed))
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = tf.nn.relu(self.streams_norm(self.streams(x), training=training))
        first, second = tf.split(x, 2, axis=-1)
        total = first + second
        wide = total if x.dtype == tf.float64 else tf.cast(total, tf.float32)
        mean = tf.cast(tf.reduce_mean(wide, (1, 2), keepdims=True), x.dtype)
        mean = tf.nn.relu(self.squeeze_norm(self.squeeze(mean), training=training))
        scores = tf.split(self.expand(mean), 2, axis=-1)
        # The softmax of two scores is the sigmoid of their difference.
        return second + tf.sigmoid(scores[0] - scores[1]) * (first - second)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "stride": self.stride,
            "padding": self.padding,
            "synchronized": self.synchronized,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class ResidualBlock(keras.layers.Layer):
    """The basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) block; the stride sits on the first 3x3.

    Args:
        filters: int > 0. Channels inside; the bottleneck gives four times as many.
        stride: int. 1 or 2.
        bottleneck: bool.
        zero_init_residual: bool. Whether gamma of the last batch-norm starts at 0, so that the block starts as
            the identity.
        synchronized: bool. See `BatchNormalization`.
        padding: str. See `ResNet`. Defaults to `"torch"`.
        selective_kernels: bool. Whether the 3x3 of a bottleneck is a `SelectiveKernel`, and a shortcut that has a
            convolution halves the map with a 2x2 mean before it. Defaults to `False`.
    """

    def __init__(
        self,
        filters: int,
        stride: int,
        *,
        bottleneck: bool,
        zero_init_residual: bool = False,
        synchronized: bool = True,
        padding: str = "torch",
        selective_kernels: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.bottleneck = bottleneck
        self.zero_init_residual = zero_init_residual
        self.synchronized = synchronized
        self.padding = padding
        self.selective_kernels = selective_kernels
        widths, sizes = ((1, 1, 4), (1, 3, 1)) if bottleneck else ((1, 1), (3, 3))
        self.channels = filters * widths[-1]
        self.convs, self.norms = [], []
        for index, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            last = index == len(sizes) - 1
            strided = index == sizes.index(3)
            self.convs.append(
                self._conv(filters * width, size, stride if strided else 1, f"conv{index + 1}")
            )
            mixed = isinstance(self.convs[-1], SelectiveKernel)  # brings its own
            zero = last and zero_init_residual
            self.norms.append(None if mixed else self._norm(f"norm{index + 1}", zero))

    def _conv(self, filters: int, size: int, stride: int, name: str) -> keras.layers.Layer:
        if self.selective_kernels and size == 3:
            return SelectiveKernel(
                filters,
                stride,
                padding=self.padding,
                synchronized=self.synchronized,
                dtype=self.dtype_policy,
                name=name,
            )
        return convolution(filters, size, stride, self.padding, dtype=self.dtype_policy, name=name)

    def _norm(self, name: str, zero: bool = False) -> BatchNormalization:
        return BatchNormalization(
            synchronized=self.synchronized,
            gamma_initializer="zeros" if zero else "ones",
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels = input_shape[-1]
        self.shortcut_conv = self.shortcut_norm = None
        if self.stride != 1 or channels != self.channels:
            stride = 1 if self.selective_kernels else self.stride
            self.shortcut_conv = self._conv(self.channels, 1, stride, "shortcut_conv")
            self.shortcut_norm = self._norm("shortcut_norm")
            self.shortcut_conv.build(input_shape)
            self.shortcut_norm.build((None, None, None, self.channels))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            conv.build((None, None, None, channels))
            channels = conv.filters
            if norm is not None:
                norm.build((None, None, None, channels))
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shortcut = x
        if self.shortcut_conv is not None:
            pooled = self._pool(x) if self.selective_kernels else x
            shortcut = self.shortcut_norm(self.shortcut_conv(pooled), training=training)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = x if index == 0 else tf.nn.relu(x)
            x = conv(x, training=training) if norm is None else norm(conv(x), training=training)
        return tf.nn.relu(x + shortcut)

    def _pool(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the 2x2 mean of SimCLR's shortcut.

        With stride 1 only what lies on the map is averaged; with stride 2 an odd map has a row and a column of zeros
        after it that count, as in the authors' code.
        """
        if self.stride == 1:
            return tf.nn.avg_pool2d(x, 2, 1, "SAME")
        return tf.nn.avg_pool2d(tf.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 2, 2, "VALID")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "stride": self.stride,
            "bottleneck": self.bottleneck,
            "zero_init_residual": self.zero_init_residual,
            "synchronized": self.synchronized,
            "padding": self.padding,
            "selective_kernels": self.selective_kernels,
        }
