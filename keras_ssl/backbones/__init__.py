"""Backbones by name."""

from __future__ import annotations

import difflib
from typing import Any

from keras_ssl.backbones.adapters import LIBRARIES, AdaptedBackbone
from keras_ssl.backbones.alexnet import AlexNet
from keras_ssl.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from keras_ssl.backbones.convnext import ConvNeXt
from keras_ssl.backbones.dilated import DilatedVGG
from keras_ssl.backbones.preact import PreActResNet
from keras_ssl.backbones.projection import EncoderWithHead, ProjectionHead
from keras_ssl.backbones.regnet import RegNet
from keras_ssl.backbones.resnet import ResNet
from keras_ssl.backbones.swin import Swin
from keras_ssl.backbones.vgg import VGG
from keras_ssl.backbones.vit import ViT
from keras_ssl.backbones.xcit import XCiT

SMALL = (
    64  # up to this image size a ResNet gets the CIFAR stem, a ViT patches of 4 pixels, a Swin of 2
)
FOURTEEN = ("vit_huge", "vit_giant")  # patches of 14 pixels


def _regnet(blocks: tuple[int, ...], filters: tuple[int, ...], group_width: int) -> dict[str, Any]:
    return {"blocks": blocks, "filters": filters, "group_width": group_width}


def _swin(width: int, third: int) -> dict[str, Any]:
    heads = tuple(width // 32 * 2**stage for stage in range(4))
    return {"width": width, "blocks": (2, 2, third, 2), "num_heads": heads}


BACKBONES: dict[str, tuple[type[Backbone], dict[str, Any]]] = {
    # He et al., 2015, table 1
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2), "bottleneck": False}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": False}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet101": (ResNet, {"blocks": (3, 4, 23, 3)}),
    "resnet152": (ResNet, {"blocks": (3, 8, 36, 3)}),
    # He et al., 2016, "Identity mappings", for the depth; the blocks are those of the others
    "resnet200": (ResNet, {"blocks": (3, 24, 36, 3)}),
    # He et al., 2016, "Identity mappings", with the blocks of resnet18
    "resnet18_preact": (PreActResNet, {"blocks": (2, 2, 2, 2)}),
    # ours: one basic block a stage, for one laptop core
    "resnet_mini": (
        ResNet,
        {
            "blocks": (1, 1, 1, 1),
            "bottleneck": False,
            "filters": (24, 48, 96, 192),
            "image_size": 32,
        },
    ),
    # Dosovitskiy et al., 2021, table 1; tiny and small: Touvron et al., 2020 (DeiT), table 1
    "vit_tiny": (ViT, {"width": 192, "depth": 12, "num_heads": 3}),
    "vit_small": (ViT, {"width": 384, "depth": 12, "num_heads": 6}),
    "vit_base": (ViT, {"width": 768, "depth": 12, "num_heads": 12}),
    "vit_large": (ViT, {"width": 1024, "depth": 24, "num_heads": 16}),
    "vit_huge": (ViT, {"width": 1280, "depth": 32, "num_heads": 16}),
    # Oquab et al., 2023 (DINOv2), table 17
    "vit_giant": (ViT, {"width": 1536, "depth": 40, "num_heads": 24, "ffn": "swiglu"}),
    # Siméoni et al., 2025 (DINOv3): perceptrons of the "plus" networks and of the largest are gated
    "vit_small_plus": (
        ViT,
        {"width": 384, "depth": 12, "num_heads": 6, "ffn": "swiglu", "mlp_ratio": 6.0},
    ),
    "vit_large_plus": (
        ViT,
        {"width": 1024, "depth": 24, "num_heads": 16, "ffn": "swiglu", "mlp_ratio": 6.0},
    ),
    "vit_huge_plus": (
        ViT,
        {"width": 1280, "depth": 32, "num_heads": 20, "ffn": "swiglu", "mlp_ratio": 6.0},
    ),
    "vit_7b": (
        ViT,
        {"width": 4096, "depth": 40, "num_heads": 32, "ffn": "swiglu", "mlp_ratio": 3.0},
    ),
    # ours: for small images on a CPU; as many blocks as fit a zoo entry of 2 MB in half precision
    "vit_mini": (ViT, {"width": 128, "depth": 5, "num_heads": 4, "image_size": 32}),
    # Radosavovic et al., 2020, as facebookresearch/vissl sets them; 64 and 256 as in SEER
    "regnety_16gf": (RegNet, _regnet((2, 4, 11, 1), (224, 448, 1232, 3024), 112)),
    "regnety_32gf": (RegNet, _regnet((2, 5, 12, 1), (232, 696, 1392, 3712), 232)),
    "regnety_64gf": (RegNet, _regnet((2, 5, 12, 1), (328, 984, 1968, 4920), 328)),
    "regnety_128gf": (RegNet, _regnet((2, 7, 17, 1), (528, 1056, 2904, 7392), 264)),
    "regnety_256gf": (RegNet, _regnet((2, 7, 17, 1), (746, 1492, 4103, 10444), 373)),
    # Krizhevsky et al., 2012; Simonyan and Zisserman, 2015, table 1, D
    "alexnet": (AlexNet, {}),
    "vgg16": (VGG, {"blocks": (2, 2, 3, 3, 3)}),
    # Zhang et al., 2016 (colorization)
    "vgg_dilated": (DilatedVGG, {}),
    # El-Nouby et al., 2021, table 1
    "xcit_small_12": (XCiT, {"width": 384, "depth": 12, "num_heads": 8, "layer_scale": 1.0}),
    "xcit_medium_24": (XCiT, {"width": 512, "depth": 24, "num_heads": 8, "layer_scale": 1e-5}),
    # Liu et al., 2022, section 3
    "convnext_tiny": (ConvNeXt, {"blocks": (3, 3, 9, 3), "filters": (96, 192, 384, 768)}),
    "convnext_small": (ConvNeXt, {"blocks": (3, 3, 27, 3), "filters": (96, 192, 384, 768)}),
    "convnext_base": (ConvNeXt, {"blocks": (3, 3, 27, 3), "filters": (128, 256, 512, 1024)}),
    "convnext_large": (ConvNeXt, {"blocks": (3, 3, 27, 3), "filters": (192, 384, 768, 1536)}),
    # Liu et al., 2021, section 3.3
    "swin_tiny": (Swin, _swin(96, 6)),
    "swin_small": (Swin, _swin(96, 18)),
    "swin_base": (Swin, _swin(128, 18)),
    "swin_large": (Swin, _swin(192, 18)),
}


