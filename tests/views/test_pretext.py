"""Color dropping, projection, resampling, edges, and Pillow's photometric operations, by hand and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_ssl import random
from keras_ssl.views import ops


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(11, tf.range(count, dtype=tf.int64))


def pictures(count: int = 4, size: int = 16) -> np.ndarray:
    """uint8 noise that does not fill the range, so that contrast can grow."""
    return np.random.default_rng(0).integers(40, 200, (count, size, size, 3)).astype(np.uint8)


def test_one_channel_stays_and_the_others_are_noise_around_its_mean():
    images = ops.as_float(pictures(600, 8))
    made = ops.drop_colors(images, keys_of(600)).numpy()
    same = (made == images.numpy()).all(axis=(1, 2))
    assert (same.sum(axis=1) == 1).all()
    counts = same.sum(axis=0)  # 200 each, standard deviation 11.5
    assert np.abs(counts - 200).max() < 46
    kept = made[same[:, None, None] & np.ones((1, 8, 8, 1), bool)].reshape(600, 64)
    noise = made[~same[:, None, None] & np.ones((1, 8, 8, 1), bool)].reshape(600, 128)
    off = (noise - kept.mean(axis=1, keepdims=True)) * 255
    assert np.abs(off).max() < 0.501 and abs(off.std() - 0.5 / np.sqrt(3)) < 0.005
    assert abs(np.corrcoef(off[:, :64].ravel(), off[:, 64:].ravel())[0, 1]) < 0.02


def test_projection_removes_the_green_magenta_axis():
    """I - a^T a / 6 for a = (-1, 2, -1), as the papers print it to four digits; gray stays."""
    images = ops.as_float(pictures())
    made = ops.project_colors(images, [True, True, False, True]).numpy()
    matrix = np.array(
        [[0.8333, 0.3333, -0.1667], [0.3333, 0.3333, 0.3333], [-0.1667, 0.3333, 0.8333]]
    )
    np.testing.assert_allclose(made[[0, 1, 3]], images.numpy()[[0, 1, 3]] @ matrix, atol=2e-4)
    np.testing.assert_array_equal(made[2], images[2])
    assert np.abs(made[0] @ [-1, 2, -1]).max() < 1e-6
    gray = np.full((1, 2, 2, 3), 0.3, np.float32)
    np.testing.assert_allclose(ops.project_colors(gray, [True]), gray, atol=1e-7)
    green = np.array([[[[0, 1, 0]]]], np.float32)
    np.testing.assert_allclose(
        ops.project_colors(green, [True]), np.full((1, 1, 1, 3), 1 / 3), atol=1e-6
    )


@pytest.mark.parametrize("each_channel", [True, False])
def test_standardized_tiles_have_mean_0_and_deviation_1(each_channel):
    axes = (1, 2) if each_channel else (1, 2, 3)
    made = ops.standardize(pictures(), each_channel=each_channel).numpy()
    np.testing.assert_allclose(made.mean(axis=axes), 0.0, atol=1e-5)
    np.testing.assert_allclose(made.std(axis=axes), 1.0, atol=1e-4)
    flat = ops.standardize(np.full((1, 4, 4, 3), 0.4, np.float32), each_channel=each_channel)
    assert np.abs(flat).max() < 1e-3


def test_sides_have_uniform_pixel_counts():
    sides = ops.random_sides(keys_of(4000)).numpy()
    assert sides.min() >= 10 and sides.max() <= 95 and (sides == np.round(sides)).all()
    share = (sides**2 < 100 + 0.25 * (95**2 - 100)).mean()
    assert abs(share - 0.25) < 0.03


@pytest.mark.parametrize("side", [1, 3, 7, 15, 16])
def test_downsampling_against_pillow(side):
    """Pillow's float images are not rounded: largest error under 1e-5."""
    images = ops.as_float(pictures(2)).numpy()
    made = ops.downsample(images, [side, 5.0], [True, False]).numpy()
    for channel in range(3):
        plane = Image.fromarray(images[0, :, :, channel], mode="F")
        small = plane.resize((side, side), Image.Resampling.BILINEAR)
        back = np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(made[0, :, :, channel], back, atol=1e-5)
    np.testing.assert_array_equal(made[1], images[1])


