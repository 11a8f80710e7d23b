"""XCiT: transformers whose attention mixes channels instead of tokens, as DINO and its authors trained them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone
from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.convolution import PaddedConvolution
from keras_ssl.layers.cross_covariance import ClassAttentionBlock, CrossCovarianceBlock
from keras_ssl.layers.mlp import gelu
from keras_ssl.layers.positions import fourier_positions
from keras_ssl.layers.transformer import kernel_initializer, layer_norm

FREQUENCIES = 32  # of the position term, for rows and for columns


@keras.saving.register_keras_serializable(package="keras_ssl")
class XCiT(Backbone):
    """Cross-covariance image transformer: the cost grows linearly with the number of patches.

    Patches come from 3x3 convolutions with stride 2, batch-norm and exact GELU between them; a projected Fourier code
    of the place is added; blocks of channel attention, depthwise convolutions and a perceptron; then a class token
    reads the patches in blocks of class attention; final norm. Layer-norm epsilon 1e-6, batch-norm 1e-5.

    Args:
        width: int > 0. Token width; a multiple of `num_heads` and of `patch_size / 2`.
        depth: int > 0. Number of blocks of channel attention.
        num_heads: int > 0. Divides `width`.
        patch_size: int. 2, 4, 8 or 16: one convolution with stride 2 for each factor of 2, each twice as wide as the
            one before. Defaults to `16`.
        mlp_ratio: float > 0. Hidden width of a block's perceptron over `width`. Defaults to `4.0`.
        class_depth: int > 0. Number of blocks of class attention. Defaults to `2`.
        drop_path: float in [0, 1). Rate at every block of channel attention. Defaults to `0.0`.
        layer_scale: float. Start value of the learned factor of each channel of a branch: 1 for 12 blocks, 1e-5 for
            24. Defaults to `1.0`.
        synchronized: bool. Whether batch-norm uses the statistics of all replicas. Defaults to `True`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Attributes: `patch_size`, `grid` (rows, columns at `image_size`).

    Returns "features" `(batch, width)`, the class token, and "tokens" `(batch, patches, width)`, both after the final
    norm; "layers": a tuple of the patch tokens after each block of channel attention, before the class token comes in.
    For sides that are no multiple of the patch size the grid is rounded up, as the padded convolutions do.

    Reference: El-Nouby et al., 2021, https://arxiv.org/abs/2106.09681, sections 3 and 4; class attention: Touvron et
    al., 2021, https://arxiv.org/abs/2103.17239. Reference code: facebookresearch/xcit `xcit.py`, with its
    `tokens_norm=True`, which all published networks but the "nano" ones have.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        class_depth: int = 2,
        drop_path: float = 0.0,
        layer_scale: float = 1.0,
        synchronized: bool = True,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        _check(width, depth, patch_size, class_depth)
        self.settings = {
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "mlp_ratio": mlp_ratio,
            "class_depth": class_depth,
            "drop_path": drop_path,
            "layer_scale": layer_scale,
            "synchronized": synchronized,
        }
        self.recompute, self.feature_dim, self.patch_size = recompute, width, patch_size
        self.grid = (-(-image_size // patch_size),) * 2
        policy = {"dtype": self.dtype_policy}
        self.patch_convs, self.patch_norms = self._make_patches(patch_size.bit_length() - 1)
        self.position_projection = keras.layers.Dense(
            width,
            kernel_initializer=kernel_initializer("normal"),
            name="position_projection",
            **policy,
        )
        shared = {"mlp_ratio": mlp_ratio, "layer_scale": layer_scale, **policy}
        self.blocks = [
            CrossCovarianceBlock(
                width,
                num_heads,
                drop_path=drop_path,
                synchronized=synchronized,
                name=f"block{index}",
                **shared,
            )
            for index in range(depth)
        ]
        self.class_blocks = [
            ClassAttentionBlock(width, num_heads, name=f"class_block{index}", **shared)
            for index in range(class_depth)
        ]
        self.norm = layer_norm(self.dtype_policy, "norm")
        self._finish()

    def _make_patches(self, steps: int) -> tuple[list[Any], list[Any]]:
        """Returns the convolutions that make a patch a token, each halving the map, and their batch-norms."""
        numbers, policy = range(1, steps + 1), {"dtype": self.dtype_policy}
        synchronized = self.settings["synchronized"]
        convs = [
            PaddedConvolution(
                self.feature_dim >> (steps - n), 3, 2, name=f"patch_conv{n}", **policy
            )
            for n in numbers
        ]
        norms = [
            BatchNormalization(synchronized=synchronized, name=f"patch_norm{n}", **policy)
            for n in numbers
        ]
        return convs, norms

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        channels, width = 3, self.feature_dim
        for conv, norm in zip(self.patch_convs, self.patch_norms, strict=True):
            conv.build((None, None, None, channels))
            channels = conv.filters
            norm.build((None, None, None, channels))
        self.position_projection.build((None, 2 * FREQUENCIES))
        self.class_token = self.add_weight(
            shape=(1, 1, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            autocast=False,
            name="class_token",
        )
        for block in self.blocks:
            block.build((None, None, None, width))
        for block in self.class_blocks:
            block.build((None, None, width))
        self.norm.build((None, None, width))
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
        x, layers = self.embed(x, training), []
        patches, width = x.shape[1] * x.shape[2], self.feature_dim
        for block in self.blocks:
            x = self._run_block(block, x, training, keys=keys)
            layers.append(tf.reshape(x, (-1, patches, width)))
        token = tf.cast(tf.convert_to_tensor(self.class_token), x.dtype)
        x = tf.concat([tf.repeat(token, tf.shape(x)[0], axis=0), layers[-1]], axis=1)
        for block in self.class_blocks:
            x = self._run_block(block, x, training)
        x = tf.cast(self.norm(x), self.compute_dtype)
        result = {"features": x[:, 0], "tokens": x[:, 1:]}
        return {**result, "layers": tuple(layers)} if output == "layers" else result

    def embed(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns what the first block sees, `(batch, rows, columns, width)`; arguments as in `call`."""
        x = self.normalize(x)
        if None in x.shape[1:3]:
            raise ValueError(
                "Expected a known height and width, from which the code of each place is made. "
                f"Received: shape={tuple(x.shape)}"
            )
        for index, (conv, norm) in enumerate(zip(self.patch_convs, self.patch_norms, strict=True)):
            x = norm(conv(x if index == 0 else gelu(x)), training=training)
        rows, columns = x.shape[1:3]
        code = tf.constant(fourier_positions((rows, columns), FREQUENCIES), x.dtype)
        return x + self.position_projection(code)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}


def _check(width: int, depth: int, patch_size: int, class_depth: int) -> None:
    if patch_size not in (2, 4, 8, 16) or width % (patch_size // 2):
        raise ValueError(
            "`patch_size` must be 2, 4, 8 or 16 and half of it must divide `width`. "
            f"Received: patch_size={patch_size}, width={width}"
        )
    if depth < 1 or class_depth < 1:
        raise ValueError(
            "`depth` and `class_depth` must be positive. "
            f"Received: depth={depth}, class_depth={class_depth}"
        )
