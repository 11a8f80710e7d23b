"""The light transformer with which MAE rebuilds hidden patches."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.masking import restore_tokens
from keras_ssl.layers.positions import sincos_positions
from keras_ssl.layers.transformer import TransformerBlock, kernel_initializer, layer_norm


@keras.saving.register_keras_serializable(package="keras_ssl")
class MAEDecoder(keras.layers.Layer):
    """Puts mask tokens where patches are hidden, adds fixed positions, and predicts all patches.

    Linear layer, mask tokens, original order, sine-cosine positions (those of the class token are zero), blocks,
    layer-norm, linear layer. The mask token starts normal with deviation 0.02, kernels Xavier-uniform.

    Args:
        grid: (rows, columns) of the patches.
        width: int. Width of the tokens inside. Defaults to `512`.
        depth: int. Blocks. Defaults to `8`.
        num_heads: int. Attention heads; divides `width`. Defaults to `16`.
        output_dim: int. Values predicted for each patch. Defaults to `768`, 16 x 16 pixels.

    Call: `decoder(visible, restore)` with visible `(batch, 1 + k, dim)`, the class token first, and restore int32
    `(batch, patches)`, the place of each patch among the visible patches followed by the hidden ones. Returns
    `(batch, patches, output_dim)` in the compute dtype.

    Reference: He et al., 2021, https://arxiv.org/abs/2111.06377, section 3. Reference code: facebookresearch/mae
    `models_mae.py`, `forward_decoder`.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        width: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        output_dim: int = 768,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.grid = tuple(grid)
        self.width, self.depth, self.num_heads = width, depth, num_heads
        self.output_dim = output_dim
        self.expand = self._dense(width, "expand")
        self.blocks = [
            TransformerBlock(
                width,
                num_heads,
                initialization="xavier",
                dtype=self.dtype_policy,
                name=f"block{index}",
            )
            for index in range(depth)
        ]
        self.norm = layer_norm(self.dtype_policy, "norm")
        self.predict_pixels = self._dense(output_dim, "predict_pixels")

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer=kernel_initializer("xavier"),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.expand.build((None, None, input_shape[-1]))
        self.mask_token = self.add_weight(
            shape=(1, 1, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="mask_token",
        )
        for block in self.blocks:
            block.build((None, None, self.width))
        self.norm.build((None, None, self.width))
        self.predict_pixels.build((None, None, self.width))
        self.built = True

    def call(
        self, visible: tf.Tensor, restore: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        x = self.expand(visible)
        tokens = restore_tokens(x[:, 1:], restore, tf.convert_to_tensor(self.mask_token))
        x = tf.concat([x[:, :1], tokens], 1)
        table = sincos_positions(self.width, self.grid, class_token=True)
        x += tf.constant(table[None], x.dtype)
        for block in self.blocks:
            x = block(x, training=training)
        return self.predict_pixels(tf.cast(self.norm(x), self.compute_dtype))[:, 1:]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "grid": self.grid,
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "output_dim": self.output_dim,
        }
