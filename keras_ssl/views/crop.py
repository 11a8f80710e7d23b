"""Crops as two matrix products: out = Wy @ image @ Wx^T, with weight rows for each image."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.planes import image_op

_TRIES = 10  # torchvision RandomResizedCrop
_SUPPORT = {"bilinear": 1, "bicubic": 2}


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
    draws = random.uniform(keys, (2 * _TRIES + 2,), dtype=dtype)
    low, high = (_column(bound, dtype) for bound in scale)
    area = low + (high - low) * draws[:, :_TRIES]
    narrow, wide = math.log(ratio[0]), math.log(ratio[1])
    shape = tf.exp(narrow + (wide - narrow) * draws[:, _TRIES : 2 * _TRIES])
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
    corner = tf.where(none > 0.0, room / 2.0, draws[:, 2 * _TRIES :] * (room + 1.0))
    return tf.concat([tf.floor(corner), extent], axis=-1)


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


def _kernel(distance: tf.Tensor, interpolation: str) -> tf.Tensor:
    """The triangle, or Keys's cubic with a = -0.5, both as sums of clipped powers."""
    near = tf.nn.relu(1.0 - distance)
    if interpolation == "bilinear":
        return near
    far = tf.nn.relu(2.0 - distance)
    return 0.5 * far * far * (far - 1.0) + near * near * (1.0 - 2.0 * near)


def resize_weights(
    start: tf.Tensor,
    extent: tf.Tensor,
    size: int,
    length: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
    sparse: bool = False,
) -> tf.Tensor:
    """Returns the weights that resample part of a line of pixels.

    The filter is widened when the part is shrunk (antialiasing). Near the ends of the part it reads the
    true neighbors; at the ends of the line it is cut off, and every row sums to 1.

    Args:
        start: `(batch,)`. Where the part begins, in pixels.
        extent: `(batch,)`. Its length in pixels; at most `length`.
        size: int. Number of pixels to make.
        length: int. Number of pixels of the line.
        interpolation: `"bilinear"` or `"bicubic"` (a = -0.5). Defaults to `"bilinear"`.
        flip: bool `(batch,)`. Mirror the result. Defaults to no.
        sparse: bool. True computes only the weights that may differ from zero and scatters them, which
            is quicker on a CPU. Defaults to `False`.

    Returns:
        `(batch, size, length)`.

    Reference: Pillow `Image.resize(size, resample, box)`.
    """
    dtype = start.dtype
    index = tf.range(size, dtype=dtype)[None]
    if flip is not None:
        index = tf.where(flip[:, None], size - 1.0 - index, index)
    # The center of pixel i is start + (i + 1/2) extent / size. Its whole part is split off first, which
    # is exact for whole boxes: every backend then has the same weights, whatever it fuses.
    numerator = (index + 0.5) * extent[:, None]  # (batch, size)
    whole = tf.floor(numerator / size)
    fraction = (numerator - whole * size) / size
    whole += start[:, None]
    widening = tf.maximum(extent[:, None] / size, 1.0)
    support = _SUPPORT[interpolation]
    taps = math.ceil(2 * support * max(length / size, 1.0)) + 1
    sparse = sparse and 16 * taps < length  # below that the dense form is quicker
    pixel = tf.range(taps if sparse else length, dtype=dtype)
    if sparse:
        pixel += tf.floor(whole + (fraction - support * widening + 0.5))[:, :, None]
    distance = tf.abs((pixel + 0.5 - whole[:, :, None]) - fraction[:, :, None])
    weights = _kernel(distance / widening[:, :, None], interpolation)
    if sparse:
        weights = tf.where((pixel >= 0.0) & (pixel < length), weights, tf.zeros_like(weights))
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)
    return _spread(weights, pixel, length) if sparse else weights


