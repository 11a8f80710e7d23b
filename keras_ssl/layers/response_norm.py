"""Local response normalization across channels."""

from __future__ import annotations

import tensorflow as tf


def local_response_norm(
    x: tf.Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> tf.Tensor:
    """Divides each value by (1 + alpha / size * sum of squares of the `size` channels around it)^beta.

    Args:
        x: float `(batch, height, width, channels)`.
        size: int, odd. Channels that count; outside of the map they are 0. Defaults to `5`.
        alpha: float. Divided by `size`, as in PyTorch and Caffe; `tf.nn.local_response_normalization` does
            not divide. Defaults to `1e-4`.
        beta: float. Defaults to `0.75`.

    Returns:
        As `x`; computed in at least float32.

    Reference: Krizhevsky, Sutskever, Hinton, 2012, section 3.3.
    """
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    channels, reach = x.shape[-1], size // 2
    squares = tf.pad(wide * wide, ((0, 0), (0, 0), (0, 0), (reach, reach)))
    total = sum(squares[..., start : start + channels] for start in range(size))
    return tf.cast(wide * tf.pow(1.0 + alpha / size * total, -beta), x.dtype)
