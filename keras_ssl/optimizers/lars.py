"""LARS, layer-wise adaptive rate scaling, in the forms that the reference codes use."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from keras_ssl.optimizers.base import Rates, Schedule, SSLOptimizer
from keras_ssl.optimizers.numeric import check_fraction, norm_ratio

# variant: (trust coefficient, excluded variables)
_VARIANTS = {
    "byol": (0.001, "1d"),
    "simclr": (0.001, "1d"),
    "solo": (0.02, "1d"),
    "larc": (0.001, "none"),
}


@keras.saving.register_keras_serializable(package="keras_ssl")
class LARS(SSLOptimizer):
    """SGD with momentum whose gradient in each tensor is scaled by the tensor's own norm.

    With weights w, gradient g, decay wd, trust coefficient eta, learning rate lr:

    - `"byol"` (BYOL, Barlow Twins, VICReg, MoCo v3): the learning rate after the momentum.
      g <- g + wd w; g <- g eta |w| / |g|; mu <- momentum mu + g; w <- w - lr mu
    - `"simclr"` (SimCLR's TensorFlow code): the learning rate inside the momentum.
      g <- g + wd w; q = eta |w| / |g|; v <- momentum v + lr q g; w <- w - v
    - `"solo"` (solo-learn): norms added in the denominator, and clipped.
      q = min(eta |w| / (|g| + wd |w| + epsilon) / lr, 1); g <- q (g + wd w); mu, w as in `"byol"`
    - `"larc"` (SwAV, DeepCluster v2): as `"solo"` without the clipping, for every variable, biases included.

    Where a norm is 0 the ratio is 1; in `"solo"` and `"larc"` the decay is skipped there too. Excluded variables
    have neither ratio nor decay.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        variant: str. One of the above. Defaults to `"byol"`.
        momentum: float in [0, 1). Share of the last update that is kept. Defaults to `0.9`.
        weight_decay: float, or a callable of the step. Defaults to `0.0`.
        trust_coefficient: float. eta of the trust ratio, above 0. Defaults to the variant's: 0.001, in `"solo"` 0.02.
        epsilon: float. Used by `"solo"` and `"larc"`. Defaults to `1e-8`.
        exclude: str. Variables without decay and ratio: `"1d"`, `"none"` or a regular expression searched in their
            paths. Defaults to the variant's: `"1d"`, in `"larc"` `"none"`.
        name: str. Defaults to `"lars"`.

    Reference: You, Gitman, Ginsburg, 2017, https://arxiv.org/abs/1708.03888.
    Reference code: deepmind/deepmind-research `byol/utils/optimizers.py`; google-research/simclr
    `lars_optimizer.py`; vturrisi/solo-learn `solo/utils/lars.py`; NVIDIA/apex `apex/parallel/LARC.py`.
    Differs from the reference: SimCLR excludes by variable names, here `"1d"` covers the same tensors of a ResNet.
    """

    slot_names = ("momentum",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.2,
        *,
        variant: str = "byol",
        momentum: float = 0.9,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor] = 0.0,
        trust_coefficient: float | None = None,
        epsilon: float = 1e-8,
        exclude: str | None = None,
        name: str | None = "lars",
    ):
        if variant not in _VARIANTS:
            raise ValueError(
                f"Expected variant to be one of {sorted(_VARIANTS)}. Received: variant={variant!r}"
            )
        default_trust, default_exclude = _VARIANTS[variant]
        exclude = default_exclude if exclude is None else exclude
        trust_coefficient = default_trust if trust_coefficient is None else trust_coefficient
        super().__init__(learning_rate, weight_decay=weight_decay, exclude=exclude, name=name)
        check_fraction("momentum", momentum)
        if trust_coefficient <= 0:
            raise ValueError(
                "Expected trust_coefficient above 0. "
                f"Received: trust_coefficient={trust_coefficient}"
            )
        self.variant, self.momentum = variant, momentum
        self.trust_coefficient, self.epsilon = trust_coefficient, epsilon

    def compute(
        self, value: tf.Tensor, gradient: tf.Tensor, slots: list[tf.Tensor], rates: Rates
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        if self.variant in ("solo", "larc"):
            gradient = self._scaled_by_sum_of_norms(value, gradient, rates)
        else:
            gradient = self._scaled_by_norm_of_sum(value, gradient, rates)
        if self.variant == "simclr":
            velocity = self.momentum * slots[0] + rates.learning_rate * gradient
            return value - velocity, [velocity]
        momentum = self.momentum * slots[0] + gradient
        return value - rates.learning_rate * momentum, [momentum]

    def _scaled_by_norm_of_sum(
        self, value: tf.Tensor, gradient: tf.Tensor, rates: Rates
    ) -> tf.Tensor:
        if rates.decay is not None:
            gradient = gradient + rates.decay * value
        if not rates.trust:
            return gradient
        return gradient * norm_ratio(self.trust_coefficient * tf.norm(value), tf.norm(gradient))

    def _scaled_by_sum_of_norms(
        self, value: tf.Tensor, gradient: tf.Tensor, rates: Rates
    ) -> tf.Tensor:
        decay = tf.zeros_like(rates.learning_rate) if rates.decay is None else rates.decay
        decayed = gradient + decay * value
        if not rates.trust:
            return decayed
        value_norm, gradient_norm = tf.norm(value), tf.norm(gradient)
        ratio = self.trust_coefficient * value_norm
        ratio = ratio / (gradient_norm + decay * value_norm + self.epsilon)
        if self.variant == "solo":
            ratio = tf.minimum(ratio / rates.learning_rate, tf.ones_like(ratio))
        usable = tf.logical_and(value_norm > 0, gradient_norm > 0)
        return tf.where(usable, ratio * decayed, gradient)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "variant": self.variant,
            "momentum": self.momentum,
            "trust_coefficient": self.trust_coefficient,
            "epsilon": self.epsilon,
        }
