"""Every recipe against the published numbers, typed here afresh from the papers' and repositories' tables."""

from __future__ import annotations

import dataclasses

import pytest

from keras_ssl import views
from keras_ssl.views import TileConfig, ViewConfig

# Jitter strengths and how often they are applied.
JITTER = {
    "strong": ((0.8, 0.8, 0.8, 0.2), 0.8),
    "half": ((0.4, 0.4, 0.4, 0.1), 0.8),
    "byol": ((0.4, 0.4, 0.2, 0.1), 0.8),
    "id": ((0.4, 0.4, 0.4, 0.4), 1.0),
    "cf": ((0.4, 0.4, 0.4, 0.2), 1.0),
    "-": ((0.0, 0.0, 0.0, 0.0), 0.0),
}

# name: the views of its global group as count x size, area, filter, jitter, gray, blur, solarize, flip.
# Where views differ there are two rows. "L" rows are the local views.
TABLE = """
simclr                 2 224 .08-1   cubic  strong .2 .5 0  .5
moco_v2                2 224 .2-1    linear half   .2 .5 0  .5
simsiam                2 224 .2-1    linear half   .2 .5 0  .5
densecl                2 224 .2-1    linear half   .2 .5 0  .5
pcl_v2                 2 224 .2-1    linear half   .2 .5 0  .5
instdisc               1 224 .2-1    linear id     .2 0  0  .5
local_aggregation      1 224 .2-1    linear id     .2 0  0  .5
moco_v1                2 224 .2-1    linear id     .2 0  0  .5
pcl_v1                 2 224 .2-1    linear id     .2 0  0  .5
byol                   1 224 .08-1   cubic  byol   .2 1  0  .5
byol                   1 224 .08-1   cubic  byol   .2 .1 .2 .5
barlow_twins           1 224 .08-1   cubic  byol   .2 1  0  .5
barlow_twins           1 224 .08-1   cubic  byol   .2 .1 .2 .5
vicreg                 1 224 .08-1   cubic  byol   .2 1  0  .5
vicreg                 1 224 .08-1   cubic  byol   .2 .1 .2 .5
nnclr                  1 224 .08-1   cubic  byol   .2 1  0  .5
nnclr                  1 224 .08-1   cubic  byol   .2 .1 .2 .5
dnc                    1 224 .08-1   cubic  byol   .2 1  0  .5
dnc                    1 224 .08-1   cubic  byol   .2 .1 .2 .5
moco_v3                1 224 .2-1    cubic  byol   .2 1  0  .5
moco_v3                1 224 .2-1    cubic  byol   .2 .1 .2 .5
moco_v3_vit            1 224 .08-1   cubic  byol   .2 1  0  .5
moco_v3_vit            1 224 .08-1   cubic  byol   .2 .1 .2 .5
swav                   2 224 .14-1   linear strong .2 .5 0  .5
swav L                 6 96  .05-.14 linear strong .2 .5 0  .5
swav_2x224             2 224 .08-1   linear strong .2 .5 0  .5
swav_2x160             2 160 .14-1   linear strong .2 .5 0  .5
swav_2x160 L           4 96  .05-.14 linear strong .2 .5 0  .5
swav_wide              2 224 .08-1   linear strong .2 .5 0  .5
swav_wide L            4 96  .08-.14 linear strong .2 .5 0  .5
deepcluster_v2         2 224 .14-1   linear strong .2 .5 0  .5
deepcluster_v2 L       6 96  .05-.14 linear strong .2 .5 0  .5
seer                   2 160 .14-1   linear strong .2 .5 0  .5
seer L                 4 96  .05-.14 linear strong .2 .5 0  .5
dino                   1 224 .4-1    cubic  byol   .2 1  0  .5
dino                   1 224 .4-1    cubic  byol   .2 .1 .2 .5
dino L                 8 96  .05-.4  cubic  byol   .2 .5 0  .5
dino_2x224             1 224 .14-1   cubic  byol   .2 1  0  .5
dino_2x224             1 224 .14-1   cubic  byol   .2 .1 .2 .5
dino_vit_small         1 224 .25-1   cubic  byol   .2 1  0  .5
dino_vit_small         1 224 .25-1   cubic  byol   .2 .1 .2 .5
dino_vit_small L      10 96  .05-.25 cubic  byol   .2 .5 0  .5
dino_resnet50          1 224 .14-1   cubic  byol   .2 1  0  .5
dino_resnet50          1 224 .14-1   cubic  byol   .2 .1 .2 .5
dino_resnet50 L        8 96  .05-.14 cubic  byol   .2 .5 0  .5
ibot                   1 224 .25-1   cubic  byol   .2 1  0  .5
ibot                   1 224 .25-1   cubic  byol   .2 .1 .2 .5
ibot L                10 96  .05-.25 cubic  byol   .2 .5 0  .5
dinov2                 1 224 .32-1   cubic  byol   .2 1  0  .5
dinov2                 1 224 .32-1   cubic  byol   .2 .1 .2 .5
dinov2 L               8 96  .05-.32 cubic  byol   .2 .5 0  .5
dinov2_patch14         1 224 .32-1   cubic  byol   .2 1  0  .5
dinov2_patch14         1 224 .32-1   cubic  byol   .2 .1 .2 .5
dinov2_patch14 L       8 98  .05-.32 cubic  byol   .2 .5 0  .5
mae                    1 224 .2-1    cubic  -      0  0  0  .5
simmim                 1 224 .67-1   linear -      0  0  0  .5
simmim_swin            1 192 .67-1   linear -      0  0  0  .5
ijepa                  1 224 .3-1    linear -      0  0  0  0
deepcluster            1 224 .08-1   linear -      0  0  0  .5
sela                   1 224 .08-1   linear id     .2 0  0  .5
clusterfit             1 224 .08-1   linear cf     0  0  0  .5
pirl                   1 224 .08-1   linear cf     .2 0  0  .5
pirl_plus              1 224 .08-1   linear strong .2 .5 0  .5
simclr_cifar           2 32  .08-1   cubic  half   .2 0  0  .5
moco_v2_cifar          2 32  .08-1   linear half   .2 0  0  .5
directpred_cifar       2 32  .08-1   linear half   .2 0  0  .5
instdisc_cifar         1 32  .2-1    linear id     .2 0  0  0
simsiam_cifar          2 32  .2-1    linear half   .2 0  0  .5
solo_symmetric_cifar   2 32  .08-1   cubic  strong .2 .5 0  .5
solo_weak_cifar        2 32  .08-1   cubic  half   .2 .5 0  .5
deepcluster_v2_cifar   2 32  .08-1   cubic  strong .2 .5 0  .5
byol_cifar             1 32  .08-1   cubic  byol   .2 0  0  .5
byol_cifar             1 32  .08-1   cubic  byol   .2 0  .2 .5
barlow_twins_cifar     1 32  .08-1   cubic  byol   .2 0  0  .5
barlow_twins_cifar     1 32  .08-1   cubic  byol   .2 0  .2 .5
moco_v3_cifar          1 32  .08-1   cubic  byol   .2 0  0  .5
moco_v3_cifar          1 32  .08-1   cubic  byol   .2 0  .2 .5
nnclr_cifar            1 32  .08-1   cubic  byol   .2 0  0  .5
nnclr_cifar            1 32  .08-1   cubic  byol   .2 0  .2 .5
dino_cifar             1 32  .08-1   cubic  byol   .2 0  0  .5
dino_cifar             1 32  .08-1   cubic  byol   .2 0  .2 .5
vicreg_cifar           2 32  .2-1    cubic  byol   .2 0  .1 .5
dino_cifar_local       1 32  .4-1    cubic  byol   .2 0  0  .5
dino_cifar_local       1 32  .4-1    cubic  byol   .2 0  .2 .5
dino_cifar_local L     4 16  .05-.4  cubic  byol   .2 0  0  .5
swav_cifar             2 32  .14-1   linear half   .2 0  0  .5
swav_cifar L           4 20  .1-.4   linear half   .2 0  0  .5
mae_cifar              1 32  .08-1   cubic  -      0  0  0  .5
deepcluster_cifar      1 32  .2-1    linear -      0  0  0  .5
sela_cifar             1 224 .2-1    linear id     .2 0  0  .5
clusterfit_cifar       1 32  .2-1    linear cf     0  0  0  .5
pirl_cifar             1 32  .08-1   linear cf     .2 0  0  .5
"""