def test_sobel_by_hand():
    ramp = np.broadcast_to(np.arange(6.0, dtype=np.float32)[None, None, :, None], (1, 5, 6, 3))
    edges = ops.sobel(ramp).numpy()
    assert edges.shape == (1, 5, 6, 2)
    np.testing.assert_allclose(edges[0, 1:-1, 1:-1, 0], -8.0)
    np.testing.assert_allclose(edges[0, 1:-1, 1:-1, 1], 0.0)
    constant = ops.sobel(np.full((1, 5, 5, 3), 0.7, np.float32))
    np.testing.assert_allclose(constant[0, 1:-1, 1:-1], 0.0, atol=1e-6)


@pytest.mark.parametrize("pad", [1, 2])
def test_sobel_against_a_slow_loop(pad):
    images = np.random.default_rng(2).normal(size=(2, 5, 7, 3))
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    gray = np.pad(images.mean(-1), [(0, 0), (pad, pad), (pad, pad)])
    made = ops.sobel(images, pad=pad)
    assert made.shape == (2, 3 + 2 * pad, 5 + 2 * pad, 2)
    for row in range(made.shape[1]):
        for column in range(made.shape[2]):
            window = gray[:, row : row + 3, column : column + 3]
            for index, weights in enumerate((kernel, kernel.T)):
                expected = (window * weights).sum(axis=(1, 2))
                np.testing.assert_allclose(made[:, row, column, index], expected, atol=1e-12)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_equals_pillow(bits):
    picture = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    theirs = np.asarray(ImageOps.posterize(Image.fromarray(picture[0]), bits)) / 255.0
    np.testing.assert_allclose(ops.posterize(picture, [bits])[0], theirs, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 1.9])
def test_sharpness_close_to_pillow(factor):
    """Pillow rounds the smoothed image to 8 bits: mean absolute error under 0.5/255, none at factor 1."""
    picture = pictures(1)
    theirs = np.asarray(ImageEnhance.Sharpness(Image.fromarray(picture[0])).enhance(factor)) / 255.0
    error = np.abs(ops.sharpness(picture, [factor])[0] - theirs)
    assert error.mean() < (1e-7 if factor == 1.0 else 0.5 / 255) and error.max() < 1.5 / 255


def test_autocontrast_close_to_pillow():
    """Pillow rounds down to 8 bits: error under 1/255. A constant channel and unchosen images stay."""
    pair = pictures(2)
    pair[0, :, :, 1] = 90
    made = ops.autocontrast(pair, [True, False]).numpy()
    theirs = np.asarray(ImageOps.autocontrast(Image.fromarray(pair[0]))) / 255.0
    assert np.abs(made[0] - theirs).max() < 1.01 / 255
    assert made[0, :, :, 0].min() == 0.0 and abs(made[0, :, :, 2].max() - 1.0) < 1e-6
    np.testing.assert_allclose(made[1], pair[1] / 255.0, atol=1e-7)


def test_photometric_is_the_chain_of_its_four_operations():
    """Against Pillow with the same numbers: mean absolute error under 2/255 where solarizing agrees.

    Sharpened values that Pillow rounds across the threshold are inverted in one and not in the other.
    """
    images, keys = pictures(12), keys_of(12)
    chosen = np.arange(12) != 3
    made = ops.photometric(images, keys, chosen).numpy()
    draws = random.uniform(random.fold_in(keys, "photometric"), (3,)).numpy()
    for index in np.flatnonzero(chosen):
        picture = ImageOps.posterize(Image.fromarray(images[index]), 4 + int(5 * draws[index, 0]))
        picture = ImageEnhance.Sharpness(picture).enhance(0.1 + 1.8 * float(draws[index, 1]))
        picture = ImageOps.solarize(picture, int(257 * draws[index, 2]))
        theirs = np.asarray(ImageOps.autocontrast(picture)) / 255.0
        error = np.abs(made[index] - theirs)
        assert np.mean(error < 4 / 255) > 0.97, index
    np.testing.assert_allclose(made[3], images[3] / 255.0, atol=1e-7)
    host = ops.photometric(images, keys, chosen, sparse=True)
    np.testing.assert_allclose(host, made, atol=1e-6)
