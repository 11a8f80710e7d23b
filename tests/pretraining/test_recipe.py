"""Recipes: the named ones are right, a replaced part drops its settings, and what makes two runs the same."""

from __future__ import annotations

import dataclasses
import math

import pytest

from keras_ssl import views
from keras_ssl.methods import METHODS, get_method
from keras_ssl.pretraining import build
from keras_ssl.pretraining.differences import difference
from keras_ssl.pretraining.docstrings import field_help, parse_attributes
from keras_ssl.pretraining.recipe import (
    PREFIXES,
    Recipe,
    RunOptions,
    SettingError,
    choose_recipe,
    resolve,
    start_from,
    suggest,
)
from keras_ssl.pretraining.recipes import RECIPES


def resolved(**settings):
    return resolve(data="pictures", **settings)[0]


# The named recipes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_fits_together(name):
    recipe = resolved(recipe=name)
    build.check_settings(recipe)
    views.check(build.build_views(recipe), get_method(recipe.method).view_spec)
    assert views.main_size(build.build_views(recipe)) == recipe.image_size
    optimizer = build.build_optimizer(recipe, steps_per_epoch=10)
    flat = vars(recipe) | recipe.method_settings
    for prefix in PREFIXES:
        own = getattr(recipe, f"{prefix}_settings")
        flat |= {f"{prefix}_{key}": value for key, value in own.items()}
    assert {key: flat[key] for key in RECIPES[name]} == RECIPES[name]  # each arrived somewhere
    assert recipe.epochs > recipe.warmup_epochs
    assert float(optimizer.peak_learning_rate) > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_three_recipes(method):
    mine = [name for name, recipe in RECIPES.items() if recipe["method"] == method]
    assert {method, f"{method}_cifar", f"{method}_laptop"} <= set(mine)
    assert resolved(method=method) == resolved(recipe=method)


def test_learning_rate_follows_the_batch():
    """SimCLR, section 2.2: 0.3 x batch / 256, here 0.3 x 4096 / 256 = 4.8 after a warm-up of 10 epochs."""
    recipe = resolved(recipe="simclr")
    rate = build.build_optimizer(recipe, steps_per_epoch=10)._learning_rate
    assert float(rate(100)) == pytest.approx(4.8)
    assert float(rate(50)) == pytest.approx(2.4)
    assert float(rate(recipe.epochs * 10)) == pytest.approx(0.0, abs=1e-6)


def test_milestones_and_a_ramp_of_the_decay():
    """0.1 falls to 0.02 after 60 epochs; the decay is halfway from 0.04 to 0.4 in the middle of a run."""
    rate = build.build_optimizer(resolved(recipe="rotnet_cifar"), steps_per_epoch=2)._learning_rate
    assert [float(rate(step)) for step in (0, 119, 120)] == pytest.approx([0.1, 0.1, 0.02])
    dino = resolved(recipe="dino", epochs=20)
    decay = build.build_optimizer(dino, steps_per_epoch=1).decay
    assert float(decay(10)) == pytest.approx(0.22)
    assert float(decay(20)) == pytest.approx(0.4)


# Resolving -------------------------------------------------------------------------------------------------


def test_settings_go_where_they_belong():
    recipe, options = resolve(
        recipe="simclr_laptop",
        data="pictures",
        temperature=0.3,
        views_flip_rate=0.25,
        optimizer_epsilon=1e-6,
        backbone_width=2.0,
        workdir="there",
        clip_norm=None,
    )
    assert recipe.method_settings == {"temperature": 0.3}
    assert recipe.views_settings == {"flip_rate": 0.25}
    assert recipe.optimizer_settings == {"epsilon": 1e-6}
    assert recipe.backbone_settings == {"width": 2.0}
    assert options == RunOptions(workdir="there")
    build.check_settings(recipe)


@pytest.mark.parametrize(
    "name, changed, group, kept",
    [
        ("simclr", {"optimizer": "adamw"}, "optimizer", {}),
        ("simclr", {"optimizer": "sgd", "optimizer_momentum": 0.5}, "optimizer", {"momentum": 0.5}),
        ("simclr", {"backbone": "vit_tiny"}, "backbone", {}),
        ("simclr", {"backbone": "resnet50"}, "backbone", {"zero_init_residual": True}),
        ("swav_laptop", {"views": "simclr_cifar"}, "views", {}),
        ("swav_laptop", {"views": "swav_cifar"}, "views", {"num_local": 0}),
        ("swav_laptop", {"views_num_local": 3}, "views", {"num_local": 3}),
    ],
)
def test_a_replaced_part_drops_the_settings_of_the_old_one(name, changed, group, kept):
    recipe = resolved(recipe=name, **changed)
    assert getattr(recipe, f"{group}_settings") == kept
    build.check_settings(recipe)
    others = [prefix for prefix in PREFIXES if prefix != group]
    plain = resolved(recipe=name)
    for other in others:
        assert getattr(recipe, f"{other}_settings") == getattr(plain, f"{other}_settings")


def test_start_from_leaves_the_named_recipe_alone():
    before = dict(RECIPES["simclr"])
    chosen = choose_recipe("simclr", None)
    start_from(chosen, {"optimizer": "sgd"}).pop("epochs")
    chosen["epochs"] = 1
    assert RECIPES["simclr"] == before


