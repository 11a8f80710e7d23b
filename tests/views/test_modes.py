"""The pretext operations give one result eagerly, in the graph of tf.data and under XLA, in every float type."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.views import TileConfig, ops

COUNT, SIDE = 5, 24
YES = tf.constant([True, True, False, True, True])
BINS = ops.color_bins(20)


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(9, tf.range(count, dtype=tf.int64))


# name: (function of images and keys, largest difference between modes). Copies, masks and labels are equal.
OPERATIONS = {
    "tiles": (lambda x, k: ops.grid_tiles(x, k, TileConfig(3, 5, channel_shift=1)), 0.0),
    "patches": (lambda x, k: ops.patch_grid(x, k, size=5, gap=2, jitter=1), 0.0),
    "pair": (
        lambda x, k: ops.random_pair(
            ops.patch_grid(x, k, size=5, gap=2, jitter=1), k, ops.neighbor_pairs()
        ),
        0.0,
    ),
    "drop": (ops.drop_colors, 2e-6),
    "project": (lambda x, k: ops.project_colors(x, YES), 2e-6),
    "standardize": (lambda x, k: ops.standardize(x), 2e-5),
    "downsample": (lambda x, k: ops.downsample(x, ops.random_sides(k, 4, 20), YES), 5e-6),
    "sobel": (lambda x, k: ops.sobel(x), 5e-6),
    "lab": (lambda x, k: ops.rgb_to_lab(x), 2e-4),
    "lab back": (lambda x, k: ops.lab_to_rgb(ops.rgb_to_lab(x)), 5e-6),
    "soft bins": (
        lambda x, k: ops.soft_bins(ops.rgb_to_lab(x)[..., 1:], BINS, neighbors=4)[1],
        5e-5,
    ),
    "posterize": (lambda x, k: ops.posterize(x, tf.range(1, COUNT + 1)), 1e-6),
    "sharpness": (lambda x, k: ops.sharpness(x, random.uniform(k, high=2.0)), 2e-6),
    "autocontrast": (lambda x, k: ops.autocontrast(x, YES), 2e-6),
    "random mask": (lambda x, k: ops.random_mask(k, (6, 8), 7, unit=2), 0.0),
    "block mask": (lambda x, k: ops.block_mask(k, (14, 14), ops.mask_counts(k, 196)), 0.0),
    "strata": (lambda x, k: ops.stratified_mask_counts(k, 196), 0.0),
    "context": (lambda x, k: ops.context_and_targets(k, (14, 14)), 0.0),
    "squares": (lambda x, k: ops.random_squares(k, 24, 24, size=8, short_side=12), 2e-6),
}
TAKES_IMAGES = [
    "tiles", "patches", "drop", "project", "standardize", "downsample", "sobel", "lab", "posterize",
    "sharpness", "autocontrast",
]  # fmt: skip


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)


def flat(result: object) -> np.ndarray:
    parts = [np.asarray(part, np.float64).ravel() for part in tf.nest.flatten(result)]
    return np.concatenate(parts)


# Parts of other operations here are not compiled twice.
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ("patches", "lab")])
def test_one_result_in_every_mode(name):
    function, tolerance = OPERATIONS[name]
    function = tf.autograph.experimental.do_not_convert(function)  # traced faster
    images, keys = tf.constant(pictures()), keys_of(COUNT)
    expected = flat(function(images, keys))
    made = {
        "xla": tf.function(function, jit_compile=True)(images, keys),
        "tf.data": next(iter(tf.data.Dataset.from_tensors((images, keys)).map(function))),
    }
    for mode, result in made.items():
        assert np.abs(flat(result) - expected).max() <= tolerance, mode


@pytest.mark.parametrize("name", TAKES_IMAGES)
def test_float_types(name):
    """bfloat16 is computed in float32 and comes out as float32; float64 stays."""
    function, _ = OPERATIONS[name]
    images, keys = ops.as_float(pictures(), "float64"), keys_of(COUNT)
    rounded = tf.cast(images, tf.bfloat16)
    half, single = function(rounded, keys), function(tf.cast(rounded, tf.float32), keys)
    assert half.dtype == single.dtype == tf.float32
    np.testing.assert_array_equal(half, single)
    wide = function(images, keys)
    assert wide.dtype == tf.float64
    if name != "posterize":  # its steps are where a rounding shows in full
        loose = 2e-4 if name in ("lab", "sobel") else 1e-4
        np.testing.assert_allclose(function(tf.cast(images, tf.float32), keys), wide, atol=loose)


@pytest.mark.parametrize(
    "name", ["tiles", "drop", "downsample", "block mask", "context", "random mask"]
)
def test_a_sample_does_not_depend_on_its_batch_and_the_batch_may_be_unknown(name):
    function, _ = OPERATIONS[name]
    images, keys = tf.constant(pictures()), keys_of(COUNT)
    whole = tf.nest.flatten(function(images, keys))[0]
    if name == "downsample":
        whole = ops.downsample(images, ops.random_sides(keys, 4, 20), YES)
        alone = ops.downsample(images[3:4], ops.random_sides(keys[3:4], 4, 20), YES[3:4])
    else:
        signature = [
            tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8), tf.TensorSpec([None, 2], tf.uint32)
        ]  # fmt: skip
        graph = tf.function(function, input_signature=signature)
        alone = tf.nest.flatten(graph(images[3:4], keys[3:4]))[0]
    np.testing.assert_allclose(
        np.asarray(alone[0], np.float32), np.asarray(whole[3], np.float32), atol=1e-6
    )
