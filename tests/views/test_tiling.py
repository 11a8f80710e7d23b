"""Groups of tiles, windows and the newer steps in the engine: what is drawn once and what tile by tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random, views
from keras_ssl.views import TileConfig, ViewConfig, ViewEngine, ViewRecipe, ops

TILED = [name for name in views.names() if "tiles" in views.get(name).groups]


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(5, tf.range(count, dtype=tf.int64))


def pictures(count: int = 2, side: int = 64) -> np.ndarray:
    ramp = np.linspace(0, 150, side)[:, None, None] + np.linspace(0, 40, side)[None, :, None]
    return (ramp + np.random.default_rng(0).integers(0, 60, (count, side, side, 3))).astype(
        np.uint8
    )


def only(**settings: object) -> ViewRecipe:
    return ViewRecipe("x", {"tiles": (ViewConfig(**settings),)})


@pytest.mark.parametrize("name", TILED)
def test_shapes_and_range_of_the_tiled_recipes(name):
    recipe = views.get(name)
    made = ViewEngine(recipe)(pictures(), keys_of(2))
    for group, count in recipe.counts.items():
        size = recipe.sizes[group]
        assert made[group].shape == (count, 2, size, size, 3)
    values = made["tiles"].numpy()
    reach = 1 / 6 if name == "jigsaw" else 0.0
    assert values.min() >= -reach and values.max() <= 1.0 + reach and values.std() > 0.01


def test_tiles_are_those_of_the_view_made_whole():
    """Colors once: equal to cutting the group's view with the group's key."""
    view = ViewConfig(48, (0.3, 1.0), flip_rate=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_rate=1.0)
    tiles = TileConfig(3, 12)
    made = ViewEngine(only(**{**vars(view), "tiles": tiles}))(pictures(), keys_of(2))["tiles"]
    whole = ViewEngine(ViewRecipe("x", {"tiles": (view,)}))(pictures(), keys_of(2))["tiles"][0]
    cut = ops.grid_tiles(whole, random.fold_in(keys_of(2), "tiles/tiles"), tiles)
    np.testing.assert_allclose(made, tf.transpose(cut, [1, 0, 2, 3, 4]), atol=1e-6)


def test_separate_colors_are_drawn_for_each_tile():
    """A white picture, half the tiles solarized to black: with one draw for all, all nine are alike."""
    white = np.full((60, 30, 30, 3), 255, np.uint8)
    shared = {}
    for separate in (False, True):
        tiles = TileConfig(3, 8, separate_colors=separate)
        recipe = only(size=30, solarize_rate=0.5, tiles=tiles)
        black = ViewEngine(recipe)(white, keys_of(60))["tiles"].numpy().mean(axis=(2, 3, 4)) < 0.5
        assert abs(black.mean() - 0.5) < 0.26
        shared[separate] = (black == black[:1]).all(axis=0).mean()
    assert shared[False] == 1.0 and shared[True] < 0.1


def test_separate_flips_mirror_the_tile_and_not_the_picture():
    recipe = only(size=30, flip_rate=1.0, tiles=TileConfig(3, 10, separate_colors=True))
    plain = only(size=30, tiles=TileConfig(3, 10))
    images = pictures(2, 30)
    made = ViewEngine(recipe)(images, keys_of(2))["tiles"]
    unflipped = ViewEngine(plain)(images, keys_of(2))["tiles"]
    np.testing.assert_allclose(made, unflipped[:, :, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(unflipped[5], images[:, 10:20, 20:30] / 255.0, atol=1e-6)


def test_gray_before_jitter_is_another_order():
    """A gray picture keeps its colors alike under jitter, so jitter after gray leaves it gray."""
    base = ViewConfig(32, jitter=(0.4, 0.4, 0.4, 0.4), jitter_rate=1.0, grayscale_rate=1.0)
    first = dataclasses.replace(base, grayscale_first=True)
    made = [
        ViewEngine(ViewRecipe("x", {"global": (view,)}))(pictures(4, 32), keys_of(4))["global"][0]
        for view in (base, first)
    ]
    for gray in made:
        np.testing.assert_allclose(gray[..., 0], gray[..., 2], atol=2e-6)
    draw = random.fold_in(keys_of(4), "global/0")
    numbers = random.uniform(random.fold_in(draw, "jitter"), (4,)).numpy()
    factors = np.array([0.6, 0.6, 0.6, -0.4]) + 0.8 * numbers
    order = random.permutation(random.fold_in(draw, "jitter order"), 4)
    yes = np.full(4, True)
    gray = ops.grayscale(pictures(4, 32), yes)
    np.testing.assert_allclose(made[1], ops.color_jitter(gray, factors, order, yes), atol=1e-5)
    assert np.abs(made[0] - made[1]).mean() > 1e-3


@pytest.mark.parametrize("aspect", [None, 2.0])
def test_windows_have_the_size_of_the_resized_picture(aspect):
    """Short side 40, window 32: boxes of 0.8 of the short side, everywhere in the picture.

    A 2:1 picture on a square canvas: half as wide on the canvas, and places left and right of the middle.
    """
    given = None if aspect is None else tf.fill([500], aspect)
    boxes = ops.random_squares(keys_of(500), 80, 80, size=32, short_side=40, aspect=given).numpy()
    width = 64 if aspect is None else 32
    np.testing.assert_allclose(boxes[:, 2:], [[64, width]] * 500, rtol=1e-6)
    top, left = np.unique(boxes[:, 0].round(4)), np.unique(boxes[:, 1].round(4))
    np.testing.assert_allclose(top, np.arange(9) * 2.0, atol=1e-4)
    np.testing.assert_allclose(left[[0, -1]], [0, 80 - width], atol=1e-4)
    assert len(left) == (9 if aspect is None else 49)
    with pytest.raises(ValueError, match="Received: size=50"):
        ops.random_squares(keys_of(1), 80, 80, size=50, short_side=40)


def test_the_engine_cuts_windows():
    """Short side of the picture's own size: pixels are copied."""
    recipe = ViewRecipe("x", {"global": (ViewConfig(24, short_side=30),)})
    images = pictures(40, 30)
    made = ViewEngine(recipe)(images, keys_of(40))["global"][0].numpy() * 255.0
    np.testing.assert_allclose(made, np.round(made), atol=1e-3)
    places = set()
    for index, view in enumerate(np.round(made)):
        match = [(r, c) for r in range(7) for c in range(7)
                 if (images[index, r : r + 24, c : c + 24] == view).all()]  # fmt: skip
        assert len(match) == 1
        places |= set(match)
    assert len(places) > 20


