"""The published augmentations by name."""

from __future__ import annotations

from keras_ssl.views import recipes_joint, recipes_pretext
from keras_ssl.views.config import ViewConfig, ViewRecipe

__all__ = ["RECIPES", "ViewConfig", "ViewRecipe", "get", "main_size", "names"]

RECIPES: dict[str, ViewRecipe] = {
    recipe.name: recipe for file in (recipes_joint, recipes_pretext) for recipe in file.recipes()
}


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
    sizes = get(recipe).sizes
    return sizes.get("global", next(iter(sizes.values())))
