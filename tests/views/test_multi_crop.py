"""Crops written as 2x224+6x96: what they make, what is refused, and that methods and the command take them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, random, views
from keras_ssl.methods import get_method
from keras_ssl.methods.base import multi_crop_groups
from keras_ssl.pretraining.build import build_views
from keras_ssl.pretraining.recipe import resolve
from keras_ssl.views import ViewEngine


def test_sizes_counts_and_areas():
    recipe = views.multi_crop("swav", "2x160@0.2-1+4x96+3x48@0.03-0.1")
    assert recipe.name == "swav+" and list(recipe.groups) == ["global", "local", "local_2"]
    assert recipe.counts == {"global": 2, "local": 4, "local_2": 3}
    assert recipe.sizes == {"global": 160, "local": 96, "local_2": 48}
    areas = [group[0].scale for group in recipe.groups.values()]
    assert areas == [(0.2, 1.0), (0.05, 0.14), (0.03, 0.1)]
    for group in recipe.groups.values():
        assert all((v.jitter, v.blur_rate) == ((0.8, 0.8, 0.8, 0.2), 0.5) for v in group)


def test_the_recipes_own_crops_give_the_recipe_back():
    for name, crops in (("swav", "2x224+6x96"), ("dino", "2x224@0.4-1+8x96@.05-.4")):
        assert views.multi_crop(name, crops).groups == views.get(name).groups


def test_asymmetric_views_take_turns():
    recipe = views.multi_crop("byol", "4x128+2x64@0.05-0.2")
    assert [view.blur_rate for view in recipe.groups["global"]] == [1.0, 0.1, 1.0, 0.1]
    assert [view.blur_rate for view in recipe.groups["local"]] == [1.0, 1.0]
    assert [view.blur_rate for view in views.multi_crop("dino", "1x64+1x32").groups["local"]] == [
        0.5
    ]


@pytest.mark.parametrize(
    "name, crops, message",
    [
        ("swav", "2x224,6x96", r"such as 2x224\+6x96 or .* Received: crops='2x224,6x96'"),
        ("swav", "2x224+", "COUNTxSIZE"),
        ("swav", "0x224", "COUNTxSIZE"),
        ("swav", "2x224@0.5", "COUNTxSIZE"),
        ("swav", "2x224@0.9-0.2", r"`scale` must be"),
        ("simclr", "2x224+6x96", r"6x96@0.05-0.4"),
        ("rotnet", "2x224", "global random resized crops"),
        ("jigsaw", "2x224", "global random resized crops"),
        ("pirl", "2x224", "global random resized crops"),
        ("nat", "2x224", "global random resized crops"),
    ],
)
def test_what_is_refused(name, crops, message):
    with pytest.raises(ValueError, match=message):
        views.multi_crop(name, crops)


def test_customize_takes_crops_with_its_other_changes():
    recipe = views.customize("dino", crops="2x96+2x48+2x32", local_min_scale=0.1, flip_rate=0.0)
    assert recipe.sizes == {"global": 96, "local": 48, "local_2": 32}
    assert {g[0].scale for n, g in recipe.groups.items() if n != "global"} == {(0.1, 0.4)}
    assert all(view.flip_rate == 0.0 for group in recipe.groups.values() for view in group)
    with pytest.raises(ValueError, match="not in both. Received: crops='2x96', num_local=2"):
        views.customize("dino", crops="2x96", num_local=2)
    with pytest.raises(ValueError, match="give image size 96"):
        views.customize("dino", crops="2x96+2x48", image_size=224)


def test_methods_with_local_views_accept_several_sizes():
    recipe = views.multi_crop("swav", "2x64+2x48+2x32")
    views.check(recipe, {"global": 2, "local": None})
    for spec in ({"global": 2}, {"global": 2, "local": 2}):
        with pytest.raises(ValueError, match="local_2"):
            views.check(recipe, spec)
    made = {"local_2": 3, "keys": 0, "global": 1, "local": 2}
    assert list(multi_crop_groups(made).items()) == [("global", 1), ("local", 2), ("local_2", 3)]
    assert list(multi_crop_groups({"keys": 0, "global": 1})) == ["global"]


def test_engine_makes_every_group():
    recipe = views.multi_crop("swav", "2x32+2x24+1x16@0.05-0.1")
    images = tf.random.stateless_uniform([3, 40, 40, 3], [0, 1])
    keys = random.sample_keys(0, tf.range(3, dtype=tf.int64))
    made = ViewEngine(recipe)(images, keys)
    shapes = {name: tuple(made[name].shape) for name in recipe.groups}
    assert shapes == {
        "global": (2, 3, 32, 32, 3), "local": (2, 3, 24, 24, 3), "local_2": (1, 3, 16, 16, 3),
    }  # fmt: skip
    few = ViewEngine(views.multi_crop("swav", "2x32+2x24"))(images, keys)
    assert (few["local"].numpy() == made["local"].numpy()).all()


@pytest.mark.parametrize("method", ["swav", "dino"])
def test_methods_embed_the_views_of_every_size_in_order(method):
    """Column 3 of the embeddings is the one view of the third size."""
    backbone = backbones.build("resnet_mini", image_size=32)
    sizes = {"num_prototypes": 8, "hidden_dim": 16}
    model = get_method(method)(backbone, **sizes)
    recipe = views.multi_crop("swav", "2x32+1x24+1x16@0.05-0.1")
    views.check(recipe, model.view_spec)
    images = tf.random.stateless_uniform([2, 40, 40, 3], [0, 1])
    made = ViewEngine(recipe)(images, random.sample_keys(0, tf.range(2, dtype=tf.int64)))
    z = model.embed(made, training=False)["z"]
    assert z.shape[:2] == (2, 4)
    own = model.projector(backbone(made["local_2"][0], training=False)["features"], training=False)
    np.testing.assert_allclose(z[:, 3], own / tf.norm(own, axis=-1, keepdims=True), atol=1e-5)


def test_the_command_takes_crops_and_wants_the_image_size_to_agree():
    """swav_cifar says that there are no local views; the crops of the flag are in its place."""
    recipe, _ = resolve(recipe="swav_cifar", data="digits", views_crops="2x32+2x20+2x16@0.05-0.2")
    assert build_views(recipe).sizes == {"global": 32, "local": 20, "local_2": 16}
    recipe, _ = resolve(recipe="swav_cifar", data="digits", views_crops="2x24+2x16")
    with pytest.raises(ValueError, match="give image size 24"):
        build_views(recipe)
