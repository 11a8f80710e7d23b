"""Swin Transformers as iBOT trained them: attention in windows, four stages of maps, any input size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone
from keras_ssl.layers.convolution import PaddedConvolution, mean_of_map
from keras_ssl.layers.mlp import torch_linear_initializer
from keras_ssl.layers.transformer import layer_norm
from keras_ssl.layers.windows import PatchMerging, WindowBlock


@keras.saving.register_keras_serializable(package="keras_ssl")
class Swin(Backbone):
    """Stages of window attention, each with half the rows and columns and twice the width of the one before.

    Patches and their norm; in each stage blocks whose windows lie in place and shifted by half a window in turn;
    2 x 2 neighbours merged between stages; final norm; the mean over the map. Exact GELU, no batch-norm, no class
    token, no table of positions.

    Windows are settled when the network is built, by the map that each stage has at `image_size`: a stage whose
    map is no larger than a window has windows of the map's size, and no shift. So a network of 224 pixels with windows
    of 14 has 14, 14, 14 and 7, the last two without shift. They stay the same for images of another size, whose maps
    get zeros up to a multiple of the window.

    Args:
        width: int > 0. Channels of the first stage; of stage i it is `width * 2**i`.
        blocks: ints > 0. Number of blocks of each stage.
        num_heads: ints > 0. Heads of each stage; each divides the stage's width.
        patch_size: int > 0. Side of a patch in pixels. Defaults to `4`.
        window_size: int > 0. Side of the windows in places of the map. Defaults to `7`.
        mlp_ratio: float > 0. Hidden width of a block's perceptron over its width. Defaults to `4.0`.
        drop_path: float in [0, 1). Rate at the last block; grows linearly from 0 at the first. The authors: 0.1 for
            the tiny one, 0.2 for the others. Defaults to `0.0`.
        layer_norm_epsilon: float > 0. iBOT: 1e-6; microsoft/Swin-Transformer: 1e-5. Defaults to `1e-6`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Attributes: `patch_size`.

    Returns "features" `(batch, channels)`, the mean over h and w of "map" `(batch, h, w, channels)`, which is the last
    map after the final norm; "layers": a tuple of the maps after each block, before the merging that follows it, those
    of the last stage after the final norm (their means over h and w are what iBOT's linear probe reads). Rows and
    columns that do not fill a patch are left out.

    Reference: Liu et al., 2021, https://arxiv.org/abs/2103.14030, section 3; Zhou et al., 2021 (iBOT),
    https://arxiv.org/abs/2111.07832. Reference code: bytedance/ibot `models/swin_transformer.py`.
    Differs from the reference: images need not be square; the bias of the patches starts at 0.
    """

    def __init__(
        self,
        width: int,
        blocks: Sequence[int],
        num_heads: Sequence[int],
        *,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_norm_epsilon: float = 1e-6,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        self.settings = {
            "width": width,
            "blocks": list(blocks),
            "num_heads": list(num_heads),
            "patch_size": patch_size,
            "window_size": window_size,
            "mlp_ratio": mlp_ratio,
            "drop_path": drop_path,
            "layer_norm_epsilon": layer_norm_epsilon,
        }
        _check(self.settings, image_size)
        self.recompute, self.patch_size = recompute, patch_size
        self.feature_dim = width * 2 ** (len(blocks) - 1)
        self.patch_embedding = PaddedConvolution(
            width,
            patch_size,
            patch_size,
            border=0,
            use_bias=True,
            kernel_initializer=torch_linear_initializer(),
            dtype=self.dtype_policy,
            name="patch_embedding",
        )
        self.patch_norm = layer_norm(self.dtype_policy, "patch_norm", layer_norm_epsilon)
        self.merging = [
            PatchMerging(
                width * 2 ** (stage - 1),
                layer_norm_epsilon=layer_norm_epsilon,
                dtype=self.dtype_policy,
                name=f"downsample{stage}",
            )
            for stage in range(1, len(blocks))
        ]
        self.stages = [self._make_stage(stage) for stage in range(len(blocks))]
        self.norm = layer_norm(self.dtype_policy, "norm", layer_norm_epsilon)
        self._finish()

    def _make_stage(self, stage: int) -> list[WindowBlock]:
        settings, (window, shift) = self.settings, self._window(stage)
        before, total = sum(settings["blocks"][:stage]), sum(settings["blocks"])
        return [
            WindowBlock(
                settings["width"] * 2**stage,
                settings["num_heads"][stage],
                window,
                shift=shift * (index % 2),
                mlp_ratio=settings["mlp_ratio"],
                drop_path=settings["drop_path"] * (before + index) / max(total - 1, 1),
                layer_norm_epsilon=settings["layer_norm_epsilon"],
                dtype=self.dtype_policy,
                name=f"stage{stage}_block{index}",
            )
            for index in range(settings["blocks"][stage])
        ]

    def _window(self, stage: int) -> tuple[int, int]:
        """Returns the side of a stage's windows and the shift of every second block."""
        side, window = self.image_size // self.patch_size // 2**stage, self.settings["window_size"]
        return (side, 0) if side <= window else (window, window // 2)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.patch_embedding.build((None, None, None, 3))
        self.patch_norm.build((None, None, None, self.settings["width"]))
        for stage, blocks in enumerate(self.stages):
            if stage:
                self.merging[stage - 1].build((None, None, None, blocks[0].width // 2))
            for block in blocks:
                block.build((None, None, None, block.width))
        self.norm.build((None, None, None, self.feature_dim))
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
        x, layers, dtype = self.embed(x), [], self.compute_dtype
        for stage, blocks in enumerate(self.stages):
            x = self.merging[stage - 1](x) if stage else x
            for block in blocks:
                x = self._run_block(block, x, training, keys=keys)
                layers.append(x)
        x = self.norm(x)  # in at least float32
        result = {"features": tf.cast(mean_of_map(x), dtype), "map": tf.cast(x, dtype)}
        if output == "layers":
            last = len(layers) - len(self.stages[-1])
            normed = [tf.cast(self.norm(y), dtype) for y in layers[last:]]
            result["layers"] = (*layers[:last], *normed)
        return result

    def embed(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the first block sees, `(batch, rows, columns, width)`; x as in `call`."""
        x = self.normalize(x)
        if None in x.shape[1:3] or min(x.shape[1:3]) < self.patch_size:
            raise ValueError(
                f"Expected a known height and width of at least {self.patch_size} pixels, from which the windows "
                f"are cut. Received: shape={tuple(x.shape)}"
            )
        return tf.cast(self.patch_norm(self.patch_embedding(x)), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}


def _check(settings: dict[str, Any], image_size: int) -> None:
    """Refuses settings that do not go together; blocks check their own."""
    blocks, heads = settings["blocks"], settings["num_heads"]
    if not blocks or len(blocks) != len(heads) or min(blocks) < 1:
        raise ValueError(
            "`blocks` and `num_heads` must have one positive number for each stage. "
            f"Received: blocks={blocks}, num_heads={heads}"
        )
    patch, window = settings["patch_size"], settings["window_size"]
    if patch < 1 or window < 1:
        raise ValueError(
            "`patch_size` and `window_size` must be positive. "
            f"Received: patch_size={patch}, window_size={window}"
        )
    least = patch * 2 ** (len(blocks) - 1)
    if image_size < least:
        raise ValueError(
            f"`image_size` must be at least {least}, a patch halved {len(blocks) - 1} times from there. "
            f"Received: image_size={image_size}, patch_size={patch}, blocks={blocks}"
        )
