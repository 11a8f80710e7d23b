"""Crops against Pillow's float resize, and crop boxes against a slow loop of torchvision's rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import random
from keras_ssl.views import center_crop, crop, ops
from keras_ssl.views.crop import _kernel

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def keys_of(count: int, seed: int = 0) -> tf.Tensor:
    return random.sample_keys(seed, tf.range(count, dtype=tf.int64))


def pictures(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, height, width, 3), np.float32)


def pil_crop(image: np.ndarray, box, size: int, interpolation: str) -> np.ndarray:
    """Pillow's antialiased resize in float mode, channel by channel, of a (top, left, h, w) box."""
    top, left, height, width = (float(number) for number in box)
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[:, :, channel])).resize(
                (size, size),
                FILTERS[interpolation],
                box=(
                    left,
                    top,
                    min(left + width, image.shape[1]),
                    min(top + height, image.shape[0]),
                ),
            )
        )
        for channel in range(3)
    ]
    return np.clip(np.stack(channels, axis=-1), 0.0, 1.0)


def test_bicubic_kernel_by_hand():
    """Keys with a = -1/2: 1.5 d^3 - 2.5 d^2 + 1 up to 1, then -0.5 d^3 + 2.5 d^2 - 4 d + 2 up to 2."""
    distance = tf.constant([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
    np.testing.assert_allclose(
        _kernel(distance, "bicubic"), [1, 0.5625, 0, -0.0625, 0, 0], atol=1e-7
    )
    np.testing.assert_allclose(_kernel(distance, "bilinear"), [1, 0.5, 0, 0, 0, 0], atol=1e-7)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "height, width, size", [(32, 32, 32), (40, 28, 20), (100, 120, 24), (9, 9, 33)]
)
def test_crop_and_resize_equals_pillow(interpolation, height, width, size):
    """Largest error under 2e-6: enlarging, shrinking, whole and broken boxes, boxes at the rim."""
    images = pictures(5, height, width)
    boxes = np.array(
        [
            [0, 0, height, width],
            [0, 0, height // 2, width // 3],
            [height - 4, width - 5, 4, 5],
            [2.25, 1.5, height * 0.6, width * 0.7],
            [1, 2, 3, 4],
        ],
        np.float32,
    )
    expected = np.stack(
        [
            pil_crop(image, box, size, interpolation)
            for image, box in zip(images, boxes, strict=True)
        ]
    )
    for sparse in (False, True):
        result = ops.crop_and_resize(
            images, boxes, size, interpolation=interpolation, sparse=sparse
        )
        assert np.abs(result - expected).max() < 2e-6


LARGE = [(160, 200, 100), (150, 150, 160), (448, 448, 224), (90, 700, 33)]


@pytest.mark.parametrize("kind", ["float32", "uint8"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height, width, size", LARGE)
def test_large_pictures_one_by_one_equal_pillow(interpolation, height, width, size, kind):
    """Places are off by at most 2^-22 of the side, and noise changes by at most 1 from pixel to pixel."""
    images = pictures(2, height, width)
    if kind == "uint8":
        images = np.round(images * 255.0).astype(np.uint8)
    boxes = np.array(
        [
            [0, 0, height, width],
            [height - 31, 5, 31, width - 5],
            [2.25, 1.5, height * 0.6, width * 0.7],
            [20, width - 13, 40, 13],
        ],
        np.float32,
    )
    assert crop.resamples(tf.constant(images), size)
    flip = tf.constant([False, True, False, True])
    made = ops.crop_and_resize(
        images, boxes, size, interpolation=interpolation, flip=flip, sparse=True
    ).numpy()
    floats = ops.as_float(images).numpy()
    for row, box in enumerate(boxes):
        expected = pil_crop(floats[row % 2], box, size, interpolation)
        expected = expected[:, ::-1] if flip[row] else expected
        assert np.abs(made[row] - expected).max() < max(height, width) * 2.0**-22


def test_dense_products_where_they_are_quicker_or_needed():
    assert not crop.resamples(tf.zeros((1, 64, 64, 3)), 64)
    assert crop.resamples(tf.zeros((1, 96, 96, 3)), 96)
    assert crop.resamples(tf.zeros((1, 448, 448, 3), tf.uint8), 32)
    assert not crop.resamples(tf.zeros((1, 448, 448, 3), tf.float64), 224)


def test_whole_image_at_its_own_size_is_copied_exactly():
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    boxes = ops.full_boxes(2, 32, 32, tf.float32)
    for interpolation in FILTERS:
        result = ops.crop_and_resize(images, boxes, 32, interpolation=interpolation)
        np.testing.assert_array_equal(result, ops.as_float(images))


def test_flip_mirrors_the_chosen_images_only():
    images = pictures(2, 20, 24)
    boxes = np.array([[3, 4, 10, 12], [3, 4, 10, 12]], np.float32)
    plain = ops.crop_and_resize(images, boxes, 16).numpy()
    flipped = ops.crop_and_resize(images, boxes, 16, flip=tf.constant([True, False])).numpy()
    np.testing.assert_allclose(flipped[0], plain[0, :, ::-1], atol=1e-6)
    np.testing.assert_array_equal(flipped[1], plain[1])


def test_several_boxes_for_each_image_are_view_major():
    images = pictures(2, 16, 16)
    boxes = np.array([[0, 0, 8, 8], [0, 8, 8, 8], [8, 0, 8, 8], [8, 8, 8, 8]], np.float32)
    result = ops.crop_and_resize(images, boxes, 8).numpy()
    for row, (image, top, left) in enumerate([(0, 0, 0), (1, 0, 8), (0, 8, 0), (1, 8, 8)]):
        window = images[image, top : top + 8, left : left + 8]
        np.testing.assert_allclose(result[row], window, atol=1e-7)


@pytest.mark.parametrize(
    "dtype, result",
    [("uint8", "float32"), ("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
def test_input_types(dtype, result):
    images = tf.ones([1, 8, 8, 3], tf.float32)
    images = tf.cast(images * 255.0, tf.uint8) if dtype == "uint8" else tf.cast(images, dtype)
    made = ops.crop_and_resize(images, tf.constant([[1.0, 1.0, 5.0, 5.0]]), 4)
    assert made.dtype == result
    np.testing.assert_allclose(made, np.ones((1, 4, 4, 3)), atol=1e-6)


def slow_box(draws, height: int, width: int, scale, ratio) -> tuple[list[int], bool]:
    """torchvision's RandomResizedCrop.get_params with the random numbers given."""
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[attempt])
        low, high = math.log(ratio[0]), math.log(ratio[1])
        shape = math.exp(low + (high - low) * draws[10 + attempt])
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(draws[20] * (height - h + 1)), int(draws[21] * (width - w + 1))
            return [top, left, h, w], False
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w], True


@pytest.mark.parametrize(
    "height, width, scale, ratio, fallbacks",
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3), 0),
        (300, 500, (0.2, 1.0), (3 / 4, 4 / 3), 0),
        (30, 200, (0.9, 1.0), (3 / 4, 4 / 3), 300),
        (200, 30, (0.9, 1.0), (3 / 4, 4 / 3), 300),
        (100, 100, (0.9, 1.0), (0.5, 2.0), 1),
        (4, 4, (0.01, 0.3), (0.2, 5.0), 0),
    ],
)
def test_boxes_equal_the_slow_loop(height, width, scale, ratio, fallbacks):
    keys = keys_of(300)
    boxes = ops.random_boxes(keys, height, width, scale=scale, ratio=ratio, dtype="float64").numpy()
    draws = random.uniform(keys, (22,), dtype="float64").numpy()
    expected = [slow_box(row, height, width, scale, ratio) for row in draws]
    np.testing.assert_array_equal(boxes, [box for box, _ in expected])
    assert sum(fell for _, fell in expected) >= fallbacks


def ks_distance(values: np.ndarray, low: float, high: float) -> float:
    """Kolmogorov-Smirnov distance from the uniform distribution on [low, high]."""
    values = np.sort((values - low) / (high - low))
    return np.abs(values - (np.arange(values.size) + 0.5) / values.size).max()


@pytest.mark.parametrize("aspect", [None, 1.0, 1.5, 0.6])
def test_box_distribution(aspect):
    """Area and log aspect ratio are uniform in the picture's own geometry, and boxes lie inside.

    A canvas of 4,000 pixels makes rounding small; areas of at most 0.4 always fit at the first try. For
    n = 4,000 the distance exceeds 1.95 / sqrt(n) = 0.031 once in 1,000 seeds.
    """
    count, side = 4000, 4000
    aspects = None if aspect is None else tf.fill([count], aspect)
    boxes = ops.random_boxes(keys_of(count), side, side, scale=(0.1, 0.4), aspect=aspects).numpy()
    top, left, height, width = boxes.T.astype(np.float64)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= side).all()
    shape = width / height * (aspect or 1.0)
    bound = 1.95 / math.sqrt(count)
    assert ks_distance(width * height / side**2, 0.1, 0.4) < bound
    assert ks_distance(np.log(shape), math.log(3 / 4), math.log(4 / 3)) < bound
    assert ks_distance(top / (side - height), 0.0, 1.0) < bound
    assert ks_distance(left / (side - width), 0.0, 1.0) < bound


def test_each_row_may_have_its_own_scale():
    low, high = tf.constant([0.1, 0.6] * 50), tf.constant([0.2, 0.7] * 50)
    boxes = ops.random_boxes(keys_of(100), 1000, 1000, scale=(low, high)).numpy()
    area = (boxes[:, 2] * boxes[:, 3] / 1e6).reshape(50, 2)
    assert ((area > [0.098, 0.598]) & (area < [0.202, 0.702])).all()


def test_center_boxes_by_hand():
    """7/8 of the shorter side. A 2:1 picture squeezed on a 256 square: 224 rows and 112 columns."""
    box = ops.center_boxes(1, 256, 320, crop_ratio=0.875)
    np.testing.assert_allclose(box, [[16.0, 48.0, 224.0, 224.0]], atol=1e-3)
    boxes = ops.center_boxes(2, 256, 256, crop_ratio=0.875, aspect=tf.constant([2.0, 0.5]))
    expected = [[16.0, 72.0, 224.0, 112.0], [72.0, 16.0, 112.0, 224.0]]
    np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_center_crop_equals_pillow_and_ignores_the_canvas():
    """A smooth 60 x 120 picture gives nearly the same view from itself and from a 90 x 90 canvas."""
    y, x = np.mgrid[0:60, 0:120] / 60.0
    image = np.stack([0.5 + 0.4 * np.sin(3 * y + 2 * x), y, x / 2.0], axis=-1).astype(np.float32)
    made = center_crop(image[None], size=28, crop_ratio=0.875)
    expected = pil_crop(image, (3.75, 33.75, 52.5, 52.5), 28, "bilinear")
    np.testing.assert_allclose(made[0], expected, atol=1e-5)
    canvas = ops.crop_and_resize(image[None], ops.full_boxes(1, 60, 120, tf.float32), 90)
    from_canvas = center_crop(canvas, tf.constant([2.0]), size=28, crop_ratio=0.875)
    assert np.abs(from_canvas - made).max() < 0.01
    assert np.abs(center_crop(canvas, size=28, crop_ratio=0.875) - made).max() > 0.1


def test_center_crop_of_small_data_is_the_image():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    made = center_crop(images, tf.ones([2]), size=32, crop_ratio=1.0)
    np.testing.assert_array_equal(made, ops.as_float(images))


def test_errors_say_what_was_received():
    images = np.zeros((1, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match=r"bicubic.*Received: interpolation='nearest'"):
        ops.crop_and_resize(images, np.ones((1, 4), np.float32), 4, interpolation="nearest")
    with pytest.raises(ValueError, match=r"Received: crop_ratio=1.5"):
        center_crop(images, size=4, crop_ratio=1.5)
    with pytest.raises(ValueError, match="rank 4"):
        ops.crop_and_resize(images[0], np.ones((1, 4), np.float32), 4)
    with pytest.raises(ValueError, match="uint8 in .*Received: dtype=int32"):
        ops.crop_and_resize(images.astype(np.int32), np.ones((1, 4), np.float32), 4)
