"""Which strategies, precisions and XLA go together; told before any data are opened."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.pretraining.recipe import Recipe, RunOptions, SettingError

TPU_PRECISIONS = ("float32", "mixed_bfloat16")


def check(recipe: Recipe, options: RunOptions, replicas: int | None) -> None:
    """Checks what needs no device.

    Args:
        recipe: Recipe.
        options: RunOptions.
        replicas: int. How many the strategy has or will have; None if it is not known yet.

    Raises:
        SettingError: With one sentence.
    """
    if options.strategy == "tpu":
        if recipe.precision not in TPU_PRECISIONS:
            raise SettingError(
                f"Expected --precision {' or '.join(TPU_PRECISIONS)} with --strategy tpu. "
                f"Received: {recipe.precision}."
            )
        if options.jit != "auto":
            raise SettingError(
                "Expected no --jit with --strategy tpu, where XLA always compiles the whole step. "
                f"Received: {options.jit}."
            )
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


def check_executions(options: RunOptions, steps_per_epoch: int) -> None:
    """Checks that whole executions make an epoch; needs the number of images, so it comes after opening them.

    Raises:
        SettingError: If they do not.
    """
    if steps_per_epoch % options.steps_per_execution:
        raise SettingError(
            "Expected --steps-per-execution to divide the steps of an epoch "
            f"({steps_per_epoch}). Received: {options.steps_per_execution}."
        )


def resolve_jit(options: RunOptions) -> bool:
    """Returns whether XLA goes around each replica's step; a TPU compiles the whole program by itself."""
    if options.jit == "auto":
        return bool(tf.config.list_physical_devices("GPU")) and options.strategy != "tpu"
    return options.jit == "on"
