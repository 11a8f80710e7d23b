"""Operations that close the shortcuts of pretext tasks: color dropping, resampling, edges, whitening."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.planes import image_op, on_chosen

# I - a^T a / (a a^T) for a = (-1, 2, -1): the green-magenta axis is taken out.
_PROJECTION = (
    (5.0 / 6.0, 1.0 / 3.0, -1.0 / 6.0),
    (1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0),
    (-1.0 / 6.0, 1.0 / 3.0, 5.0 / 6.0),
)


def _spatial_mean(planes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(planes, axis=[2, 3], keepdims=True)


@image_op
def drop_colors(images: tf.Tensor, keys: tf.Tensor, *, noise: float = 0.5 / 255.0) -> tf.Tensor:
    """Keeps one color channel of each image, drawn at random, and replaces the two others by noise.

    The noise is uniform around the kept channel's own mean, so that nothing but the kept channel is left
    once the means are subtracted (`standardize`).

    Args:
        images: `(batch, height, width, 3)` in [0, 1] or uint8.
        keys: uint32 `(batch, 2)`.
        noise: float. Half the width of the noise. Defaults to `0.5 / 255`.

    Returns:
        Tensor like `images`, in [0, 1].

    Reference: Doersch et al., 2015, https://arxiv.org/abs/1505.05192, section 3.1, and
    cdoersch/deepcontext.
    """
    channel = tf.cast(tf.floor(random.uniform(random.fold_in(keys, "channel")) * 3.0), tf.int32)
    keep = tf.one_hot(channel, 3, dtype=images.dtype)[:, :, None, None]
    mean = tf.reduce_sum(keep * _spatial_mean(images), axis=1, keepdims=True)
    shape = tuple(images.shape[1:])
    draws = random.uniform(random.fold_in(keys, "noise"), shape, -noise, noise, dtype=images.dtype)
    return tf.where(keep > 0.0, images, tf.clip_by_value(mean + draws, 0.0, 1.0))


@image_op
def project_colors(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Removes the green-magenta axis from the chosen images, along which lenses spread colors.

    Args:
        images: `(batch, height, width, 3)` in [0, 1] or uint8.
        chosen: bool `(batch,)`. Images to change.

    Returns:
        Tensor like `images`. Values may leave [0, 1] by a sixth and are not clipped, which would bring the
        axis back; gray stays gray.

    Reference: Doersch et al., 2015, https://arxiv.org/abs/1505.05192, section 3.1; the same matrix in
    MehdiNoroozi/JigsawPuzzleSolver.
    """

    def project(planes: tf.Tensor) -> tf.Tensor:
        channels = tf.unstack(planes, axis=1)
        rows = [
            sum(weight * channel for weight, channel in zip(row, channels, strict=True))
            for row in _PROJECTION
        ]
        return tf.stack(rows, axis=1)

    return on_chosen(project, images, chosen)


@image_op
def standardize(
    images: tf.Tensor, *, each_channel: bool = True, epsilon: float = 1e-6
) -> tf.Tensor:
    """Gives each image (tile, patch) mean 0 and standard deviation 1.

    Args:
        images: `(batch, height, width, channels)`.
        each_channel: bool. Each channel by itself, or all values of an image together. Defaults to `True`.
        epsilon: float. Added to the variance. Defaults to `1e-6`.

    Returns:
        Tensor like `images`, no longer in [0, 1].
    """
    axes = [2, 3] if each_channel else [1, 2, 3]
    centered = images - tf.reduce_mean(images, axis=axes, keepdims=True)
    variance = tf.reduce_mean(centered * centered, axis=axes, keepdims=True)
    return centered * tf.math.rsqrt(variance + epsilon)


