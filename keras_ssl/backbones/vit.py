"""Vision transformers that equal timm's, with masking, token dropping and any input size."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone
from keras_ssl.layers.patches import PatchEmbedding
from keras_ssl.layers.positions import interpolate_positions, sincos_positions
from keras_ssl.layers.transformer import TransformerBlock, kernel_initializer, layer_norm

POSITIONS = ("learned", "sincos", "sincos_row_first")
POOLINGS = ("token", "mean")


@keras.saving.register_keras_serializable(package="keras_ssl")
class ViT(Backbone):
    """Vision transformer with pre-norm blocks, biases on query, key and value, exact GELU and layer-norm epsilon 1e-6.

    Patch tokens; masked ones replaced by the mask token; positions added; kept ones chosen; class token (with
    its own position) put in front; blocks; final norm.

    Args:
        width: int > 0. Token width.
        depth: int > 0. Number of blocks.
        num_heads: int > 0. Divides `width`.
        patch_size: int > 0. Side of a patch in pixels. Defaults to `16`.
        mlp_ratio: float > 0. Hidden width of a block's perceptron over `width`. Defaults to `4.0`.
        class_token: bool. Whether a learned token is put in front of the patches. Defaults to `True`.
        pooling: str. Features are the class token (`"token"`) or the mean of the patch tokens (`"mean"`),
            after the final norm. Defaults to `"token"`, without a class token to `"mean"`.
        positions: str. `"learned"` (DINO); `"sincos"`, fixed, column first (MAE); `"sincos_row_first"`, fixed
            (MoCo v3). Resized bicubically for images of another size. Defaults to `"learned"`.
        position_offset: float. 0.1 for parity with DINO, iBOT and DINOv2 on images of another size, see
            `layers.bicubic_matrix`. Defaults to `0.0`.
        use_mask_token: bool. Whether there is a mask token (starts at 0), which `mask` needs. Defaults to
            `False`.
        drop_path: float in [0, 1). Rate at the last block; grows linearly from 0 at the first. Defaults to
            `0.0`.
        layer_scale: float or None. Start value of a learned factor for each channel of a branch; None: no factors.
            Defaults to `None`.
        initialization: str. `"normal"` (DINO), `"xavier"` (MAE) or `"xavier_split"` (MoCo v3). The class token
            starts with standard deviation 0.02, MoCo v3's with 1e-6. Defaults to `"normal"`.
        freeze_patch_embedding: bool. Whether the patch projection keeps its random start values (MoCo v3).
            Defaults to `False`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Attributes: `patch_size`, `grid` (rows, columns at `image_size`).

    Returns "features" `(batch, width)` and "tokens" `(batch, patches, width)`, both after the final norm; with
    `keep` `(batch, k)` the tokens are those k patches in that order. "layers": a tuple of each block's
    `([class token,] patches)` sequences after the final norm. "attention": the last block's weights `(batch,
    heads, tokens, tokens)`.

    Reference: Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929, section 3.1. Reference code:
    facebookresearch/dino `vision_transformer.py`; facebookresearch/mae `models_mae.py`;
    facebookresearch/moco-v3 `vits.py`.
    """

    OUTPUTS = ("features", "layers", "attention")

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        class_token: bool = True,
        pooling: str | None = None,
        positions: str = "learned",
        position_offset: float = 0.0,
        use_mask_token: bool = False,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        initialization: str = "normal",
        freeze_patch_embedding: bool = False,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        pooling = pooling or ("token" if class_token else "mean")
        self.settings = {
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "mlp_ratio": mlp_ratio,
            "class_token": class_token,
            "pooling": pooling,
            "positions": positions,
            "position_offset": position_offset,
            "use_mask_token": use_mask_token,
            "drop_path": drop_path,
            "layer_scale": layer_scale,
            "initialization": initialization,
            "freeze_patch_embedding": freeze_patch_embedding,
        }
        self._check_settings()
        self.recompute = recompute
        self.feature_dim = width
        self.patch_size = patch_size
        self.grid = (image_size // patch_size,) * 2
        self.patch_embedding = PatchEmbedding(
            patch_size,
            width,
            kernel_initializer=kernel_initializer(initialization),
            dtype=self.dtype_policy,
            name="patch_embedding",
        )
        self.blocks = [
            TransformerBlock(
                width,
                num_heads,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path * index / max(depth - 1, 1),
                layer_scale=layer_scale,
                initialization=initialization,
                dtype=self.dtype_policy,
                name=f"block{index}",
            )
            for index in range(depth)
        ]
        self.norm = layer_norm(self.dtype_policy, "norm")
        self._finish()

    def _check_settings(self) -> None:
        settings, size = self.settings, self.settings["patch_size"]
        for name, allowed in (("positions", POSITIONS), ("pooling", POOLINGS)):
            if settings[name] not in allowed:
                raise ValueError(
                    f"`{name}` must be one of {allowed}. Received: {name}={settings[name]!r}"
                )
        if settings["pooling"] == "token" and not settings["class_token"]:
            raise ValueError('`pooling="token"` needs a class token. Received: class_token=False')
        if size < 1 or self.image_size % size:
            raise ValueError(
                "`image_size` must be a multiple of `patch_size`. "
                f"Received: image_size={self.image_size}, patch_size={size}"
            )
        if settings["depth"] < 1:
            raise ValueError(f"`depth` must be positive. Received: depth={settings['depth']}")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        settings, width = self.settings, self.feature_dim
        deviation = 1e-6 if settings["initialization"] == "xavier_split" else 0.02
        self.class_token = self.mask_token = None
        if settings["class_token"]:
            self.class_token = self._token(
                "class_token", keras.initializers.RandomNormal(stddev=deviation)
            )
        if settings["use_mask_token"]:
            self.mask_token = self._token("mask_token", "zeros")
        rows = self.grid[0] * self.grid[1] + settings["class_token"]
        learned = settings["positions"] == "learned"
        self.position_table = self.add_weight(
            shape=(1, rows, width),
            initializer=keras.initializers.RandomNormal(stddev=0.02) if learned else "zeros",
            trainable=learned,
            autocast=False,
            name="position_table",
        )
        if not learned:
            table = sincos_positions(
                width,
                self.grid,
                class_token=settings["class_token"],
                row_first=settings["positions"] == "sincos_row_first",
            )
            self.position_table.assign(table[None])
        self.patch_embedding.build((None, None, None, 3))
        if settings["freeze_patch_embedding"]:
            self.patch_embedding.trainable = False
        for block in self.blocks:
            block.build((None, None, width))
        self.norm.build((None, None, width))
        self.built = True

    def _token(self, name: str, initializer: Any) -> keras.Variable:
        shape = (1, 1, self.feature_dim)
        return self.add_weight(shape=shape, initializer=initializer, autocast=False, name=name)

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
        x = self.embed(x, keep=keep, mask=mask)
        layers, attention = [], None
        for block in self.blocks[:-1]:
            x = self._run_block(block, x, training, keys=keys)
            layers.append(x)
        if output == "attention":
            x, attention = self.blocks[-1](x, training=training, keys=keys, return_attention=True)
        else:
            x = self._run_block(self.blocks[-1], x, training, keys=keys)
        x = self.norm(x)
        first = int(self.class_token is not None)
        features = (
            x[:, 0] if self.settings["pooling"] == "token" else tf.reduce_mean(x[:, first:], 1)
        )
        dtype = self.compute_dtype
        result = {"features": tf.cast(features, dtype), "tokens": tf.cast(x[:, first:], dtype)}
        if output == "layers":
            result["layers"] = tuple(tf.cast(y, dtype) for y in (*map(self.norm, layers), x))
        if output == "attention":
            result["attention"] = attention
        return result

    def embed(
        self, x: tf.Tensor, keep: tf.Tensor | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns what the first block sees, `(batch, [1 +] patches or k, width)`; arguments as in `call`."""
        grid = (x.shape[1] or 0) // self.patch_size, (x.shape[2] or 0) // self.patch_size
        tokens = self.patch_embedding(self.normalize(x))  # (batch, patches, width)
        dtype = tokens.dtype
        if mask is not None:
            if self.mask_token is None:
                raise ValueError(
                    "`mask` needs the mask token. Received: use_mask_token=False at construction"
                )
            hidden = tf.cast(tf.convert_to_tensor(self.mask_token), dtype)
            tokens = tf.where(tf.convert_to_tensor(mask)[..., None], hidden, tokens)
        first = int(self.class_token is not None)
        table = tf.convert_to_tensor(self.position_table)
        tokens += tf.cast(
            interpolate_positions(
                table[:, first:], self.grid, grid, offset=self.settings["position_offset"]
            ),
            dtype,
        )
        if keep is not None:
            tokens = tf.gather(tokens, keep, axis=1, batch_dims=1)
        if self.class_token is None:
            return tokens
        token = tf.cast(tf.convert_to_tensor(self.class_token) + table[:, :1], dtype)
        return tf.concat([tf.repeat(token, tf.shape(tokens)[0], axis=0), tokens], axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
