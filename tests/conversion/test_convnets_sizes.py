"""The published sizes: every shape of the official files, counted without memory for the weights."""

import numpy as np
import pytest

from keras_ssl import backbones
from keras_ssl.conversion import LAYOUTS

torch = pytest.importorskip("torch", reason="PyTorch counts the shapes of the official networks")

from keras_ssl.conversion.references import torch_attention as attention  # noqa: E402
from keras_ssl.conversion.references import torch_convnets as reference  # noqa: E402
from tests.without_values import without_values  # noqa: E402

ALEXNET = reference.alexnet_units((96, 256, 384, 384, 256)), 6, (4096, 4096), (1, 4)
VGG = reference.vgg_units((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)), 7, (4096, 4096), (0, 3)
SMALL, LARGE = (3, 3, 9, 3), (3, 3, 27, 3)


def regnet(name):
    settings = backbones.BACKBONES[name][1]
    return lambda: reference.RegNet(
        settings["blocks"], settings["filters"], settings["group_width"]
    )


def convnext(blocks, first):
    return lambda: attention.ConvNeXt(blocks, [first * 2**stage for stage in range(4)])


# name, settings, layout, reference, millions of parameters of the encoder as published (None: not in print)
PUBLISHED = {
    "regnety_16gf": ({}, "vissl_regnet", regnet("regnety_16gf"), None),
    "regnety_32gf": ({}, "vissl_regnet", regnet("regnety_32gf"), None),
    "regnety_64gf": ({}, "vissl_regnet", regnet("regnety_64gf"), None),
    "regnety_128gf": ({}, "vissl_regnet", regnet("regnety_128gf"), None),
    "regnety_256gf": ({}, "vissl_regnet", regnet("regnety_256gf"), 1300),  # "1.3B", SEER
    "convnext_tiny": ({}, "dinov3_convnext", convnext(SMALL, 96), None),
    "convnext_small": ({}, "dinov3_convnext", convnext(LARGE, 96), None),
    "convnext_base": ({}, "dinov3_convnext", convnext(LARGE, 128), None),
    "convnext_large": ({}, "dinov3_convnext", convnext(LARGE, 192), None),
    "xcit_small_12": ({}, "xcit", lambda: attention.XCiT(384, 12, 8, 16), 26),  # DINO's table
    "xcit_small_12 ": ({"patch_size": 8}, "xcit", lambda: attention.XCiT(384, 12, 8, 8), 26),
    "xcit_medium_24": ({}, "xcit", lambda: attention.XCiT(512, 24, 8, 16), 84),
    "xcit_medium_24 ": ({"patch_size": 8}, "xcit", lambda: attention.XCiT(512, 24, 8, 8), 84),
    "alexnet": (
        {"sobel": True, "dense": (4096, 4096)},
        "deepcluster_alexnet",
        lambda: reference.Numbered(*ALEXNET, sobel=1, parallel=True),
        None,
    ),
    "alexnet ": (
        {"filters": (64, 192, 384, 256, 256), "dense": (4096, 4096), "dense_norm": True},
        "rotnet_alexnet",
        lambda: reference.Blocks((64, 192, 384, 256, 256), dense=(4096, 4096), side=6),
        None,
    ),
    "vgg16": (
        {"sobel": True, "border": 1, "dense": (4096, 4096)},
        "deepercluster_vgg16",
        lambda: reference.DeeperCluster(*VGG, sobel=True),
        None,
    ),
}


QUICK = (
    "regnety_256gf",
    "convnext_tiny",
    "convnext_large",
    "xcit_small_12",
    "alexnet",
    "alexnet ",
    "vgg16",
)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED],
)
def test_every_shape_of_the_official_file(name):
    settings, layout, make, millions = PUBLISHED[name]
    with torch.device("meta"):
        module = make()
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    with without_values():  # shapes without values
        network = backbones.build(name.strip(), **settings)
    ports = LAYOUTS[layout].ports(network)
    assert {id(port.variable) for port in ports} == {id(v) for v in network.variables}
    for port in ports:
        empty = np.broadcast_to(np.bool_(0), tuple(port.variable.shape))
        assert port.turn.to_source(empty).shape == expected.pop(port.key), port.key
    heads = ("head.", "top_layer.", "pred_layer.", "sobel.", "norms.3.", "_feature_blocks.9.")
    assert all(key.startswith(heads) or key.endswith("num_batches_tracked") for key in expected)
    if millions is not None:
        count = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
        assert round(count / 1e6, -2 if millions > 1000 else 0) == millions


@pytest.mark.parametrize(
    ("name", "depth", "start", "slope", "step", "group"),
    [  # the settings of VISSL's configurations
        ("regnety_16gf", 18, 200, 106.23, 2.48, 112),
        ("regnety_32gf", 20, 232, 115.89, 2.53, 232),
        ("regnety_64gf", 20, 352, 147.48, 2.4, 328),
        ("regnety_128gf", 27, 456, 160.83, 2.52, 264),
        ("regnety_256gf", 27, 640, 230.83, 2.53, 373),
    ],
)
def test_stages_of_regnety_come_from_its_four_numbers(name, depth, start, slope, step, group):
    """Radosavovic et al., 2020, equations 2 to 4: a line, rounded to powers of `step`, to 8, then to the groups."""
    line = start + slope * np.arange(depth)
    powers = np.round(np.log(line / start) / np.log(step))
    widths = np.round(start * step**powers / 8) * 8
    stages, blocks = np.unique(widths, return_counts=True)
    filters = [round(width / min(group, width)) * min(group, width) for width in stages]
    settings = backbones.BACKBONES[name][1]
    assert settings["blocks"] == tuple(blocks)
    assert settings["filters"] == tuple(filters)
    assert settings["group_width"] == group


def test_the_first_names_of_the_seer_files():
    with without_values():
        network = backbones.build("regnety_32gf")
    ports = LAYOUTS["vissl_regnet"].ports(network)
    shapes = {
        port.key: port.turn.to_source(np.zeros(port.variable.shape)).shape for port in ports[:23]
    }
    assert list(shapes)[:2] == [
        "_feature_blocks.conv1.stem.0.weight",
        "_feature_blocks.conv1.stem.1.weight",
    ]
    block = "_feature_blocks.res2.block1-0"
    assert shapes[f"{block}.proj.weight"] == (232, 32, 1, 1)
    assert shapes[f"{block}.f.b.0.weight"] == (232, 232, 3, 3)  # one group of 232
    assert shapes[f"{block}.f.se.excitation.0.weight"] == (
        8,
        232,
        1,
        1,
    )  # a quarter of the 32 that come in