def names() -> list[str]:
    """Returns the names in the table, sorted; the prefixes of other libraries come on top."""
    return sorted(BACKBONES)


def build(name: str, *, image_size: int | None = None, **settings: Any) -> Backbone:
    """Builds a backbone by name.

    Args:
        name: str. One of `names()`, or `"keras_applications:Name"`, `"keras_hub:preset-or-class"`,
            `"keras_cv:preset-or-class"`.
        image_size: int or None. Side of the images it is built for; it takes other sizes too, as its class
            documents. None: 224, for the mini networks 32. Up to 64 a ResNet gets `stem="cifar"` and a ViT or
            XCiT `patch_size=4` unless the settings say otherwise; above that the ImageNet stem and patches of 16
            (`vit_huge` and `vit_giant`: 14). A Swin has patches of 4 and windows of 7, up to 64 patches of 2 and
            windows of 4. The others are the same at every size.
        **settings: further arguments of the class.

    Returns:
        A `Backbone` with all its weights.

    Raises:
        ValueError: if the name is unknown.
        ImportError: if the name needs a library that is not installed.
    """
    if name.partition(":")[0] in LIBRARIES and ":" in name:
        return AdaptedBackbone(name, image_size=image_size or 224, **settings)
    if name not in BACKBONES:
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`name` must be one of {', '.join(names())} or start with one of "
            f"{', '.join(f'{library}:' for library in LIBRARIES)}.{hint} Received: name={name!r}"
        )
    network, defaults = BACKBONES[name]
    size = image_size or defaults.get("image_size", 224)
    fitting = {}
    if network is ResNet:
        fitting = {"stem": "cifar" if size <= SMALL else "imagenet"}
    elif network in (ViT, XCiT):
        fitting = {"patch_size": 4 if size <= SMALL else (14 if name in FOURTEEN else 16)}
    elif network is Swin and size <= SMALL:
        fitting = {"patch_size": 2, "window_size": 4}
    return network(**{**defaults, **fitting, **settings, "image_size": size})


__all__ = [
    "BACKBONES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VGG",
    "AdaptedBackbone",
    "AlexNet",
    "Backbone",
    "ConvNeXt",
    "DilatedVGG",
    "RegNet",
    "EncoderWithHead",
    "PreActResNet",
    "ProjectionHead",
    "ResNet",
    "Swin",
    "ViT",
    "XCiT",
    "build",
    "names",
]
