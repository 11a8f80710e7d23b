"""The two blocks of XCiT: attention over channels with local convolutions, and attention of the class token."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl.layers.batch_norm import BatchNormalization
from keras_ssl.layers.mlp import gelu
from keras_ssl.layers.stochastic_depth import stochastic_depth
from keras_ssl.layers.transformer import kernel_initializer, layer_norm


class _Block(keras.layers.Layer):
    """The parts that both blocks have: norms, query, key and value, a projection, a perceptron, factors per channel."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        layer_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if width < 1 or num_heads < 1 or width % num_heads:
            raise ValueError(
                f"`num_heads` must divide `width`. Received: num_heads={num_heads}, width={width}"
            )
        self.width = width
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.layer_scale = layer_scale
        self.norm1 = layer_norm(self.dtype_policy, "norm1")
        self.norm2 = layer_norm(self.dtype_policy, "norm2")
        self.qkv = self._dense(3 * width, "qkv")
        self.projection = self._dense(width, "projection")
        self.hidden = self._dense(int(mlp_ratio * width), "hidden")
        self.output_dense = self._dense(width, "output")

    def _dense(self, units: int, name: str) -> keras.layers.Dense:
        initializer = kernel_initializer("normal")
        return keras.layers.Dense(
            units, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )

    def _factor(self, name: str) -> keras.Variable:
        start = keras.initializers.Constant(self.layer_scale)
        return self.add_weight(shape=(self.width,), initializer=start, name=name)

    def _build_shared(self) -> None:
        for layer in (self.norm1, self.qkv, self.projection, self.norm2, self.hidden):
            layer.build((None, None, self.width))
        self.output_dense.build((None, None, self.hidden.units))
        self.scale1, self.scale2 = self._factor("scale1"), self._factor("scale2")

    def _mlp(self, x: tf.Tensor) -> tf.Tensor:
        return self.output_dense(gelu(self.hidden(x)))

    def _heads(self, x: tf.Tensor) -> list[tf.Tensor]:
        """Returns query, key and value of `(batch, tokens, width)`, each `(batch, heads, tokens, size)`."""
        size = self.width // self.num_heads
        qkv = tf.reshape(self.qkv(x), (-1, x.shape[1], 3, self.num_heads, size))
        return tf.unstack(tf.transpose(qkv, (2, 0, 3, 1, 4)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "layer_scale": self.layer_scale,
        }


def _unit_over_tokens(x: tf.Tensor) -> tf.Tensor:
    """Divides each channel by its length over the tokens, axis -2, in at least float32."""
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    length = tf.sqrt(tf.maximum(tf.reduce_sum(wide * wide, -2, keepdims=True), 1e-24))
    return wide / length


@keras.saving.register_keras_serializable(package="keras_ssl")
class CrossCovarianceBlock(_Block):
    """Attention of the channels of a head to one another, depthwise convolutions over the map, a perceptron.

    x <- x + s1 * drop(attention(norm1(x))); x <- x + s3 * drop(local(norm3(x))); x <- x + s2 * drop(mlp(norm2(x))).
    Query and key have length 1 over the tokens; the weights softmax(temperature * key-query products) `(size, size)` of
    each head, in at least float32, mix the channels of the value. `local` is a 3x3 depthwise convolution, GELU,
    batch-norm and another such convolution.

    Args:
        width: int > 0. Token width.
        num_heads: int > 0. Divides `width`.
        mlp_ratio: float > 0. Hidden width of the perceptron over `width`. Defaults to `4.0`.
        drop_path: float in [0, 1). Probability that a sample skips a branch in training. Defaults to `0.0`.
        layer_scale: float. Start value of the factors s1, s2, s3 of each channel. Defaults to `1.0`.
        synchronized: bool. See `BatchNormalization`. Defaults to `True`.

    Call: `block(x, training=None, keys=None)` with x `(batch, rows, columns, width)` and keys uint32 `(batch, 2)`,
    needed in training if `drop_path` > 0.

    Reference: El-Nouby et al., 2021, https://arxiv.org/abs/2106.09681, equation 2 and section 3.3.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        drop_path: float = 0.0,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(width, num_heads, **kwargs)
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"`drop_path` must be in [0, 1). Received: drop_path={drop_path}")
        self.drop_path = drop_path
        self.synchronized = synchronized
        policy = {"dtype": self.dtype_policy}
        self.norm3 = layer_norm(self.dtype_policy, "norm3")
        self.local1 = keras.layers.DepthwiseConv2D(3, padding="same", name="local1", **policy)
        self.local2 = keras.layers.DepthwiseConv2D(3, padding="same", name="local2", **policy)
        self.local_norm = BatchNormalization(synchronized=synchronized, name="local_norm", **policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self._build_shared()
        for layer in (self.norm3, self.local1, self.local_norm, self.local2):
            layer.build((None, None, None, self.width))
        self.scale3 = self._factor("scale3")
        self.temperature = self.add_weight(
            shape=(self.num_heads, 1, 1), initializer="ones", autocast=False, name="temperature"
        )
        self.built = True

    def call(
        self, x: tf.Tensor, training: bool | None = None, keys: tf.Tensor | None = None
    ) -> tf.Tensor:
        def added(branch: tf.Tensor, scale: keras.Variable, use: str) -> tf.Tensor:
            name = f"{self.name}/{use}"
            branch = branch * tf.convert_to_tensor(scale)
            return x + stochastic_depth(
                branch, keys, name=name, rate=self.drop_path, training=training
            )

        x = added(self._attention(self.norm1(x)), self.scale1, "attention")
        x = added(self._local(self.norm3(x), training), self.scale3, "local")
        return added(self._mlp(self.norm2(x)), self.scale2, "mlp")

    def _attention(self, x: tf.Tensor) -> tf.Tensor:
        _, rows, columns, width = x.shape
        query, key, value = self._heads(tf.reshape(x, (-1, rows * columns, width)))
        logits = tf.matmul(_unit_over_tokens(query), _unit_over_tokens(key), transpose_a=True)
        temperature = tf.cast(tf.convert_to_tensor(self.temperature), logits.dtype)
        weights = tf.cast(tf.nn.softmax(logits * temperature), value.dtype)
        # (batch, heads, tokens, size): channel c of the result is sum_d weights[c, d] value[d]
        mixed = tf.transpose(tf.matmul(value, weights, transpose_b=True), (0, 2, 1, 3))
        return self.projection(tf.reshape(mixed, (-1, rows, columns, width)))

    def _local(self, x: tf.Tensor, training: bool | None) -> tf.Tensor:
        return self.local2(self.local_norm(gelu(self.local1(x)), training=training))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "drop_path": self.drop_path,
            "synchronized": self.synchronized,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class ClassAttentionBlock(_Block):
    """The class token, first of the tokens, attends to all of them and goes through a perceptron.

    The patches change too, though nothing is computed from them: with n1 = norm1(x), the class token gets
    x + s1 * attention(n1) and a patch x + s1 * n1; with n2 = norm2 of that for all tokens, the class token
    becomes n2 + s2 * mlp(n2) and a patch 2 n2. That is what the published weights were trained with.

    Args:
        width: int > 0. Token width.
        num_heads: int > 0. Divides `width`.
        mlp_ratio: float > 0. Hidden width of the perceptron over `width`. Defaults to `4.0`.
        layer_scale: float. Start value of the factors s1, s2 of each channel. Defaults to `1.0`.

    Call: `block(x, training=None)` with x `(batch, 1 + patches, width)`.

    Reference: Touvron et al., 2021, https://arxiv.org/abs/2103.17239, section 3.2. Reference code:
    facebookresearch/xcit `xcit.py`, `ClassAttentionBlock` with `tokens_norm=True`.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self._build_shared()
        self.built = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        normed = self.norm1(x)
        branch = tf.concat(
            [self._attention(normed), tf.cast(normed[:, 1:], self.compute_dtype)], axis=1
        )
        x = tf.cast(self.norm2(x + branch * tf.convert_to_tensor(self.scale1)), self.compute_dtype)
        token, patches = x[:, :1], x[:, 1:]
        token = token + self._mlp(token) * tf.convert_to_tensor(self.scale2)
        return tf.concat([token, 2.0 * patches], axis=1)

    def _attention(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the class token reads, `(batch, 1, width)`."""
        query, key, value = self._heads(x)
        logits = tf.matmul(query[:, :, :1], key, transpose_b=True) * query.shape[-1] ** -0.5
        if logits.dtype in (tf.float16, tf.bfloat16):
            logits = tf.cast(logits, tf.float32)
        weights = tf.cast(tf.nn.softmax(logits), value.dtype)
        read = tf.transpose(tf.matmul(weights, value), (0, 2, 1, 3))  # (batch, 1, heads, size)
        return self.projection(tf.reshape(read, (-1, 1, self.width)))