GRAY_FIRST = {"instdisc", "local_aggregation", "moco_v1", "pcl_v1", "sela", "sela_cifar"}
PHOTOMETRIC = {"pirl": 0.66, "pirl_cifar": 0.66}

# name: the one view, written out.
TILES = {
    "jigsaw": ViewConfig(
        255, short_side=256, grayscale_rate=0.5, projection_rate=0.5, tiles=TileConfig(3, 64, 85, 19, 2)
    ),
    "jigsaw_vissl": ViewConfig(
        255, short_side=256, flip_rate=0.5, grayscale_rate=0.66, tiles=TileConfig(3, 64, 85, 21)
    ),
    "jigsaw_cifar": ViewConfig(96, grayscale_rate=0.5, tiles=TileConfig(3, 28, 32, 4)),
    "jigsaw_2x2_cifar": ViewConfig(32, grayscale_rate=0.5, tiles=TileConfig(2, 14, 16, 2)),
    "relative_patches": ViewConfig(
        255, short_side=292, grayscale_rate=0.66, tiles=TileConfig(3, 64, 85, 21)
    ),
    "relative_patches_cifar": ViewConfig(96, grayscale_rate=0.66, tiles=TileConfig(3, 24, 32, 8)),
    "cpc": ViewConfig(
        256, short_side=300, flip_rate=0.5, grayscale_rate=1.0, tiles=TileConfig(7, 60, 32, 4, 0, 2)
    ),
    "pirl": ViewConfig(
        255, (0.6, 1.0), flip_rate=0.5, jitter=(0.4, 0.4, 0.4, 0.2), jitter_rate=1.0,
        photometric_rate=0.66, grayscale_rate=0.2, tiles=TileConfig(3, 64, 85, 20, 0, 0, True),
    ),
    "pirl_plus": ViewConfig(
        255, (0.6, 1.0), flip_rate=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_rate=0.8,
        grayscale_rate=0.2, blur_rate=0.5, tiles=TileConfig(3, 64, 85, 20, 0, 0, True),
    ),
    "pirl_cifar": ViewConfig(
        36, (0.6, 1.0), flip_rate=0.5, jitter=(0.4, 0.4, 0.4, 0.2), jitter_rate=1.0,
        photometric_rate=0.66, grayscale_rate=0.2, tiles=TileConfig(3, 9, 12, 3, 0, 0, True),
    ),
}  # fmt: skip
WINDOWS = {
    "nat": ViewConfig(224, short_side=256, flip_rate=0.5),
    "colorization": ViewConfig(176, short_side=256, flip_rate=0.5),
    "split_brain": ViewConfig(180, short_side=256, flip_rate=0.5),
    "context_encoder": ViewConfig(128, short_side=350, flip_rate=0.5),
    "context_encoder_cifar": ViewConfig(32, flip_rate=0.5),
    "nat_cifar": ViewConfig(32, pad_crop=4, flip_rate=0.5),
    "colorization_cifar": ViewConfig(32, pad_crop=4, flip_rate=0.5),
}
TURNS = {
    "rotnet": ViewConfig(224, (0.08, 1.0), flip_rate=0.5),
    "rotnet_cifar": ViewConfig(32, pad_crop=4, flip_rate=0.5),
}


