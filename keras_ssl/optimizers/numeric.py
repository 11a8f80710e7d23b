"""Small numeric helpers of the optimizers and schedules."""

from __future__ import annotations

import tensorflow as tf


def cast_number(x: tf.Tensor | tf.Variable | float, dtype: tf.DType) -> tf.Tensor:
    """Returns a tensor or a Python number in a float type.

    `tf.cast` would take a Python number through float32 and lose half its digits on the way to float64.
    """
    if isinstance(x, int | float):
        return tf.convert_to_tensor(x, dtype)
    return tf.cast(tf.convert_to_tensor(x), dtype)


def widen(x: tf.Tensor) -> tf.Tensor:
    """Returns half-precision numbers as float32, everything else as it is."""
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


def norm_ratio(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
    """Returns numerator / denominator for two norms, or 1 where either is 0."""
    usable = tf.logical_and(numerator > 0, denominator > 0)
    return tf.where(usable, numerator / denominator, tf.ones_like(numerator))


def check_fraction(name: str, number: float) -> None:
    """Raises unless 0 <= number < 1."""
    if not 0 <= number < 1:
        raise ValueError(f"Expected {name} to be in [0, 1). Received: {name}={number}")
