"""The engine: numbers by key and name, one result in every mode of execution, groups, errors."""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random, views
from keras_ssl.views import ViewConfig, ViewEngine, ViewRecipe, ops

SMALL = {"image_size": 32}


def keys_of(count: int, start: int = 0) -> tf.Tensor:
    return random.sample_keys(5, tf.range(start, start + count, dtype=tf.int64))


@functools.cache
def pictures(count: int = 6, side: int = 40) -> np.ndarray:
    """Noise on a gradient: every operation shows, and no two pictures are alike."""
    ramp = (
        np.linspace(0, 150, side)[None, :, None, None]
        + np.linspace(0, 40, side)[None, None, :, None]
    )
    noise = np.random.default_rng(0).integers(0, 60, (count, side, side, 3))
    return (ramp + noise).astype(np.uint8)


def small(name: str) -> ViewRecipe:
    local = {"local_size": 16} if "local" in views.get(name).groups else {}
    return views.customize(name, image_size=32, **local)


def steps_of(view: ViewConfig) -> tuple:
    """Which steps a view takes, whatever their numbers: rates, strengths and areas by being above 0."""
    numbers = dataclasses.asdict(
        dataclasses.replace(view, size=32, short_side=view.short_side and 40)
    )
    return tuple(bool(v) if isinstance(v, float | tuple) else v for v in numbers.values())


def different(names: list[str]) -> list[str]:
    """The first of all recipes without tiles that take the same steps for views of the same number."""
    seen = {}
    for name in names:
        groups = views.get(name).groups
        if not any(group[0].tiles for group in groups.values()):
            steps = {group: [steps_of(view) for view in made] for group, made in groups.items()}
            seen.setdefault(repr(steps), name)
    return list(seen.values())


@pytest.mark.parametrize("name", different(views.names()))
def test_shapes_types_and_range_of_every_recipe(name):
    recipe = small(name)
    keys = keys_of(3)
    made = ViewEngine(recipe)(pictures()[:3], keys)
    assert set(made) == {*recipe.groups, "keys"} and made["keys"] is keys
    for group, configs in recipe.groups.items():
        size = configs[0].size
        assert made[group].shape == (len(configs), 3, size, size, 3)
        assert made[group].dtype == keras.config.floatx()
        values = made[group].numpy()
        assert values.min() >= 0.0 and values.max() <= 1.0 and values.std() > 0.01


@pytest.mark.parametrize(
    "name", [n for n in different(views.names()) if list(views.get(n).counts.values())[0] > 1]
)
def test_views_of_one_image_differ_unless_the_recipe_is_inert(name):
    made = next(
        v for k, v in ViewEngine(small(name))(pictures(), keys_of(6)).items() if k != "keys"
    )
    differences = [np.abs(made[0] - other).mean() for other in made[1:]]
    if name == "none":
        assert differences == [0.0]
    else:
        assert all(difference > 0.02 for difference in differences)


def blurred_simclr() -> ViewRecipe:
    return views.customize("simclr", **SMALL, solarize_rate=0.3)


def two_groups() -> ViewRecipe:
    return views.customize("dino", image_size=32, local_size=16, num_local=2)


def test_one_result_in_every_mode():
    """Eager, graph, XLA and tf.data, host and device kernel: largest error under 1e-5."""
    recipe, images, keys = blurred_simclr(), pictures(4), keys_of(4)
    aspect = tf.constant([1.0, 1.5, 0.6, 1.0])
    made = {
        "device kernel": ViewEngine(recipe, kernel="device")(images, keys, aspect),
        "graph": tf.function(ViewEngine(recipe))(images, keys, aspect),
        "xla": tf.function(ViewEngine(recipe), jit_compile=True)(images, keys, aspect),
        "tf.data": next(
            iter(tf.data.Dataset.from_tensors((images, keys, aspect)).map(ViewEngine(recipe)))
        ),
    }
    host = ViewEngine(recipe, kernel="host")(images, keys, aspect)["global"]
    for mode, result in made.items():
        assert np.abs(result["global"] - host).max() < 1e-5, mode


def test_groups_under_xla():
    recipe = views.customize(two_groups(), color_strength=0.0, blur_rate=0.0)
    images, keys = pictures(4), keys_of(4)
    compiled = tf.function(ViewEngine(recipe), jit_compile=True)(images, keys)
    eager = ViewEngine(recipe)(images, keys)
    for group in ("global", "local"):
        assert np.abs(compiled[group] - eager[group]).max() < 1e-5


def test_graph_of_unknown_batch_size():
    recipe, images, keys = blurred_simclr(), pictures(), keys_of(6)
    signature = [tf.TensorSpec([None, 40, 40, 3], tf.uint8), tf.TensorSpec([None, 2], tf.uint32)]
    graph = tf.function(ViewEngine(recipe), input_signature=signature)
    expected = ViewEngine(recipe)(images, keys)["global"]
    np.testing.assert_allclose(graph(images, keys)["global"], expected, atol=1e-6)
    np.testing.assert_allclose(graph(images[:1], keys[:1])["global"], expected[:, :1], atol=1e-6)


