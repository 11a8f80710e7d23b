"""What a network is shown: the settings of a view, and of the groups of views of one sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from keras_ssl.views.tiles import TileConfig

_INTERPOLATIONS = ("bilinear", "bicubic")
_RATES = (
    "flip_rate",
    "jitter_rate",
    "photometric_rate",
    "grayscale_rate",
    "projection_rate",
    "blur_rate",
    "solarize_rate",
)
# What the views of a group share, since they are one array that is made in one go.
_LAYOUT = ("size", "ratio", "interpolation", "pad_crop", "short_side", "grayscale_first", "tiles")


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
        short_side: int. Instead of a resized crop: pixels of the picture's short side before a random
            window of `size` pixels is cut out. Defaults to `0`.
        flip_rate: float. Mirrored left to right. Defaults to `0.0`.
        jitter: four floats. Strengths of brightness, contrast, saturation (factor uniform in
            [max(0, 1 - s), 1 + s]) and hue (turn uniform in [-s, s] of the circle, at most 0.5), applied
            in random order. Defaults to zeros.
        jitter_rate: float. Defaults to `0.0`.
        photometric_rate: float. Posterized, sharpened, solarized and stretched, see
            `ops.photometric`. Defaults to `0.0`.
        grayscale_rate: float. Defaults to `0.0`.
        grayscale_first: bool. Gray comes before jitter, not after it. Defaults to `False`.
        projection_rate: float. The green-magenta axis removed, see `ops.project_colors`; values may leave
            [0, 1] by a sixth. Defaults to `0.0`.
        blur_rate: float. Gaussian blur. Defaults to `0.0`.
        blur_sigma: pair of floats. Range of its width in pixels. Defaults to `(0.1, 2.0)`.
        solarize_rate: float. Values of 0.5 and more inverted. Defaults to `0.0`.
        rotation: int. Quarter turns counter-clockwise, 0 to 3. Defaults to `0`.
        tiles: TileConfig or None. Cuts the view into tiles, which take its place in the group. Defaults
            to `None`.
    """

    size: int
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    pad_crop: int = 0
    short_side: int = 0
    flip_rate: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_rate: float = 0.0
    photometric_rate: float = 0.0
    grayscale_rate: float = 0.0
    grayscale_first: bool = False
    projection_rate: float = 0.0
    blur_rate: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_rate: float = 0.0
    rotation: int = 0
    tiles: TileConfig | None = None

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
        window = self.short_side == 0 or self.short_side >= self.size
        require(window, "short_side", f"0, or at least `size`, which is {self.size}")
        alone = not (self.short_side and (self.pad_crop or self.scale))
        require(alone, "short_side", "0 where `scale` or `pad_crop` is given")
        for rate in _RATES:
            require(0.0 <= getattr(self, rate) <= 1.0, rate, "a probability in [0, 1]")
        hue_ok = len(self.jitter) == 4 and min(self.jitter) >= 0.0 and self.jitter[3] <= 0.5
        require(hue_ok, "jitter", "four strengths >= 0, the last (hue) at most 0.5")
        require(0.0 < self.blur_sigma[0] <= self.blur_sigma[1], "blur_sigma", "ascending and > 0")
        require(self.rotation in (0, 1, 2, 3), "rotation", "0, 1, 2 or 3 quarter turns")
        if self.tiles is not None:
            self.tiles.layout(self.size)
            require(self.rotation == 0, "rotation", "0 where `tiles` is given")

    @property
    def shown_size(self) -> int:
        """Side in pixels of what the network sees: of a tile where the view is cut into tiles."""
        return self.size if self.tiles is None else self.tiles.side


@dataclasses.dataclass(frozen=True)
class ViewRecipe:
    """The groups of views that one sample gives.

    Args:
        name: str.
        groups: dict from group name to its views, in order. The views of a group share size,
            interpolation and kind of crop, since they are one array `(V, batch, size, size, 3)`. A
            group of tiles has one view; its V is the number of tiles.
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
            layouts = {
                (*(getattr(view, field) for field in _LAYOUT), view.scale is None) for view in views
            }
            if len(layouts) > 1:
                raise ValueError(
                    f"The views of group {group!r} must agree in {', '.join(_LAYOUT)} and in whether "
                    f"they crop. Received: {views}"
                )
            if views[0].tiles is not None and len(views) > 1:
                raise ValueError(
                    f"Group {group!r} must have one view, which is cut into tiles. Received: {views}"
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
        """Number of views in each group; a tile is one."""
        return {
            group: len(views) if views[0].tiles is None else views[0].tiles.count
            for group, views in self.groups.items()
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Side in pixels of the views of each group, as the network sees them."""
        return {group: views[0].shown_size for group, views in self.groups.items()}
