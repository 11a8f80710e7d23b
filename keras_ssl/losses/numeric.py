"""What all losses share: precision, unit length, checks of shapes and temperatures."""

from __future__ import annotations

import tensorflow as tf


def promote(x: tf.Tensor) -> tf.Tensor:
    """Returns `x` in at least float32: float64 stays, everything else becomes float32."""
    x = tf.convert_to_tensor(x)
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def l2_normalize(x: tf.Tensor, axis: int = -1, epsilon: float = 1e-12) -> tf.Tensor:
    """Returns x / max(|x|, epsilon), in at least float32.

    The norm is clamped, as in PyTorch's `normalize`; `tf.math.l2_normalize` clamps its square. A zero vector gives
    zero, and its gradient is finite.

    Args:
        x: `(..., dim)`.
        axis: int. Axis of the vectors. Defaults to `-1`.
        epsilon: float. Smallest norm to divide by. Defaults to `1e-12`.

    Returns:
        Unit vectors, same shape, float32 or float64.
    """
    x = promote(x)
    squared = tf.reduce_sum(tf.square(x), axis=axis, keepdims=True)
    # The square of 1e-12 is a normal float32; the maximum comes before the root, whose slope at 0 is infinite.
    return x / tf.sqrt(tf.maximum(squared, tf.constant(epsilon**2, x.dtype)))


def check_same_shape(**tensors: tf.Tensor) -> None:
    """Raises unless all static shapes agree."""
    (first, expected), *others = tensors.items()
    for name, tensor in others:
        if not tensor.shape.is_compatible_with(expected.shape):
            raise ValueError(
                f"Expected {first} and {name} of one shape. "
                f"Received: {first} {tuple(expected.shape)}, {name} {tuple(tensor.shape)}"
            )


def check_rank(rank: int, **tensors: tf.Tensor) -> None:
    """Raises unless all tensors have `rank` axes."""
    for name, tensor in tensors.items():
        if tensor.shape.rank != rank:
            raise ValueError(
                f"Expected {name} to have {rank} axes. Received: {name} of shape {tuple(tensor.shape)}"
            )


def over_temperature(
    x: tf.Tensor, temperature: float | tf.Tensor, name: str = "temperature"
) -> tf.Tensor:
    """Returns `x` over the temperature, in at least float32; raises if that is known to be 0 or less."""
    x = promote(x)
    if not isinstance(temperature, int | float):
        # Only tensors are cast: a Python number would pass through float32 on its way to float64.
        return x / tf.cast(temperature, x.dtype)
    if temperature <= 0:
        raise ValueError(f"Expected {name} above 0. Received: {name}={temperature}")
    return x / temperature