def rows_of(group: str) -> dict[str, list[ViewConfig]]:
    """Reads the rows of the table into views, by recipe."""
    found: dict[str, list[ViewConfig]] = {}
    for line in TABLE.strip().splitlines():
        name, *cells = line.split()
        if (cells[0] == "L") != (group == "local"):
            continue
        count, size, area, kind, colors, *rates = cells[1:] if cells[0] == "L" else cells
        gray, blur, solarize, flip = map(float, rates)
        jitter, jitter_rate = JITTER[colors]
        view = ViewConfig(
            int(size), tuple(map(float, area.split("-"))), (3 / 4, 4 / 3), f"bi{kind}",
            flip_rate=flip, jitter=jitter, jitter_rate=jitter_rate, grayscale_rate=gray,
            grayscale_first=name in GRAY_FIRST, photometric_rate=PHOTOMETRIC.get(name, 0.0),
            blur_rate=blur, blur_sigma=(0.1, 2.0), solarize_rate=solarize,
        )  # fmt: skip
        found.setdefault(name, []).extend([view] * int(count))
    return found


GLOBAL, LOCAL = rows_of("global"), rows_of("local")


@pytest.mark.parametrize("name", GLOBAL)
def test_views_are_as_published(name):
    groups = views.get(name).groups
    assert list(groups["global"]) == GLOBAL[name]
    assert list(groups.get("local", ())) == LOCAL.get(name, [])
    assert set(groups) <= {"global", "local", "tiles"} and ("tiles" in groups) == (name in TILES)


