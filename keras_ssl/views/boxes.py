"""Which part of a picture a view shows: boxes of random, central and whole crops."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_ssl import random

TRIES = 10  # torchvision RandomResizedCrop


def _column(numbers: tf.Tensor | float, dtype: tf.DType) -> tf.Tensor:
    """Shapes a number, or one for each image, to broadcast against (batch, anything)."""
    return tf.reshape(tf.cast(numbers, dtype), [-1, 1])


def _shape_of_original(
    height: int, width: int, aspect: tf.Tensor | None, dtype: tf.DType
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns sides (1 or batch, 1) of a rectangle of area 1 in the original picture's shape."""
    relative = _column(1.0 if aspect is None else aspect, dtype) * (width / height)
    return 1.0 / tf.sqrt(relative), tf.sqrt(relative)


def random_boxes(
    keys: tf.Tensor,
    height: int,
    width: int,
    *,
    scale: tuple[float | tf.Tensor, float | tf.Tensor] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    aspect: tf.Tensor | None = None,
    dtype: str | tf.DType = "float32",
) -> tf.Tensor:
    """Draws the boxes of random resized crops.

    The area is uniform in `scale` and the logarithm of width / height uniform in `ratio`. Of ten tries
    the first that fits is taken, else the largest centered box whose shape is in `ratio`. The geometry
    is that of the original picture, so a picture put on a square canvas is cropped as if it had kept its
    shape. Sides and corners are whole pixels: of the canvas, which is the reference's rule when the
    canvas is the picture and otherwise as near as the canvas shows.

    Args:
        keys: uint32 `(batch, 2)`.
        height, width: ints. Size of the canvas in pixels.
        scale: pair of floats or of `(batch,)` tensors in (0, 1]. Range of the area, as a fraction of
            the picture. Defaults to `(0.08, 1.0)`.
        ratio: pair of floats. Range of width / height. Defaults to `(3/4, 4/3)`.
        aspect: float `(batch,)`. The original's width / height divided by the canvas's. Defaults to 1.
        dtype: float type of the result. Defaults to `"float32"`.

    Returns:
        `(batch, 4)`: top, left, height, width in canvas pixels, whole numbers.

    Reference: torchvision `RandomResizedCrop.get_params`.
    """
    dtype = tf.as_dtype(dtype)
    full_height, full_width = _shape_of_original(height, width, aspect, dtype)
    draws = random.uniform(keys, (2 * TRIES + 2,), dtype=dtype)
    low, high = (_column(bound, dtype) for bound in scale)
    area = low + (high - low) * draws[:, :TRIES]
    narrow, wide = math.log(ratio[0]), math.log(ratio[1])
    shape = tf.exp(narrow + (wide - narrow) * draws[:, TRIES : 2 * TRIES])
    tall = tf.round(tf.sqrt(area / shape) * (height / full_height))
    broad = tf.round(tf.sqrt(area * shape) * (width / full_width))

    fits = (tall >= 1.0) & (tall <= height) & (broad >= 1.0) & (broad <= width)
    fits = tf.cast(fits, tf.int32)
    first = tf.cast((fits == 1) & (tf.cumsum(fits, axis=-1) == 1), dtype)
    none = 1.0 - tf.reduce_sum(first, axis=-1, keepdims=True)
    spare_height = tf.minimum(full_height, full_width / ratio[0]) * (height / full_height)
    spare_width = tf.minimum(full_width, full_height * ratio[1]) * (width / full_width)
    box_height = tf.reduce_sum(first * tall, -1, keepdims=True) + none * tf.round(spare_height)
    box_width = tf.reduce_sum(first * broad, -1, keepdims=True) + none * tf.round(spare_width)

    extent = tf.concat([box_height, box_width], axis=-1)
    room = tf.constant([[height, width]], dtype) - extent
    corner = tf.where(none > 0.0, room / 2.0, draws[:, 2 * TRIES :] * (room + 1.0))
    return tf.concat([tf.floor(corner), extent], axis=-1)


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


def center_boxes(
    count: int | tf.Tensor,
    height: int,
    width: int,
    *,
    crop_ratio: float = 1.0,
    aspect: tf.Tensor | None = None,
    dtype: str | tf.DType = "float32",
) -> tf.Tensor:
    """Returns the central squares of `crop_ratio` times the shorter side of the original picture.

    Args:
        count: int or int32 scalar. Number of boxes.
        height, width: ints. Size of the canvas in pixels.
        crop_ratio: float in (0, 1]. Defaults to `1.0`.
        aspect: float `(batch,)`. The original's width / height divided by the canvas's. Defaults to 1.
        dtype: float type of the result. Defaults to `"float32"`.

    Returns:
        `(count, 4)`: top, left, height, width in canvas pixels.
    """
    dtype = tf.as_dtype(dtype)
    full_height, full_width = _shape_of_original(height, width, aspect, dtype)
    side = crop_ratio * tf.minimum(full_height, full_width)
    extent = tf.concat([side / full_height * height, side / full_width * width], axis=-1)
    corner = (tf.constant([[height, width]], dtype) - extent) / 2
    return tf.concat([corner, extent], axis=-1) + tf.zeros([count, 4], dtype)


def full_boxes(count: int | tf.Tensor, height: int, width: int, dtype: tf.DType) -> tf.Tensor:
    """Returns `count` boxes `(count, 4)` that hold the whole canvas."""
    return tf.zeros([count, 4], dtype) + tf.constant([[0, 0, height, width]], dtype)
