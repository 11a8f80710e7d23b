"""Changes to a recipe, its fit to a method, and its description in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from keras_ssl.views.config import ViewConfig, ViewRecipe
from keras_ssl.views.multi_crop import LOCAL, is_local, multi_crop
from keras_ssl.views.recipes import get, main_size


def _require_local(recipe: ViewRecipe, **settings: object) -> None:
    given = {name: value for name, value in settings.items() if value is not None}
    if given and LOCAL not in recipe.groups:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"`{name}` needs a recipe with local views and {recipe.name!r} has none; start from "
            f"'swav', 'dino', 'swav_cifar' or 'dino_cifar_local'. Received: {name}={value}"
        )


def _resized(view: ViewConfig, size: int) -> dict[str, object]:
    """Returns the changes that make a view be shown with this side."""
    if view.tiles is not None:
        return {"tiles": dataclasses.replace(view.tiles, size=size - 2 * view.tiles.rim)}
    return {"size": size, "short_side": round(view.short_side * size / view.size)}


def _with_crops(
    recipe: ViewRecipe, crops: str, image_size: int | None, num_local: int | None
) -> ViewRecipe:
    if num_local is not None:
        raise ValueError(
            "Give the number of local views in `crops` or in `num_local`, not in both. "
            f"Received: crops={crops!r}, num_local={num_local}"
        )
    made = multi_crop(recipe, crops)
    if image_size not in (None, main_size(made)):
        raise ValueError(
            f"The first crops and the image size must agree: give image size {main_size(made)}. "
            f"Received: crops={crops!r}, image_size={image_size}"
        )
    return made


def _changed(
    view: ViewConfig,
    size: int | None,
    scale: tuple[float | None, float | None],
    color_strength: float | None,
    changes: Mapping[str, object],
) -> ViewConfig:
    """Returns the view with what is given changed."""
    changes = dict(changes)
    if size is not None:
        changes.update(_resized(view, size))
    if color_strength is not None:
        changes["jitter"] = tuple(color_strength * strength for strength in view.jitter)
    if scale != (None, None):
        if view.scale is None:
            raise ValueError(
                "`min_scale` and `max_scale` need views that are random resized crops. "
                f"Received: min_scale={scale[0]}, max_scale={scale[1]}"
            )
        changes["scale"] = tuple(
            old if new is None else new for old, new in zip(view.scale, scale, strict=True)
        )
    return dataclasses.replace(view, **changes)


def customize(
    recipe: str | ViewRecipe,
    *,
    image_size: int | None = None,
    crops: str | None = None,
    local_size: int | None = None,
    num_local: int | None = None,
    min_scale: float | None = None,
    max_scale: float | None = None,
    local_min_scale: float | None = None,
    local_max_scale: float | None = None,
    interpolation: str | None = None,
    flip_rate: float | None = None,
    color_strength: float | None = None,
    jitter_rate: float | None = None,
    grayscale_rate: float | None = None,
    blur_rate: float | None = None,
    solarize_rate: float | None = None,
) -> ViewRecipe:
    """Returns a recipe with some numbers changed; None keeps the recipe's own.

    Args:
        recipe: str or ViewRecipe.
        image_size: int. Side in pixels of all views but the local ones; of the tiles where there are no
            global views.
        crops: str. Number and size of the crops, such as 2x224+6x96, in place of `num_local`; areas can
            follow each as in 6x96@0.05-0.14. The first ones are the global views.
        local_size: int. Side in pixels of the local views.
        num_local: int. Number of local views; 0 leaves them out.
        min_scale: float. Least area of the global crops, as a fraction of the picture.
        max_scale: float. Largest area of the global crops.
        local_min_scale: float. Least area of the local crops.
        local_max_scale: float. Largest area of the local crops.
        interpolation: str. "bilinear" or "bicubic".
        flip_rate: float. Probability of a mirrored view, in all views.
        color_strength: float. Multiplies the four jitter strengths; 0 turns jitter off.
        jitter_rate: float. Probability of color jitter, in all views.
        grayscale_rate: float. Probability of a gray view, in all views.
        blur_rate: float. Probability of blur, in all views (also where the recipe blurs its views
            differently).
        solarize_rate: float. Probability of solarization, in all views.

    Returns:
        ViewRecipe, its name marked with a `+` if anything changed.

    Raises:
        ValueError: if a number is out of its range or does not apply to the recipe.
    """
    recipe = get(recipe)
    if crops is not None:
        recipe = _with_crops(recipe, crops, image_size, num_local)
    _require_local(
        recipe,
        local_size=local_size,
        num_local=num_local or None,
        local_min_scale=local_min_scale,
        local_max_scale=local_max_scale,
    )
    if num_local is not None and num_local < 0:
        raise ValueError(f"`num_local` must be at least 0. Received: num_local={num_local}")
    everywhere = {
        "interpolation": interpolation,
        "flip_rate": flip_rate,
        "jitter_rate": jitter_rate,
        "grayscale_rate": grayscale_rate,
        "blur_rate": blur_rate,
        "solarize_rate": solarize_rate,
    }
    changes = {name: value for name, value in everywhere.items() if value is not None}

    groups = {}
    for group, views in recipe.groups.items():
        local = is_local(group)
        if local and num_local is not None:
            views = (views * num_local)[:num_local]
        size = local_size if local else image_size
        scale = (local_min_scale, local_max_scale) if local else (min_scale, max_scale)
        if views and views[0].tiles is not None and "global" in recipe.groups:
            size, scale = None, (None, None)
        if views:
            groups[group] = tuple(
                _changed(view, size, scale, color_strength, changes) for view in views
            )
    if groups == dict(recipe.groups):
        return recipe
    return dataclasses.replace(recipe, name=f"{recipe.name.rstrip('+')}+", groups=groups)


def check(recipe: str | ViewRecipe, view_spec: Mapping[str, int | None]) -> None:
    """Raises ValueError unless the recipe gives the views that a method declares.

    Args:
        recipe: str or ViewRecipe.
        view_spec: dict from group name to its number of views, None for any number, 0 included; with
            `local` of any number there may be `local_2` and so on.
    """
    recipe = get(recipe)
    wanted = {
        group: "any number" if count is None else str(count) for group, count in view_spec.items()
    }
    unfit = [
        group
        for group in recipe.counts
        if group not in view_spec and not (is_local(group) and view_spec.get(LOCAL, 0) is None)
    ]
    unfit += [
        group
        for group, count in view_spec.items()
        if count is not None and recipe.counts.get(group, 0) != count
    ]
    if unfit:
        raise ValueError(
            f"View recipe {recipe.name!r} does not fit the method in {sorted(set(unfit))}: the method "
            f"expects views {wanted}. Received: {recipe.counts}"
        )


def _describe_view(view: ViewConfig) -> str:
    parts = [f"{view.shown_size}px"]
    if view.tiles is not None:
        parts.append(f"{view.tiles.grid}x{view.tiles.grid} tiles of {view.size}px")
    if view.short_side:
        parts.append(f"window of a short side of {view.short_side}px")
    if view.scale is not None:
        parts.append(f"area {view.scale[0]:g}-{view.scale[1]:g} {view.interpolation}")
    if view.pad_crop:
        parts.append(f"pad {view.pad_crop} and crop")
    if view.jitter_rate and any(view.jitter):
        strengths = "/".join(f"{strength:g}" for strength in view.jitter)
        parts.append(f"jitter {strengths} p{view.jitter_rate:g}")
    for label in ("flip", "photometric", "grayscale", "projection", "blur", "solarize"):
        rate = getattr(view, f"{label}_rate")
        if rate:
            parts.append(f"{label} p{rate:g}")
    if view.rotation:
        parts.append(f"rotated {90 * view.rotation}")
    return ", ".join(parts)


def describe(recipe: str | ViewRecipe) -> str:
    """Returns one line that says what a recipe shows, equal views counted together."""
    recipe = get(recipe)
    groups = []
    for group, views in recipe.groups.items():
        kinds = list(dict.fromkeys(views))
        texts = [f"{views.count(kind)} x ({_describe_view(kind)})" for kind in kinds]
        groups.append(f"{group} {' + '.join(texts)}")
    return f"{recipe.name}: {'; '.join(groups)}"
