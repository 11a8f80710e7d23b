"""ConvNeXt as DINOv3 distilled it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone, check_stages
from keras_ssl.layers.convolution import PaddedConvolution, mean_of_map
from keras_ssl.layers.mlp import gelu
from keras_ssl.layers.stochastic_depth import stochastic_depth
from keras_ssl.layers.transformer import kernel_initializer, layer_norm


@keras.saving.register_keras_serializable(package="keras_ssl")
class ConvNeXtBlock(keras.layers.Layer):
    """x + drop(scale * dense(gelu(dense(norm(depthwise 7x7(x))))), the first dense layer four times as wide.

    Args:
        filters: int > 0. Channels.
        drop_path: float in [0, 1). Probability that a sample skips the branch in training. Defaults to `0.0`.
        layer_scale: float. Start value of the learned factor of each channel. Defaults to `1e-6`.

    Call: `block(x, training=None, keys=None)` with keys uint32 `(batch, 2)`, needed in training if `drop_path` > 0.
    """

    def __init__(
        self, filters: int, *, drop_path: float = 0.0, layer_scale: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"`drop_path` must be in [0, 1). Received: drop_path={drop_path}")
        self.filters = filters
        self.drop_path = drop_path
        self.layer_scale = layer_scale
        self.depthwise = keras.layers.DepthwiseConv2D(
            7,
            padding="same",
            depthwise_initializer=kernel_initializer("normal"),
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.norm = layer_norm(self.dtype_policy, "norm")
        self.hidden = self._dense(4 * filters, "hidden")
        self.output_dense = self._dense(filters, "output")

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer=kernel_initializer("normal"),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        inner = (None, None, None, self.filters)
        for layer in (self.depthwise, self.norm, self.hidden):
            layer.build(inner)
        self.output_dense.build((None, None, None, 4 * self.filters))
        self.scale = self.add_weight(
            shape=(self.filters,),
            initializer=keras.initializers.Constant(self.layer_scale),
            name="scale",
        )
        self.built = True

    def call(
        self, x: tf.Tensor, training: bool | None = None, keys: tf.Tensor | None = None
    ) -> tf.Tensor:
        branch = self.output_dense(gelu(self.hidden(self.norm(self.depthwise(x)))))
        branch = branch * tf.convert_to_tensor(self.scale)
        return x + stochastic_depth(
            branch, keys, name=self.name, rate=self.drop_path, training=training
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "drop_path": self.drop_path,
            "layer_scale": self.layer_scale,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class ConvNeXt(Backbone):
    """Stages of depthwise 7x7 blocks; a 4x4 convolution with stride 4 in front, 2x2 with stride 2 between them.

    Layer-norm with epsilon 1e-6 after the first convolution and before the others, exact GELU, no batch-norm. Rows and
    columns that do not fill a stride are left out, as in PyTorch.

    Args:
        blocks: ints > 0. Number of blocks of each stage.
        filters: ints > 0. Channels of each stage.
        drop_path: float in [0, 1). Rate at the last block; grows linearly from 0 at the first. Defaults to
            `0.0`.
        layer_scale: float. Start value of the learned factor of each channel of a branch. Defaults to `1e-6`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Returns "features" `(batch, channels)`, the mean of the last map over h and w after the final norm (DINOv3's class
    token), and "map" `(batch, h, w, channels)`, the final norm of each place of it (its patch tokens); "layers": a
    tuple of the maps after each stage, before any norm.

    Reference: Liu et al., 2022, https://arxiv.org/abs/2201.03545; Simeoni et al., 2025 (DINOv3),
    https://arxiv.org/abs/2508.10104. Reference code: facebookresearch/dinov3 `dinov3/models/convnext.py`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        filters: Sequence[int],
        *,
        drop_path: float = 0.0,
        layer_scale: float = 1e-6,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        check_stages(blocks, filters)
        self.settings = {
            "blocks": list(blocks),
            "filters": list(filters),
            "drop_path": drop_path,
            "layer_scale": layer_scale,
        }
        self.recompute = recompute
        self.stride = 4 * 2 ** (len(blocks) - 1)
        rates = iter(drop_path * index / max(sum(blocks) - 1, 1) for index in range(sum(blocks)))
        self.downsample_norms, self.downsample_convs, self.stages = [], [], []
        for stage, (count, channels) in enumerate(zip(blocks, filters, strict=True)):
            self.downsample_convs.append(self._make_downsampling(stage, channels))
            self.downsample_norms.append(layer_norm(self.dtype_policy, f"downsample{stage}_norm"))
            self.stages.append(
                [
                    ConvNeXtBlock(
                        channels,
                        drop_path=next(rates),
                        layer_scale=layer_scale,
                        dtype=self.dtype_policy,
                        name=f"stage{stage}_block{index}",
                    )
                    for index in range(count)
                ]
            )
        self.norm = layer_norm(self.dtype_policy, "norm")
        self.feature_dim = filters[-1]
        self._check_size(image_size, image_size)
        self._finish()

    def _make_downsampling(self, stage: int, channels: int) -> PaddedConvolution:
        """Returns the convolution that begins a stage: of 4x4 pixels for the first, of 2x2 for the others."""
        size = 4 if stage == 0 else 2
        return PaddedConvolution(
            channels,
            size,
            size,
            border=0,
            use_bias=True,
            kernel_initializer=kernel_initializer("normal"),
            dtype=self.dtype_policy,
            name=f"downsample{stage}_conv",
        )

    def _check_size(self, *sides: int | None) -> None:
        """Refuses images that are too small; sides that are not known while tracing (None) pass."""
        if any(side is not None and side < self.stride for side in sides):
            raise ValueError(
                f"Expected images of at least {self.stride} x {self.stride} pixels. "
                f"Received: {' x '.join(map(str, sides))}"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels = 3
        for stage, blocks in enumerate(self.stages):
            conv, norm = self.downsample_convs[stage], self.downsample_norms[stage]
            conv.build((None, None, None, channels))
            norm.build((None, None, None, channels if stage else conv.filters))
            channels = conv.filters
            for block in blocks:
                block.build((None, None, None, channels))
        self.norm.build((None, channels))
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
        x = self.normalize(x)
        self._check_size(*x.shape[1:3])
        maps, dtype = [], self.compute_dtype
        for stage, blocks in enumerate(self.stages):
            conv, norm = self.downsample_convs[stage], self.downsample_norms[stage]
            x = tf.cast(conv(norm(x)) if stage else norm(conv(x)), dtype)
            for block in blocks:
                x = self._run_block(block, x, training, keys=keys)
            maps.append(x)
        wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
        result = {
            "features": tf.cast(self.norm(mean_of_map(wide)), dtype),
            "map": tf.cast(self.norm(wide), dtype),
        }
        return {**result, "layers": tuple(maps)} if output == "layers" else result

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