@pytest.mark.parametrize("kernel", ["host", "device"])
def test_a_sample_does_not_depend_on_its_batch(kernel):
    """Alone, in another batch, at another place: the same view to 1e-6."""
    engine = ViewEngine(blurred_simclr(), kernel=kernel)
    images, keys = pictures(), keys_of(6)
    aspect = tf.constant([1.0, 2.0, 0.5, 1.5, 1.0, 0.7])
    whole = engine(images, keys, aspect)["global"].numpy()
    for index in (1, 5):
        one = slice(index, index + 1)
        alone = engine(images[one], keys[one], aspect[one])["global"][:, 0]
        np.testing.assert_allclose(alone, whole[:, index], atol=1e-6)
    order = [3, 0, 5, 1]
    other = engine(images[order], tf.gather(keys, order), tf.gather(aspect, order))["global"]
    np.testing.assert_allclose(other, whole[:, order], atol=1e-6)


def test_keys_and_nothing_else_decide():
    engine = ViewEngine("simclr_cifar")
    images = np.repeat(pictures()[:1], 2, axis=0)
    same = engine(images, tf.gather(keys_of(2), [0, 0]))["global"].numpy()
    np.testing.assert_allclose(same[:, 0], same[:, 1], atol=1e-6)
    other = engine(images, keys_of(2))["global"].numpy()
    assert np.abs(other[:, 0] - other[:, 1]).mean() > 0.02
    np.testing.assert_array_equal(
        same[:, 0], engine(images, tf.gather(keys_of(2), [0, 0]))["global"][:, 0]
    )


def test_a_view_does_not_depend_on_the_other_views():
    """Local view 1 is the same with two or four of them, and with other global views."""
    images, keys = pictures(2), keys_of(2)
    few = ViewEngine(two_groups())(images, keys)["local"]
    many = ViewEngine(views.customize(two_groups(), num_local=4, image_size=24))(images, keys)[
        "local"
    ]
    np.testing.assert_allclose(few, many[:2], atol=1e-6)
    assert np.abs(many[0] - many[2]).mean() > 0.02


def test_a_view_is_the_chain_of_the_operations_with_its_own_numbers():
    """SimCLR with blur and solarization, rebuilt for view 1 from the names of its random numbers."""
    images, keys = pictures(), keys_of(6)
    made = ViewEngine(blurred_simclr(), dtype="float64")(images, keys)["global"][1]
    view = random.fold_in(keys, "global/1")

    def draw(name, shape=()):
        return random.uniform(random.fold_in(view, name), shape, dtype="float64")

    boxes = ops.random_boxes(random.fold_in(view, "crop"), 40, 40, dtype="float64")
    pixels = ops.as_float(images, "float64")
    pixels = ops.crop_and_resize(
        pixels, boxes, 32, interpolation="bicubic", flip=draw("flip") < 0.5
    )
    strength = np.array([0.8, 0.8, 0.8, 0.2])
    center = np.array([1.0, 1.0, 1.0, 0.0])
    factors = center - strength + 2.0 * strength * draw("jitter", (4,))
    order = random.permutation(random.fold_in(view, "jitter order"), 4)
    pixels = ops.color_jitter(pixels, factors, order, draw("jitter rate") < 0.8)
    pixels = ops.grayscale(pixels, draw("grayscale") < 0.2)
    pixels = ops.gaussian_blur(pixels, 0.1 + 1.9 * draw("blur sigma"), draw("blur") < 0.5)
    pixels = ops.solarize(pixels, draw("solarize") < 0.3)
    np.testing.assert_allclose(made, pixels, atol=1e-9)


