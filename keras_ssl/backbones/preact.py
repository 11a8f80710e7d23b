"""Residual networks with pre-activation: batch-norm and ReLU stand before each convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone, check_stages
from keras_ssl.backbones.residual import Convolution
from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.convolution import mean_of_map


@keras.saving.register_keras_serializable(package="keras_ssl")
class PreActBlock(keras.layers.Layer):
    """The basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) block, with a batch-norm and a ReLU before each convolution.

    Args:
        filters: int > 0. Channels inside; the bottleneck gives four times as many.
        stride: int. 1 or 2, of the first 3x3 and the shortcut.
        bottleneck: bool.
        shortcut: bool. Whether the shortcut is a 1x1 convolution of what the first convolution sees. If not, the input
            itself is added.
        synchronized: bool. See `BatchNormalization`. Defaults to `True`.

    Input: `(batch, height, width, channels)`. Output: `(batch, ceil(height / stride), ceil(width / stride),
    channels)`, which nothing has normalized.
    """

    def __init__(
        self,
        filters: int,
        stride: int,
        *,
        bottleneck: bool,
        shortcut: bool,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = {
            "filters": filters,
            "stride": stride,
            "bottleneck": bottleneck,
            "shortcut": shortcut,
            "synchronized": synchronized,
        }
        widths, sizes = ((1, 1, 4), (1, 3, 1)) if bottleneck else ((1, 1), (3, 3))
        self.channels = filters * widths[-1]
        strided, dtype = sizes.index(3), self.dtype_policy
        self.convs = [
            Convolution(
                filters * width,
                size,
                stride if index == strided else 1,
                dtype=dtype,
                name=f"conv{index + 1}",
            )
            for index, (width, size) in enumerate(zip(widths, sizes, strict=True))
        ]
        self.norms = [
            BatchNormalization(synchronized=synchronized, dtype=dtype, name=f"norm{index}")
            for index in range(1, len(sizes) + 1)
        ]
        self.shortcut_conv = None
        if shortcut:
            self.shortcut_conv = Convolution(
                self.channels, 1, stride, dtype=dtype, name="shortcut_conv"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        if self.shortcut_conv is not None:
            self.shortcut_conv.build(input_shape)
        channels = input_shape[-1]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            norm.build((None, None, None, channels))
            conv.build((None, None, None, channels))
            channels = conv.filters
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shortcut = x
        for index, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            x = tf.nn.relu(norm(x, training=training))
            if index == 0 and self.shortcut_conv is not None:
                shortcut = self.shortcut_conv(x)
            x = conv(x)
        return x + shortcut

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="keras_ssl")
class PreActResNet(Backbone):
    """ResNet version 2 as TensorFlow's official models had it, which Local Aggregation trained.

    A 7x7 convolution with stride 2, a 3x3 max-pool with stride 2, blocks, and one batch-norm with ReLU at the end. The
    first block of every stage has a convolution on its shortcut, also where the channels stay. Strided convolutions
    have their zeros on every side, the pool as TensorFlow's `"same"` has. Batch-norm: epsilon 1e-5, momentum 0.9.

    Args:
        blocks: ints > 0. Number of blocks of each stage; (2, 2, 2, 2) is ResNet-18.
        bottleneck: bool. Bottleneck (50 and deeper) or basic blocks (18, 34). Defaults to `False`.
        filters: ints > 0. Channels inside the blocks of each stage; the stem gives the first. Every stage but
            the first halves the map. Defaults to `(64, 128, 256, 512)`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it.
            Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last ReLU and "features", its mean over h and w; "layers": a tuple
    of the maps after each stage, which nothing has normalized but the last, which is "map".

    Reference: He et al., 2016, https://arxiv.org/abs/1603.05027. Reference code: neuroailab/LocalAggregation
    `model/resnet_model.py`, version 2, its default.
    Differs from the reference: its batch-norm has momentum 0.997, which matters in training only.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        bottleneck: bool = False,
        filters: Sequence[int] = (64, 128, 256, 512),
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        check_stages(blocks, filters)
        self.settings = {
            "blocks": list(blocks),
            "bottleneck": bottleneck,
            "filters": list(filters),
            "synchronized": synchronized,
        }
        self.recompute, dtype = recompute, self.dtype_policy
        self.stem_conv = Convolution(filters[0], 7, 2, dtype=dtype, name="stem_conv")
        self.stages = [
            [
                PreActBlock(
                    filters[stage],
                    2 if stage > 0 and index == 0 else 1,
                    bottleneck=bottleneck,
                    shortcut=index == 0,
                    synchronized=synchronized,
                    dtype=dtype,
                    name=f"stage{stage + 1}_block{index}",
                )
                for index in range(count)
            ]
            for stage, count in enumerate(blocks)
        ]
        self.last_norm = BatchNormalization(
            synchronized=synchronized, dtype=dtype, name="last_norm"
        )
        self.feature_dim = self.stages[-1][-1].channels
        self._finish()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.stem_conv.build(input_shape)
        channels = self.stem_conv.filters
        for block in (block for stage in self.stages for block in stage):
            block.build((None, None, None, channels))
            channels = block.channels
        self.last_norm.build((None, None, None, channels))
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
        x = tf.nn.max_pool2d(self.stem_conv(self.normalize(x)), 3, 2, "SAME")
        maps = self._run_stages(self.stages, x, training)
        last = tf.nn.relu(self.last_norm(maps[-1], training=training))
        result = {"features": mean_of_map(last), "map": last}
        return {**result, "layers": (*maps[:-1], last)} if output == "layers" else result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
