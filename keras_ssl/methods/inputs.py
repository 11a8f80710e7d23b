"""What a method learns of its run, and what a user may hand to `fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a method learns about the run when it is bound to it.

    Attributes:
        num_samples: int. Images in the source.
        steps_per_epoch: int. Steps of one epoch.
        total_steps: int. Steps of the whole run; schedules end there.
        global_batch: int. Images in one step over all replicas.
        replicas: int. Replicas in sync.
    """

    num_samples: int
    steps_per_epoch: int
    total_steps: int
    global_batch: int
    replicas: int = 1


def as_dataset(
    x: Any, batch_size: int, steps_per_epoch: int | None, seed: int
) -> tuple[tf.data.Dataset, int, int]:
    """Turns what a user hands to `fit` into a dataset of batches.

    Args:
        x: `tf.data.Dataset` of batches, or an array of images `(samples, height, width, 3)`.
        batch_size: int. Images in a step, for arrays.
        steps_per_epoch: int or None. As given to `fit`.
        seed: int. Seed of the order of an array.

    Returns:
        `(dataset, batch size, steps of an epoch)`.

    Raises:
        ValueError: If there are no images, or the length is unknown.
    """
    if not isinstance(x, tf.data.Dataset):
        if getattr(x, "ndim", 0) != 4 or len(x) < batch_size:
            raise ValueError(
                f"Expected images (samples, height, width, 3) with at least batch_size={batch_size} samples. "
                f"Received: {type(x).__name__} of shape {getattr(x, 'shape', None)}"
            )
        dataset = (
            tf.data.Dataset.from_tensor_slices(x)
            .shuffle(len(x), seed=seed)
            .batch(batch_size, drop_remainder=True)
        )
        return dataset.prefetch(2), batch_size, steps_per_epoch or len(x) // batch_size
    element = next(iter(x.take(1)), None)
    if element is None:
        raise ValueError("Expected a dataset with at least one batch. Received: an empty one.")
    image = tf.nest.flatten(
        element["inputs"] if isinstance(element, Mapping) and "inputs" in element else element
    )[0]
    if image.shape.rank != 4:
        raise ValueError(
            f"Expected batches of images (batch, height, width, 3). Received: shape {tuple(image.shape)}"
        )
    steps = steps_per_epoch or int(x.cardinality())
    if steps < 1:
        raise ValueError(
            f"Expected steps_per_epoch for a dataset of unknown length. Received: steps_per_epoch={steps_per_epoch}"
        )
    return x, int(image.shape[0]), steps
