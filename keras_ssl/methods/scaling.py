"""Clipping and float16 loss scaling that act on the gradient summed over all replicas.

Keras clips, and looks for overflow, on each replica's own gradient before the sum; with more than one replica that
clips to the wrong norm and misses an infinity on any replica but the first.
"""

from __future__ import annotations

import keras
import tensorflow as tf

_LARGEST_SCALE = 2.0**24


def clip_gradients(
    gradients: list[tf.Tensor], clip_norm: float | None, mode: str = "global"
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Clips gradients that are already summed over the replicas.

    Args:
        gradients: list of tensors.
        clip_norm: float. Largest norm, or None for no clipping.
        mode: str. `"global"`: the norm of all together; `"tensor"`: of each alone. Defaults to `"global"`.

    Returns:
        The clipped gradients, the global norm before clipping (scalar), and a bool scalar: is it finite.
    """
    norm = tf.linalg.global_norm(gradients)
    finite = tf.math.is_finite(norm)
    if clip_norm is None:
        return gradients, norm, finite
    if mode == "global":
        factor = tf.minimum(tf.cast(1.0, norm.dtype), clip_norm / (norm + 1e-6))
        return [gradient * tf.cast(factor, gradient.dtype) for gradient in gradients], norm, finite
    clipped = []
    for gradient in gradients:
        own = tf.norm(gradient)
        clipped.append(gradient * tf.minimum(tf.cast(1.0, own.dtype), clip_norm / (own + 1e-6)))
    return clipped, norm, finite


class LossScale(keras.layers.Layer):
    """Dynamic loss scale for float16: halves on overflow, doubles after `growth_steps` good steps.

    Args:
        initial: float. First scale. Defaults to `2.0 ** 15`.
        growth_steps: int. Good steps before the scale doubles. Defaults to `2000`.
    """

    def __init__(self, initial: float = 2.0**15, growth_steps: int = 2000, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.growth_steps = growth_steps
        self.factor = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(initial),
            trainable=False,
            name="factor",
        )
        self.good_steps = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="good_steps"
        )
        self.built = True

    @property
    def value(self) -> tf.Tensor:
        """The scale, float32 scalar."""
        return tf.convert_to_tensor(self.factor)

    def scale(self, objective: tf.Tensor) -> tf.Tensor:
        """Returns the objective times the scale."""
        return objective * tf.cast(self.value, objective.dtype)

    def unscale(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the gradients over the scale."""
        return [gradient / tf.cast(self.value, gradient.dtype) for gradient in gradients]

    def update(self, finite: tf.Tensor) -> None:
        """Grows or shrinks the scale after a step; `finite` is a bool scalar, the same on all replicas."""
        good = tf.where(finite, self.good_steps.value + 1, tf.zeros_like(self.good_steps.value))
        grown = good >= self.growth_steps
        factor = tf.where(finite, self.value, tf.maximum(self.value / 2.0, 1.0))
        self.factor.assign(tf.where(grown, tf.minimum(factor * 2.0, _LARGEST_SCALE), factor))
        self.good_steps.assign(tf.where(grown, tf.zeros_like(good), good))
