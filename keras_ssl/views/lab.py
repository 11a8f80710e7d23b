"""sRGB to CIE Lab and back, and the color bins that colorization predicts."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from keras_ssl.views.planes import image_op

# IEC 61966-2-1 (sRGB) to CIE XYZ, and the white point of illuminant D65 for the 2 degree observer.
_RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = _RGB_TO_XYZ / _WHITE[:, None]
_TO_RGB = np.linalg.inv(_TO_XYZ)
_KNEE, _SLOPE, _OFFSET = 0.008856, 7.787, 16.0 / 116.0  # of the cube root
_GRID_REACH = 110  # no sRGB color has |a| or |b| above this


def _mix(planes: tf.Tensor, matrix: np.ndarray) -> tf.Tensor:
    """Mixes the channels of (batch, 3, height, width), in full precision on every device."""
    channels = tf.unstack(planes, axis=1)
    rows = [
        sum(weight * channel for weight, channel in zip(row, channels, strict=True))
        for row in matrix.tolist()
    ]
    return tf.stack(rows, axis=1)


@image_op
def rgb_to_lab(images: tf.Tensor) -> tf.Tensor:
    """Converts sRGB to CIE Lab (D65, 2 degree observer).

    Args:
        images: `(batch, height, width, 3)` in [0, 1] or uint8.

    Returns:
        `(batch, height, width, 3)`: lightness L in [0, 100], a (green to red) and b (blue to yellow), both
        within about 110 of 0. White is (100, 0, 0).

    Reference: the formulas and constants of scikit-image's `rgb2lab`.
    """
    linear = tf.where(
        images > 0.04045,
        tf.pow((tf.maximum(images, 0.04045) + 0.055) / 1.055, 2.4),
        images / 12.92,
    )
    xyz = _mix(linear, _TO_XYZ)
    root = tf.where(xyz > _KNEE, tf.pow(tf.maximum(xyz, _KNEE), 1.0 / 3.0), _SLOPE * xyz + _OFFSET)
    x, y, z = tf.unstack(root, axis=1)
    return tf.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=1)


@image_op
def lab_to_rgb(lab: tf.Tensor) -> tf.Tensor:
    """Converts CIE Lab to sRGB, the inverse of `rgb_to_lab`; colors that sRGB lacks are clipped.

    Args:
        lab: `(batch, height, width, 3)`: L in [0, 100], a, b.

    Returns:
        `(batch, height, width, 3)` in [0, 1].
    """
    lightness, a, b = tf.unstack(lab, axis=1)
    y = (lightness + 16.0) / 116.0
    root = tf.stack([y + a / 500.0, y, tf.maximum(y - b / 200.0, 0.0)], axis=1)
    xyz = tf.where(root > _KNEE ** (1.0 / 3.0), root * root * root, (root - _OFFSET) / _SLOPE)
    linear = tf.clip_by_value(_mix(xyz, _TO_RGB), 0.0, 1.0)
    return tf.where(
        linear > 0.0031308,
        1.055 * tf.pow(tf.maximum(linear, 0.0031308), 1.0 / 2.4) - 0.055,
        12.92 * linear,
    )


def split_lab(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits images into lightness and color, each scaled to about [-1, 1].

    Args:
        images: `(batch, height, width, 3)` in [0, 1] or uint8.

    Returns:
        L / 50 - 1 `(batch, height, width, 1)` and (a, b) / 110 `(batch, height, width, 2)`: the two halves
        of a split-brain autoencoder (Zhang et al., 2017, https://arxiv.org/abs/1611.09842).
    """
    lab = rgb_to_lab(images)
    return lab[..., :1] / 50.0 - 1.0, lab[..., 1:] / float(_GRID_REACH)


