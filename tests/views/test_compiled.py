"""Large views, taken one by one through compiled steps, against the operations on batches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random, views
from keras_ssl.views import ViewEngine, ViewRecipe, compiled, ops

SIZE = compiled.MIN_SIZE


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(5, tf.range(count, dtype=tf.int64))


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def large() -> ViewRecipe:
    """Every step at once: SimCLR's colors and blur, and solarization."""
    return views.customize("simclr", image_size=SIZE, solarize_rate=0.3)


def test_every_step_is_the_operation_of_its_name():
    """One step for each view, then a list of three, where order matters: equal to 1e-6."""
    images = np.random.default_rng(0).random((9, 12, 10, 3), np.float32)
    factors = np.tile(np.array([[1.4, 0.6, 1.5, 0.2]], np.float32), (9, 1))
    sigma = np.linspace(0.3, 2.0, 9).astype(np.float32)
    steps = np.full((9, 3), compiled.NOTHING, np.int32)
    steps[:8, 1] = range(8)
    steps[8] = [compiled.SOLARIZE, compiled.BLUR, 0]
    planes = tf.transpose(images, [0, 3, 1, 2])
    made = compiled.run_steps(planes, steps, factors, sigma, ops.blur_radius(12, 2.0)).numpy()
    yes, one = [True], slice(0, 1)
    expected = [
        ops.brightness(images[0:1], factors[one, 0]),
        ops.contrast(images[1:2], factors[one, 1]),
        ops.saturation(images[2:3], factors[one, 2]),
        ops.hue(images[3:4], factors[one, 3]),
        ops.grayscale(images[4:5], yes),
        ops.gaussian_blur(images[5:6], sigma[5:6], yes),
        ops.solarize(images[6:7], yes),
        images[7:8],
        ops.brightness(
            ops.gaussian_blur(ops.solarize(images[8:9], yes), sigma[8:9], yes), factors[one, 0]
        ),
    ]
    np.testing.assert_allclose(made, np.concatenate(expected), atol=1e-6)


@pytest.mark.parametrize("height, width, error", [(150, 180, 180 * 2.0**-22), (70, 90, 2e-5)])
def test_host_equals_device(height, width, error):
    """Crops resampled one by one and dense ones; views that fall out of all steps and into all."""
    images, keys = pictures(12, height, width), keys_of(12)
    aspect = tf.linspace(0.6, 1.6, 12)
    host, device = (
        ViewEngine(large(), kernel=kernel)(images, keys, aspect)["global"]
        for kernel in ("host", "device")
    )
    assert np.abs(host - device).max() < error
    assert host.numpy().min() >= 0.0 and host.numpy().max() <= 1.0


def test_one_result_in_a_graph_a_pipeline_and_another_batch():
    """Unknown batch size in a graph, tf.data, and a sample alone: the same views to 1e-6."""
    images, keys = pictures(4, 80, 80), keys_of(4)
    engine = ViewEngine(large(), kernel="host")
    expected = engine(images, keys)["global"].numpy()
    signature = [tf.TensorSpec([None, 80, 80, 3], tf.uint8), tf.TensorSpec([None, 2], tf.uint32)]
    graph = tf.function(engine, input_signature=signature)
    np.testing.assert_allclose(graph(images, keys)["global"], expected, atol=1e-6)
    alone = graph(images[2:3], keys[2:3])["global"]
    np.testing.assert_allclose(alone[:, 0], expected[:, 2], atol=1e-6)
    samples = tf.data.Dataset.from_tensor_slices((images, keys))
    for batches in (samples.batch(4), samples.batch(2, drop_remainder=True)):
        made = np.concatenate([v["global"] for v in batches.map(engine)], axis=1)
        np.testing.assert_allclose(made, expected, atol=1e-6)


def test_float64():
    images, keys = pictures(3, 80, 80), keys_of(3)
    wide, single = (
        ViewEngine(large(), kernel="host", dtype=dtype)(images, keys)["global"]
        for dtype in ("float64", "float32")
    )
    assert wide.dtype == tf.float64
    assert np.abs(wide - tf.cast(single, tf.float64)).max() < 2e-5
