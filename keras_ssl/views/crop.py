"""Crops as two matrix products: out = Wy @ image @ Wx^T, with weight rows for each image.

The products are dense, as accelerators like them, or banded (`bands`), which suits large pictures on a CPU.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_ssl.views import bands
from keras_ssl.views.boxes import center_boxes
from keras_ssl.views.planes import as_float, from_planes, to_planes

_SUPPORT = {"bilinear": 1, "bicubic": 2}


def _kernel(distance: tf.Tensor, interpolation: str) -> tf.Tensor:
    """The triangle, or Keys's cubic with a = -0.5, both as sums of clipped powers."""
    near = tf.nn.relu(1.0 - distance)
    if interpolation == "bilinear":
        return near
    far = tf.nn.relu(2.0 - distance)
    return 0.5 * far * far * (far - 1.0) + near * near * (1.0 - 2.0 * near)


def _samples(
    start: tf.Tensor, extent: tf.Tensor, index: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the centers (batch, rows) that the pixels `index` (1 or batch, rows) of `size` sample.

    The center of pixel i is start + (i + 1/2) extent / size. Its whole part is split off first, which
    is exact for whole boxes: every backend then has the same weights, whatever it fuses.
    """
    numerator = (index + 0.5) * extent[:, None]
    whole = tf.floor(numerator / size)
    fraction = (numerator - whole * size) / size
    return whole + start[:, None], fraction


def _weights_at(
    pixel: tf.Tensor, whole: tf.Tensor, fraction: tf.Tensor, widening: tf.Tensor, interpolation: str
) -> tf.Tensor:
    """Returns the filter at each pixel, not yet of sum 1; all arguments broadcast."""
    distance = tf.abs((pixel + 0.5 - whole) - fraction)
    return _kernel(distance / widening, interpolation)


def resize_weights(
    start: tf.Tensor,
    extent: tf.Tensor,
    size: int,
    length: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
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

    Returns:
        `(batch, size, length)`.

    Reference: Pillow `Image.resize(size, resample, box)`.
    """
    dtype = start.dtype
    index = _mirrored(tf.range(size, dtype=dtype), size, flip)
    whole, fraction = _samples(start, extent, index, size)
    widening = tf.maximum(extent / size, 1.0)[:, None, None]
    pixel = tf.range(length, dtype=dtype)
    weights = _weights_at(pixel, whole[:, :, None], fraction[:, :, None], widening, interpolation)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _mirrored(index: tf.Tensor, size: int, flip: tf.Tensor | None) -> tf.Tensor:
    """Returns pixel numbers (1 or batch, rows), counted from the other end where `flip` says so."""
    index = index[None]
    return index if flip is None else tf.where(flip[:, None], size - 1.0 - index, index)


def window_length(size: int, length: int, interpolation: str) -> int:
    """Returns the pixels that a block of `bands.BLOCK` resampled ones may read, whatever the box."""
    scale = length / size
    support = _SUPPORT[interpolation]
    return math.ceil((bands.BLOCK - 1) * scale + 2 * support * max(scale, 1.0)) + 1


def band_weights(
    start: tf.Tensor,
    extent: tf.Tensor,
    size: int,
    length: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns those weights of `resize_weights` that may differ from zero, for `bands.product`.

    Args:
        start, extent, size, length, interpolation, flip: as for `resize_weights`.

    Returns:
        Weights `(batch, blocks, bands.BLOCK, window)`, the window as long as the largest extent needs,
        at most `window_length`; and int32 `(batch, blocks)`, the pixel that each
        window begins with. Rows beyond `size` repeat the last one.
    """
    dtype, blocks = start.dtype, bands.block_count(size)
    rows = tf.minimum(tf.range(blocks * bands.BLOCK, dtype=dtype), size - 1.0)
    whole, fraction = _samples(start, extent, _mirrored(rows, size, flip), size)
    widening = tf.maximum(extent / size, 1.0)[:, None]
    begin = tf.floor(whole + (fraction - _SUPPORT[interpolation] * widening + 0.5))
    begin = tf.reduce_min(tf.reshape(begin, [-1, blocks, bands.BLOCK]), axis=-1)
    widest = tf.reduce_max(extent) / size  # often far less than the longest possible, `length`
    taps = 2.0 * _SUPPORT[interpolation] * tf.maximum(widest, 1.0)
    window = tf.math.ceil((bands.BLOCK - 1.0) * widest + taps) + 1.0
    pixel = begin[:, :, None, None] + tf.range(window, dtype=dtype)
    whole, fraction = (tf.reshape(part, [-1, blocks, bands.BLOCK, 1]) for part in (whole, fraction))
    weights = _weights_at(pixel, whole, fraction, widening[:, :, None, None], interpolation)
    inside = tf.cast((pixel >= 0.0) & (pixel < length), dtype)
    weights *= inside
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)
    return weights, tf.cast(begin, tf.int32)


def cut(
    images: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
    sparse: bool = False,
) -> tf.Tensor:
    """Does what `crop_and_resize` does, and returns planes `(views * batch, channels, size, size)`."""
    if interpolation not in _SUPPORT:
        raise ValueError(
            f"`interpolation` must be one of {sorted(_SUPPORT)}. "
            f"Received: interpolation={interpolation!r}"
        )
    sides = images.shape[1:3].as_list()
    banded = all(bands.pays(window_length(size, side, interpolation), side) for side in sides)
    if sparse and banded:
        result = _cut_by_bands(as_float(images), boxes, size, interpolation, flip)
    else:
        result = cut_planes(
            as_float(to_planes(images)), boxes, size, interpolation=interpolation, flip=flip
        )
    return tf.clip_by_value(result, 0.0, 1.0) if interpolation == "bicubic" else result


def cut_planes(
    planes: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    *,
    interpolation: str = "bilinear",
    flip: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cuts by dense products from `(batch, channels, height, width)`; bicubic results are not clipped."""
    _, channels, height, width = planes.shape
    boxes = tf.cast(boxes, planes.dtype)
    down = resize_weights(boxes[:, 0], boxes[:, 2], size, height, interpolation=interpolation)
    across = resize_weights(
        boxes[:, 1], boxes[:, 3], size, width, interpolation=interpolation, flip=flip
    )
    batch = tf.shape(planes)[0]
    across = tf.reshape(across, [-1, batch, size, width])
    rows = tf.reshape(planes, [1, batch, channels * height, width])
    rows = tf.matmul(rows, across, transpose_b=True)  # (views, batch, channels * height, size)
    rows = tf.reshape(rows, [-1, channels, height, size])
    return tf.matmul(down[:, None], rows)  # (views * batch, channels, size, size)


def _cut_by_bands(
    images: tf.Tensor, boxes: tf.Tensor, size: int, interpolation: str, flip: tf.Tensor | None
) -> tf.Tensor:
    """Cuts from `(batch, height, width, channels)`; see `bands`."""
    _, height, width, channels = images.shape
    boxes = tf.cast(boxes, images.dtype)
    down = band_weights(boxes[:, 0], boxes[:, 2], size, height, interpolation=interpolation)
    across = band_weights(
        boxes[:, 1], boxes[:, 3], size, width, interpolation=interpolation, flip=flip
    )
    rows = tf.reshape(images, [-1, height, width * channels])
    rows = tf.reshape(bands.product(rows, *down, size), [-1, size, width, channels])
    rows = tf.reshape(tf.transpose(rows, [0, 2, 3, 1]), [-1, width, channels * size])
    rows = tf.reshape(bands.product(rows, *across, size), [-1, size, channels, size])
    return tf.transpose(rows, [0, 2, 3, 1])


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
        sparse: bool. True leaves out most zeros of large products, which is quicker on a CPU; False
            multiplies dense matrices, for accelerators. Defaults to `False`.

    Returns:
        `(views * batch, size, size, channels)` in [0, 1].

    Reference: Pillow `Image.resize((size, size), resample, box)` without its rounding to 8 bits.
    Differs from torchvision's `resized_crop`: its crop repeats the pixels at its rim, this one reads
    the true neighbors.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4:
        raise ValueError(
            f"`crop_and_resize` expects images of rank 4. Received: shape={images.shape}"
        )
    planes = cut(images, boxes, size, interpolation=interpolation, flip=flip, sparse=sparse)
    return from_planes(planes)


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
