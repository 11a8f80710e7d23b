"""Activation checkpointing: compute a block again in the backward pass instead of keeping what is inside it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_ssl.layers.batch_norm import deferred_statistics


def recomputed(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Returns `function(x)` and keeps of it only x for the backward pass, which calls the function again.

    Batch-norm inside moves its running statistics once, at the first call.

    Args:
        function: callable from a float tensor to a float tensor, with the same result each time. Gradients reach x
            and variables, but no other tensor that it uses.
        x: float tensor.

    Reference: Chen, Xu, Zhang, Guestrin, 2016, https://arxiv.org/abs/1604.06174, section 3.1.
    """
    layers = []

    def run(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with deferred_statistics() as records:
            y = function(x)
        layers[:] = [layer for layer, _, _ in records]
        return (y, *(value for _, *statistics in records for value in statistics))

    y, *statistics = tf.recompute_grad(run)(x)
    for layer, mean, variance in zip(layers, statistics[::2], statistics[1::2], strict=True):
        layer.follow(mean, variance)
    return y
