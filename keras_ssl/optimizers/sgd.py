"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_ssl.optimizers.base import Rates, Schedule, SSLOptimizer
from keras_ssl.optimizers.numeric import check_fraction


@keras.saving.register_keras_serializable(package="keras_ssl")
class SGD(SSLOptimizer):
    """SGD with momentum and coupled weight decay, the learning rate outside the momentum.

    With gradient g, weights w, decay wd:

        g <- g + wd w;  mu <- momentum mu + g;  w <- w - learning_rate mu
        nesterov:                               w <- w - learning_rate (g + momentum mu)

    This is PyTorch's rule, which the reference codes use. Keras's SGD keeps the learning rate inside the momentum;
    the two coincide only at a constant rate.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        momentum: float in [0, 1). Share of the last update that is kept. Defaults to `0.9`.
        nesterov: bool. Whether the step looks ahead along the momentum. Defaults to `False`.
        weight_decay: float, or a callable of the step. Defaults to `0.0`.
        exclude: str. Variables without decay: `"1d"`, `"none"` or a regular expression searched in their paths.
            Defaults to `"none"`, as MoCo, SimSiam and SwAV decay everything.
        name: str. Defaults to `"sgd"`.
    """

    slot_names = ("momentum",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.03,
        *,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor] = 0.0,
        exclude: str = "none",
        name: str | None = "sgd",
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, exclude=exclude, name=name)
        check_fraction("momentum", momentum)
        self.momentum, self.nesterov = momentum, nesterov

    def compute(
        self, value: tf.Tensor, gradient: tf.Tensor, slots: list[tf.Tensor], rates: Rates
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if rates.decay is not None:
            gradient = gradient + rates.decay * value
        momentum = self.momentum * slots[0] + gradient
        direction = gradient + self.momentum * momentum if self.nesterov else momentum
        return value - rates.learning_rate * direction, [momentum]

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