def random_sides(keys: tf.Tensor, least: int = 10, most: int = 95) -> tf.Tensor:
    """Draws sides of squares whose number of pixels is uniform in [least^2, most^2].

    Args:
        keys: uint32 `(batch, 2)`.
        least: int. Defaults to `10`.
        most: int. Defaults to `95`.

    Returns:
        float32 `(batch,)`, whole numbers.

    Reference: the patches of context prediction, cdoersch/deepcontext.
    """
    area = random.uniform(keys, (), float(least * least), float(most * most))
    return tf.round(tf.sqrt(area))


def _resampling(sides: tf.Tensor, length: int) -> tf.Tensor:
    """Returns (batch, length, length): a line shrunk to `sides` pixels and enlarged again."""
    dtype = sides.dtype
    place = tf.range(length, dtype=dtype) + 0.5
    sides = sides[:, None, None]
    inside = tf.cast(place < sides, dtype)  # (batch, 1, length), real pixels of the small line
    # Rows of `shrink` and columns of `enlarge` are the pixels of the small line, padded to `length`.
    distance = tf.abs(place[:, None] * (length / sides) - place[None, :]) * (sides / length)
    shrink = tf.nn.relu(1.0 - distance)
    shrink /= tf.maximum(tf.reduce_sum(shrink, axis=-1, keepdims=True), 1e-3)
    distance = tf.abs(place[:, None] * (sides / length) - place[None, :])
    enlarge = tf.nn.relu(1.0 - distance) * inside
    enlarge /= tf.reduce_sum(enlarge, axis=-1, keepdims=True)
    return tf.matmul(enlarge, shrink)


@image_op
def downsample(images: tf.Tensor, sides: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Shrinks the chosen images to a side of their own and enlarges them to the old one again.

    Args:
        images: `(batch, side, side, channels)` in [0, 1] or uint8.
        sides: float `(batch,)`. Whole numbers, 1 to `side`; see `random_sides`.
        chosen: bool `(batch,)`. Images to change.

    Returns:
        Tensor like `images`.

    Reference: Pillow `Image.resize` with `BILINEAR`, twice, without its rounding to 8 bits.
    """
    length = images.shape[3]
    if images.shape[2] != length:
        raise ValueError(f"`downsample` expects square images. Received: {images.shape[2:]}")

    def resample(planes: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
        weights = _resampling(sides, length)[:, None]  # (batch, 1, length, length)
        return tf.matmul(weights, tf.matmul(planes, weights, transpose_b=True))

    return on_chosen(resample, images, chosen, (tf.cast(sides, images.dtype),))


@image_op
def sobel(images: tf.Tensor, *, pad: int = 1) -> tf.Tensor:
    """Returns horizontal and vertical edges of the mean of the color channels.

    Args:
        images: `(batch, height, width, channels)`, of any range: DeepCluster normalizes by mean and
            standard deviation first.
        pad: int. Pixels of zeros around the image: 1 keeps the size (DeepCluster); 2 makes both sides 2
            longer (DeeperCluster). Defaults to `1`.

    Returns:
        `(batch, height + 2 pad - 2, width + 2 pad - 2, 2)`, at least float32. The kernels are
        [[1, 0, -1], [2, 0, -2], [1, 0, -1]] and its transpose, as cross-correlations: a picture that
        brightens to the right by 1 for each pixel gives -8 and 0. NAT's kernels have the other sign.

    Reference: facebookresearch/deepcluster, `models/alexnet.py`.
    """
    gray = tf.reduce_mean(images, axis=1)
    gray = tf.pad(gray, [[0, 0], [pad, pad], [pad, pad]])

    def smooth(lines: tf.Tensor) -> tf.Tensor:  # down the rows
        return lines[:, :-2] + 2.0 * lines[:, 1:-1] + lines[:, 2:]

    across = smooth(gray[:, :, :-2] - gray[:, :, 2:])
    difference = gray[:, :-2] - gray[:, 2:]
    down = difference[:, :, :-2] + 2.0 * difference[:, :, 1:-1] + difference[:, :, 2:]
    return tf.stack([across, down], axis=1)
