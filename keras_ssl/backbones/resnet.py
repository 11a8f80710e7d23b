"""Residual networks that equal torchvision's, of any width, with an ImageNet or a CIFAR stem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone
from keras_ssl.layers.batch_norm import BatchNormalization

STEMS = ("imagenet", "cifar")


def pad(x: tf.Tensor, size: int) -> tf.Tensor:
    """Pads height and width with `size` zeros on each side."""
    return tf.pad(x, ((0, 0), (size, size), (size, size), (0, 0)))


@keras.saving.register_keras_serializable(package="keras_ssl")
class Convolution(keras.layers.Conv2D):
    """A square convolution without bias, padded by kernel_size // 2 on every side as in PyTorch.

    TensorFlow's `"same"` puts the odd pixel of a strided convolution below and to the right only. Kernels
    start as in torchvision: He normal over the fan-out.
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
    """

    def __init__(
        self,
        filters: int,
        stride: int,
        *,
        bottleneck: bool,
        zero_init_residual: bool = False,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.bottleneck = bottleneck
        self.zero_init_residual = zero_init_residual
        self.synchronized = synchronized
        widths, sizes = ((1, 1, 4), (1, 3, 1)) if bottleneck else ((1, 1), (3, 3))
        self.channels = filters * widths[-1]
        self.convs, self.norms = [], []
        for index, (width, size) in enumerate(zip(widths, sizes, strict=True)):
            last = index == len(sizes) - 1
            strided = index == sizes.index(3)
            self.convs.append(
                self._conv(filters * width, size, stride if strided else 1, f"conv{index + 1}")
            )
            self.norms.append(self._norm(f"norm{index + 1}", zero=last and zero_init_residual))

    def _conv(self, filters: int, size: int, stride: int, name: str) -> Convolution:
        return Convolution(filters, size, stride, dtype=self.dtype_policy, name=name)

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
            self.shortcut_conv = self._conv(self.channels, 1, self.stride, "shortcut_conv")
            self.shortcut_norm = self._norm("shortcut_norm")
            self.shortcut_conv.build(input_shape)
            self.shortcut_norm.build((None, None, None, self.channels))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            conv.build((None, None, None, channels))
            channels = conv.filters
            norm.build((None, None, None, channels))
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shortcut = x
        if self.shortcut_conv is not None:
            shortcut = self.shortcut_norm(self.shortcut_conv(x), training=training)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x if index == 0 else tf.nn.relu(x)), training=training)
        return tf.nn.relu(x + shortcut)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "stride": self.stride,
            "bottleneck": self.bottleneck,
            "zero_init_residual": self.zero_init_residual,
            "synchronized": self.synchronized,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class ResNet(Backbone):
    """ResNet v1.5: stride in the 3x3 convolution, symmetric padding, batch-norm epsilon 1e-5 and momentum 0.9.

    Args:
        blocks: ints > 0. Number of residual blocks of each stage; (3, 4, 6, 3) is ResNet-34 and 50.
        bottleneck: bool. Bottleneck (50 and deeper) or basic blocks (18, 34). Defaults to `True`.
        filters: ints > 0. Channels inside the blocks of each stage; the stem gives the first. Every stage but
            the first halves the map. Defaults to `(64, 128, 256, 512)`.
        width: int or float > 0. Multiplies every number of channels: the w2, w4 of SwAV and the x2 of VICReg.
            Not torchvision's "wide", which widens the 3x3 only. Defaults to `1`.
        stem: str. `"imagenet"`: 7x7 convolution with stride 2, then 3x3 max-pool with stride 2. `"cifar"`: 3x3
            convolution with stride 1, no pool. Defaults to `"imagenet"`.
        zero_init_residual: bool. Whether the last gamma of every block starts at 0: SimCLR, SimSiam, Barlow
            Twins, VICReg, MoCo v3; not MoCo v1, v2. Defaults to `False`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last ReLU and "features", its mean over h and w;
    "layers": a tuple of the maps after each stage.

    Reference: He et al., 2015, https://arxiv.org/abs/1512.03385, table 1; CIFAR stem: section 4.2 and SimCLR
    (https://arxiv.org/abs/2002.05709), appendix B.9. Reference code: pytorch/vision
    `torchvision/models/resnet.py`; facebookresearch/swav `src/resnet50.py` (width).
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        bottleneck: bool = True,
        filters: Sequence[int] = (64, 128, 256, 512),
        width: float = 1,
        stem: str = "imagenet",
        zero_init_residual: bool = False,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        if stem not in STEMS:
            raise ValueError(f"`stem` must be one of {STEMS}. Received: stem={stem!r}")
        if not blocks or len(blocks) != len(filters):
            raise ValueError(
                "`blocks` and `filters` must have one number for each stage. "
                f"Received: blocks={blocks}, filters={filters}"
            )
        if width <= 0:
            raise ValueError(f"`width` must be positive. Received: width={width}")
        self.settings = {
            "blocks": list(blocks),
            "bottleneck": bottleneck,
            "filters": list(filters),
            "width": width,
            "stem": stem,
            "zero_init_residual": zero_init_residual,
            "synchronized": synchronized,
        }
        self.stem, self.recompute = stem, recompute
        channels = [round(width * count) for count in filters]
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.stem_conv = Convolution(
            channels[0], size, stride, dtype=self.dtype_policy, name="stem_conv"
        )
        self.stem_norm = BatchNormalization(
            synchronized=synchronized, dtype=self.dtype_policy, name="stem_norm"
        )
        self.stages = [
            [
                ResidualBlock(
                    channels[stage],
                    2 if stage > 0 and index == 0 else 1,
                    bottleneck=bottleneck,
                    zero_init_residual=zero_init_residual,
                    synchronized=synchronized,
                    dtype=self.dtype_policy,
                    name=f"stage{stage + 1}_block{index}",
                )
                for index in range(count)
            ]
            for stage, count in enumerate(blocks)
        ]
        self.feature_dim = self.stages[-1][-1].channels
        self._finish()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.stem_conv.build(input_shape)
        channels = self.stem_conv.filters
        self.stem_norm.build((None, None, None, channels))
        for block in (block for stage in self.stages for block in stage):
            block.build((None, None, None, channels))
            channels = block.channels
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        training: bool | None = None,
        keys: tf.Tensor | None = None,
        keep: tf.Tensor | None = None,
        mask: tf.Tensor | None = None,
        output: str = "features",
    ) -> dict[str, Any]:
        self._check_call(output, keep, mask)
        x = tf.nn.relu(self.stem_norm(self.stem_conv(self.normalize(x)), training=training))
        if self.stem == "imagenet":
            # Zeros are as good as -inf before this max-pool, as nothing is negative after the ReLU.
            x = tf.nn.max_pool2d(pad(x, 1), 3, 2, "VALID")
        maps = []
        for stage in self.stages:
            for block in stage:
                x = self._run_block(block, x, training)
            maps.append(x)
        wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
        result = {"features": tf.cast(tf.reduce_mean(wide, (1, 2)), x.dtype), "map": x}
        return {**result, "layers": tuple(maps)} if output == "layers" else result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
