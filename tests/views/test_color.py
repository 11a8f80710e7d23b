"""Color operations against slow NumPy written from the formulas, and against Pillow to its 8 bits."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_ssl.views import ops

GRAY = np.array([0.2989, 0.587, 0.114])


def slow_gray(image: np.ndarray) -> np.ndarray:
    return (image @ GRAY)[..., None] * np.ones(3)


def slow_hue(image: np.ndarray, turns: float) -> np.ndarray:
    def turn(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)

    return np.apply_along_axis(turn, -1, image)


def slow_op(image: np.ndarray, kind: int, factor: float) -> np.ndarray:
    """One operation of torchvision's ColorJitter on one image."""
    if kind == 3:
        return slow_hue(image, factor)
    other = (np.zeros_like(image), (image @ GRAY).mean(), slow_gray(image))[kind]
    return np.clip(factor * image + (1.0 - factor) * other, 0.0, 1.0)


def pictures(count: int, size: int = 8) -> np.ndarray:
    """Noise, with some gray, black, white and pure pixels, where hue has its special cases."""
    images = np.random.default_rng(0).random((count, size, size, 3))
    special = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    images[:, 0, : len(special)] = special
    return images


@pytest.mark.parametrize(
    "kind, name", list(enumerate(["brightness", "contrast", "saturation", "hue"]))
)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float64", 1e-12)])
def test_single_operations(kind, name, dtype, tolerance):
    images = pictures(6)
    factors = np.array([-0.5, -0.2, 0.0, 0.1, 0.3, 0.5]) if kind == 3 else np.linspace(0, 1.8, 6)
    expected = [slow_op(image, kind, factor) for image, factor in zip(images, factors, strict=True)]
    result = getattr(ops, name)(images.astype(dtype), factors)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, atol=tolerance)


@pytest.mark.parametrize("sparse", [False, True])
def test_every_order_of_the_four_operations(sparse):
    """All 24 orders with strong factors, where clipping makes order matter, and one image left out."""
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    images = pictures(24)
    factors = np.random.default_rng(1).uniform(0.3, 1.7, (24, 4))
    factors[:, 3] = np.random.default_rng(2).uniform(-0.5, 0.5, 24)
    chosen = np.arange(24) != 5
    expected = images.copy()
    for index in np.flatnonzero(chosen):
        for kind in orders[index]:
            expected[index] = slow_op(expected[index], kind, factors[index, kind])
    result = ops.color_jitter(
        images.astype("float32"), factors, orders, chosen, sparse=sparse
    ).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_array_equal(result[5], images[5].astype("float32"))
    other = ops.color_jitter(images.astype("float32"), factors, orders[::-1], chosen, sparse=sparse)
    assert np.abs(other - result).mean() > 0.01


@pytest.mark.parametrize("none", [False, True])
def test_jitter_when_all_or_no_images_are_chosen(none):
    images = pictures(3).astype("float32")
    factors = np.tile([[1.3, 0.8, 1.2, 0.1]], (3, 1)).astype("float32")
    order = np.tile(np.array([[2, 0, 3, 1]], np.int32), (3, 1))
    chosen = np.full(3, not none)
    host, device = (
        ops.color_jitter(images, factors, order, chosen, sparse=sparse).numpy()
        for sparse in (True, False)
    )
    np.testing.assert_allclose(host, device, atol=1e-6)
    assert np.array_equal(host, images) == none


def test_neutral_factors_change_nothing():
    images = pictures(2).astype("float32")
    order = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    factors = np.array([[1.0, 1.0, 1.0, 0.0]] * 2, np.float32)
    result = ops.color_jitter(images, factors, order, np.array([True, True]))
    np.testing.assert_allclose(result, images, atol=1e-6)


@pytest.mark.parametrize(
    "enhance, name",
    [("Brightness", "brightness"), ("Contrast", "contrast"), ("Color", "saturation")],
)
def test_close_to_pillow(enhance, name):
    """Pillow rounds to 8 bits and its means to whole numbers: mean absolute error under 1/255."""
    picture = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    for factor in (0.2, 0.7, 1.6):
        theirs = getattr(ImageEnhance, enhance)(Image.fromarray(picture)).enhance(factor)
        ours = getattr(ops, name)(picture[None], [factor])[0]
        assert np.abs(ours - np.asarray(theirs) / 255.0).mean() < 1.0 / 255.0


def test_hue_close_to_pillow():
    """Pillow's hue has 256 steps and its HSV 8 bits: mean absolute error under 2/255."""
    picture = np.random.default_rng(4).integers(0, 256, (16, 16, 3), np.uint8)
    hsv = np.array(Image.fromarray(picture).convert("HSV"))
    hsv[..., 0] += np.uint8(0.1 * 256)
    theirs = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")) / 255.0
    ours = ops.hue(picture[None], [int(0.1 * 256) / 256])[0]
    assert np.abs(ours - theirs).mean() < 2.0 / 255.0


def test_grayscale_by_hand_and_only_where_chosen():
    images = np.array([[[[1.0, 0.5, 0.0]]], [[[1.0, 0.5, 0.0]]]], np.float32)
    result = ops.grayscale(images, [True, False])
    np.testing.assert_allclose(result[0, 0, 0], [0.5924] * 3, atol=1e-6)  # 0.2989 + 0.2935
    np.testing.assert_array_equal(result[1], images[1])


@pytest.mark.parametrize("sparse", [False, True])
def test_solarize_equals_pillow(sparse):
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    theirs = np.asarray(ImageOps.solarize(Image.fromarray(ramp[0]), 128)) / 255.0
    result = ops.solarize(np.concatenate([ramp, ramp]), [True, False], sparse=sparse)
    np.testing.assert_allclose(result[0], theirs, atol=1e-6)
    np.testing.assert_allclose(result[1], ramp[0] / 255.0, atol=1e-6)


def test_all_values_stay_in_range():
    images = pictures(4).astype("float32")
    order = np.tile(np.array([[0, 2, 1, 3]], np.int32), (4, 1))
    factors = np.array([[3.0, 3.0, 3.0, 0.5]] * 4, np.float32)
    result = ops.color_jitter(images, factors, order, np.ones(4, bool)).numpy()
    assert result.min() >= 0.0 and result.max() <= 1.0


def test_half_precision_input_is_computed_in_float32():
    images = tf.cast(pictures(2), tf.bfloat16)
    result = ops.saturation(images, [0.5, 1.5])
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, ops.saturation(tf.cast(images, tf.float32), [0.5, 1.5]))