def test_photometric_and_projection_have_their_rates():
    for field, count in (("photometric_rate", 200), ("projection_rate", 200)):
        recipe = ViewRecipe("x", {"global": (ViewConfig(8, **{field: 0.3}),)})
        images = np.tile(pictures(1, 8), (count, 1, 1, 1))
        made = ViewEngine(recipe)(images, keys_of(count))["global"][0]
        changed = (np.abs(made - images / 255.0) > 1e-5).any(axis=(1, 2, 3)).mean()
        assert abs(changed - 0.3) < 0.14, field


def test_tiles_windows_and_new_steps_in_every_mode():
    """Host and device kernel, graph of unknown batch size, XLA: largest error under 1e-5."""
    view = ViewConfig(
        30, short_side=36, flip_rate=0.5, grayscale_rate=0.3, grayscale_first=True,
        projection_rate=0.5, tiles=TileConfig(2, 12, channel_shift=1, separate_colors=True),
    )  # fmt: skip
    recipe = ViewRecipe("x", {"tiles": (view,), "global": (ViewConfig(16, photometric_rate=0.7),)})
    images, keys = pictures(3, 40), keys_of(3)
    aspect = tf.constant([1.0, 1.5, 0.6])
    signature = [
        tf.TensorSpec([None, 40, 40, 3], tf.uint8),
        tf.TensorSpec([None, 2], tf.uint32),
        tf.TensorSpec([None], tf.float32),
    ]
    host = ViewEngine(recipe, kernel="host")(images, keys, aspect)
    modes = {
        "device": ViewEngine(recipe, kernel="device"),
        "graph": tf.function(ViewEngine(recipe, kernel="host"), input_signature=signature),
        "xla": tf.function(ViewEngine(recipe), jit_compile=True),
    }
    for mode, engine in modes.items():
        made = engine(images, keys, aspect)
        for group in recipe.groups:
            assert np.abs(made[group] - host[group]).max() < 1e-5, (mode, group)
    alone = modes["graph"](images[1:2], keys[1:2], aspect[1:2])["tiles"]
    np.testing.assert_allclose(alone[:, 0], host["tiles"][:, 1], atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 32, "short_side": 30},
        {"size": 32, "short_side": 40, "scale": (0.2, 1.0)},
        {"size": 32, "short_side": 40, "pad_crop": 4},
        {"size": 32, "tiles": TileConfig(3, 8), "rotation": 1},
    ],
)
def test_view_settings_that_exclude_each_other(settings):
    with pytest.raises(ValueError, match="Received: "):
        ViewConfig(**settings)


def test_groups_of_tiles_have_one_view():
    view = ViewConfig(30, tiles=TileConfig(3, 8))
    with pytest.raises(ValueError, match="one view, which is cut"):
        ViewRecipe("x", {"tiles": (view, view)})


def test_customize_sizes_tiles_and_windows():
    assert views.customize("jigsaw", image_size=48).groups["tiles"][0].tiles.size == 48
    with pytest.raises(ValueError, match="do not fit"):
        views.customize("jigsaw", image_size=224)
    pirl = views.customize("pirl", image_size=160, min_scale=0.2)
    assert pirl.sizes == {"global": 160, "tiles": 64}
    assert [group[0].scale[0] for group in pirl.groups.values()] == [0.2, 0.6]
    window = views.customize("nat", image_size=112).groups["global"][0]
    assert (window.size, window.short_side) == (112, 128)
    line = views.describe("jigsaw")
    for part in (
        "1 x (64px, 3x3 tiles of 255px",
        "window of a short side of 256px",
        "projection p0.5",
    ):
        assert part in line
