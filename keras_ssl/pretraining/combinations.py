"""What the number of replicas allows; told before any data are opened."""

from __future__ import annotations

import tensorflow as tf

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
