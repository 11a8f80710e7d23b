"""Backbones by name."""

import keras
import numpy as np
import pytest

from keras_ssl import backbones
from tests.without_values import without_values


def count(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_names():
    assert set(backbones.names()) == {
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152, 200)),
        *(f"vit_{size}" for size in ("tiny", "small", "base", "large", "huge", "giant", "mini")),
        *(f"vit_{size}" for size in ("small_plus", "large_plus", "huge_plus", "7b")),
        *("resnet_mini", "resnet18_preact"),
        *(f"regnety_{size}gf" for size in (16, 32, 64, 128, 256)),
        *("alexnet", "vgg16", "vgg_dilated", "xcit_small_12", "xcit_medium_24"),
        *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
        *("alexnet", "vgg16", "xcit_small_12", "xcit_medium_24"),
        *(
            f"{kind}_{size}"
            for kind in ("convnext", "swin")
            for size in ("tiny", "small", "base", "large")
        ),
    }
    assert backbones.names() == sorted(backbones.BACKBONES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet34", {"blocks": (3, 4, 6, 3), "bottleneck": False}),
        ("resnet101", {"blocks": (3, 4, 23, 3)}),
        ("resnet152", {"blocks": (3, 8, 36, 3)}),
        ("resnet200", {"blocks": (3, 24, 36, 3)}),
        ("vit_large", {"width": 1024, "depth": 24, "num_heads": 16}),
        ("vit_huge", {"width": 1280, "depth": 32, "num_heads": 16}),
        ("swin_base", {"width": 128, "blocks": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}),
        ("swin_large", {"width": 192, "blocks": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)}),
        ("vit_giant", {"width": 1536, "depth": 40, "num_heads": 24, "ffn": "swiglu"}),
    ],
)
def test_shapes_of_the_large_ones(name, expected):
    assert backbones.BACKBONES[name][1] == expected


def test_minis_are_small():
    resnet, vit = backbones.build("resnet_mini"), backbones.build("vit_mini")
    assert (
        resnet.feature_dim == 192 and count(resnet) < 800_000 and resnet.settings["stem"] == "cifar"
    )
    assert vit.feature_dim == 128 and count(vit) < 1_300_000 and vit.grid == (8, 8)
    images = np.zeros((2, 32, 32, 3), "float32")
    assert resnet(images)["features"].shape == (2, 192)
    assert vit(images)["tokens"].shape == (2, 64, 128)


@pytest.mark.parametrize(
    ("size", "stem", "patch"), [(32, "cifar", 4), (64, "cifar", 4), (96, "imagenet", 16)]
)
def test_image_size_chooses_stem_and_patch(size, stem, patch):
    assert backbones.build("resnet_mini", image_size=size).settings["stem"] == stem
    assert backbones.build("vit_mini", image_size=size).patch_size == patch


def test_settings_win():
    assert (
        backbones.build("resnet_mini", image_size=32, stem="imagenet").settings["stem"]
        == "imagenet"
    )
    model = backbones.build("vit_mini", image_size=32, patch_size=8, depth=1, mean=(0.5, 0.5, 0.5))
    assert (model.patch_size, len(model.blocks), model.mean, model.image_size) == (
        8,
        1,
        (0.5, 0.5, 0.5),
        32,
    )
    assert backbones.build("vit_mini", image_size=28, patch_size=14, depth=1).grid == (2, 2)


@pytest.mark.parametrize("name", ["resnet_mini", "vit_mini"])
def test_seed_fixes_the_weights(name):
    import keras

    def first():
        keras.utils.set_random_seed(5)
        return backbones.build(name, **({"depth": 1} if name == "vit_mini" else {})).get_weights()

    for one, other in zip(first(), first(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet-50", r"Did you mean 'resnet50'\? Received: name='resnet-50'"),
        ("vit_smal", "Did you mean 'vit_small'"),
        ("keras_application:ResNet50", "start with one of keras_applications:"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(ValueError, match=match):
        backbones.build(name)


def test_networks_without_values_stay_without_them():
    """Keras would fill them at the next symbolic call of any network."""
    other = backbones.build("resnet_mini", image_size=32)
    with without_values():
        backbone = backbones.build("resnet_mini", image_size=32)
    other(keras.Input((32, 32, 3)))
    assert all(variable._value is None for variable in backbone.variables)
