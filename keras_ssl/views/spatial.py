"""Operations on whole images: padding, mirroring, quarter turns and Gaussian blur."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.crop import cut_planes
from keras_ssl.views.planes import image_op, on_chosen


@image_op
def flip(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Mirrors the images chosen by bool `(batch,)` left to right."""
    return on_chosen(lambda planes: tf.reverse(planes, [3]), images, chosen)


def rotate(images: tf.Tensor, quarter_turns: int) -> tf.Tensor:
    """Rotates images counter-clockwise by quarter turns, without interpolation.

    Args:
        images: `(..., height, width, channels)`, any type.
        quarter_turns: int. One turns [[1, 2], [3, 4]] into [[2, 4], [1, 3]].

    Returns:
        Tensor of the same type; height and width change places for odd turns.
    """
    row, column = images.shape.rank - 3, images.shape.rank - 2
    axes = list(range(images.shape.rank))
    axes[row], axes[column] = column, row
    turns = quarter_turns % 4
    if turns == 0:
        return images
    if turns == 2:
        return tf.reverse(images, [row, column])
    return tf.reverse(tf.transpose(images, axes), [row if turns == 1 else column])


@image_op
def pad_and_crop(
    images: tf.Tensor,
    keys: tf.Tensor,
    pad: int,
    *,
    flip: tf.Tensor | None = None,
) -> tf.Tensor:
    """Pads square images with black and cuts a random window of the old size.

    Args:
        images: `(batch, side, side, channels)` in [0, 1].
        keys: uint32 `(views * batch, 2)`. Row `v * batch + i` cuts from image i.
        pad: int. Pixels added on every side; the 2 pad + 1 offsets are equally likely in both axes.
        flip: bool `(views * batch,)`. Mirror left to right. Defaults to no.

    Returns:
        `(views * batch, side, side, channels)`; pixels are copied exactly.

    Reference: torchvision `RandomCrop(side, padding=pad)`.
    """
    side = images.shape[2]
    if side != images.shape[3]:
        raise ValueError(f"`pad_and_crop` expects square images. Received: {images.shape[2:]}")
    padded = tf.pad(images, [[0, 0], [0, 0], [pad, pad], [pad, pad]])
    corner = tf.floor(random.uniform(keys, (2,), dtype=images.dtype) * (2 * pad + 1))
    boxes = tf.concat([corner, tf.fill(tf.shape(corner), tf.cast(side, images.dtype))], axis=-1)
    return cut_planes(padded, boxes, side, flip=flip)


def blur_radius(size: int, max_sigma: float) -> int:
    """Returns the pixels that a blur reads to each side: 1/20 of the size, at least 3 max_sigma."""
    return max(size // 20, math.ceil(3.0 * max_sigma))


def _gaussian(place: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Returns weights at whole pixel distances `place` (rows, taps) for each sigma, rows of sum 1."""
    inside = tf.cast(tf.abs(place) <= radius, sigma.dtype)
    scaled = tf.cast(place, sigma.dtype) / sigma[:, None, None]
    weights = tf.exp(-0.5 * scaled * scaled) * inside
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _blur_weights(sigma: tf.Tensor, length: int, radius: int) -> tf.Tensor:
    """Returns `(batch, length, length)` rows that blur a line whose end pixels are repeated outwards."""
    place = tf.range(-radius, length + radius)[None, :] - tf.range(length)[:, None]
    weights = _gaussian(place, sigma, radius)  # (batch, length, length + 2 radius)
    first = tf.reduce_sum(weights[:, :, : radius + 1], axis=-1, keepdims=True)
    last = tf.reduce_sum(weights[:, :, length + radius - 1 :], axis=-1, keepdims=True)
    return tf.concat([first, weights[:, :, radius + 1 : length + radius - 1], last], axis=-1)


def blur_by_taps(planes: tf.Tensor, sigma: tf.Tensor, radius: int) -> tf.Tensor:
    """Blurs like `gaussian_blur`, as a sum of shifted pictures; XLA makes one pass of it for each axis.

    Args:
        planes: `(batch, channels, height, width)` in [0, 1].
        sigma: float `(batch,)`. Standard deviation in pixels, positive.
        radius: int. Pixels read to each side.

    Returns:
        Tensor like `planes`.
    """
    weights = _gaussian(tf.range(-radius, radius + 1)[None], sigma, radius)  # (batch, 1, taps)
    for axis in (2, 3):
        length = planes.shape[axis]
        first, last = tf.gather(planes, [0], axis=axis), tf.gather(planes, [length - 1], axis=axis)
        # Rims by `repeat`: XLA would fuse a gather by place into every tap (four times slower).
        rims = [tf.repeat(rim, radius, axis=axis) for rim in (first, last)]
        padded = tf.concat([rims[0], planes, rims[1]], axis=axis)
        shifted = [
            padded[:, :, tap : tap + length] if axis == 2 else padded[..., tap : tap + length]
            for tap in range(2 * radius + 1)
        ]
        planes = tf.add_n(
            [weights[:, :, tap, None, None] * part for tap, part in enumerate(shifted)]
        )
    return planes


@image_op
def gaussian_blur(
    images: tf.Tensor,
    sigma: tf.Tensor,
    chosen: tf.Tensor,
    *,
    max_sigma: float = 2.0,
    sparse: bool = False,
) -> tf.Tensor:
    """Blurs the chosen images, each with its own width.

    Args:
        images: `(batch, height, width, channels)` in [0, 1].
        sigma: float `(batch,)`. Standard deviation in pixels, positive, at most `max_sigma`.
        chosen: bool `(batch,)`. Images to blur.
        max_sigma: float. Sets the fixed kernel width, see `blur_radius`. Defaults to `2.0`.
        sparse: bool. True computes the chosen images only (dynamic shapes, for CPUs). Defaults to `False`.

    Returns:
        Tensor like `images`.

    Reference: the Gaussian of SimCLR (width 23 at 224 pixels, sigma in [0.1, 2]), with the rim repeated
    outwards as in PIL's `GaussianBlur`, which the PyTorch methods use.
    Differs from the references: SimCLR pads with zeros, which darkens the rim; PIL approximates the
    Gaussian by three box filters.
    """
    _, channels, height, width = images.shape
    radius = blur_radius(max(height, width), max_sigma)

    def blur(part: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
        across = _blur_weights(widths, width, radius)
        down = across if height == width else _blur_weights(widths, height, radius)
        rows = tf.reshape(part, [-1, channels * height, width])
        rows = tf.matmul(rows, across, transpose_b=True)
        return tf.matmul(down[:, None], tf.reshape(rows, [-1, channels, height, width]))

    return on_chosen(blur, images, chosen, (tf.cast(sigma, images.dtype),), sparse=sparse)
