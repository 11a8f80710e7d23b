"""The table of recipes against the published numbers, and changes, checks and descriptions of recipes."""

from __future__ import annotations

import dataclasses

import pytest

from keras_ssl import views
from keras_ssl.views import ViewConfig, ViewRecipe


def first(name: str, group: str = "global") -> ViewConfig:
    return views.get(name).groups[group][0]


@pytest.mark.parametrize(
    "name, group, scale, jitter, interpolation",
    [
        ("simclr", "global", (0.08, 1.0), (0.8, 0.8, 0.8, 0.2), "bicubic"),
        ("simclr_cifar", "global", (0.08, 1.0), (0.4, 0.4, 0.4, 0.1), "bicubic"),
        ("moco_v2", "global", (0.2, 1.0), (0.4, 0.4, 0.4, 0.1), "bilinear"),
        ("swav", "global", (0.14, 1.0), (0.8, 0.8, 0.8, 0.2), "bilinear"),
        ("swav", "local", (0.05, 0.14), (0.8, 0.8, 0.8, 0.2), "bilinear"),
        ("byol", "global", (0.08, 1.0), (0.4, 0.4, 0.2, 0.1), "bicubic"),
        ("dino", "global", (0.4, 1.0), (0.4, 0.4, 0.2, 0.1), "bicubic"),
        ("dino", "local", (0.05, 0.4), (0.4, 0.4, 0.2, 0.1), "bicubic"),
    ],
)
def test_published_numbers(name, group, scale, jitter, interpolation):
    for view in views.get(name).groups[group]:
        assert (view.scale, view.jitter, view.interpolation) == (scale, jitter, interpolation)
        assert (view.flip_rate, view.jitter_rate, view.grayscale_rate) == (0.5, 0.8, 0.2)


def test_published_asymmetry_and_absences():
    for name, blurs in (("byol", (1.0, 0.1)), ("byol_cifar", (0.0, 0.0)), ("dino", (1.0, 0.1))):
        pair = views.get(name).groups["global"]
        assert tuple(view.blur_rate for view in pair) == blurs
        assert tuple(view.solarize_rate for view in pair) == (0.0, 0.2)
    assert first("dino", "local").blur_rate == 0.5 and first("dino", "local").solarize_rate == 0.0
    assert first("simclr").blur_rate == 0.5 and first("simclr_cifar").blur_rate == 0.0
    assert first("mae") == ViewConfig(224, (0.2, 1.0), interpolation="bicubic", flip_rate=0.5)
    turns = [view.rotation for view in views.get("rotnet_cifar").groups["rotations"]]
    assert turns == [0, 1, 2, 3] and first("rotnet_cifar", "rotations").pad_crop == 4


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"simclr_cifar.*Received: name='simclrr'"):
        views.get("simclrr")


def test_customize_changes_what_it_names():
    recipe = views.customize(
        "swav", image_size=160, local_size=64, num_local=3, min_scale=0.3, local_max_scale=0.2,
        color_strength=0.5, blur_rate=0.0, interpolation="bicubic",
    )  # fmt: skip
    assert recipe.counts == {"global": 2, "local": 3} and recipe.name == "swav+"
    large, small = recipe.groups["global"][0], recipe.groups["local"][0]
    assert (large.size, small.size) == (160, 64)
    assert large.scale == (0.3, 1.0) and small.scale == (0.05, 0.2)
    for view in (large, small):
        assert view.jitter == (0.4, 0.4, 0.4, 0.1)
        assert (view.blur_rate, view.interpolation, view.flip_rate) == (0.0, "bicubic", 0.5)
    assert views.get("swav").counts["local"] == 6


def test_customize_keeps_what_it_is_not_told():
    recipe = views.get("dino")
    assert views.customize(recipe) is recipe
    assert views.customize(recipe, num_local=8) is recipe
    assert views.customize(recipe, num_local=0).counts == {"global": 2}
    assert views.customize(recipe, num_local=10).counts["local"] == 10
    bigger = views.customize("byol", image_size=256)
    assert [view.blur_rate for view in bigger.groups["global"]] == [1.0, 0.1]


