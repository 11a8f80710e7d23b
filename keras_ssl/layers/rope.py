"""Rotary positions on a grid of patches: queries and keys are turned by angles that encode row and column."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

Rotation = tuple[tf.Tensor, tf.Tensor]


def rope_periods(head_dim: int, *, base: float = 100.0) -> np.ndarray:
    """Returns the periods of the angles, `base ** (2 k / (head_dim / 2))` for k < head_dim / 4.

    Args:
        head_dim: int, a multiple of 4. Width of one attention head.
        base: float > 1. The longest period nearly reaches it; the picture is 2 wide. Defaults to `100.0`, DINOv3.

    Returns:
        float64 `(head_dim / 4,)`.

    Raises:
        ValueError: if `head_dim` is no multiple of 4.
    """
    if head_dim < 4 or head_dim % 4:
        raise ValueError(
            f"Rotary positions need heads with a multiple of 4 channels. Received: {head_dim} channels"
        )
    return base ** (2.0 * np.arange(head_dim // 4) / (head_dim // 2))


def rope_rotation(periods: tf.Tensor, grid: tuple[int, int]) -> Rotation:
    """Returns the sines and cosines by which the patches of a grid are turned.

    The center of a patch has the coordinates 2 (row + 0.5) / rows - 1 and 2 (column + 0.5) / columns - 1, each from
    -1 to 1 whatever the form of the picture. Its angles are 2 pi * coordinate / period: those of the row, those of
    the column, then the same again.

    Args:
        periods: float `(head_dim / 4,)`.
        grid: (rows, columns).

    Returns:
        (sine, cosine), each `(rows * columns, head_dim)` in the dtype of `periods`.

    Reference: Siméoni et al., 2025, https://arxiv.org/abs/2508.10104. Reference code: facebookresearch/dinov3
    `rope_position_encoding.py`; its shift, jitter and rescaling of training are not here.
    """
    axes = [(2.0 * np.arange(length) + 1.0) / length - 1.0 for length in grid]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = 2.0 * math.pi * tf.constant(places, periods.dtype) / periods  # (patches, 2, periods)
    angles = tf.tile(tf.reshape(angles, (len(places), 2 * periods.shape[0])), (1, 2))
    return tf.sin(angles), tf.cos(angles)


def rotate(x: tf.Tensor, rotation: Rotation) -> tf.Tensor:
    """Turns the last tokens, channel c together with channel c + head_dim / 2; tokens before them stay.

    Args:
        x: float `(batch, heads, tokens, head_dim)`, queries or keys.
        rotation: (sine, cosine) of the last n tokens, `(n, head_dim)` or `(batch, 1, n, head_dim)`.

    Returns:
        Tensor of the shape and dtype of `x`; computed in the dtype of the rotation.
    """
    sine, cosine = rotation
    first = x.shape[2] - sine.shape[-2] if _static(x, sine) else tf.shape(x)[2] - tf.shape(sine)[-2]
    y = tf.cast(x[:, :, first:], sine.dtype)
    left, right = tf.split(y, 2, axis=-1)
    y = y * cosine + tf.concat([-right, left], axis=-1) * sine
    return tf.concat([x[:, :, :first], tf.cast(y, x.dtype)], axis=2)


def _static(x: tf.Tensor, sine: tf.Tensor) -> bool:
    return x.shape[2] is not None and sine.shape[-2] is not None
