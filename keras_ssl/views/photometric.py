"""Posterization, sharpness and automatic contrast with Pillow's semantics, and PIRL's block of them."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.planes import image_op, on_chosen


def _column(numbers: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Shapes one number for each image as (batch, 1, 1, 1)."""
    return tf.reshape(tf.cast(numbers, dtype), [-1, 1, 1, 1])


@image_op
def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the highest bits of each value, as if rounded to 8 bits before.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        bits: int `(batch,)`, 1 to 8.

    Returns:
        Tensor like `images`.

    Reference: Pillow `ImageOps.posterize`.
    """
    step = tf.pow(tf.constant(2.0, images.dtype), 8.0 - _column(bits, images.dtype))
    return tf.floor(tf.round(images * 255.0) / step) * step / 255.0


@image_op
def sharpness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends each image with a smoothed version of itself.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        factor: float `(batch,)`, >= 0. 0 is smoothed, 1 unchanged, more is sharpened and clipped.

    Returns:
        Tensor like `images`.

    Reference: Pillow `ImageEnhance.Sharpness`: the mean of 3 x 3 pixels with weight 5 of 13 for the middle;
    the outermost pixels stay.
    """
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    square = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    center = images[:, :, 1:-1, 1:-1]
    detail = tf.pad(center - (square + 4.0 * center) / 13.0, [[0, 0], [0, 0], [1, 1], [1, 1]])
    factor = _column(factor, images.dtype)
    return tf.clip_by_value(images + (factor - 1.0) * detail, 0.0, 1.0)


@image_op
def autocontrast(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Stretches each channel of the chosen images over the whole of [0, 1]; a constant one stays.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        chosen: bool `(batch,)`. Images to change.

    Returns:
        Tensor like `images`.

    Reference: Pillow `ImageOps.autocontrast`.
    """

    def stretch(planes: tf.Tensor) -> tf.Tensor:
        low = tf.reduce_min(planes, axis=[2, 3], keepdims=True)
        span = tf.reduce_max(planes, axis=[2, 3], keepdims=True) - low
        safe = tf.where(span > 0.0, span, tf.ones_like(span))
        return tf.where(span > 0.0, tf.clip_by_value((planes - low) / safe, 0.0, 1.0), planes)

    return on_chosen(stretch, images, chosen)


@image_op
def photometric(
    images: tf.Tensor, keys: tf.Tensor, chosen: tf.Tensor, sparse: bool = False
) -> tf.Tensor:
    """Posterizes, sharpens, solarizes and stretches the chosen images, in this order.

    Each image has its own numbers: 4 to 8 bits, sharpness in [0.1, 1.9], values from t/255 on inverted for
    a whole t in 0..256; then automatic contrast.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        keys: uint32 `(batch, 2)`.
        chosen: bool `(batch,)`. Images to change; PIRL changes 0.66 of them.
        sparse: bool. True computes the chosen images only. Defaults to `False`.

    Returns:
        Tensor like `images`.

    Reference: Misra and van der Maaten, 2020, https://arxiv.org/abs/1912.01991; the ranges from
    facebookresearch/vissl, `ImgPilRandomPhotometric`.
    """
    draws = random.uniform(random.fold_in(keys, "photometric"), (3,), dtype=images.dtype)

    def treat(planes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        planes = posterize(planes, 4.0 + tf.floor(5.0 * draws[:, 0]), planes=True)
        planes = sharpness(planes, 0.1 + 1.8 * draws[:, 1], planes=True)
        threshold = _column(tf.floor(257.0 * draws[:, 2]) / 255.0, planes.dtype)
        planes = tf.where(planes >= threshold, 1.0 - planes, planes)
        return autocontrast(planes, tf.fill(tf.shape(planes)[:1], True), planes=True)

    return on_chosen(treat, images, chosen, (draws,), sparse=sparse)
