"""Vision transformers that equal timm's, DINOv2's and DINOv3's, with masking, token dropping and any input size."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.backbones.base import Backbone
from keras_ssl.backbones.vit_settings import check_settings
from keras_ssl.layers.patches import PatchEmbedding
from keras_ssl.layers.positions import interpolate_positions, sincos_positions
from keras_ssl.layers.rope import Rotation, rope_periods, rope_rotation
from keras_ssl.layers.transformer import TransformerBlock, kernel_initializer, layer_norm


@keras.saving.register_keras_serializable(package="keras_ssl")
class ViT(Backbone):
    """Vision transformer with pre-norm blocks and exact GELU.

    Patch tokens; masked ones replaced by the mask token; positions added; kept ones chosen; registers, and before
    them the class token with its own position, put in front; blocks; final norm.

    Args:
        width: int > 0. Token width.
        depth: int > 0. Number of blocks.
        num_heads: int > 0. Divides `width`. No weight has a shape that depends on it: MoCo v3's small network has
            12, DINO's 6.
        patch_size: int > 0. Side of a patch in pixels. Defaults to `16`.
        mlp_ratio: float > 0. Hidden width of a block's perceptron over `width`. Defaults to `4.0`.
        layer_scale: float or None. Start value of a learned factor for each channel of a branch; None: no factors.
            Defaults to `None`.
        ffn: str. `"mlp"` or `"swiglu"`, the gated one of DINOv2's and DINOv3's largest. Defaults to `"mlp"`.
        qkv_bias: bool or str. Biases on query, key, value; `"query_value"` (DINOv3): not the key. Defaults to `True`.
        layer_norm_epsilon: float > 0. DINOv3: 1e-5. Defaults to `1e-6`.
        class_token: bool. Whether a learned token is put in front of the patches. Defaults to `True`.
        num_registers: int >= 0. Learned tokens without position between class token and patches (DINOv2, DINOv3: 4).
            Defaults to `0`.
        pooling: str. Features are the class token (`"token"`) or the mean of the patch tokens (`"mean"`), after
            the final norm; `"mean_then_norm"` (MAE fine-tuned): the norm of the mean, and all other tokens without
            a norm. Defaults to `"token"`, without a class token to `"mean"`.
        positions: str. `"learned"` (DINO); `"sincos"`, fixed, column first (MAE); `"sincos_row_first"`, fixed
            (MoCo v3); these are resized bicubically for images of another size. `"rope"` (DINOv3): no table, queries
            and keys of the patches are turned, see `layers.rope_rotation`. Defaults to `"learned"`.
        position_size: int or None. Side of the images that the table is for, if not `image_size`: 518 for DINOv2.
            Defaults to `None`.
        position_offset: float. 0.1 for parity with DINO, iBOT and DINOv2 on images of another size, see
            `layers.bicubic_matrix`. Defaults to `0.0`.
        position_antialias: bool. Whether the resizing is antialiased, as DINOv2's with registers (with offset 0).
            Defaults to `False`.
        use_mask_token: bool. Whether there is a mask token (starts at 0), which `mask` needs. Defaults to `False`.
        drop_path: float in [0, 1). Rate at the last block; grows linearly from 0 at the first. Defaults to `0.0`.
        initialization: str. `"normal"` (DINO), `"xavier"` (MAE) or `"xavier_split"` (MoCo v3). Class token and
            registers start with standard deviation 0.02, MoCo v3's with 1e-6. Defaults to `"normal"`.
        freeze_patch_embedding: bool. Whether the patch projection keeps its random start values (MoCo v3).
            Defaults to `False`.
        recompute: bool. Whether the backward pass computes each block again instead of keeping what is inside it:
            less memory, more time, the same numbers. Defaults to `False`.
        image_size, mean, std: see `Backbone`. Defaults to `224` and ImageNet's.

    Attributes: `patch_size`, `grid` (rows, columns at `image_size`), `num_prefix_tokens` (class token and registers).

    Returns "features" `(batch, width)` and "tokens" `(batch, patches, width)`, both after the final norm; with
    `keep` `(batch, k)` the tokens are those k patches in that order. "layers": a tuple of each block's
    `([class token,] [registers,] patches)` sequences after the final norm. "attention": the last block's weights
    `(batch, heads, tokens, tokens)` over the same sequence.

    Reference: Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929, section 3.1; registers: Darcet et al., 2023,
    https://arxiv.org/abs/2309.16588. Reference code: facebookresearch/dino `vision_transformer.py`; mae
    `models_mae.py`; moco-v3 `vits.py`; dinov2 and dinov3 `models/vision_transformer.py`.
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
        num_registers: int = 0,
        ffn: str = "mlp",
        qkv_bias: bool | str = True,
        layer_norm_epsilon: float = 1e-6,
        position_size: int | None = None,
        position_antialias: bool = False,
        recompute: bool = False,
        image_size: int = 224,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        self.settings = {
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "patch_size": patch_size,
            "mlp_ratio": mlp_ratio,
            "class_token": class_token,
            "pooling": pooling or ("token" if class_token else "mean"),
            "positions": positions,
            "position_offset": position_offset,
            "use_mask_token": use_mask_token,
            "drop_path": drop_path,
            "layer_scale": layer_scale,
            "initialization": initialization,
            "freeze_patch_embedding": freeze_patch_embedding,
            "num_registers": num_registers,
            "ffn": ffn,
            "qkv_bias": qkv_bias,
            "layer_norm_epsilon": layer_norm_epsilon,
            "position_size": position_size,
            "position_antialias": position_antialias,
        }
        check_settings(self.settings, image_size)
        self.recompute = recompute
        self.feature_dim = width
        self.patch_size = patch_size
        self.grid = (image_size // patch_size,) * 2
        self.num_prefix_tokens = int(class_token) + num_registers
        self.patch_embedding = PatchEmbedding(
            patch_size,
            width,
            kernel_initializer=kernel_initializer(initialization),
            dtype=self.dtype_policy,
            name="patch_embedding",
        )
        self.blocks = [self._make_block(index) for index in range(depth)]
        self.norm = layer_norm(self.dtype_policy, "norm", layer_norm_epsilon)
        self._finish()

    def _make_block(self, index: int) -> TransformerBlock:
        settings = self.settings
        same = ("mlp_ratio", "layer_scale", "initialization", "ffn", "qkv_bias")
        return TransformerBlock(
            settings["width"],
            settings["num_heads"],
            drop_path=settings["drop_path"] * index / max(settings["depth"] - 1, 1),
            layer_norm_epsilon=settings["layer_norm_epsilon"],
            dtype=self.dtype_policy,
            name=f"block{index}",
            **{name: settings[name] for name in same},
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        settings, width = self.settings, self.feature_dim
        deviation = 1e-6 if settings["initialization"] == "xavier_split" else 0.02
        self.class_token = self.mask_token = self.registers = None
        if settings["class_token"]:
            self.class_token = self._token("class_token", deviation)
        if settings["use_mask_token"]:
            self.mask_token = self._token("mask_token", 0.0)
        self._add_positions()
        if settings["num_registers"]:
            self.registers = self._token("registers", deviation, settings["num_registers"])
        self.patch_embedding.build((None, None, None, 3))
        if settings["freeze_patch_embedding"]:
            self.patch_embedding.trainable = False
        for block in self.blocks:
            block.build((None, None, width))
        self.norm.build((None, None, width))
        self.built = True

    def _token(self, name: str, deviation: float, count: int = 1) -> keras.Variable:
        start = keras.initializers.RandomNormal(stddev=deviation) if deviation else "zeros"
        shape = (1, count, self.feature_dim)
        return self.add_weight(shape=shape, initializer=start, autocast=False, name=name)

    def _add_positions(self) -> None:
        """Makes the table `(1, [1 +] patches, width)`, or the periods of the rotation."""
        settings, width = self.settings, self.feature_dim
        self.position_table = self.rope_periods = None
        if settings["positions"] == "rope":
            periods = rope_periods(width // settings["num_heads"])
            frozen = {"initializer": "ones", "trainable": False, "autocast": False}
            self.rope_periods = self.add_weight(periods.shape, **frozen, name="rope_periods")
            self.rope_periods.assign(periods)
            return
        self.table_grid = ((settings["position_size"] or self.image_size) // self.patch_size,) * 2
        rows = self.table_grid[0] * self.table_grid[1] + settings["class_token"]
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
                self.table_grid,
                class_token=settings["class_token"],
                row_first=settings["positions"] == "sincos_row_first",
            )
            self.position_table.assign(table[None])

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
        grid = self._grid(x)
        x = self.embed(x, keep=keep, mask=mask)
        arguments = {"keys": keys, "rotation": self._rotation(grid, keep)}
        layers, attention = [], None
        for block in self.blocks[:-1]:
            x = self._run_block(block, x, training, **arguments)
            layers.append(x)
        if output == "attention":
            x, attention = self.blocks[-1](x, training=training, return_attention=True, **arguments)
        else:
            x = self._run_block(self.blocks[-1], x, training, **arguments)
        norm_last = self.settings["pooling"] == "mean_then_norm"
        x = x if norm_last else self.norm(x)
        patches, dtype = x[:, self.num_prefix_tokens :], self.compute_dtype
        if self.settings["pooling"] == "token":
            features = x[:, 0]
        else:
            features = tf.reduce_mean(patches, 1)
            features = self.norm(features) if norm_last else features
        result = {"features": tf.cast(features, dtype), "tokens": tf.cast(patches, dtype)}
        if output == "layers":
            layers = layers if norm_last else map(self.norm, layers)
            result["layers"] = tuple(tf.cast(y, dtype) for y in (*layers, x))
        if output == "attention":
            result["attention"] = attention
        return result

    def embed(
        self, x: tf.Tensor, keep: tf.Tensor | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns what the first block sees, `(batch, prefix + (patches or k), width)`; arguments as in `call`."""
        grid = self._grid(x)
        tokens = self.patch_embedding(self.normalize(x))  # (batch, patches, width)
        dtype = tokens.dtype
        if mask is not None:
            if self.mask_token is None:
                raise ValueError(
                    "`mask` needs the mask token. Received: use_mask_token=False at construction"
                )
            hidden = tf.cast(tf.convert_to_tensor(self.mask_token), dtype)
            tokens = tf.where(tf.convert_to_tensor(mask)[..., None], hidden, tokens)
        front = [] if self.class_token is None else [tf.convert_to_tensor(self.class_token)]
        if self.position_table is not None:
            first = len(front)
            table = tf.convert_to_tensor(self.position_table)
            front = [front[0] + table[:, :1]] if front else []
            tokens += tf.cast(self._resized(table[:, first:], grid), dtype)
        if keep is not None:
            tokens = tf.gather(tokens, keep, axis=1, batch_dims=1)
        if self.registers is not None:
            front.append(tf.convert_to_tensor(self.registers))
        batch = tf.shape(tokens)[0]
        front = [tf.repeat(tf.cast(token, dtype), batch, axis=0) for token in front]
        return tf.concat([*front, tokens], axis=1) if front else tokens

    def _grid(self, x: tf.Tensor) -> tuple[int, ...]:
        return tuple((side or 0) // self.patch_size for side in x.shape[1:3])

    def _resized(self, table: tf.Tensor, grid: tuple[int, ...]) -> tf.Tensor:
        settings = self.settings
        return interpolate_positions(
            table,
            self.table_grid,
            grid,
            offset=settings["position_offset"],
            antialias=settings["position_antialias"],
        )

    def _rotation(self, grid: tuple[int, ...], keep: tf.Tensor | None) -> Rotation | None:
        """Returns how the blocks turn the patches, `(k, size)` or with `keep` `(batch, 1, k, size)`."""
        if self.rope_periods is None:
            return None
        rotation = rope_rotation(tf.convert_to_tensor(self.rope_periods), grid)
        if keep is None:
            return rotation
        sine, cosine = (tf.gather(value, keep)[:, None] for value in rotation)
        return sine, cosine

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings, "recompute": self.recompute}
