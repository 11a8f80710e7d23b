"""Attention within windows that shift from block to block, and the merging of neighbours: the parts of a Swin."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ssl.layers.rope import Rotation
from keras_ssl.layers.transformer import TransformerBlock, kernel_initializer, layer_norm

APART = -100.0  # added to the logits of two places that only the shift has brought together


def relative_positions(window_size: int) -> np.ndarray:
    """Returns which row of the table of biases belongs to each pair of places in a window.

    Args:
        window_size: int > 0. Side of the window, w.

    Returns:
        int64 `(w * w, w * w)`, query first: (rows between query and key + w - 1) * (2 w - 1) + columns between them
        + w - 1, places counted row by row.
    """
    place = np.stack(np.divmod(np.arange(window_size**2), window_size))
    between = place[:, :, None] - place[:, None, :] + window_size - 1
    return between[0] * (2 * window_size - 1) + between[1]


def shift_mask(grid: tuple[int, int], window_size: int, shift: int) -> np.ndarray:
    """Returns what is added to the logits of each window of a map that was rolled by `-shift` both ways.

    Args:
        grid: (rows, columns) of the map, multiples of `window_size`.
        window_size: int > 0. Side of a window, w.
        shift: int in (0, w). Rows and columns that the map was rolled by.

    Returns:
        float32 `(windows, w * w, w * w)`: 0, or -100 for two places that are neighbours only because rolling carried
        one of them over an edge. Windows go row by row.
    """
    carried = [np.arange(side) >= side - shift for side in grid]
    region = 2 * carried[0][:, None] + carried[1][None, :]
    rows, columns = (side // window_size for side in grid)
    region = region.reshape(rows, window_size, columns, window_size).swapaxes(1, 2)
    region = region.reshape(rows * columns, -1)
    return np.where(region[:, :, None] == region[:, None, :], 0.0, APART).astype(np.float32)


def to_windows(x: tf.Tensor, window_size: int) -> tf.Tensor:
    """Cuts maps into windows: `(batch, rows, columns, width)` to `(batch * windows, w * w, width)`, row by row."""
    _, rows, columns, width = x.shape
    w = window_size
    x = tf.reshape(x, (-1, rows // w, w, columns // w, w, width))
    return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, w * w, width))


def from_windows(x: tf.Tensor, window_size: int, grid: tuple[int, int]) -> tf.Tensor:
    """Puts the windows of `to_windows` back together to maps of `grid` = (rows, columns)."""
    (rows, columns), w, width = grid, window_size, x.shape[-1]
    x = tf.reshape(x, (-1, rows // w, columns // w, w, w, width))
    return tf.reshape(tf.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows, columns, width))


def _rolled(x: tf.Tensor, shift: int) -> tf.Tensor:
    """Returns maps rolled by `-shift` rows and columns; by slices, which every converter of formats knows."""
    x = tf.concat([x[:, shift:], x[:, :shift]], axis=1)
    return tf.concat([x[:, :, shift:], x[:, :, :shift]], axis=2)


@keras.saving.register_keras_serializable(package="keras_ssl")
class WindowBlock(TransformerBlock):
    """A `TransformerBlock` on maps whose attention stays inside square windows.

    The normalized map gets zeros at its lower and right edge up to a multiple of the window, is rolled by `-shift`
    both ways, cut into windows, attended to with a learned bias for each distance and head, and brought back. Places
    that only the rolling brought together do not see each other; the added zeros are seen, as in the authors' code.
    Bias, mask and softmax are in at least float32.

    Args:
        width: int > 0. Channels.
        num_heads: int > 0. Divides `width`.
        window_size: int > 0. Side of a window, w.
        shift: int in [0, w). Defaults to `0`.
        **kwargs: of `TransformerBlock`.

    Call: `block(x, training=None, keys=None)` with x `(batch, rows, columns, width)`, static rows and columns, and
    keys uint32 `(batch, 2)`, needed in training if `drop_path` > 0. Returns the shape of x.

    Reference: Liu et al., 2021, https://arxiv.org/abs/2103.14030, section 3.2 and equations 3 and 4.
    Reference code: bytedance/ibot `models/swin_transformer.py`, `SwinTransformerBlock`.
    """

    def __init__(
        self, width: int, num_heads: int, window_size: int, *, shift: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(width, num_heads, **kwargs)
        if window_size < 1 or not 0 <= shift < window_size:
            raise ValueError(
                "`window_size` must be positive and `shift` in [0, window_size). "
                f"Received: window_size={window_size}, shift={shift}"
            )
        self.window_size = window_size
        self.shift = shift

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.bias_table = self.add_weight(
            shape=((2 * self.window_size - 1) ** 2, self.num_heads),
            initializer=kernel_initializer("normal"),
            autocast=False,
            name="bias_table",
        )
        super().build(input_shape)

    def call(
        self, x: tf.Tensor, training: bool | None = None, keys: tf.Tensor | None = None
    ) -> tf.Tensor:
        return super().call(x, training=training, keys=keys)

    def _attention(
        self, x: tf.Tensor, rotation: Rotation | None, bias: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `(batch, rows, columns, width)` and the weights of each window."""
        _, rows, columns, _ = x.shape
        size, x = self.window_size, tf.cast(x, self.compute_dtype)
        below, beside = -rows % size, -columns % size
        if below or beside:
            x = tf.pad(x, ((0, 0), (0, below), (0, beside), (0, 0)))
        grid = (rows + below, columns + beside)
        x = _rolled(x, self.shift) if self.shift else x
        x, weights = super()._attention(to_windows(x, size), rotation, self._bias(grid))
        x = from_windows(x, size, grid)
        if self.shift:  # a negative shift counts from the other end: the same way back
            x = _rolled(x, -self.shift)
        return x[:, :rows, :columns], weights

    def _bias(self, grid: tuple[int, int]) -> tf.Tensor:
        """Returns what is added to the logits, `(1 or windows, heads, w * w, w * w)`."""
        table = tf.transpose(tf.convert_to_tensor(self.bias_table))
        bias = tf.gather(table, relative_positions(self.window_size), axis=1)[None]
        if not self.shift:
            return bias
        mask = shift_mask(grid, self.window_size, self.shift)
        return bias + tf.constant(mask[:, None], bias.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "window_size": self.window_size,
            "shift": self.shift,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class PatchMerging(keras.layers.Layer):
    """Joins each 2 x 2 neighbours, normalizes them and halves their channels: half the sides, twice the width.

    The four come in the order upper left, lower left, upper right, lower right. Odd sides get a row or column of
    zeros at the end first. The dense layer has no bias.

    Args:
        width: int > 0. Channels that come in.
        layer_norm_epsilon: float > 0. Defaults to `1e-6`.

    Input: `(batch, rows, columns, width)`, static rows and columns. Output: `(batch, ceil(rows / 2),
    ceil(columns / 2), 2 * width)`.

    Reference code: bytedance/ibot `models/swin_transformer.py`, `PatchMerging`.
    """

    def __init__(self, width: int, *, layer_norm_epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.layer_norm_epsilon = layer_norm_epsilon
        self.norm = layer_norm(self.dtype_policy, "norm", layer_norm_epsilon)
        self.reduction = keras.layers.Dense(
            2 * width,
            use_bias=False,
            kernel_initializer=kernel_initializer("normal"),
            dtype=self.dtype_policy,
            name="reduction",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.built:
            return
        self.norm.build((None, None, None, 4 * self.width))
        self.reduction.build((None, None, None, 4 * self.width))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        _, rows, columns, width = x.shape
        if rows % 2 or columns % 2:
            x = tf.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        x = tf.reshape(x, (-1, rows, 2, columns, 2, width))
        x = tf.transpose(x, (0, 1, 3, 4, 2, 5))  # (batch, rows, columns, right, lower, width)
        return self.reduction(self.norm(tf.reshape(x, (-1, rows, columns, 4 * width))))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "width": self.width,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