@pytest.mark.parametrize("name", TILES)
def test_tiles_are_as_published(name):
    """Pitch and jitter are compared as they come out for the view's size."""
    (view,) = views.get(name).groups["tiles"]
    pitch, jitter = view.tiles.layout(view.size)
    written = dataclasses.replace(view.tiles, pitch=pitch, jitter=jitter)
    assert dataclasses.replace(view, tiles=written) == TILES[name]


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_as_published(name):
    assert views.get(name).groups == {"global": (WINDOWS[name],)}


@pytest.mark.parametrize("name", TURNS)
def test_turns_are_as_published(name):
    recipe = views.get(name)
    turned = tuple(dataclasses.replace(TURNS[name], rotation=turns) for turns in range(4))
    assert recipe.groups == {"rotations": turned} and recipe.tied == ("rotations",)


def test_every_recipe_is_in_a_table_above():
    typed = {*GLOBAL, *TILES, *WINDOWS, *TURNS, "none"}
    assert sorted(typed) == views.names()
    assert views.get("none").groups == {"global": (ViewConfig(32), ViewConfig(32))}


def test_names_are_unique_and_sources_given():
    from keras_ssl.views import recipes_joint, recipes_pretext

    listed = [recipe.name for file in (recipes_joint, recipes_pretext) for recipe in file.recipes()]
    assert len(listed) == len(set(listed)) == len(views.names())
    for name in views.names():
        assert views.get(name).name == name and len(views.get(name).source) > 20


@pytest.mark.parametrize("name", ["nnclr", "dnc", "dino_vit_small", "split_brain", "pirl_cifar"])
def test_numbers_from_memory_say_so(name):
    assert "unverified" in views.get(name).source


def test_counts_and_sizes_are_what_the_network_sees():
    assert views.get("swav").counts == {"global": 2, "local": 6}
    assert views.get("pirl").counts == {"global": 1, "tiles": 9}
    assert views.get("pirl").sizes == {"global": 224, "tiles": 64}
    assert views.get("cpc").counts == {"tiles": 49} and views.main_size("cpc") == 64
    assert (views.main_size("pirl"), views.main_size("jigsaw")) == (224, 64)
    assert views.main_size("rotnet_cifar") == 32
