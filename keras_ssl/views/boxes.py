"""Boxes of crops that keep the picture's shape: a random window after resizing the short side."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.crop import _shape_of_original


def random_squares(
    keys: tf.Tensor,
    height: int,
    width: int,
    *,
    size: int,
    short_side: int,
    aspect: tf.Tensor | None = None,
    dtype: str | tf.DType = "float32",
) -> tf.Tensor:
    """Draws the windows of pictures whose short side is resized to `short_side`.

    All places of the window in the resized picture are equally likely. The boxes are those of the canvas,
    so that one resampling does both steps.

    Args:
        keys: uint32 `(batch, 2)`.
        height, width: ints. Size of the canvas in pixels.
        size: int. Side of the window in pixels of the resized picture, at most `short_side`.
        short_side: int. Pixels of the resized picture's short side.
        aspect: float `(batch,)`. The original's width / height divided by the canvas's. Defaults to 1.
        dtype: float type of the result. Defaults to `"float32"`.

    Returns:
        `(batch, 4)`: top, left, height, width in canvas pixels.

    Reference: torchvision `Resize(short_side)`, then `RandomCrop(size)`.
    """
    dtype = tf.as_dtype(dtype)
    if not 0 < size <= short_side:
        raise ValueError(
            f"`size` must be 1 to short_side={short_side} pixels. Received: size={size}"
        )
    shape = tf.concat(_shape_of_original(height, width, aspect, dtype), axis=-1)
    shape = shape / tf.reduce_min(shape, axis=-1, keepdims=True) * short_side
    # Whole pixels; the addend undoes the rounding of a quotient that is a whole number.
    resized = tf.floor(shape + 1e-3)  # (1 or batch, 2): height, width
    place = random.uniform(keys, (2,), dtype=dtype)
    scale = tf.constant([[height, width]], dtype) / resized
    corner = tf.floor(place * (resized - size + 1.0)) * scale
    return tf.concat([corner, size * scale + tf.zeros_like(corner)], axis=-1)
