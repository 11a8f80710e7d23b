"""Mirroring, quarter turns, padded crops and blur, by hand and against slow NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter

from keras_ssl import random
from keras_ssl.views import ops
from keras_ssl.views.spatial import blur_by_taps

SQUARE = np.array([[1, 2], [3, 4]], np.float32)[None, :, :, None] / 4.0


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(0, tf.range(count, dtype=tf.int64))


@pytest.mark.parametrize(
    "turns, expected",
    [(0, [[1, 2], [3, 4]]), (1, [[2, 4], [1, 3]]), (2, [[4, 3], [2, 1]]), (3, [[3, 1], [4, 2]])],
)
def test_rotations_by_hand(turns, expected):
    """Counter-clockwise: the right column of the square becomes the top row."""
    result = ops.rotate(tf.constant(SQUARE), turns)
    np.testing.assert_array_equal(result[0, :, :, 0] * 4.0, expected)


def test_rotations_add_up():
    image = tf.constant(np.random.default_rng(0).random((2, 3, 5, 4, 3)))
    for first in range(4):
        for second in range(4):
            twice = ops.rotate(ops.rotate(image, first), second)
            np.testing.assert_array_equal(twice, ops.rotate(image, (first + second) % 4))
            np.testing.assert_array_equal(twice, np.rot90(image, first + second, axes=(2, 3)))


def test_flip_by_hand():
    result = ops.flip(np.concatenate([SQUARE, SQUARE]), [True, False])
    np.testing.assert_array_equal(result[0, :, :, 0] * 4.0, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(result[1], SQUARE[0])


def test_padded_crops_are_exact_windows_and_all_offsets_are_equally_likely():
    """Each result is one of the 81 windows of the padded image; offsets 0..8 are uniform.

    A count of 900 expected 100 has standard deviation 9.4; 45 is beyond four of them.
    """
    side, pad, count = 6, 4, 900
    image = np.random.default_rng(0).random((1, side, side, 3), np.float32) + 0.01
    images = np.repeat(image, count, axis=0)
    made = ops.pad_and_crop(images, keys_of(count), pad).numpy()
    padded = np.pad(image[0], [(pad, pad), (pad, pad), (0, 0)])
    windows = {
        padded[top : top + side, left : left + side].tobytes(): (top, left)
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    }
    offsets = np.array([windows[view.tobytes()] for view in made])
    for axis in (0, 1):
        counts = np.bincount(offsets[:, axis], minlength=2 * pad + 1)
        assert counts.size == 2 * pad + 1 and np.abs(counts - 100).max() < 45
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 0.15


def test_padded_crop_refuses_oblong_images():
    with pytest.raises(ValueError, match="square"):
        ops.pad_and_crop(np.zeros((1, 4, 6, 3), np.float32), keys_of(1), 2)


def slow_blur(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        rims = [(radius, radius) if axis == a else (0, 0) for a in range(3)]
        padded = np.pad(image, rims, mode="edge")
        image = sum(
            tap * np.take(padded, np.arange(k, k + image.shape[axis]), axis=axis)
            for k, tap in enumerate(taps)
        )
    return image


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("height, width", [(16, 16), (9, 21), (5, 5)])
def test_blur_equals_the_slow_convolution(sparse, height, width):
    images = np.random.default_rng(0).random((4, height, width, 3)).astype("float32")
    sigma, chosen = np.array([0.1, 0.7, 2.0, 1.3], np.float32), np.array([True, True, True, False])
    result = ops.gaussian_blur(images, sigma, chosen, sparse=sparse).numpy()
    for index in range(3):
        expected = slow_blur(images[index].astype("float64"), sigma[index], 6)
        np.testing.assert_allclose(result[index], expected, atol=2e-6)
    np.testing.assert_array_equal(result[3], images[3])
    by_taps = blur_by_taps(images.transpose(0, 3, 1, 2), tf.constant(sigma), 6)
    np.testing.assert_allclose(by_taps[:3], result[:3].transpose(0, 3, 1, 2), atol=2e-6)


def test_blur_width_is_that_of_simclr_at_224():
    assert 2 * ops.blur_radius(224, 2.0) + 1 == 23
    assert ops.blur_radius(32, 2.0) == 6


def test_blur_close_to_pillow():
    """Pillow makes its Gaussian of three box filters and rounds: mean absolute error under 2/255."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    for sigma in (0.5, 1.0, 2.0):
        theirs = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(sigma))) / 255.0
        ours = ops.gaussian_blur(noise[None], [sigma], [True])[0]
        assert np.abs(ours - theirs).mean() < 2.0 / 255.0


def test_blur_keeps_constants_and_does_not_darken_the_rim():
    images = np.full((1, 12, 12, 3), 0.7, np.float32)
    np.testing.assert_allclose(ops.gaussian_blur(images, [1.9], [True]), images, atol=1e-6)