def test_customize_keeps_rotations_tied():
    recipe = views.customize("rotnet", image_size=64, flip_rate=0.0)
    assert [view.rotation for view in recipe.groups["rotations"]] == [0, 1, 2, 3]
    assert recipe.tied == ("rotations",) and recipe.groups["rotations"][3].size == 64


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("simclr", {"local_size": 32}, r"local views.*Received: local_size=32"),
        ("simclr", {"num_local": 4}, r"local views.*Received: num_local=4"),
        ("swav", {"num_local": -1}, r"Received: num_local=-1"),
        ("none", {"min_scale": 0.2}, r"random resized crops.*Received: min_scale=0.2"),
        ("simclr", {"min_scale": 1.5}, r"`scale` must be.*Received: scale=\(1.5, 1.0\)"),
        ("simclr", {"blur_rate": 1.2}, r"Received: blur_rate=1.2"),
        ("simclr", {"interpolation": "area"}, r"Received: interpolation='area'"),
        ("simclr", {"color_strength": 3.0}, r"`jitter` must be"),
        ("simclr", {"image_size": 0}, r"Received: size=0"),
    ],
)
def test_customize_refuses(name, settings, message):
    with pytest.raises(ValueError, match=message):
        views.customize(name, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.5, 0.2)},
        {"ratio": (0.0, 1.0)},
        {"pad_crop": -1},
        {"pad_crop": 4, "scale": (0.2, 1.0)},
        {"jitter": (0.1, 0.1, 0.1)},
        {"blur_sigma": (0.0, 2.0)},
        {"rotation": 4},
    ],
)
def test_view_settings_are_validated(settings):
    with pytest.raises(ValueError, match="Received: "):
        ViewConfig(size=32, **settings)


def test_views_of_a_group_must_fit_one_array():
    with pytest.raises(ValueError, match="must agree in size"):
        ViewRecipe("x", {"global": (ViewConfig(32), ViewConfig(16))})
    with pytest.raises(ValueError, match="has no views"):
        ViewRecipe("x", {"global": ()})
    pair = (ViewConfig(32), ViewConfig(32, flip_rate=0.5))
    with pytest.raises(ValueError, match="may differ in rotation only"):
        ViewRecipe("x", {"global": pair}, tied=("global",))


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        views.get("simclr").name = "other"


@pytest.mark.parametrize(
    "name, spec",
    [
        ("simclr", {"global": 2}),
        ("simclr", {"global": 2, "local": None}),
        ("swav", {"global": 2, "local": None}),
        ("swav", {"global": 2, "local": 6}),
        ("mae", {"global": 1}),
        ("rotnet", {"rotations": 4}),
    ],
)
def test_check_accepts(name, spec):
    views.check(name, spec)


@pytest.mark.parametrize(
    "name, spec, message",
    [
        ("mae", {"global": 2}, r"'mae'.*\['global'\].*Received: \{'global': 1\}"),
        ("swav", {"global": 2}, r"\['local'\].*Received: \{'global': 2, 'local': 6\}"),
        ("rotnet", {"global": 2}, r"\['global', 'rotations'\]"),
        ("simclr", {"global": 2, "local": 4}, r"'local': '4'"),
    ],
)
def test_check_refuses(name, spec, message):
    with pytest.raises(ValueError, match=message):
        views.check(name, spec)


def test_describe_is_one_line_with_the_numbers():
    line = views.describe("swav")
    assert "\n" not in line
    for part in ("swav: ", "2 x (224px, area 0.14-1", "6 x (96px", "jitter 0.8/0.8/0.8/0.2 p0.8"):
        assert part in line
    assert views.describe("byol").count("1 x (224px") == 2
    assert "rotated 270" in views.describe("rotnet_cifar")
