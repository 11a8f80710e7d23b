"""Small networks of every layout, ours and PyTorch's, and the sizes of images that they are compared on."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch

from keras_ssl import backbones
from keras_ssl.conversion import LAYOUTS, convert
from keras_ssl.conversion.references import colors
from keras_ssl.conversion.references import torch_attention as attention
from keras_ssl.conversion.references import torch_convnets as reference
from keras_ssl.conversion.references.running import normalized
from tests.conversion.torch_random import randomized

F = (4, 8, 12, 12, 8)  # channels of the small AlexNets
GROUPED = {"first_border": 0, "groups": (1, 2, 1, 2, 2)}


@dataclasses.dataclass(frozen=True)
class Case:
    layout: str
    reference: Callable[[], torch.nn.Module]
    network: Callable[[], backbones.Backbone]
    sizes: tuple[tuple[int, int], ...]
    exported: tuple[str, ...] = ()  # prefixes of names that the encoder has no variables for


def alexnet(units=None, **settings):
    return backbones.AlexNet(F, image_size=128, **settings)


def vgg(**settings):
    return backbones.VGG((1, 2), filters=(4, 8), dense=(10, 24), image_size=16, **settings)


VGG = reference.vgg_units((1, 2), (4, 8)), 4, (10, 24), (0, 3)
ALEXNET = reference.alexnet_units(F), 3, (10, 24), (1, 4)
DENSE = {"dense": (10, 24)}
TOP = ("top_layer",)

CASES = {
    "regnety": Case(
        "vissl_regnet",
        lambda: reference.RegNet((1, 2, 1), (8, 16, 24), 8, 10),
        lambda: backbones.RegNet((1, 2, 1), (8, 16, 24), 8, stem_filters=10, image_size=32),
        ((32, 32), (47, 33)),
    ),
    "deepcluster_alexnet": Case(
        "deepcluster_alexnet",
        lambda: reference.Numbered(*ALEXNET, sobel=1, parallel=True, tops=TOP),
        lambda: alexnet(sobel=True, **DENSE),
        ((128, 128), (127, 129)),
        ("top_layer", "sobel"),
    ),
    "deepcluster_vgg16": Case(
        "deepcluster_vgg16",
        lambda: reference.Numbered(*VGG, sobel=1, parallel=True, tops=TOP),
        lambda: vgg(sobel=True),
        ((16, 16), (17, 19)),
        ("top_layer", "sobel"),
    ),
    "deepercluster_vgg16": Case(
        "deepercluster_vgg16",
        lambda: reference.DeeperCluster(*VGG, sobel=True, top=3),
        lambda: vgg(sobel=True, border=1),
        ((16, 16), (17, 15)),
        ("pred_layer", "sobel"),
    ),
    "rotnet_vgg16": Case(
        "deepercluster_vgg16",
        lambda: reference.DeeperCluster(*VGG, top=3),
        lambda: vgg(border=1),
        ((16, 16), (17, 15)),
        ("pred_layer",),
    ),
    "sela_alexnet": Case(
        "sela_alexnet",
        lambda: reference.Numbered(*ALEXNET, tops=("top_layer0", "top_layer1")),
        lambda: alexnet(**DENSE),
        ((128, 128), (127, 129)),
        ("top_layer",),
    ),
    "vissl_alexnet_deepcluster": Case(
        "vissl_alexnet_deepcluster",
        lambda: reference.Blocks(F, sobel=True),
        lambda: alexnet(sobel=True),
        ((128, 128), (127, 129)),
        ("sobel",),
    ),
    "rotnet_alexnet": Case(
        "rotnet_alexnet",
        lambda: reference.Blocks(F, dense=(10, 24), side=3, top=4),
        lambda: alexnet(dense_norm=True, **DENSE),
        ((128, 128), (127, 129)),
        ("_feature_blocks.9",),
    ),
    "vissl_alexnet_jigsaw": Case(
        "vissl_alexnet_jigsaw",
        lambda: reference.Blocks(
            F, stride=2, pad=0, groups=True, norms=(0, 0, 1, 1, 1), response=True
        ),
        lambda: alexnet(stride=2, response_norm=True, first_norm=3, **GROUPED),
        ((64, 64), (71, 93)),
    ),
    "vissl_alexnet_colorization": Case(
        "vissl_alexnet_colorization",
        lambda: reference.Blocks(F, channels=1, pad=0, groups=True),
        lambda: alexnet(lightness=True, **GROUPED),
        ((80, 80), (71, 93)),
    ),
    "xcit_p16": Case(
        "xcit",
        lambda: attention.XCiT(16, 2, 2, 16, classes=5),
        lambda: backbones.XCiT(16, 2, 2, image_size=32),
        ((32, 32), (45, 83)),
        ("head",),
    ),
    "xcit_p8": Case(
        "xcit",
        lambda: attention.XCiT(16, 1, 4, 8, classes=5),
        lambda: backbones.XCiT(16, 1, 4, patch_size=8, image_size=32),
        ((32, 32), (45, 23)),
        ("head",),
    ),
    "convnext": Case(
        "dinov3_convnext",
        lambda: attention.ConvNeXt((1, 2, 1, 1), (8, 12, 16, 20)),
        lambda: backbones.ConvNeXt((1, 2, 1, 1), (8, 12, 16, 20), image_size=64),
        ((64, 64), (47, 77)),
        ("norms.3",),
    ),
}


def tensors_of(module):
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


@functools.cache
def converted(case):
    """Returns the reference, the network with its weights and the certificate."""
    module, network = randomized(case.reference), case.network()
    return module, network, convert(tensors_of(module), network, LAYOUTS[case.layout])


def outputs_of(module, network, images):
    """Returns what a reference says about images in [0, 1], normalized as the network of ours does it."""
    if getattr(network, "lightness", False):
        x = colors.lightness(images)
    else:
        x = normalized(images, backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    with torch.no_grad():
        return module(torch.tensor(x).permute(0, 3, 1, 2))


def both(case, height, width):
    """Returns what the reference and the converted network say about the same images, and the certificate."""
    module, network, certificate = converted(case)
    images = np.random.default_rng(1).uniform(size=(3, height, width, 3)).astype("float32")
    return outputs_of(module, network, images), network(images, output="layers"), certificate
