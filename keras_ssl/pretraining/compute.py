"""What a run computes with: devices, XLA, where the views are made, steps in a call."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_ssl.pretraining.recipe import RunOptions, SettingError

TPU_ROWS = 8  # a TPU keeps arrays in tiles of 8 x 128: other batches are padded
_MOST_STEPS = 32  # in one call, when the user does not say; a signal waits for the end of the call


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the steps of a run are carried out; none of it changes the result but by float rounding.

    Attributes:
        device: str. `"cpu"`, `"gpu"` or `"tpu"`.
        jit: bool. Whether this library puts XLA around each replica's step. False on a TPU, which compiles all.
        views_on_host: bool. Whether the input pipeline makes the views, or the step itself.
        steps_per_execution: int. Steps in one call of the train function.
    """

    device: str
    jit: bool
    views_on_host: bool
    steps_per_execution: int


def device_of(strategy: tf.distribute.Strategy) -> str:
    """Returns what the replicas of a strategy run on: `"cpu"`, `"gpu"` or `"tpu"`."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "tpu"
    devices = " ".join(strategy.extended.worker_devices).lower()
    return "gpu" if "gpu" in devices else "cpu"


def choose(
    options: RunOptions, *, device: str, steps_per_epoch: int, exact: bool = False
) -> Compute:
    """Returns what the options ask for, and the best known choice where they leave it open.

    Args:
        options: RunOptions.
        device: str. See `device_of`.
        steps_per_epoch: int. Steps of an epoch.
        exact: bool. Whether crops are cut as pictures are read, which leaves the rest of the views to the host.

    Returns:
        Compute.

    Raises:
        SettingError: If whole calls do not make an epoch.
    """
    steps = options.steps_per_execution
    if steps is not None and steps_per_epoch % steps:
        raise SettingError(
            f"Expected --steps-per-execution to divide the steps of an epoch ({steps_per_epoch}). "
            f"Received: {steps}."
        )
    if steps is None:
        between_logs = options.log_every or max(1, steps_per_epoch // 20)
        most = min(_MOST_STEPS, between_logs) if device == "tpu" else 1
        steps = largest_divisor(steps_per_epoch, most)
    return Compute(
        device=device,
        jit=options.jit == "on" or (options.jit == "auto" and device == "gpu"),
        views_on_host=exact
        or options.views_on == "host"
        # with micro-batches the views of the whole batch would not fit
        or (options.views_on == "auto" and device == "cpu" and options.micro_batch is None),
        steps_per_execution=steps,
    )


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of `number` that is at most `most`."""
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)


def padding_note(batch_size: int, replicas: int) -> str | None:
    """Returns a sentence if a TPU core's share of the batch is padded, else None."""
    share = batch_size // replicas
    padded = -(-share // TPU_ROWS) * TPU_ROWS
    if share == padded:
        return None
    return (
        f"each TPU core has {share} images and computes {padded}; "
        f"a --batch-size of {padded * replicas} takes as long"
    )
