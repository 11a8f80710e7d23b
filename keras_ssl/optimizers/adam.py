"""Adam with decoupled weight decay, and LAMB, its layer-wise scaled form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from keras_ssl.optimizers.base import Rates, Schedule, SSLOptimizer
from keras_ssl.optimizers.numeric import check_fraction, norm_ratio


class _AdamMoments(SSLOptimizer):
    """Running first and second moments; each variable counts its own updates for the bias correction.

    A frozen or refused update is therefore as if it never was, also for the correction.
    """

    slot_names = ("first_moment", "second_moment")

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        betas: Sequence[float],
        epsilon: float,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor],
        exclude: str,
        name: str | None,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, exclude=exclude, name=name)
        if len(betas) != 2:
            raise ValueError(f"Expected betas to be two numbers. Received: betas={betas}")
        for beta in betas:
            check_fraction("betas", beta)
        if epsilon <= 0:
            raise ValueError(f"Expected epsilon above 0. Received: epsilon={epsilon}")
        self.betas, self.epsilon = tuple(betas), epsilon

    def create_slots(self, variable: keras.Variable) -> list[keras.Variable]:
        count = self.add_variable(shape=(), dtype="int64", name=f"{variable.name}_updates")
        return [*super().create_slots(variable), count]

    def _direction(
        self, gradient: tf.Tensor, slots: list[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the bias-corrected m / (sqrt(v) + epsilon) and the new slots."""
        first, second, count = slots
        beta_1, beta_2 = (tf.constant(beta, gradient.dtype) for beta in self.betas)
        count = count + 1
        times = tf.cast(count, gradient.dtype)
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * tf.square(gradient)
        mean = first / (1 - tf.pow(beta_1, times))
        scale = tf.sqrt(second) / tf.sqrt(1 - tf.pow(beta_2, times)) + self.epsilon
        return mean / scale, [first, second, count]

    def get_config(self) -> dict:
        return {**super().get_config(), "betas": list(self.betas), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_ssl")
class AdamW(_AdamMoments):
    """Adam with decoupled weight decay.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        w <- w - learning_rate wd w - learning_rate m^ / (sqrt(v^) + epsilon),  m^ = m / (1 - b1^t), v^ = v / (1 - b2^t)

    t counts the updates of the variable itself.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        betas: two floats in [0, 1). Share that the means of gradient and square keep. Defaults to `(0.9, 0.999)`;
            MAE uses `(0.9, 0.95)`.
        epsilon: float. Added outside the square root. Defaults to `1e-8`.
        weight_decay: float, or a callable of the step: DINO's rises from 0.04 to 0.4. Defaults to `0.05`.
        exclude: str. Variables without decay: `"1d"`, `"none"` or a regular expression searched in their paths.
            Defaults to `"1d"`, as in MAE and DINO.
        name: str. Defaults to `"adamw"`.

    Reference: Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101, algorithm 2.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor] = 0.05,
        exclude: str = "1d",
        name: str | None = "adamw",
    ):
        super().__init__(
            learning_rate,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            exclude=exclude,
            name=name,
        )

    def compute(
        self, value: tf.Tensor, gradient: tf.Tensor, slots: list[tf.Tensor], rates: Rates
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        direction, slots = self._direction(gradient, slots)
        if rates.decay is not None:
            direction = direction + rates.decay * value
        return value - rates.learning_rate * direction, slots


@keras.saving.register_keras_serializable(package="keras_ssl")
class LAMB(_AdamMoments):
    """Adam whose step in each tensor is as long as the tensor itself.

        u = m^ / (sqrt(v^) + epsilon) + wd w;  w <- w - learning_rate (|w| / |u|) u

    The ratio is 1 where either norm is 0 and for excluded variables, which have no decay either.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        betas: two floats in [0, 1). Share that the means of gradient and square keep. Defaults to `(0.9, 0.999)`.
        epsilon: float. Added outside the square root. Defaults to `1e-6`.
        weight_decay: float, or a callable of the step. Defaults to `0.01`.
        exclude: str. Variables without decay and ratio: `"1d"`, `"none"` or a regular expression searched in their
            paths. Defaults to `"1d"`.
        name: str. Defaults to `"lamb"`.

    Reference: You et al., 2020, https://arxiv.org/abs/1904.00962, algorithm 2 with phi the identity.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        *,
        betas: Sequence[float] = (0.9, 0.999),
        epsilon: float = 1e-6,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor] = 0.01,
        exclude: str = "1d",
        name: str | None = "lamb",
    ):
        super().__init__(
            learning_rate,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            exclude=exclude,
            name=name,
        )

    def compute(
        self, value: tf.Tensor, gradient: tf.Tensor, slots: list[tf.Tensor], rates: Rates
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        direction, slots = self._direction(gradient, slots)
        if rates.decay is not None:
            direction = direction + rates.decay * value
        if rates.trust:
            direction = direction * norm_ratio(tf.norm(value), tf.norm(direction))
        return value - rates.learning_rate * direction, slots
