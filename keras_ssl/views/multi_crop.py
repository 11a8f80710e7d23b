"""Crops of several sizes from one line of text, such as 2x224+6x96."""

from __future__ import annotations

import dataclasses
import itertools
import re

from keras_ssl.views.config import ViewConfig, ViewRecipe
from keras_ssl.views.recipes import get

LOCAL = "local"
_PART = re.compile(r"(\d+)x(\d+)(?:@(\d*\.?\d+)-(\d*\.?\d+))?")


def is_local(group: str) -> bool:
    """Whether a group holds the smaller crops of multi-crop: local, local_2, local_3, ..."""
    return group == LOCAL or re.fullmatch(rf"{LOCAL}_\d+", group) is not None


def _parse(crops: str) -> list[tuple[int, int, tuple[float, float] | None]]:
    """Returns (count, size, area or None) for each part."""
    parts = [_PART.fullmatch(part.strip()) for part in crops.split("+")]
    if not all(parts) or any(int(part[1]) < 1 for part in parts if part):
        raise ValueError(
            "Expected crops as COUNTxSIZE parts with a plus between, each perhaps with @LEAST-MOST area, "
            f"such as 2x224+6x96 or 2x224@0.14-1+6x96@0.05-0.14. Received: crops={crops!r}"
        )
    return [
        (int(part[1]), int(part[2]), (float(part[3]), float(part[4])) if part[3] else None)
        for part in parts
        if part
    ]


def _template(recipe: ViewRecipe) -> ViewConfig:
    """Returns the view that local crops are made from: the recipe's own, else its first global one."""
    return recipe.groups.get(LOCAL, recipe.groups["global"])[0]


def multi_crop(recipe: str | ViewRecipe, crops: str) -> ViewRecipe:
    """Returns a recipe with other crops: how many, of which sizes and areas.

    Args:
        recipe: str or ViewRecipe, with global random resized crops. Its global views lend the first part
            their flips and colors, in turn; its local views, or else its first global one, all others.
        crops: str. Parts `COUNTxSIZE` or `COUNTxSIZE@LEAST-MOST` with `+` between. The first part are the
            global views, the others the groups `local`, `local_2`, `local_3` and so on. Without areas a
            part keeps those of the recipe; local parts of a recipe without local views must give theirs.

    Returns:
        ViewRecipe, its name marked with a `+`.

    Raises:
        ValueError: if the text or a number is not understood, or the recipe has no such crops.

    Example: `multi_crop("swav", "2x224@0.08-1+4x128@0.08-0.2+6x96")`.

    Reference: Caron et al., 2020, https://arxiv.org/abs/2006.09882, section 3.3.
    """
    recipe = get(recipe)
    parts = _parse(crops)
    views = recipe.groups.get("global", ())
    other = [group for group in recipe.groups if group != "global" and not is_local(group)]
    if other or not views or views[0].scale is None:
        raise ValueError(
            "`crops` needs a recipe of global random resized crops, such as 'swav' or 'byol'. "
            f"Received: recipe {recipe.name!r} with crops={crops!r}"
        )
    groups = {}
    for index, (count, size, area) in enumerate(parts):
        if index == 0:
            made = tuple(itertools.islice(itertools.cycle(views), count))
        else:
            if area is None and LOCAL not in recipe.groups:
                raise ValueError(
                    f"Recipe {recipe.name!r} has no local views: give the area of each smaller crop, such "
                    f"as {count}x{size}@0.05-0.4. Received: crops={crops!r}"
                )
            made = (_template(recipe),) * count
        changes = {"size": size} if area is None else {"size": size, "scale": area}
        name = "global" if index == 0 else LOCAL if index == 1 else f"{LOCAL}_{index}"
        groups[name] = tuple(dataclasses.replace(view, **changes) for view in made)
    return dataclasses.replace(recipe, name=f"{recipe.name.rstrip('+')}+", groups=groups)