def _spread(weights: tf.Tensor, pixel: tf.Tensor, length: int) -> tf.Tensor:
    """Scatters (batch, size, taps) weights to the named pixels of (batch, size, length)."""
    shape = tf.shape(weights)
    rows = tf.range(shape[0] * shape[1]) * length
    column = tf.cast(tf.clip_by_value(pixel, 0.0, length - 1.0), tf.int32)
    place = tf.reshape(rows, [shape[0], shape[1], 1]) + column
    flat = tf.scatter_nd(
        tf.reshape(place, [-1, 1]), tf.reshape(weights, [-1]), [shape[0] * shape[1] * length]
    )
    return tf.reshape(flat, [-1, weights.shape[1], length])


@image_op
def crop_and_resize(
    images: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
    sparse: bool = False,
) -> tf.Tensor:
    """Cuts a box out of each image, or several, and resizes it, antialiased.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        boxes: float `(views * batch, 4)`. Top, left, height, width in pixels, inside the image; row
            `v * batch + i` is cut from image i.
        size: int. Side of the square result.
        interpolation: `"bilinear"` or `"bicubic"` (a = -0.5, clipped to [0, 1]). Defaults to
            `"bilinear"`.
        flip: bool `(views * batch,)`. Mirror left to right. Defaults to no.
        sparse: bool. Quicker weights on a CPU. Defaults to `False`.

    Returns:
        `(views * batch, size, size, channels)` in [0, 1].

    Reference: Pillow `Image.resize((size, size), resample, box)` without its rounding to 8 bits.
    Differs from torchvision's `resized_crop`: its crop repeats the pixels at its rim, this one reads
    the true neighbors. A sparse gather of taps was measured too; the products are as fast on one
    AVX-512 core (256 -> 224: 0.96 ms against 0.81 ms plus a transposition; 32 -> 32: 5 against 13
    microseconds), so there is only one form.
    """
    if interpolation not in _SUPPORT:
        raise ValueError(
            f"`interpolation` must be one of {sorted(_SUPPORT)}. "
            f"Received: interpolation={interpolation!r}"
        )
    _, channels, height, width = images.shape
    boxes = tf.cast(boxes, images.dtype)
    settings = {"interpolation": interpolation, "sparse": sparse}
    down = resize_weights(boxes[:, 0], boxes[:, 2], size, height, **settings)
    across = resize_weights(boxes[:, 1], boxes[:, 3], size, width, flip=flip, **settings)
    batch = tf.shape(images)[0]
    across = tf.reshape(across, [-1, batch, size, width])
    rows = tf.reshape(images, [1, batch, channels * height, width])
    rows = tf.matmul(rows, across, transpose_b=True)  # (views, batch, channels * height, size)
    rows = tf.reshape(rows, [-1, channels, height, size])
    result = tf.matmul(down[:, None], rows)  # (views * batch, channels, size, size)
    return tf.clip_by_value(result, 0.0, 1.0) if interpolation == "bicubic" else result


def center_crop(
    images: tf.Tensor,
    aspect: tf.Tensor | None = None,
    *,
    size: int,
    crop_ratio: float = 0.875,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Returns the deterministic views that evaluation uses.

    Resizes the shorter side of the original picture to `size / crop_ratio` and cuts the central square,
    in one resampling.

    Args:
        images: `(batch, height, width, channels)`, uint8 or float in [0, 1].
        aspect: float `(batch,)`. The original's width / height divided by the canvas's. Defaults to 1.
        size: int. Side of the result.
        crop_ratio: float in (0, 1]. 0.875 is the customary 256 -> 224; use 1.0 for 32-pixel data.
            Defaults to `0.875`.
        interpolation: `"bilinear"` or `"bicubic"`. Defaults to `"bilinear"`.

    Returns:
        Float `(batch, size, size, channels)` in [0, 1].
    """
    if not 0.0 < crop_ratio <= 1.0:
        raise ValueError(f"`crop_ratio` must be in (0, 1]. Received: crop_ratio={crop_ratio}")
    images = tf.convert_to_tensor(images)
    _, height, width, _ = images.shape
    dtype = tf.float64 if images.dtype == tf.float64 else tf.float32
    boxes = center_boxes(
        tf.shape(images)[0], height, width, crop_ratio=crop_ratio, aspect=aspect, dtype=dtype
    )
    return crop_and_resize(images, boxes, size, interpolation=interpolation)
