"""Crops as two matrix products: out = Wy @ image @ Wx^T, with weight rows for each image.

The products are dense, as accelerators like them. On a CPU large pictures are resampled one by one instead, without
the zeros of the weights.
"""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.views.boxes import center_boxes
from keras_ssl.views.planes import as_float, from_planes, to_planes

_SUPPORT = {"bilinear": 1, "bicubic": 2}
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}  # names of TensorFlow's resampling op
LARGE = (
    2**19
)  # height * width * size, which a dense product grows with; the two forms break even here


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


def resamples(images: tf.Tensor, size: int) -> bool:
    """Whether `cut` with `sparse` leaves the dense products: for large pictures, not in float64."""
    height, width = images.shape[1:3]
    return height * width * size >= LARGE and images.dtype != tf.float64


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
    if sparse and resamples(images, size):
        result = _resample_each(images, boxes, flip, size=size, interpolation=interpolation)
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


@tf.function(autograph=False, reduce_retracing=True)
def _resample_each(
    images: tf.Tensor, boxes: tf.Tensor, flip: tf.Tensor | None, *, size: int, interpolation: str
) -> tf.Tensor:
    """Cuts from `(batch, height, width, channels)`, box by box, first the rows, then the columns.

    TensorFlow's op resamples both axes of a picture, with an inner loop as long as the channels. Here one axis lies
    along the channels, so that the loop is long and runs on whole vectors. The op finds the places of pixels in
    float32: they may lie off by 2^-22 of the picture's side.
    """
    if images.dtype != tf.uint8:
        images = as_float(images)
    side, channels = tf.shape(images)[1:3], images.shape[3]
    boxes = tf.cast(boxes, tf.float32)
    flips = tf.zeros(tf.shape(boxes)[:1], tf.bool) if flip is None else flip

    def line(values: tf.Tensor, start: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
        """Resamples `(length, n)` to `(size, n)`."""
        scale = tf.stack([size / extent, 1.0])
        made = tf.raw_ops.ScaleAndTranslate(
            images=values[None, :, None],
            size=[size, 1],
            scale=scale,
            translation=tf.stack([-start * scale[0], 0.0]),
            kernel_type=_KERNELS[interpolation],
            antialias=True,
        )
        return made[0, :, 0]

    def view(numbers: tuple[tf.Tensor, ...]) -> tf.Tensor:
        picture, box, mirrored = numbers
        reach = _SUPPORT[interpolation] * tf.maximum(box[2:] / size, 1.0) + 1.0
        first = tf.maximum(tf.cast(tf.floor(box[:2] - reach), tf.int32), 0)
        last = tf.minimum(tf.cast(tf.math.ceil(box[:2] + box[2:] + reach), tf.int32), side)
        length, start = last - first, box[:2] - tf.cast(first, tf.float32)
        part = images[picture, first[0] : last[0], first[1] : last[1]]
        rows = line(tf.reshape(part, [length[0], length[1] * channels]), start[0], box[2])
        rows = tf.transpose(tf.reshape(rows, [size, length[1], channels]), [1, 2, 0])
        made = line(tf.reshape(rows, [length[1], channels * size]), start[1], box[3])
        made = tf.cond(mirrored, lambda: tf.reverse(made, [0]), lambda: made)
        return tf.transpose(tf.reshape(made, [size, channels, size]), [1, 2, 0])

    pictures = tf.range(tf.shape(boxes)[0]) % tf.shape(images)[0]
    spec = tf.TensorSpec([channels, size, size], tf.float32)
    made = tf.map_fn(view, (pictures, boxes, flips), fn_output_signature=spec)
    return made * (1.0 / 255.0) if images.dtype == tf.uint8 else made


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
        sparse: bool. True resamples large pictures one by one, which is quicker on a CPU; False multiplies dense
            matrices, for accelerators. Both give the same views, but for places of pixels that may differ by 2^-22
            of the picture's side. Defaults to `False`.

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
