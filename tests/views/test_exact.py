"""Crops cut from whole pictures: the canvas's own places, in the picture's own pixels."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random, views
from keras_ssl.views import boxes
from keras_ssl.views.engine import ViewEngine

POSITIONS = tf.range(40, dtype=tf.int64)


def recipe(**changes):
    return views.customize(views.get("swav"), **changes)


@pytest.mark.parametrize("size", [(500, 375), (61, 64), (300, 40), (40, 300), (1, 700)])
def test_boxes_are_those_of_a_canvas_of_the_pictures_size(size):
    """Very long pictures too, for which no try fits and the largest centered box is taken."""
    width, height = size
    crops = views.ExactCrops(recipe(), seed=5)
    draws = [drawn.numpy() for drawn in crops.draws(POSITIONS)]
    keys = random.sample_keys(5, POSITIONS)
    for group, (name, configs) in enumerate(crops.groups.items()):
        for view, config in enumerate(configs):
            own = random.fold_in(random.fold_in(keys, f"{name}/{view}"), "crop")
            expected = boxes.random_boxes(
                own, height, width, scale=config.scale, ratio=config.ratio, dtype="float64"
            ).numpy()
            found = np.array(
                [crops.boxes([d[:, row] for d in draws], size)[group][view] for row in range(40)]
            )
            top, left, tall, broad = expected.T
            both = np.stack([left, top, left + broad, top + tall], axis=1)
            # float32 draws against float64 ones: a rounded side may differ by a pixel, seldom
            assert np.mean(np.all(found == both, axis=1)) > 0.9
            np.testing.assert_allclose(found, both, atol=max(1, 0.01 * max(size)))


def test_a_box_by_hand():
    """Area 0.5 of 100x50, square: the side is round(sqrt(2500)) = 50; the corner floor(0.4 * (100 - 50 + 1)) = 20."""
    config = views.ViewConfig(size=10, scale=(0.5, 0.5), ratio=(1.0, 1.0))
    crops = views.ExactCrops(views.ViewRecipe("own", {"global": (config,)}), seed=0)
    draws = np.zeros((1, 22))
    draws[0, 20:] = 0.9, 0.4
    assert crops.boxes([draws], (100, 50)) == [[(20.0, 0.0, 70.0, 50.0)]]


def test_finished_views_are_those_of_the_engine():
    """Uncropped crops of a canvas that needs no resize, put through the rest, are the engine's views."""
    config = views.ViewConfig(
        size=64,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        flip_rate=0.5,
        jitter=(0.4, 0.4, 0.2, 0.1),
        jitter_rate=0.8,
        grayscale_rate=0.3,
        blur_rate=0.5,
        solarize_rate=0.3,
    )
    whole = views.ViewRecipe("own", {"global": (config, config)})
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    keys = random.sample_keys(1, tf.range(8, dtype=tf.int64))
    for kernel in ("host", "device"):
        engine = ViewEngine(whole, kernel=kernel)
        expected = engine(images, keys)
        found = engine.finish({"global": np.stack([images, images])}, keys)
        assert set(found) == {"global", "keys"}
        np.testing.assert_allclose(found["global"], expected["global"], atol=2e-5)


@pytest.mark.parametrize("name", ["jigsaw", "rotnet_cifar", "nat", "split_brain"])
def test_other_ways_to_cut_are_refused(name):
    with pytest.raises(ValueError, match="Expected views that are random resized crops"):
        views.ExactCrops(views.get(name), 0)


def test_views_that_are_turned_share_one_crop():
    """RotNet's four rotations are of one and the same crop."""
    (configs,) = views.ExactCrops(views.get("rotnet"), 0).groups.values()
    assert len(configs) == 1