WRONG = [
    ({"method": "simcrl"}, "one of simclr.*Received: 'simcrl'. Did you mean 'simclr'"),
    ({"recipe": "simclr_lap"}, "Did you mean 'simclr_laptop'"),
    ({}, "Expected --method or --recipe"),
    ({"recipe": "swav", "method": "byol"}, "recipe of method byol. Received: recipe 'swav'"),
    ({"method": "simclr", "epochs": 0}, "epochs above 0. Received: epochs=0"),
    ({"method": "simclr", "learning_rate": math.nan}, "learning_rate above 0"),
    ({"method": "simclr", "clip_norm": 0.0}, "clip_norm above 0"),
    ({"method": "rotnet", "warmup_epochs": 5.0}, "no warmup_epochs.*milestones.*warmup_epochs=5"),
    ({"method": "simclr", "steps_per_execution": 0}, "steps_per_execution above 0"),
    ({"method": "simclr", "micro_batch": 0}, "micro_batch above 0. Received: micro_batch=0"),
    ({"method": "simclr", "precision": "float8"}, "precision to be one of float32.*'float8'"),
    ({"method": "simclr", "jit": "yes"}, "jit to be one of"),
    ({"method": "simclr", "views_on": "gpu"}, "views_on to be one of"),
    ({"method": "simclr", "clip_mode": "all"}, "clip_mode to be one of"),
    ({"method": "simclr", "learning_rate_rule": "cube"}, "learning_rate_rule to be one of"),
]


@pytest.mark.parametrize("settings, sentence", WRONG)
def test_wrong_values_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        resolve(data="pictures", **settings)


def test_data_is_needed():
    with pytest.raises(SettingError, match="Expected --data: digits"):
        resolve(method="simclr")


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (
            {"tempreature": 0.1},
            "setting of method 'simclr'.*tempreature. Did you mean 'temperature'",
        ),
        ({"views_flip": 0.1}, "setting of views 'simclr'.*Received: views_flip"),
        (
            {"optimizer_betas": (0.9, 0.95)},
            "setting of optimizer 'lars'.*Received: optimizer_betas",
        ),
        ({"backbone_patch_size": 4}, "setting of backbone 'resnet50'.*backbone_patch_size"),
        ({"backbone_blocks": (1, 1)}, "Received: backbone_blocks"),  # the name fixes them
        ({"optimizer": "adam"}, "--optimizer to be one of.*Did you mean 'adamw'"),
        ({"backbone": "resnet51"}, "--backbone to be one of.*Received: 'resnet51'"),
    ],
)
def test_settings_of_other_parts_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        build.check_settings(resolved(method="simclr", **settings))


# Identity --------------------------------------------------------------------------------------------------


def test_identity_leaves_out_the_epochs_only():
    base = resolved(recipe="simclr_laptop")
    assert base.identity() == dataclasses.replace(base, epochs=99).identity()
    seen = {base.identity()}
    for field in dataclasses.fields(Recipe):
        if field.name == "epochs":
            continue
        old = getattr(base, field.name)
        new = {"x": 1} if isinstance(old, dict) else (5,) if isinstance(old, tuple) else "other"
        seen.add(dataclasses.replace(base, **{field.name: new}).identity())
    assert len(seen) == len(dataclasses.fields(Recipe))


def test_options_are_no_part_of_the_identity():
    settings = {"recipe": "simclr_laptop", "data": "pictures"}
    plain, other = resolve(**settings), resolve(**settings, workdir="w", replicas=2, save_every=3)
    assert plain[0].identity() == other[0].identity() and plain[1] != other[1]


def test_saying_what_the_recipe_says_is_the_same_recipe():
    """A flag gives 1.0 where the recipe has 1, and lists where it has tuples."""
    plain = resolved(recipe="mae_laptop")
    said = resolved(recipe="mae_laptop", warmup_epochs=1.0, optimizer_betas=[0.9, 0.95])
    assert said.identity() == plain.identity()


def test_difference_names_what_changed():
    old, new = resolved(recipe="simclr_laptop"), resolved(recipe="simclr_laptop", seed=1, epochs=3)
    assert difference(old.to_dict(), new.to_dict()) == {"seed": (0, 1), "epochs": (20, 3)}
    assert difference(old.to_dict(), old.to_dict()) == {}


# Help ------------------------------------------------------------------------------------------------------


def test_docstrings_become_help():
    text = parse_attributes(
        """Does it.

        Args:
            rate: float. How fast,
                in epochs. Defaults to `1.0`.
            size: Side in pixels.

        Returns:
            other: nothing.
        """
    )
    assert text == {"rate": "How fast, in epochs. Defaults to `1.0`.", "size": "Side in pixels."}


@pytest.mark.parametrize("cls", [Recipe, RunOptions])
def test_every_field_is_explained(cls):
    texts = field_help(cls)
    assert set(texts) == {field.name for field in dataclasses.fields(cls)}
    assert all(len(text) > 10 for text in texts.values())


def test_suggest():
    assert suggest("tempreature", ["temperature", "queue_size"]) == " Did you mean 'temperature'?"
    assert suggest("xyz", ["temperature"]) == ""
