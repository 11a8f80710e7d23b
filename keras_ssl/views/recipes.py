"""What a network is shown: view settings, and the published augmentations by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

_INTERPOLATIONS = ("bilinear", "bicubic")
_RATES = ("flip_rate", "jitter_rate", "grayscale_rate", "blur_rate", "solarize_rate")


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """How one view is made. Steps run in the order of the fields; rates are probabilities.

    Args:
        size: int. Side of the square view in pixels.
        scale: pair of floats in (0, 1], or None. Range of the crop's area as a fraction of the picture;
            None takes the whole picture. Defaults to `None`.
        ratio: pair of floats. Range of the crop's width / height. Defaults to `(3/4, 4/3)`.
        interpolation: `"bilinear"` or `"bicubic"`, both antialiased. Defaults to `"bilinear"`.
        pad_crop: int. Instead of a resized crop: pixels of black on every side of the picture's central
            square before a random window of the old size is cut out. Defaults to `0`.
        flip_rate: float. Mirrored left to right. Defaults to `0.0`.
        jitter: four floats. Strengths of brightness, contrast, saturation (factor uniform in
            [max(0, 1 - s), 1 + s]) and hue (turn uniform in [-s, s] of the circle, at most 0.5), applied
            in random order. Defaults to zeros.
        jitter_rate: float. Defaults to `0.0`.
        grayscale_rate: float. Defaults to `0.0`.
        blur_rate: float. Gaussian blur. Defaults to `0.0`.
        blur_sigma: pair of floats. Range of its width in pixels. Defaults to `(0.1, 2.0)`.
        solarize_rate: float. Values of 0.5 and more inverted. Defaults to `0.0`.
        rotation: int. Quarter turns counter-clockwise, 0 to 3. Defaults to `0`.
    """

    size: int
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    pad_crop: int = 0
    flip_rate: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_rate: float = 0.0
    grayscale_rate: float = 0.0
    blur_rate: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_rate: float = 0.0
    rotation: int = 0

    def __post_init__(self) -> None:
        def require(condition: bool, field: str, expected: str) -> None:
            if not condition:
                value = getattr(self, field)
                raise ValueError(f"`{field}` must be {expected}. Received: {field}={value!r}")

        require(self.size >= 2, "size", "at least 2 pixels")
        ordered = self.scale is None or 0.0 < self.scale[0] <= self.scale[1] <= 1.0
        require(ordered, "scale", "an ascending pair of area fractions in (0, 1], or None")
        require(0.0 < self.ratio[0] <= self.ratio[1], "ratio", "an ascending pair of numbers > 0")
        require(self.interpolation in _INTERPOLATIONS, "interpolation", f"one of {_INTERPOLATIONS}")
        require(self.pad_crop >= 0, "pad_crop", "at least 0 pixels")
        require(not (self.pad_crop and self.scale), "pad_crop", "0 where `scale` is given")
        for rate in _RATES:
            require(0.0 <= getattr(self, rate) <= 1.0, rate, "a probability in [0, 1]")
        hue_ok = len(self.jitter) == 4 and min(self.jitter) >= 0.0 and self.jitter[3] <= 0.5
        require(hue_ok, "jitter", "four strengths >= 0, the last (hue) at most 0.5")
        require(0.0 < self.blur_sigma[0] <= self.blur_sigma[1], "blur_sigma", "ascending and > 0")
        require(self.rotation in (0, 1, 2, 3), "rotation", "0, 1, 2 or 3 quarter turns")


@dataclasses.dataclass(frozen=True)
class ViewRecipe:
    """The groups of views that one sample gives.

    Args:
        name: str.
        groups: dict from group name to its views, in order. The views of a group share size,
            interpolation and kind of crop, since they are one array `(V, batch, size, size, 3)`.
        source: str. Where the numbers come from. Defaults to `""`.
        tied: tuple of group names whose views are rotations of one and the same draw: all use the
            random numbers of view 0. Defaults to `()`.
    """

    name: str
    groups: Mapping[str, tuple[ViewConfig, ...]]
    source: str = ""
    tied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for group, views in self.groups.items():
            if not views:
                raise ValueError(f"Group {group!r} of recipe {self.name!r} has no views")
            layouts = {(v.size, v.interpolation, v.pad_crop, v.scale is None) for v in views}
            if len(layouts) > 1:
                raise ValueError(
                    f"The views of group {group!r} must agree in size, interpolation, pad_crop and in "
                    f"whether they crop. Received: {sorted(layouts)}"
                )
            if (
                group in self.tied
                and len({dataclasses.replace(view, rotation=0) for view in views}) > 1
            ):
                raise ValueError(
                    f"The views of the tied group {group!r} may differ in rotation only. "
                    f"Received: {views}"
                )

    @property
    def counts(self) -> dict[str, int]:
        """Number of views in each group."""
        return {group: len(views) for group, views in self.groups.items()}


def _two(view: ViewConfig) -> tuple[ViewConfig, ...]:
    return (view, view)


def _smaller(
    view: ViewConfig, size: int, scale: tuple[float, float], count: int
) -> tuple[ViewConfig, ...]:
    """Returns `count` local views that are treated as `view` is."""
    return (dataclasses.replace(view, size=size, scale=scale),) * count


def _four_turns(view: ViewConfig) -> tuple[ViewConfig, ...]:
    return tuple(dataclasses.replace(view, rotation=turns) for turns in range(4))


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
_MOCO = dataclasses.replace(
    _SIMCLR, scale=(0.2, 1.0), interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1)
)
_MOCO_CIFAR = dataclasses.replace(_SIMCLR_CIFAR, interpolation="bilinear")
_BYOL_A = dataclasses.replace(_SIMCLR, jitter=(0.4, 0.4, 0.2, 0.1), blur_rate=1.0)
_BYOL_B = dataclasses.replace(_BYOL_A, blur_rate=0.1, solarize_rate=0.2)
_CIFAR_PAIR = tuple(
    dataclasses.replace(view, size=32, blur_rate=0.0) for view in (_BYOL_A, _BYOL_B)
)
_SWAV = dataclasses.replace(_SIMCLR, scale=(0.14, 1.0), interpolation="bilinear")
_SWAV_CIFAR = dataclasses.replace(_SIMCLR_CIFAR, scale=(0.14, 1.0), interpolation="bilinear")
_MAE = ViewConfig(size=224, scale=(0.2, 1.0), interpolation="bicubic", flip_rate=0.5)
_ROTNET = ViewConfig(size=224, scale=(0.08, 1.0), flip_rate=0.5)
_ROTNET_CIFAR = ViewConfig(size=32, pad_crop=4, flip_rate=0.5)

_TABLE = (
    ViewRecipe(
        "simclr",
        {"global": _two(_SIMCLR)},
        "SimCLR (arXiv:2002.05709) appendix A, strength 1; google-research/simclr data_util.py",
    ),
    ViewRecipe(
        "simclr_cifar",
        {"global": _two(_SIMCLR_CIFAR)},
        "SimCLR (arXiv:2002.05709) on CIFAR-10; google-research/simclr: strength 0.5, no blur",
    ),
    ViewRecipe(
        "moco_v2",
        {"global": _two(_MOCO)},
        "MoCo v2 (arXiv:2003.04297); facebookresearch/moco main_moco.py --aug-plus",
    ),
    ViewRecipe(
        "moco_v2_cifar",
        {"global": _two(_MOCO_CIFAR)},
        "facebookresearch/moco, CIFAR-10 demo notebook",
    ),
    ViewRecipe(
        "swav",
        {"global": _two(_SWAV), "local": _smaller(_SWAV, 96, (0.05, 0.14), 6)},
        "SwAV (arXiv:2006.09882) multi-crop; facebookresearch/swav: 2x224 + 6x96",
    ),
    ViewRecipe(
        "swav_2x224",
        {"global": _two(dataclasses.replace(_SWAV, scale=(0.08, 1.0)))},
        "SwAV (arXiv:2006.09882), two-crop runs: area 0.08 to 1",
    ),
    ViewRecipe(
        "swav_cifar",
        {"global": _two(_SWAV_CIFAR), "local": _smaller(_SWAV_CIFAR, 20, (0.1, 0.4), 4)},
        "Global views: lightly's CIFAR-10 benchmark (area 0.14 to 1, strength 0.5, no blur). Local "
        "views, own reasoning: 4 of 20 pixels; areas 0.1 to 0.4 are sides of 10 to 20 of 32 "
        "pixels, so a local view is not mostly enlargement",
    ),
    ViewRecipe(
        "byol",
        {"global": (_BYOL_A, _BYOL_B)},
        "BYOL (arXiv:2006.07733) appendix B; also Barlow Twins and VICReg",
    ),
    ViewRecipe(
        "byol_cifar",
        {"global": _CIFAR_PAIR},
        "solo-learn's CIFAR asymmetric augmentation: BYOL's without blur",
    ),
    ViewRecipe(
        "vicreg_cifar",
        {"global": _two(dataclasses.replace(_CIFAR_PAIR[0], scale=(0.2, 1.0), solarize_rate=0.1))},
        "solo-learn's CIFAR VICReg augmentation: area from 0.2, solarize 0.1 in both views",
    ),
    ViewRecipe(
        "dino",
        {
            "global": tuple(
                dataclasses.replace(view, scale=(0.4, 1.0)) for view in (_BYOL_A, _BYOL_B)
            ),
            "local": _smaller(dataclasses.replace(_BYOL_A, blur_rate=0.5), 96, (0.05, 0.4), 8),
        },
        "DINO (arXiv:2104.14294) vanilla run; facebookresearch/dino: 2x224 + 8x96",
    ),
    ViewRecipe(
        "dino_cifar",
        {"global": _CIFAR_PAIR},
        "solo-learn's CIFAR DINO: the asymmetric augmentation, two views, no local ones",
    ),
    ViewRecipe(
        "dino_cifar_local",
        {
            "global": tuple(dataclasses.replace(view, scale=(0.4, 1.0)) for view in _CIFAR_PAIR),
            "local": _smaller(_CIFAR_PAIR[0], 16, (0.05, 0.4), 4),
        },
        "DINO's areas (0.4 to 1, 0.05 to 0.4) with solo-learn's CIFAR colors. Own reasoning: 4 local "
        "views of 16 pixels, a whole number of 4-pixel patches and half a global view's side",
    ),
    ViewRecipe("mae", {"global": (_MAE,)}, "MAE (arXiv:2111.06377) appendix A: crop and flip only"),
    ViewRecipe(
        "mae_cifar",
        {"global": (dataclasses.replace(_MAE, size=32, scale=(0.08, 1.0)),)},
        "solo-learn's CIFAR MAE: area 0.08 to 1 and flip",
    ),
    ViewRecipe(
        "rotnet",
        {"rotations": _four_turns(_ROTNET)},
        "RotNet (arXiv:1803.07728), ImageNet: crop and flip, then all four rotations of it",
        tied=("rotations",),
    ),
    ViewRecipe(
        "rotnet_cifar",
        {"rotations": _four_turns(_ROTNET_CIFAR)},
        "RotNet (arXiv:1803.07728), CIFAR-10: a 32-pixel window of the image padded by 4, flip, then "
        "all four rotations of it",
        tied=("rotations",),
    ),
    ViewRecipe(
        "none",
        {"global": _two(ViewConfig(size=32))},
        "No augmentation: the whole picture resized, twice; for tests and ablations",
    ),
)

RECIPES: dict[str, ViewRecipe] = {recipe.name: recipe for recipe in _TABLE}


def names() -> list[str]:
    """Returns the names that `get` knows, sorted."""
    return sorted(RECIPES)


def get(name: str | ViewRecipe) -> ViewRecipe:
    """Returns a recipe by name; a recipe is returned as it is.

    Args:
        name: str. One of `names()`.

    Returns:
        ViewRecipe.

    Raises:
        ValueError: if there is no such recipe.
    """
    if isinstance(name, ViewRecipe):
        return name
    if name not in RECIPES:
        raise ValueError(f"Unknown view recipe. Expected one of {names()}. Received: name={name!r}")
    return RECIPES[name]


def main_size(recipe: str | ViewRecipe) -> int:
    """Returns the side in pixels of a recipe's first group of views, the global one where there is one."""
    groups = get(recipe).groups
    return groups.get("global", next(iter(groups.values())))[0].size
