"""Published augmentations of masked, pretext and offline-clustering methods, and of methods with tiles.

"Unverified" marks a number that was not read in the authors' code or paper; "own choice" one that nobody
published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from keras_ssl.views.config import ViewConfig, ViewRecipe
from keras_ssl.views.tiles import TileConfig

_SIMCLR = {"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_rate": 0.8, "grayscale_rate": 0.2}

_CROP = ViewConfig(size=224, scale=(0.08, 1.0), flip_rate=0.5)
_CROP_CIFAR = dataclasses.replace(_CROP, size=32, scale=(0.2, 1.0))
_PADDED_CIFAR = ViewConfig(size=32, pad_crop=4, flip_rate=0.5)
_MAE = dataclasses.replace(_CROP, scale=(0.2, 1.0), interpolation="bicubic")
_SIMMIM = dataclasses.replace(_CROP, scale=(0.67, 1.0))
_SELA = dataclasses.replace(
    _CROP,
    jitter=(0.4, 0.4, 0.4, 0.4),
    jitter_rate=1.0,
    grayscale_rate=0.2,
    grayscale_first=True,
)
_CLUSTERFIT = dataclasses.replace(_CROP, jitter=(0.4, 0.4, 0.4, 0.2), jitter_rate=1.0)


def _window(size: int, short_side: int, flip_rate: float = 0.5) -> ViewConfig:
    """Returns a random window of a picture whose short side was resized."""
    return ViewConfig(size=size, short_side=short_side, flip_rate=flip_rate)


_JIGSAW = dataclasses.replace(
    _window(255, 256, flip_rate=0.0),
    grayscale_rate=0.5,
    projection_rate=0.5,
    tiles=TileConfig(grid=3, size=64, channel_shift=2),
)
_JIGSAW_VISSL = dataclasses.replace(
    _window(255, 256), grayscale_rate=0.66, tiles=TileConfig(grid=3, size=64)
)
_JIGSAW_CIFAR = ViewConfig(size=96, grayscale_rate=0.5, tiles=TileConfig(grid=3, size=28))
_PIRL_TILES = ViewConfig(
    size=255,
    scale=(0.6, 1.0),
    flip_rate=0.5,
    jitter=(0.4, 0.4, 0.4, 0.2),
    jitter_rate=1.0,
    photometric_rate=0.66,
    grayscale_rate=0.2,
    tiles=TileConfig(grid=3, size=64, jitter=20, separate_colors=True),
)
_PIRL_IMAGE = dataclasses.replace(_PIRL_TILES, size=224, scale=(0.08, 1.0), tiles=None)
_PIRL_PLUS = dataclasses.replace(_PIRL_TILES, **_SIMCLR, photometric_rate=0.0, blur_rate=0.5)
_PIRL_CIFAR = dataclasses.replace(
    _PIRL_TILES, size=36, tiles=TileConfig(grid=3, size=9, separate_colors=True)
)


def _resized(view: ViewConfig, size: int) -> ViewConfig:
    return dataclasses.replace(view, size=size)


# {recipe: (the one view, source)}
_SINGLE: dict[str, tuple[ViewConfig, str]] = {
    "mae": (_MAE, "MAE (arXiv:2111.06377) appendix A: crop and flip only"),
    "mae_cifar": (
        dataclasses.replace(_MAE, size=32, scale=(0.08, 1.0)),
        "solo-learn's CIFAR MAE: area 0.08 to 1 and flip",
    ),
    "simmim": (
        _SIMMIM,
        "SimMIM (arXiv:2111.09886); microsoft/SimMIM, ViT: area 0.67 to 1 and flip",
    ),
    "simmim_swin": (
        _resized(_SIMMIM, 192),
        "SimMIM (arXiv:2111.09886); microsoft/SimMIM, Swin: the same at 192 pixels",
    ),
    "ijepa": (
        dataclasses.replace(_CROP, scale=(0.3, 1.0), flip_rate=0.0),
        "I-JEPA (arXiv:2301.08243); facebookresearch/ijepa configs/in1k_vith14_ep300.yaml: crop only",
    ),
    "deepcluster": (
        _CROP,
        "DeepCluster (arXiv:1807.05520); facebookresearch/deepcluster: crop and flip",
    ),
    "deepcluster_cifar": (_CROP_CIFAR, "Own choice for DeepCluster: area 0.2 to 1 and flip"),
    "sela": (
        _SELA,
        "SeLa (arXiv:1911.05371); yukimasano/self-label: gray 0.2, then jitter 0.4 always",
    ),
    "sela_cifar": (
        dataclasses.replace(_SELA, scale=(0.2, 1.0)),
        "SeLa (arXiv:1911.05371), CIFAR with AlexNet: enlarged, 224 pixels with area 0.2 to 1",
    ),
    "clusterfit": (
        _CLUSTERFIT,
        "ClusterFit (arXiv:1912.03330) as in facebookresearch/vissl (third party): jitter always",
    ),
    "clusterfit_cifar": (
        dataclasses.replace(_CLUSTERFIT, size=32, scale=(0.2, 1.0)),
        "Own choice for ClusterFit: area 0.2 to 1, its jitter, flip",
    ),
    "nat": (
        _window(224, 256),
        "NAT (arXiv:1704.05310); facebookresearch/noise-as-targets: 224 of a short side of 256, flip",
    ),
    "nat_cifar": (_PADDED_CIFAR, "Own choice for NAT: padded by 4, window, flip"),
    "colorization": (
        _window(176, 256),
        "Colorization (arXiv:1603.08511); richzhang/colorization: a window of 176 of 256, flip",
    ),
    "split_brain": (
        _window(180, 256),
        "Split-brain autoencoder (arXiv:1611.09842), unverified: as colorization, 180 pixels",
    ),
    "colorization_cifar": (_PADDED_CIFAR, "Own choice for colorization: padded by 4, window, flip"),
    "context_encoder": (
        _window(128, 350),
        "Context encoders (arXiv:1604.07379); pathak22/context-encoder: 128 of a short side of 350, flip",
    ),
    "context_encoder_cifar": (
        ViewConfig(size=32, flip_rate=0.5),
        "Own choice for context encoders: the whole picture, flip",
    ),
}

_TILES: dict[str, tuple[ViewConfig, str]] = {
    "jigsaw": (
        _JIGSAW,
        "Jigsaw (arXiv:1603.09246); MehdiNoroozi/JigsawPuzzleSolver: 3 x 3 cells of 85, tiles of 64, "
        "channels shifted by 0 to 2, gray 0.5, else the green-magenta axis removed with 0.5, no flip",
    ),
    "jigsaw_vissl": (
        _JIGSAW_VISSL,
        "Jigsaw in facebookresearch/vissl (third party): flip, gray 0.66, tiles of 64 in cells of 85",
    ),
    "jigsaw_cifar": (
        _JIGSAW_CIFAR,
        "Own choice for jigsaw: enlarged to 96, cells of 32, tiles of 28, gray 0.5",
    ),
    "jigsaw_2x2_cifar": (
        ViewConfig(size=32, grayscale_rate=0.5, tiles=TileConfig(grid=2, size=14)),
        "Own choice for jigsaw: 2 x 2 tiles of 14 of the 32 pixels, gray 0.5",
    ),
    "relative_patches": (
        dataclasses.replace(_JIGSAW_VISSL, short_side=292, flip_rate=0.0),
        "Context prediction (arXiv:1505.05192) for ResNets as in MMSelfSup (third party): a window of 255 "
        "of a short side of 292, gray 0.66, tiles of 64 in cells of 85; standardize each tile",
    ),
    "relative_patches_cifar": (
        dataclasses.replace(_JIGSAW_CIFAR, grayscale_rate=0.66, tiles=TileConfig(grid=3, size=24)),
        "Own choice for context prediction: enlarged to 96, cells of 32, tiles of 24, gray 0.66; "
        "standardize each tile",
    ),
    "cpc": (
        dataclasses.replace(
            _window(256, 300),
            grayscale_rate=1.0,
            tiles=TileConfig(grid=7, size=60, pitch=32, jitter=4, rim=2),
        ),
        "CPC (arXiv:1807.03748) section 3.3: 256 of 300, flip, gray, 7 x 7 patches of 64 every 32 pixels, "
        "of each a window of 60 in black",
    ),
}

_PIRL: dict[str, tuple[ViewConfig, ViewConfig, str]] = {
    "pirl": (
        _PIRL_IMAGE,
        _PIRL_TILES,
        "PIRL (arXiv:1912.01991); facebookresearch/vissl: image with area from 0.08, tiles of another crop "
        "with area from 0.6, offsets 0 to 20; the image's colors are the tiles', unverified",
    ),
    "pirl_plus": (
        dataclasses.replace(_PIRL_PLUS, size=224, scale=(0.08, 1.0), tiles=None),
        _PIRL_PLUS,
        "PIRL (arXiv:1912.01991) improved in facebookresearch/vissl: SimCLR's colors and blur 0.5",
    ),
    "pirl_cifar": (
        dataclasses.replace(_PIRL_IMAGE, size=32),
        _PIRL_CIFAR,
        "Own choice for PIRL, unverified: tiles of 9 in cells of 12 of a crop of 36 pixels",
    ),
}


def _four_turns(view: ViewConfig) -> tuple[ViewConfig, ...]:
    return tuple(dataclasses.replace(view, rotation=turns) for turns in range(4))


def recipes() -> Iterator[ViewRecipe]:
    """Yields every recipe of this file."""
    for name, (view, source) in _SINGLE.items():
        yield ViewRecipe(name, {"global": (view,)}, source)
    for name, (view, source) in _TILES.items():
        yield ViewRecipe(name, {"tiles": (view,)}, source)
    for name, (view, tiles, source) in _PIRL.items():
        yield ViewRecipe(name, {"global": (view,), "tiles": (tiles,)}, source)
    yield ViewRecipe(
        "rotnet",
        {"rotations": _four_turns(_CROP)},
        "RotNet (arXiv:1803.07728), ImageNet: crop and flip, then all four rotations of it",
        tied=("rotations",),
    )
    yield ViewRecipe(
        "rotnet_cifar",
        {"rotations": _four_turns(_PADDED_CIFAR)},
        "RotNet (arXiv:1803.07728), CIFAR-10: a 32-pixel window of the image padded by 4, flip, then "
        "all four rotations of it",
        tied=("rotations",),
    )
    yield ViewRecipe(
        "none",
        {"global": (ViewConfig(size=32),) * 2},
        "No augmentation: the whole picture resized, twice; for tests and ablations",
    )
