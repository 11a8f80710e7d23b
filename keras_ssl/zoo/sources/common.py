"""What the tables share: addresses into files, and sizes computed from the shapes of the networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_ssl.zoo.published import FULL, File, Published

FACEBOOK = "https://dl.fbaipublicfiles.com/"
RESNET_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnet200": (3, 24, 36, 3),
}
# Width, depth, default patch size.
VIT_SIZES = {
    "vit_small": (384, 12, 16),
    "vit_base": (768, 12, 16),
    "vit_large": (1024, 24, 16),
    "vit_huge": (1280, 32, 14),
}


def one_file(*urls: str, **facts: Any) -> tuple[File, ...]:
    """Returns the one file of an entry, called as its first address ends."""
    name = urls[0].rpartition("/")[2].replace("%3D", "=")
    return (File(name, tuple(urls), **facts),)


def full_checkpoint(
    entry: Published, url: str, top_key: str, head: str, head_prefix: str, **facts: Any
) -> Published:
    """Returns the entry of the full checkpoint that a publisher offers beside an encoder: the head comes along.

    Args:
        entry: Published. Of the encoder alone.
        url: str. Address of the full checkpoint.
        top_key: str. Where encoder, under `backbone.`, and head are in it.
        head: str. See `Published`.
        head_prefix: str. The one of `Published.head_prefixes`.
        **facts: further fields that differ from the entry's; always `unverified`.
    """
    return dataclasses.replace(
        entry,
        name=entry.name + FULL,
        files=one_file(url),
        approximate_size="",
        top_keys=(top_key,),
        prefixes=("backbone.",),
        head=head,
        head_prefixes=(head_prefix,),
        **facts,
    )


def resnet_entry(name: str, method: str, source: str, **facts: Any) -> Published:
    """Returns an entry of a ResNet under torchvision's names; `backbone` and `width` are 50 and 1 unless given."""
    backbone = facts.pop("backbone", "resnet50")
    width = facts.pop("width", 1)
    settings = {"width": width} if width != 1 else {}
    return Published(
        name,
        method,
        source,
        backbone,
        "torchvision_resnet",
        settings=settings,
        payload=resnet_payload(backbone, width),
        **facts,
    )


def resnet_payload(backbone: str, width: int = 1) -> int:
    """Returns the bytes of a ResNet's tensors in float32, batch-norm statistics included, head not."""
    blocks = RESNET_BLOCKS[backbone]
    bottleneck = backbone not in ("resnet18", "resnet34")
    count = 7 * 7 * 3 * 64 * width + 4 * 64 * width
    channels = 64 * width
    for stage, number in enumerate(blocks):
        inner = 64 * width * 2**stage
        outer = 4 * inner if bottleneck else inner
        for index in range(number):
            count += _block(channels, inner, outer, bottleneck)
            if channels != outer or (index == 0 and stage > 0):
                count += channels * outer + 4 * outer
            channels = outer
    return 4 * count


def _block(channels: int, inner: int, outer: int, bottleneck: bool) -> int:
    if bottleneck:
        return channels * inner + 9 * inner * inner + inner * outer + 4 * (2 * inner + outer)
    return 9 * channels * inner + 9 * inner * inner + 4 * 2 * inner


def vit_payload(
    backbone: str,
    patch_size: int | None = None,
    image_size: int = 224,
    class_token: bool = True,
    more: Sequence[int] = (),
) -> int:
    """Returns the bytes of a vision transformer's tensors in float32; `more` are counts to add."""
    width, depth, default = VIT_SIZES[backbone]
    patch = patch_size or default
    tokens = (image_size // patch) ** 2 + class_token
    count = (3 * patch**2 + 1) * width + class_token * width + tokens * width
    count += depth * (12 * width**2 + 13 * width) + 2 * width
    return 4 * (count + sum(more))


def swin_payload(window_size: int) -> int:
    """Returns the bytes of a tiny Swin's tensors in float32 for images of 224 pixels, indices and head not."""
    count = (3 * 4**2 + 1) * 96 + 2 * 96 + 2 * 768
    for stage, blocks in enumerate((2, 2, 6, 2)):
        width, side = 96 * 2**stage, min(window_size, 56 // 2**stage)
        count += blocks * (12 * width**2 + 13 * width + (2 * side - 1) ** 2 * 3 * 2**stage)
        count += 8 * width**2 + 8 * width if stage < 3 else 0
    return 4 * count
