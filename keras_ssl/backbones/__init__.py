"""Backbones by name."""

from __future__ import annotations

import difflib
from typing import Any

from keras_ssl.backbones.adapters import LIBRARIES, AdaptedBackbone
from keras_ssl.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from keras_ssl.backbones.resnet import ResNet
from keras_ssl.backbones.vit import ViT

SMALL = 64  # up to this image size a ResNet gets the CIFAR stem and a ViT patches of 4 pixels

BACKBONES: dict[str, tuple[type[Backbone], dict[str, Any]]] = {
    # He et al., 2015, table 1
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2), "bottleneck": False}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": False}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet101": (ResNet, {"blocks": (3, 4, 23, 3)}),
    "resnet152": (ResNet, {"blocks": (3, 8, 36, 3)}),
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
    # ours: for small images on a CPU; as many blocks as fit a zoo entry of 2 MB in half precision
    "vit_mini": (ViT, {"width": 128, "depth": 5, "num_heads": 4, "image_size": 32}),
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
            documents. None: 224, for the mini networks 32. Up to 64 a ResNet gets `stem="cifar"` and a ViT
            `patch_size=4` unless the settings say otherwise; above that the ImageNet stem and patches of 16
            (`vit_huge`: 14).
        **settings: further arguments of the class, `ResNet`, `ViT` or `AdaptedBackbone`.

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
    if network is ResNet:
        fitting = {"stem": "cifar" if size <= SMALL else "imagenet"}
    else:
        fitting = {"patch_size": 4 if size <= SMALL else (14 if name == "vit_huge" else 16)}
    return network(**{**defaults, **fitting, **settings, "image_size": size})


__all__ = [
    "BACKBONES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AdaptedBackbone",
    "Backbone",
    "ResNet",
    "ViT",
    "build",
    "names",
]
