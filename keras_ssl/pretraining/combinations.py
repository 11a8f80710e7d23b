"""Settings that do not go together; told before any data are opened."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import views
from keras_ssl.pretraining.build import build_views
from keras_ssl.pretraining.recipe import Recipe, RunOptions, SettingError


def check(recipe: Recipe, options: RunOptions, replicas: int | None) -> None:
    """Checks what needs no device.

    Args:
        recipe: Recipe.
        options: RunOptions.
        replicas: int. How many the strategy has or will have; None if it is not known yet.

    Raises:
        SettingError: With one sentence.
    """
    if recipe.crops == "exact":
        _check_exact(recipe, options)
    if replicas is None:
        return
    if recipe.batch_size % replicas:
        raise SettingError(
            f"Expected --batch-size divisible by the {replicas} replicas. Received: {recipe.batch_size}."
        )
    if options.jit == "on" and replicas > 1 and not tf.config.list_physical_devices("GPU"):
        raise SettingError(
            "Expected --jit off with several CPU replicas: XLA cannot compile their collectives. Received: on."
        )


def _check_exact(recipe: Recipe, options: RunOptions) -> None:
    """Refuses what cannot be had with crops that are cut while the pictures are read."""
    path = recipe.data.split(":")[0]
    wrong = {
        "arrays as --data": recipe.data in ("array", "digits") or path.endswith(".npz"),
        "--canvas": recipe.canvas is not None,
        "--views-on device": options.views_on == "device",
        "--input-service": options.input_service is not None,
        "--micro-batch": options.micro_batch is not None,
    }
    if named := [name for name, given in wrong.items() if given]:
        raise SettingError(
            f"Expected no {named[0]} with --crops exact, which cuts the views while pictures are read from files "
            "here. Received: both; leave one out."
        )
    views.ExactCrops(build_views(recipe), recipe.seed)  # says which views cannot be cut so
