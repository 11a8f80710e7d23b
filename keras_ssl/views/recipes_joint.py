"""Published augmentations of the methods that compare views: contrastive, distillation, clustering by views.

"Unverified" marks a number that was not read in the authors' code or paper; "own choice" one that nobody
published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from keras_ssl.views.config import ViewConfig, ViewRecipe

Views = tuple[ViewConfig, ...]


def _two(view: ViewConfig) -> Views:
    return (view, view)


def _area(views: Views, least: float) -> Views:
    return tuple(dataclasses.replace(view, scale=(least, 1.0)) for view in views)


def _smaller(view: ViewConfig, size: int, scale: tuple[float, float], count: int) -> Views:
    """Returns `count` local views that are treated as `view` is."""
    return (dataclasses.replace(view, size=size, scale=scale),) * count


_SIMCLR = ViewConfig(
    size=224,
    scale=(0.08, 1.0),
    interpolation="bicubic",
    flip_rate=0.5,
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_rate=0.8,
    grayscale_rate=0.2,
    blur_rate=0.5,
)
_SIMCLR_CIFAR = dataclasses.replace(_SIMCLR, size=32, jitter=(0.4, 0.4, 0.4, 0.1), blur_rate=0.0)
# Gray first, then jitter with a hue turn of up to 0.4, always.
_INSTDISC = ViewConfig(
    size=224,
    scale=(0.2, 1.0),
    flip_rate=0.5,
    jitter=(0.4, 0.4, 0.4, 0.4),
    jitter_rate=1.0,
    grayscale_rate=0.2,
    grayscale_first=True,
)
_INSTDISC_CIFAR = dataclasses.replace(_INSTDISC, size=32, flip_rate=0.0, grayscale_first=False)
_MOCO = dataclasses.replace(
    _SIMCLR, scale=(0.2, 1.0), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1)
)
_MOCO_CIFAR = dataclasses.replace(_SIMCLR_CIFAR, interpolation="bilinear")
_SIMSIAM_CIFAR = dataclasses.replace(_MOCO, size=32, blur_rate=0.0)
_BYOL_A = dataclasses.replace(_SIMCLR, jitter=(0.4, 0.4, 0.2, 0.1), blur_rate=1.0)
_BYOL_B = dataclasses.replace(_BYOL_A, blur_rate=0.1, solarize_rate=0.2)
_BYOL = (_BYOL_A, _BYOL_B)
_LOCAL = dataclasses.replace(_BYOL_A, blur_rate=0.5)
_BYOL_CIFAR = tuple(dataclasses.replace(view, size=32, blur_rate=0.0) for view in _BYOL)
_SWAV = dataclasses.replace(_SIMCLR, scale=(0.14, 1.0), interpolation="bilinear")
_SWAV_CIFAR = dataclasses.replace(_SIMCLR_CIFAR, scale=(0.14, 1.0), interpolation="bilinear")
_SOLO = dataclasses.replace(_SIMCLR, size=32)
_SOLO_WEAK = dataclasses.replace(_SOLO, jitter=(0.4, 0.4, 0.4, 0.1))


def _swav(size: int, least: float, count: int, local_least: float) -> dict[str, Views]:
    views = _two(dataclasses.replace(_SWAV, size=size, scale=(least, 1.0)))
    return {"global": views, "local": _smaller(_SWAV, 96, (local_least, 0.14), count)}


def _dino(least: float, local: tuple[float, float], count: int, size: int = 96) -> dict[str, Views]:
    return {"global": _area(_BYOL, least), "local": _smaller(_LOCAL, size, local, count)}


_MOCO2_SOURCE = "facebookresearch/moco main_moco.py --aug-plus"
_SOLO_SOURCE = "solo-learn, CIFAR (third party)"

# Groups that several methods share: {recipe: (views of the global group, source)}.
_GLOBAL_ONLY: dict[str, tuple[Views, str]] = {
    "simclr": (
        _two(_SIMCLR),
        "SimCLR (arXiv:2002.05709) appendix A, strength 1; google-research/simclr data_util.py; also "
        "SimCLR v2",
    ),
    "instdisc": ((_INSTDISC,), "Wu et al. 2018 (arXiv:1805.01978); zhirongw/lemniscate.pytorch"),
    "local_aggregation": (
        (_INSTDISC,),
        "Zhuang et al. 2019 (arXiv:1903.12355): the augmentation of instance discrimination",
    ),
    "moco_v1": (_two(_INSTDISC), "MoCo (arXiv:1911.05722); facebookresearch/moco main_moco.py"),
    "pcl_v1": (_two(_INSTDISC), "PCL (arXiv:2005.04966), v1; salesforce/PCL"),
    "moco_v2": (_two(_MOCO), f"MoCo v2 (arXiv:2003.04297); {_MOCO2_SOURCE}"),
    "simsiam": (
        _two(_MOCO),
        "SimSiam (arXiv:2011.10566); facebookresearch/simsiam: MoCo v2's",
    ),
    "densecl": (_two(_MOCO), "DenseCL (arXiv:2011.09157); WXinlong/DenseCL: MoCo v2's"),
    "pcl_v2": (_two(_MOCO), "PCL (arXiv:2005.04966), v2; salesforce/PCL --aug-plus: MoCo v2's"),
    "moco_v3": (
        _area(_BYOL, 0.2),
        "MoCo v3 (arXiv:2104.02057), ResNet-50; facebookresearch/moco-v3: BYOL's, area from 0.2",
    ),
    "moco_v3_vit": (
        _BYOL,
        "MoCo v3 (arXiv:2104.02057), ViT; facebookresearch/moco-v3: BYOL's, area from 0.08",
    ),
    "byol": (_BYOL, "BYOL (arXiv:2006.07733) appendix B; also Barlow Twins and VICReg"),
    "barlow_twins": (
        _BYOL,
        "Barlow Twins (arXiv:2103.03230); facebookresearch/barlowtwins: BYOL's",
    ),
    "vicreg": (_BYOL, "VICReg (arXiv:2105.04906); facebookresearch/vicreg: BYOL's"),
    "nnclr": (_BYOL, "NNCLR (arXiv:2104.14548), unverified: BYOL's; there is no official code"),
    "dnc": (_BYOL, "Divide and Contrast (arXiv:2105.08054), unverified: BYOL's in all stages"),
    "swav_2x224": (
        _two(dataclasses.replace(_SWAV, scale=(0.08, 1.0))),
        "SwAV (arXiv:2006.09882), two-crop runs: area 0.08 to 1",
    ),
    "dino_2x224": (
        _area(_BYOL, 0.14),
        "DINO (arXiv:2104.14294); facebookresearch/dino: area 0.14 to 1 where there are no local views",
    ),
    "simclr_cifar": (
        _two(_SIMCLR_CIFAR),
        "SimCLR (arXiv:2002.05709) on CIFAR-10; google-research/simclr: strength 0.5, no blur",
    ),
    "instdisc_cifar": (
        (_INSTDISC_CIFAR,),
        "Wu et al. 2018 (arXiv:1805.01978); zhirongw/lemniscate.pytorch cifar.py: jitter, then gray; no "
        "flip",
    ),
    "moco_v2_cifar": (_two(_MOCO_CIFAR), "facebookresearch/moco, CIFAR-10 demo notebook"),
    "directpred_cifar": (
        _two(_MOCO_CIFAR),
        "DirectPred (arXiv:2102.06810); facebookresearch/luckmatters: strength 0.5, no blur",
    ),
    "simsiam_cifar": (
        _two(_SIMSIAM_CIFAR),
        "SimSiam (arXiv:2011.10566) appendix D: the ImageNet augmentation without blur",
    ),
    "byol_cifar": (_BYOL_CIFAR, f"{_SOLO_SOURCE}, asymmetric: BYOL's without blur"),
    "barlow_twins_cifar": (_BYOL_CIFAR, f"{_SOLO_SOURCE}, asymmetric: BYOL's without blur"),
    "moco_v3_cifar": (_BYOL_CIFAR, f"{_SOLO_SOURCE}, asymmetric: BYOL's without blur"),
    "nnclr_cifar": (_BYOL_CIFAR, f"{_SOLO_SOURCE}, asymmetric: BYOL's without blur"),
    "vicreg_cifar": (
        _two(dataclasses.replace(_BYOL_CIFAR[0], scale=(0.2, 1.0), solarize_rate=0.1)),
        f"{_SOLO_SOURCE}, VICReg: area from 0.2, solarize 0.1 in both views",
    ),
    "dino_cifar": (_BYOL_CIFAR, f"{_SOLO_SOURCE}, DINO: asymmetric, two views, no local ones"),
    "solo_symmetric_cifar": (
        _two(_SOLO),
        f"{_SOLO_SOURCE}, symmetric: SimCLR, SwAV and DeepCluster v2 at strength 1, with blur",
    ),
    "solo_weak_cifar": (
        _two(_SOLO_WEAK),
        f"{_SOLO_SOURCE}, symmetric weak: MoCo v2+ and SimSiam, strength 0.5, with blur",
    ),
    "deepcluster_v2_cifar": (_two(_SOLO), f"{_SOLO_SOURCE}, DeepCluster v2: symmetric, with blur"),
}

_MULTI_CROP: dict[str, tuple[dict[str, Views], str]] = {
    "swav": (
        _swav(224, 0.14, 6, 0.05),
        "SwAV (arXiv:2006.09882) multi-crop; facebookresearch/swav: 2x224 + 6x96",
    ),
    "swav_2x160": (
        _swav(160, 0.14, 4, 0.05),
        "SwAV (arXiv:2006.09882), the cheap runs: 2x160 + 4x96; the areas are those of 2x224 + 6x96",
    ),
    "swav_wide": (
        _swav(224, 0.08, 4, 0.08),
        "SwAV (arXiv:2006.09882), the wide networks: 2x224 from 0.08, 4x96 with 0.08 to 0.14",
    ),
    "deepcluster_v2": (
        _swav(224, 0.14, 6, 0.05),
        "DeepCluster v2 (arXiv:2006.09882); facebookresearch/swav: SwAV's 2x224 + 6x96",
    ),
    "seer": (
        _swav(160, 0.14, 4, 0.05),
        "SEER (arXiv:2103.01988); facebookresearch/vissl projects/SEER: 2x160 + 4x96",
    ),
    "swav_cifar": (
        {"global": _two(_SWAV_CIFAR), "local": _smaller(_SWAV_CIFAR, 20, (0.1, 0.4), 4)},
        "Global views: lightly's CIFAR-10 benchmark (area 0.14 to 1, strength 0.5, no blur). Local "
        "views, own reasoning: 4 of 20 pixels; areas 0.1 to 0.4 are sides of 10 to 20 of 32 "
        "pixels, so a local view is not mostly enlargement",
    ),
    "dino": (
        _dino(0.4, (0.05, 0.4), 8),
        "DINO (arXiv:2104.14294) vanilla run; facebookresearch/dino: 2x224 + 8x96",
    ),
    "dino_vit_small": (
        _dino(0.25, (0.05, 0.25), 10),
        "DINO (arXiv:2104.14294), the published ViT-S: 2x224 + 10x96; areas and count unverified",
    ),
    "dino_resnet50": (
        _dino(0.14, (0.05, 0.14), 8),
        "DINO (arXiv:2104.14294), ResNet-50: areas 0.14 to 1 and 0.05 to 0.14; the count of 8 is the "
        "default of facebookresearch/dino",
    ),
    "ibot": (
        _dino(0.25, (0.05, 0.25), 10),
        "iBOT (arXiv:2111.07832); bytedance/ibot, ViT-S and Swin: 2x224 + 10x96",
    ),
    "dinov2": (
        _dino(0.32, (0.05, 0.32), 8),
        "DINOv2 (arXiv:2304.07193); facebookresearch/dinov2, patches of 16: 2x224 + 8x96",
    ),
    "dinov2_patch14": (
        _dino(0.32, (0.05, 0.32), 8, size=98),
        "DINOv2 (arXiv:2304.07193); facebookresearch/dinov2, patches of 14: 2x224 + 8x98",
    ),
    "dino_cifar_local": (
        {
            "global": _area(_BYOL_CIFAR, 0.4),
            "local": _smaller(_BYOL_CIFAR[0], 16, (0.05, 0.4), 4),
        },
        "DINO's areas (0.4 to 1, 0.05 to 0.4) with solo-learn's CIFAR colors. Own reasoning: 4 local "
        "views of 16 pixels, a whole number of 4-pixel patches and half a global view's side",
    ),
}


def recipes() -> Iterator[ViewRecipe]:
    """Yields every recipe of this file."""
    for name, (views, source) in _GLOBAL_ONLY.items():
        yield ViewRecipe(name, {"global": views}, source)
    for name, (groups, source) in _MULTI_CROP.items():
        yield ViewRecipe(name, groups, source)