def test_rates_hold_for_each_view_apart():
    """byol: only view 2 is solarized (0.2), gray in 0.2 of both; 4 standard errors at n = 1,000 are 0.05.

    A white picture stays white unless solarized, which makes it black; gray shows on a red one.
    """
    count = 1000
    recipe = views.customize("byol_cifar", image_size=2, color_strength=0.0)
    white = np.full((count, 2, 2, 3), 255, np.uint8)
    black = ViewEngine(recipe)(white, keys_of(count))["global"].numpy().mean(axis=(2, 3, 4)) < 0.5
    assert black[0].mean() == 0.0 and abs(black[1].mean() - 0.2) < 0.05
    red = np.zeros((count, 2, 2, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    made = ViewEngine(recipe)(red, keys_of(count))["global"].numpy()[:, :, 0, 0]
    gray = made[..., 0] == made[..., 1]
    assert (np.abs(gray.mean(axis=1) - 0.2) < 0.05).all()
    assert abs(np.corrcoef(gray)[0, 1]) < 0.13


@pytest.mark.parametrize("name", ["rotnet", "rotnet_cifar"])
def test_rotations_are_of_one_and_the_same_crop(name):
    made = ViewEngine(small(name))(pictures(), keys_of(6))["rotations"].numpy()
    for turns in range(4):
        np.testing.assert_array_equal(made[turns], np.rot90(made[0], turns, axes=(1, 2)))
    assert np.abs(made[0, 0] - made[0, 1]).mean() > 0.01


def test_untied_rotations_have_their_own_crops():
    pair = (ViewConfig(16, (0.1, 0.3)), ViewConfig(16, (0.1, 0.3), rotation=1))
    made = ViewEngine(ViewRecipe("x", {"global": pair}))(pictures(), keys_of(6))["global"].numpy()
    plain = ViewEngine(ViewRecipe("x", {"global": pair[:1] * 2}))(pictures(), keys_of(6))["global"]
    np.testing.assert_array_equal(made[0], plain[0])
    np.testing.assert_array_equal(made[1], np.rot90(plain[1], 1, axes=(1, 2)))


def test_rotnet_cifar_copies_pixels_and_takes_the_middle_of_pictures():
    """32-pixel data: every pixel is one of the picture or the black rim. Pictures: central square."""
    images = pictures(6, 32)
    for aspect in (None, tf.ones([6])):
        made = ViewEngine("rotnet_cifar")(images, keys_of(6), aspect)["rotations"].numpy()
        levels = made * 255.0
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    wide = np.zeros((1, 40, 40, 3), np.uint8)
    wide[:, :, 10:30] = 255  # of a 2:1 picture squeezed on the canvas this is the central square
    recipe = ViewRecipe("x", {"global": (ViewConfig(32, pad_crop=4),)})
    made = ViewEngine(recipe)(wide, keys_of(1), tf.constant([2.0]))["global"][0, 0].numpy()
    assert made[8:24, 8:24].min() > 0.99


def test_aspect_reaches_the_crops():
    images, keys = pictures(), keys_of(6)
    engine = ViewEngine("mae_cifar")
    squeezed = engine(images, keys, tf.fill([6], 2.0))["global"]
    np.testing.assert_allclose(
        engine(images, keys, tf.ones([6]))["global"], engine(images, keys)["global"], atol=1e-6
    )
    assert np.abs(squeezed - engine(images, keys)["global"]).mean() > 0.01


def test_float_types():
    images, keys = pictures(), keys_of(6)
    wide = ViewEngine(blurred_simclr(), dtype="float64")(images, keys)["global"]
    single = ViewEngine(blurred_simclr())(images, keys)["global"]
    half = ViewEngine(blurred_simclr(), dtype="bfloat16")(images, keys)["global"]
    assert (wide.dtype, single.dtype, half.dtype) == (tf.float64, tf.float32, tf.bfloat16)
    assert np.abs(wide - tf.cast(single, tf.float64)).max() < 1e-5
    np.testing.assert_array_equal(half, tf.cast(single, tf.bfloat16))
    floats = ViewEngine(blurred_simclr())(ops.as_float(images), keys)["global"]
    np.testing.assert_allclose(floats, single, atol=1e-6)


def test_default_type_follows_keras():
    keras.config.set_floatx("float64")
    try:
        made = ViewEngine("none")(pictures(), keys_of(6))["global"]
    finally:
        keras.config.set_floatx("float32")
    assert made.dtype == tf.float64


def test_errors_say_what_was_received():
    engine = ViewEngine("simclr_cifar")
    with pytest.raises(ValueError, match=r"Received: images.shape=\(6, 40, 40\)"):
        engine(pictures()[..., 0], keys_of(6))
    with pytest.raises(ValueError, match=r"uint32 \(batch, 2\).*Received: keys.dtype=int32"):
        engine(pictures(), tf.zeros([6, 2], tf.int32))
    with pytest.raises(ValueError, match="Received: kernel='gpu'"):
        ViewEngine("simclr", kernel="gpu")
    with pytest.raises(ValueError, match="Received: dtype='int32'"):
        ViewEngine("simclr", dtype="int32")
    with pytest.raises(ValueError, match="Unknown view recipe"):
        ViewEngine("simclrx")


def test_contact_sheet_has_a_row_for_each_sample_and_a_column_for_each_view():
    made = ViewEngine(two_groups())(pictures(), keys_of(6))
    sheet = views.contact_sheet(made, count=3)
    assert sheet.dtype == np.uint8 and sheet.shape == (3 * 34, 4 * 34, 3)
    view = np.round(made["global"][1, 2].numpy() * 255.0)
    np.testing.assert_array_equal(sheet[2 * 34 + 1 : 3 * 34 - 1, 34 + 1 : 2 * 34 - 1], view)
    local = np.round(made["local"][0, 0].numpy() * 255.0)
    np.testing.assert_array_equal(sheet[1:17, 2 * 34 + 1 : 2 * 34 + 17], local)
    assert (sheet[18:33, 2 * 34 + 18 : 3 * 34] == 128).all()