@functools.cache
def _bins(step: int) -> np.ndarray:
    ticks = np.arange(-(_GRID_REACH // step), _GRID_REACH // step + 1) * step
    a, b = (grid.reshape(-1, 1) for grid in np.meshgrid(ticks, ticks, indexing="ij"))
    y = (np.arange(0.0, 100.5, 0.5) + 16.0) / 116.0
    root = np.stack([y + a / 500.0, y + 0.0 * a, y - b / 200.0])  # (3, bins, lightnesses)
    xyz = np.where(root > _KNEE ** (1.0 / 3.0), root**3, (root - _OFFSET) / _SLOPE)
    linear = np.einsum("ij,jkl->ikl", _TO_RGB, xyz)
    shown = ((linear >= -1e-6) & (linear <= 1.0 + 1e-6)).all(axis=0).any(axis=1)
    return np.concatenate([a, b], axis=1)[shown].astype(np.float32)


def color_bins(step: int = 10) -> np.ndarray:
    """Returns the bins of (a, b): the points of a regular grid that some sRGB color has.

    Args:
        step: int. Distance of neighboring points, 1 to 110. Defaults to `10`.

    Returns:
        float32 `(bins, 2)`, sorted by a, then b.

    Reference: Zhang et al., 2016, https://arxiv.org/abs/1603.08511, section 2.1.
    Differs from the reference: the released table has 313 bins for a step of 10 and reaches beyond the
    gamut by a rule that is not published; a point counts here if sRGB has its color at some lightness,
    which gives 226 bins (57 for a step of 20).
    """
    if not 1 <= step <= _GRID_REACH:
        raise ValueError(f"`step` must be 1 to {_GRID_REACH}. Received: step={step}")
    return _bins(int(step)).copy()


def _squared_distances(color: tf.Tensor, bins: np.ndarray) -> tf.Tensor:
    """Returns (..., bins) squared distances, without cancellation."""
    centers = tf.constant(bins, color.dtype)
    return (color[..., :1] - centers[:, 0]) ** 2 + (color[..., 1:] - centers[:, 1]) ** 2


def _at_least_float32(values: tf.Tensor) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)


def nearest_bin(color: tf.Tensor, bins: np.ndarray) -> tf.Tensor:
    """Returns the index of the bin nearest to each color.

    Args:
        color: float `(..., 2)`. a and b.
        bins: float `(bins, 2)`.

    Returns:
        int32 `(...)`; the first of equally near ones.
    """
    distances = _squared_distances(_at_least_float32(color), bins)
    return tf.argmin(distances, axis=-1, output_type=tf.int32)


def soft_bins(
    color: tf.Tensor, bins: np.ndarray, *, neighbors: int = 10, sigma: float = 5.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Shares each color among its nearest bins, by a Gaussian of the distance.

    Args:
        color: float `(..., 2)`. a and b.
        bins: float `(bins, 2)`.
        neighbors: int. Bins that share a color: 10 in the released code, 5 in the paper (unverified).
            Defaults to `10`.
        sigma: float. Width of the Gaussian, in units of a and b. Defaults to `5.0`.

    Returns:
        The bins int32 `(..., neighbors)`, nearest first, and their weights `(..., neighbors)`, which sum to
        1. The target's cross-entropy needs no more than these; the other weights are 0.

    Reference: Zhang et al., 2016, https://arxiv.org/abs/1603.08511, section 2.1.
    """
    if not 1 <= neighbors <= len(bins):
        raise ValueError(f"`neighbors` must be 1 to {len(bins)}. Received: neighbors={neighbors}")
    near, index = tf.math.top_k(-_squared_distances(_at_least_float32(color), bins), neighbors)
    return index, tf.nn.softmax(near / (2.0 * sigma * sigma), axis=-1)


def bin_weights(prior: np.ndarray, *, uniform: float = 0.5) -> np.ndarray:
    """Returns weights that let rare colors count: w ~ 1 / ((1 - g) p + g / Q'), with sum(p w) = 1.

    Args:
        prior: float `(bins,)`. How often each bin occurs; scaled to sum 1.
        uniform: float in [0, 1]. Share g of the uniform distribution over the Q' bins that occur.
            Defaults to `0.5`.

    Returns:
        float64 `(bins,)`. The largest weight stands for bins that never occur.

    Reference: Zhang et al., 2016, https://arxiv.org/abs/1603.08511, equation 4, and their released prior,
    in which bins that never occur have no uniform part.
    """
    prior = np.asarray(prior, np.float64)
    if prior.ndim != 1 or prior.min() < 0.0 or not prior.sum() > 0.0 or not 0.0 <= uniform <= 1.0:
        raise ValueError(
            "Expected counts >= 0 of shape (bins,), not all 0, and uniform in [0, 1]. "
            f"Received: prior.shape={prior.shape}, uniform={uniform}"
        )
    prior = prior / prior.sum()
    occurs = prior > 0.0
    weights = np.zeros_like(prior)
    weights[occurs] = 1.0 / ((1.0 - uniform) * prior[occurs] + uniform / occurs.sum())
    weights[~occurs] = weights.max()
    return weights / (prior * weights).sum()


def decode_bins(logits: tf.Tensor, bins: np.ndarray, *, temperature: float = 0.38) -> tf.Tensor:
    """Returns the annealed mean of predicted bins.

    Args:
        logits: float `(..., bins)`.
        bins: float `(bins, 2)`.
        temperature: float > 0. 1 gives the mean (pale colors), towards 0 the likeliest bin (spots).
            Defaults to `0.38`.

    Returns:
        `(..., 2)`: a and b, in at least float32.

    Reference: Zhang et al., 2016, https://arxiv.org/abs/1603.08511, equation 5.
    """
    shares = tf.nn.softmax(_at_least_float32(logits) / temperature, axis=-1)
    centers = tf.constant(bins, shares.dtype)
    return tf.stack([tf.reduce_sum(shares * centers[:, axis], -1) for axis in (0, 1)], axis=-1)


def lightness_bins(lightness: tf.Tensor, count: int = 100) -> tf.Tensor:
    """Returns which of `count` equal bins of [0, 100] each lightness lies in, int32, same shape."""
    place = tf.floor(_at_least_float32(lightness) * (count / 100.0))
    return tf.cast(tf.clip_by_value(place, 0.0, count - 1.0), tf.int32)
