"""The random numbers of a group of views, each from the key of its sample and its own name."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views import color
from keras_ssl.views.config import ViewConfig


class Numbers:
    """Random numbers for views stacked view-major: row v * batch + i is view v of sample i.

    Args:
        keys: uint32 `(batch, 2)`. Of the samples.
        group: str. Name of the group of views.
        count: int. Views in it.
        dtype: float type of the numbers.
    """

    def __init__(self, keys: tf.Tensor, group: str, count: int, dtype: tf.DType) -> None:
        views = [random.fold_in(keys, f"{group}/{index}") for index in range(count)]
        self.keys = tf.concat(views, axis=0)
        self.batch = tf.shape(keys)[0] if keys.shape[0] is None else keys.shape[0]
        self.dtype = dtype

    def named(self, name: str) -> tf.Tensor:
        """Returns the keys of one use, uint32 `(views * batch, 2)`."""
        return random.fold_in(self.keys, name)

    def rows(self, values: list[float]) -> tf.Tensor:
        """Repeats one number for each view over the batch."""
        return tf.repeat(tf.constant(values, self.dtype), self.batch)

    def drawn(self, name: str, rates: list[float]) -> tf.Tensor:
        """Draws bool `(views * batch,)`, each view with its own rate."""
        return random.uniform(self.named(name), dtype=self.dtype) < self.rows(rates)

    def chosen(self, configs: tuple[ViewConfig, ...], name: str) -> tf.Tensor:
        """Draws which views take the step whose rate is `name` + `_rate`, bool `(views * batch,)`."""
        return self.drawn(name, [getattr(config, f"{name}_rate") for config in configs])

    def jitter(self, configs: tuple[ViewConfig, ...]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Draws the color jitter: factors and order `(views * batch, 4)`, and who takes it `(views * batch,)`."""
        draws = random.uniform(self.named("jitter"), (4,), dtype=self.dtype)
        strengths = [[config.jitter[kind] for config in configs] for kind in range(4)]
        bounds = [
            [
                (max(0.0, 1.0 - s), 1.0 + s) if kind != color.HUE else (-s, s)
                for s in strengths[kind]
            ]
            for kind in range(4)
        ]
        low, high = (
            tf.stack([self.rows([pair[end] for pair in kind]) for kind in bounds], axis=-1)
            for end in (0, 1)
        )
        order = random.permutation(self.named("jitter order"), 4)
        chosen = self.drawn("jitter rate", jitter_rates(configs))
        return low + (high - low) * draws, order, chosen

    def blur_sigma(self, configs: tuple[ViewConfig, ...]) -> tuple[tf.Tensor, float]:
        """Draws the widths of the blur `(views * batch,)`, and returns the largest that there can be."""
        low, high = (self.rows([config.blur_sigma[end] for config in configs]) for end in (0, 1))
        draws = random.uniform(self.named("blur sigma"), dtype=self.dtype)
        return low + (high - low) * draws, max(config.blur_sigma[1] for config in configs)


def jitter_rates(configs: tuple[ViewConfig, ...]) -> list[float]:
    """Returns how often each view is jittered: never where all strengths are zero."""
    return [config.jitter_rate if any(config.jitter) else 0.0 for config in configs]


def any_of(configs: tuple[ViewConfig, ...], rate: str) -> bool:
    """Returns whether any of the views may take a step."""
    return any(getattr(config, rate) for config in configs)
