"""The pre-norm transformer block of the vision transformers."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.mlp import gelu
from keras_ssl.layers.rope import Rotation, rotate
from keras_ssl.layers.stochastic_depth import stochastic_depth

INITIALIZATIONS = ("normal", "xavier", "xavier_split")
FFNS = ("mlp", "swiglu")
QKV_BIASES = (True, False, "query_value")


def kernel_initializer(
    initialization: str, *, width: int | None = None
) -> keras.initializers.Initializer:
    """Returns a new initializer for one kernel.

    Args:
        initialization: str. `"normal"`: standard deviation 0.02, DINO (PyTorch's `trunc_normal_` cuts at +-2,
            100 standard deviations, so it is a plain normal). `"xavier"`: MAE. `"xavier_split"`: MoCo v3, as
            xavier, but query, key and value count as three matrices.
        width: int or None. Token width, given for the kernel that holds query, key and value. Defaults to
            `None`.

    Raises:
        ValueError: if the name is unknown.
    """
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"`initialization` must be one of {INITIALIZATIONS}. Received: initialization={initialization!r}"
        )
    if initialization == "normal":
        return keras.initializers.RandomNormal(stddev=0.02)
    if initialization == "xavier_split" and width is not None:
        limit = math.sqrt(6.0 / (2 * width))
        return keras.initializers.RandomUniform(-limit, limit)
    return keras.initializers.GlorotUniform()


def layer_norm(
    policy: keras.DTypePolicy, name: str, epsilon: float = 1e-6
) -> keras.layers.LayerNormalization:
    """Returns a layer-norm that computes and returns at least float32."""
    wide = "float64" if policy.variable_dtype == "float64" else "float32"
    return keras.layers.LayerNormalization(epsilon=epsilon, dtype=wide, name=name)


def swiglu_width(width: int, mlp_ratio: float) -> int:
    """Returns the hidden width of a gated perceptron: two thirds of `mlp_ratio * width`, up to a multiple of 8."""
    return -8 * (-int(int(mlp_ratio * width) * 2 / 3) // 8)


@keras.saving.register_keras_serializable(package="keras_ssl")
class TransformerBlock(keras.layers.Layer):
    """Attention and a two-layer perceptron, each on the normalized tokens and added to them.

    x <- x + s1 * drop(attention(norm1(x))); x <- x + s2 * drop(mlp(norm2(x))). Softmax, layer-norm and rotation run
    in at least float32; GELU is the exact one. The kernel of `qkv` holds query, key and value one after the other,
    heads in order within each, as in timm. The perceptron is output(GELU(hidden(x))) or, gated,
    output(SiLU(a) * b) with a and b the halves of hidden(x), as DINOv2's `w12` has them.

    Args:
        width: int > 0. Token width.
        num_heads: int > 0. Divides `width`.
        mlp_ratio: float > 0. Hidden width of the perceptron over `width`; of the gated one see `swiglu_width`.
            Defaults to `4.0`.
        drop_path: float in [0, 1). Probability that a sample skips a branch in training. Defaults to `0.0`.
        layer_scale: float or None. Start value of the learned factors s1, s2 per channel; None: no factors.
            DINOv2: 1e-5. Defaults to `None`.
        initialization: str. Of the kernels, see `kernel_initializer`. Biases start at 0. Defaults to
            `"normal"`.
        ffn: str. `"mlp"` or `"swiglu"`, the gated perceptron. Defaults to `"mlp"`.
        qkv_bias: bool or str. Whether query, key and value have biases; `"query_value"`: the key has none
            (DINOv3). Defaults to `True`.
        layer_norm_epsilon: float > 0. Defaults to `1e-6`.

    Call: `block(x, training=None, keys=None, return_attention=False, rotation=None)` with x `(batch, tokens, width)`
    and keys uint32 `(batch, 2)`, needed in training if `drop_path` > 0; `rotation`: see `layers.rotate`. Returns x,
    or (x, attention `(batch, heads, tokens, tokens)`), rows summing to 1.

    Reference: Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929, equations 2 and 3; layer scale:
    Touvron et al., 2021, https://arxiv.org/abs/2103.17239, equation 4; gate: Shazeer, 2020,
    https://arxiv.org/abs/2002.05202, equation 6.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        initialization: str = "normal",
        ffn: str = "mlp",
        qkv_bias: bool | str = True,
        layer_norm_epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if width < 1 or num_heads < 1 or width % num_heads:
            raise ValueError(
                f"`num_heads` must divide `width`. Received: num_heads={num_heads}, width={width}"
            )
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"`drop_path` must be in [0, 1). Received: drop_path={drop_path}")
        for name, value, allowed in (("ffn", ffn, FFNS), ("qkv_bias", qkv_bias, QKV_BIASES)):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}. Received: {name}={value!r}")
        self.width = width
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.drop_path = drop_path
        self.layer_scale = layer_scale
        self.initialization = initialization
        self.ffn = ffn
        self.qkv_bias = qkv_bias if isinstance(qkv_bias, str) else bool(qkv_bias)
        self.layer_norm_epsilon = layer_norm_epsilon
        self.norm1 = layer_norm(self.dtype_policy, "norm1", layer_norm_epsilon)
        self.norm2 = layer_norm(self.dtype_policy, "norm2", layer_norm_epsilon)
        self.qkv = self._dense(3 * width, "qkv", width, use_bias=self.qkv_bias is True)
        self.projection = self._dense(width, "projection")
        gated = ffn == "swiglu"
        hidden = 2 * swiglu_width(width, mlp_ratio) if gated else round(mlp_ratio * width)
        self.hidden = self._dense(hidden, "hidden")
        self.output_dense = self._dense(width, "output")

    def _dense(
        self, units: int, name: str, split: int | None = None, use_bias: bool = True
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer=kernel_initializer(self.initialization, width=split),
            use_bias=use_bias,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        for layer in (self.norm1, self.qkv, self.projection, self.norm2, self.hidden):
            layer.build((None, None, self.width))
        gated = self.ffn == "swiglu"
        self.output_dense.build((None, None, self.hidden.units // (2 if gated else 1)))
        self.scale1 = self.scale2 = None
        if self.layer_scale is not None:
            start = keras.initializers.Constant(self.layer_scale)
            self.scale1 = self.add_weight(shape=(self.width,), initializer=start, name="scale1")
            self.scale2 = self.add_weight(shape=(self.width,), initializer=start, name="scale2")
        self.query_value_bias = None
        if self.qkv_bias == "query_value":
            self.query_value_bias = self.add_weight(
                shape=(2 * self.width,), initializer="zeros", name="query_value_bias"
            )
        self.built = True

    def call(
        self,
        x: tf.Tensor,
        training: bool | None = None,
        keys: tf.Tensor | None = None,
        return_attention: bool = False,
        rotation: Rotation | None = None,
    ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        branch, weights = self._attention(self.norm1(x), rotation)
        x = x + self._branch(branch, self.scale1, "attention", keys, training)
        branch = self._perceptron(self.norm2(x))
        x = x + self._branch(branch, self.scale2, "mlp", keys, training)
        return (x, weights) if return_attention else x

    def _perceptron(self, x: tf.Tensor) -> tf.Tensor:
        x = self.hidden(x)
        if self.ffn == "mlp":
            return self.output_dense(gelu(x))
        gate, value = tf.split(x, 2, axis=-1)
        return self.output_dense(tf.nn.silu(gate) * value)

    def _branch(
        self,
        branch: tf.Tensor,
        scale: keras.Variable | None,
        use: str,
        keys: tf.Tensor | None,
        training: bool | None,
    ) -> tf.Tensor:
        if scale is not None:
            branch = branch * tf.convert_to_tensor(scale)
        name = f"{self.name}/{use}"
        return stochastic_depth(branch, keys, name=name, rate=self.drop_path, training=training)

    def _query_key_value(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `(batch, tokens, 3 * width)`."""
        qkv = self.qkv(x)
        if self.query_value_bias is None:
            return qkv
        query, value = tf.split(tf.convert_to_tensor(self.query_value_bias), 2)
        return qkv + tf.concat([query, tf.zeros_like(query), value], axis=0)

    def _attention(
        self, x: tf.Tensor, rotation: Rotation | None, bias: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `(batch, tokens, width)` and the weights `(batch, heads, tokens, tokens)`.

        `bias` `(n, heads, tokens, tokens)` is added to the logits; the batch is then n sequences for each sample.
        """
        batch, tokens = tf.shape(x)[0], x.shape[1] or tf.shape(x)[1]
        size = self.width // self.num_heads
        qkv = tf.reshape(self._query_key_value(x), (batch, tokens, 3, self.num_heads, size))
        query, key, value = tf.unstack(
            tf.transpose(qkv, (2, 0, 3, 1, 4))
        )  # (batch, heads, tokens, size)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        logits = tf.matmul(query * size**-0.5, key, transpose_b=True)
        if logits.dtype in (tf.float16, tf.bfloat16):
            logits = tf.cast(logits, tf.float32)
        if bias is not None:
            each = tf.reshape(logits, (-1, *bias.shape)) + tf.cast(bias, logits.dtype)
            logits = tf.reshape(each, (-1, *bias.shape[1:]))
        weights = tf.cast(tf.nn.softmax(logits), value.dtype)
        heads = tf.transpose(tf.matmul(weights, value), (0, 2, 1, 3))
        return self.projection(tf.reshape(heads, (batch, tokens, self.width))), weights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "drop_path": self.drop_path,
            "layer_scale": self.layer_scale,
            "initialization": self.initialization,
            "ffn": self.ffn,
            "qkv_bias": self.qkv_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
