"""Crops cut from the whole picture while it is read, in place of crops from a canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.boxes import TRIES
from keras_ssl.views.config import ViewConfig, ViewRecipe
from keras_ssl.views.numbers import Numbers

Box = tuple[float, float, float, float]


class ExactCrops:
    """Which crops the views of a recipe need, for any picture.

    The random numbers are those that `ViewEngine` draws, so a view shows the same part of the picture as one from a
    canvas, to a pixel of the canvas; sides and corners are whole pixels of the picture, as the reference has them.
    `ViewEngine.finish` makes the views of the crops.

    Args:
        recipe: ViewRecipe. Random resized crops only.
        seed: int. Of the views.

    Raises:
        ValueError: if a view of the recipe is cut in another way.

    Reference: torchvision `RandomResizedCrop.get_params`.
    """

    def __init__(self, recipe: ViewRecipe, seed: int) -> None:
        self.seed = seed
        self.groups: dict[str, tuple[ViewConfig, ...]] = {
            name: configs[:1] if name in recipe.tied else configs
            for name, configs in recipe.groups.items()
        }
        for name, configs in self.groups.items():
            if any(config.scale is None or config.tiles is not None for config in configs):
                raise ValueError(
                    "Expected views that are random resized crops of the picture, which can be cut exactly. "
                    f"Received: the views {name!r}, which are cut in another way; leave --crops exact out."
                )

    def draws(self, positions: tf.Tensor) -> list[tf.Tensor]:
        """Returns the random numbers of the crops of each group, float32 `(V, batch, 22)` in [0, 1).

        Args:
            positions: int64 `(batch,)`. Of the samples.
        """
        keys = random.sample_keys(self.seed, positions)
        found = []
        for name, configs in self.groups.items():
            numbers = Numbers(keys, name, len(configs), tf.float32)
            drawn = random.uniform(numbers.named("crop"), (2 * TRIES + 2,), dtype=tf.float32)
            found.append(tf.reshape(drawn, [len(configs), numbers.batch, 2 * TRIES + 2]))
        return found

    def boxes(self, draws: Sequence[np.ndarray], size: tuple[int, int]) -> list[list[Box]]:
        """Returns for each group the box of each view: left, top, right, bottom in pixels.

        Args:
            draws: of each group float `(V, 22)`, the numbers of one picture.
            size: (width, height) of the picture in pixels.
        """
        return [
            [_box(row, size, config) for row, config in zip(drawn, configs, strict=True)]
            for drawn, configs in zip(draws, self.groups.values(), strict=True)
        ]


def _box(draws: np.ndarray, size: tuple[int, int], config: ViewConfig) -> Box:
    """`boxes.random_boxes` for one picture in its own pixels."""
    width, height = size
    (low, high), (narrow, wide) = config.scale, config.ratio
    draws = np.asarray(draws, np.float64)
    area = (low + (high - low) * draws[:TRIES]) * width * height
    shape = np.exp(math.log(narrow) + math.log(wide / narrow) * draws[TRIES : 2 * TRIES])
    broad, tall = np.round(np.sqrt(area * shape)), np.round(np.sqrt(area / shape))
    fits = (broad >= 1) & (broad <= width) & (tall >= 1) & (tall <= height)
    if fits.any():
        broad, tall = broad[fits.argmax()], tall[fits.argmax()]
        top, left = np.floor(draws[2 * TRIES :] * (height - tall + 1, width - broad + 1))
    else:
        broad = min(width, round(height * wide))
        tall = min(height, round(width / narrow))
        top, left = (height - tall) // 2, (width - broad) // 2
    return float(left), float(top), float(left + broad), float(top + tall)
