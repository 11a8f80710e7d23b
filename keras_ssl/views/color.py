"""Color operations with torchvision's semantics, for whole batches of differently treated images."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.views.planes import GRAY_WEIGHTS, image_op, on_chosen

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def _column(numbers: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Shapes one number for each image as (batch, 1, 1)."""
    return tf.reshape(tf.cast(numbers, dtype), [-1, 1, 1])


def _clip(values: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(values, 0.0, 1.0)


def _mix(pixels: tf.Tensor, own: tf.Tensor, gray: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """Returns clip(own * x + gray * gray(x) + mean * mean(gray(x))).

    Brightness, contrast and saturation are all of this form. One 3x3 product for each image is the
    cheapest way to compute it: on one core 5 microseconds for a 32-pixel image, clipping included.

    Args:
        pixels: `(batch, 3, pixels)`.
        own, gray, mean: `(batch, 1, 1)`.
    """
    weights = tf.constant(GRAY_WEIGHTS, pixels.dtype)
    average = tf.reduce_mean(pixels, axis=-1)  # (batch, 3)
    offset = mean * _column(tf.reduce_sum(weights * average, axis=-1), pixels.dtype)
    return _clip(_blend(pixels, own, gray) + offset)


def _blend(pixels: tf.Tensor, own: tf.Tensor, gray: tf.Tensor) -> tf.Tensor:
    """Returns own * x + gray * gray(x)."""
    matrix = own * tf.eye(3, dtype=pixels.dtype) + gray * tf.constant(GRAY_WEIGHTS, pixels.dtype)
    return tf.matmul(matrix, pixels)


def _flat(planes: tf.Tensor) -> tf.Tensor:
    return tf.reshape(planes, [-1, 3, planes.shape[2] * planes.shape[3]])


def _like(pixels: tf.Tensor, planes: tf.Tensor) -> tf.Tensor:
    return tf.reshape(pixels, [-1, 3, planes.shape[2], planes.shape[3]])


def _turn_hue(pixels: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Turns the hue of `(batch, 3, pixels)` by `turns` `(batch, 1, 1)`; value and chroma stay.

    Hue is measured in sixths of a circle, h in [0, 6). With value v and chroma c the three channels are
    v - c clip(2 - |h - 3|), v - c clip(|h - 2| - 1) and v - c clip(|h - 4| - 1), which needs no branches.
    """
    red, green, blue = tf.unstack(pixels, axis=1)
    value = tf.reduce_max(pixels, axis=1)
    chroma = value - tf.reduce_min(pixels, axis=1)
    sextant = tf.where(
        value == red,
        green - blue,
        tf.where(value == green, blue - red + 2.0 * chroma, red - green + 4.0 * chroma),
    )
    hue = tf.math.divide_no_nan(sextant, chroma) + 6.0 * turns[:, 0]
    hue -= 6.0 * tf.floor(hue * (1.0 / 6.0))
    channels = [
        value - chroma * _clip(2.0 - tf.abs(hue - 3.0)),
        value - chroma * _clip(tf.abs(hue - 2.0) - 1.0),
        value - chroma * _clip(tf.abs(hue - 4.0) - 1.0),
    ]
    return tf.stack(channels, axis=1)


def _slot(pixels: tf.Tensor, kind: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Applies to each image the mix that its `kind` names, with its own factor, or none.

    Args:
        pixels: `(batch, 3, pixels)`.
        kind: int32 `(batch,)`. BRIGHTNESS, CONTRAST or SATURATION; any other leaves the image alone.
        factors: `(batch, 4)`.
    """
    is_kind = tf.one_hot(kind, HUE, dtype=factors.dtype)  # (batch, 3), zeros for other kinds
    change = is_kind * (factors[:, :HUE] - 1.0)
    own = 1.0 + tf.reduce_sum(change, axis=-1)
    columns = (own, -change[:, SATURATION], -change[:, CONTRAST])
    return _mix(pixels, *(_column(number, pixels.dtype) for number in columns))


def _jitter_by_position(
    pixels: tf.Tensor, factors: tf.Tensor, order: tf.Tensor, position: tf.Tensor
) -> tf.Tensor:
    """Treats the images in five groups by the slot of their hue turn; the last group is left alone."""
    groups = [tf.where(tf.equal(position, slot))[:, 0] for slot in range(5)]
    treated = []
    for hue_slot, rows in enumerate(groups[:4]):
        part, numbers, kinds = (tf.gather(tensor, rows) for tensor in (pixels, factors, order))
        for slot in range(4):
            if slot == hue_slot:
                part = _turn_hue(part, _column(numbers[:, HUE], part.dtype))
            else:
                part = _slot(part, kinds[:, slot], numbers)
        treated.append(part)
    rows = tf.concat(groups, axis=0)
    whole = tf.concat([*treated, tf.gather(pixels, groups[4])], axis=0)
    return tf.gather(whole, tf.math.invert_permutation(rows))


def _jitter_all(
    pixels: tf.Tensor, factors: tf.Tensor, order: tf.Tensor, position: tf.Tensor
) -> tf.Tensor:
    """Treats all images alike: three slots that may come before the hue turn, the turn, three after."""
    result = pixels
    for slot in (0, 1, 2):
        result = _slot(result, tf.where(position > slot, order[:, slot], HUE), factors)
    result = _turn_hue(result, _column(factors[:, HUE], pixels.dtype))
    for slot in (1, 2, 3):
        result = _slot(result, tf.where(position < slot, order[:, slot], HUE), factors)
    return tf.where(position[:, None, None] < 4, result, pixels)


@image_op
def color_jitter(
    images: tf.Tensor,
    factors: tf.Tensor,
    order: tf.Tensor,
    chosen: tf.Tensor,
    sparse: bool = False,
) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in each image's own order.

    Each of the four results is clipped to [0, 1]. Brightness is multiplicative; contrast blends with
    the mean of the image's gray version; saturation blends with the gray version; hue turns in HSV.
    The same results whichever form computes them, to rounding.

    Args:
        images: `(batch, height, width, 3)` in [0, 1].
        factors: float `(batch, 4)`. Brightness, contrast and saturation factors (1 = no change, >= 0),
            then the hue turn in fractions of the color circle (0 = no change).
        order: int32 `(batch, 4)`. A permutation of 0..3: which of the four comes first, second, ...
        chosen: bool `(batch,)`. Images to change; the others are returned as they are.
        sparse: bool. True computes the chosen images only and each operation once (dynamic shapes,
            for CPUs); False has static shapes, for XLA. Defaults to `False`.

    Returns:
        Tensor like `images`.

    Reference: torchvision `ColorJitter` and its `functional` float operations.
    """
    pixels = _flat(images)
    factors, order = tf.cast(factors, pixels.dtype), tf.convert_to_tensor(order)
    slots = tf.range(4, dtype=order.dtype)
    position = tf.reduce_sum(tf.where(order == HUE, slots, 0), axis=-1)
    position = tf.where(chosen, position, 4)
    jitter = _jitter_by_position if sparse else _jitter_all
    return _like(jitter(pixels, factors, order, position), images)


@image_op
def brightness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns clip(factor * image); `factor` is float `(batch,)`, 1 = no change, >= 0."""
    factor, pixels = _column(factor, images.dtype), _flat(images)
    return _like(_mix(pixels, factor, tf.zeros_like(factor), tf.zeros_like(factor)), images)


@image_op
def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends each image with the mean of its gray version; `factor` is float `(batch,)`, >= 0."""
    factor, pixels = _column(factor, images.dtype), _flat(images)
    return _like(_mix(pixels, factor, tf.zeros_like(factor), 1.0 - factor), images)


@image_op
def saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends each image with its gray version; `factor` is float `(batch,)`, 0 = gray, 1 = no change."""
    factor, pixels = _column(factor, images.dtype), _flat(images)
    return _like(_mix(pixels, factor, 1.0 - factor, tf.zeros_like(factor)), images)


@image_op
def hue(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Turns hues in HSV; `turns` is float `(batch,)`, in fractions of the color circle."""
    return _like(_turn_hue(_flat(images), _column(turns, images.dtype)), images)


@image_op
def grayscale(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Turns the images chosen by bool `(batch,)` gray, 0.2989 R + 0.587 G + 0.114 B on all channels."""
    gray = _column(chosen, images.dtype)
    return _like(_blend(_flat(images), 1.0 - gray, gray), images)


@image_op
def solarize(
    images: tf.Tensor, chosen: tf.Tensor, threshold: float = 0.5, sparse: bool = False
) -> tf.Tensor:
    """Inverts the values at or above a threshold.

    Args:
        images: `(batch, height, width, channels)` in [0, 1].
        chosen: bool `(batch,)`. Images to change.
        threshold: float in [0, 1]. Defaults to `0.5`, as PIL's `ImageOps.solarize` at 128 of 255.
        sparse: bool. True computes the chosen images only. Defaults to `False`.

    Returns:
        Tensor like `images`.
    """

    def invert_bright(values: tf.Tensor) -> tf.Tensor:
        return tf.where(values >= threshold, 1.0 - values, values)

    return on_chosen(invert_bright, images, chosen, sparse=sparse)
