"""RegNetY: residual networks with grouped convolutions and channel gates, as SwAV and SEER trained them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone, check_stages
from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.convolution import PaddedConvolution, mean_of_map


@keras.saving.register_keras_serializable(package="keras_ssl")
class RegNetBlock(keras.layers.Layer):
    """1x1, grouped 3x3 with the stride, channel gates, 1x1; added to the input, which is projected if it must be.

    Args:
        filters: int > 0. Channels inside and out.
        stride: int. 1 or 2.
        group_width: int > 0. Channels of a group of the 3x3; divides `filters`.
        gate_ratio: float > 0. Hidden width of the gates over the channels that come into the block (not over
            `filters`), rounded. Defaults to `0.25`.
        synchronized: bool. See `BatchNormalization`.
    """

    def __init__(
        self,
        filters: int,
        stride: int,
        *,
        group_width: int,
        gate_ratio: float = 0.25,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if filters < 1 or group_width < 1 or filters % group_width:
            raise ValueError(
                "`group_width` must divide `filters`. "
                f"Received: group_width={group_width}, filters={filters}"
            )
        self.filters = filters
        self.stride = stride
        self.group_width = group_width
        self.gate_ratio = gate_ratio
        self.synchronized = synchronized
        self.conv1 = self._conv("conv1", 1)
        self.conv2 = self._conv("conv2", 3, stride, groups=filters // group_width)
        self.conv3 = self._conv("conv3", 1)
        self.norm1, self.norm2, self.norm3 = (self._norm(f"norm{index}") for index in (1, 2, 3))

    def _conv(self, name: str, size: int, stride: int = 1, **settings: Any) -> PaddedConvolution:
        return PaddedConvolution(
            self.filters, size, stride, dtype=self.dtype_policy, name=name, **settings
        )

    def _norm(self, name: str) -> BatchNormalization:
        return BatchNormalization(
            synchronized=self.synchronized, dtype=self.dtype_policy, name=name
        )

    def _gate(self, units: int, name: str) -> keras.layers.Dense:
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        return keras.layers.Dense(
            units, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels, inner = input_shape[-1], (None, None, None, self.filters)
        self.shortcut_conv = self.shortcut_norm = None
        if self.stride != 1 or channels != self.filters:
            self.shortcut_conv = self._conv("shortcut_conv", 1, self.stride)
            self.shortcut_norm = self._norm("shortcut_norm")
            self.shortcut_conv.build(input_shape)
            self.shortcut_norm.build(inner)
        hidden = round(self.gate_ratio * channels)
        self.squeeze = self._gate(hidden, "squeeze")
        self.excite = self._gate(self.filters, "excite")
        self.conv1.build(input_shape)
        for layer in (self.conv2, self.conv3, self.norm1, self.norm2, self.norm3):
            layer.build(inner)
        self.squeeze.build((None, self.filters))
        self.excite.build((None, hidden))
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        shortcut = x
        if self.shortcut_conv is not None:
            shortcut = self.shortcut_norm(self.shortcut_conv(x), training=training)
        x = tf.nn.relu(self.norm1(self.conv1(x), training=training))
        x = tf.nn.relu(self.norm2(self.conv2(x), training=training))
        gates = tf.sigmoid(self.excite(tf.nn.relu(self.squeeze(mean_of_map(x)))))
        x = self.norm3(self.conv3(x * gates[:, None, None]), training=training)
        return tf.nn.relu(x + shortcut)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "stride": self.stride,
            "group_width": self.group_width,
            "gate_ratio": self.gate_ratio,
            "synchronized": self.synchronized,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class RegNet(Backbone):
    """RegNetY as ClassyVision and VISSL build it: SwAV's 16 and 128 billion operations, SEER's 32 to 256.

    A 3x3 convolution with stride 2 and no max-pool, then stages that each halve the map. Batch-norm epsilon 1e-5 and
    momentum 0.9.

    Args:
        blocks: ints > 0. Number of blocks of each stage.
        filters: ints > 0. Channels of each stage.
        group_width: int > 0. Channels of a group of the 3x3 convolutions; divides every one of `filters`.
        stem_filters: int > 0. Channels of the first convolution. Defaults to `32`.
        gate_ratio: float > 0. Hidden width of the channel gates over the channels that come into their block,
            so the first block of a stage has narrower gates than the others. Defaults to `0.25`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "map" `(batch, h, w, channels)` after the last ReLU and "features", its mean over h and w (VISSL's
    `res5avg`); "layers": a tuple of the maps after each stage (VISSL's `res2` to `res5`).

    Reference: Radosavovic et al., 2020, https://arxiv.org/abs/2003.13678; Goyal et al., 2021 (SEER),
    https://arxiv.org/abs/2103.01988. Reference code: facebookresearch/ClassyVision
    `classy_vision/models/anynet.py`; the settings are those of facebookresearch/vissl,
    `configs/config/benchmark/linear_image_classification/imagenet1k/models/`. `regnety_256gf` is SEER's
    (10444 features), not ClassyVision's network of that name (5088), and `regnety_64gf` likewise (4920).
    """

    def __init__(
        self,
        blocks: Sequence[int],
        filters: Sequence[int],
        group_width: int,
        *,
        stem_filters: int = 32,
        gate_ratio: float = 0.25,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        check_stages(blocks, filters)
        self.settings = {
            "blocks": list(blocks),
            "filters": list(filters),
            "group_width": group_width,
            "stem_filters": stem_filters,
            "gate_ratio": gate_ratio,
            "synchronized": synchronized,
        }
        self.recompute = recompute
        policy = {"dtype": self.dtype_policy}
        self.stem_conv = PaddedConvolution(stem_filters, 3, 2, name="stem_conv", **policy)
        self.stem_norm = BatchNormalization(synchronized=synchronized, name="stem_norm", **policy)
        self.stages = [
            [
                RegNetBlock(
                    channels,
                    2 if index == 0 else 1,
                    group_width=group_width,
                    gate_ratio=gate_ratio,
                    synchronized=synchronized,
                    name=f"stage{stage + 1}_block{index}",
                    **policy,
                )
                for index in range(count)
            ]
            for stage, (count, channels) in enumerate(zip(blocks, filters, strict=True))
        ]
        self.feature_dim = filters[-1]
        self._finish()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.stem_conv.build(input_shape)
        channels = self.stem_conv.filters
        self.stem_norm.build((None, None, None, channels))
        for block in (block for stage in self.stages for block in stage):
            block.build((None, None, None, channels))
            channels = block.filters
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
        maps = self._run_stages(self.stages, x, training)
        result = {"features": mean_of_map(maps[-1]), "map": maps[-1]}
        return {**result, "layers": maps} if output == "layers" else result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
