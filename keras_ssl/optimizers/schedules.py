"""Numbers that follow the step: learning rates, weight decay, teacher momentum and temperature.

All are pure functions of the step, so a run that starts again at step k goes on exactly. They are computed in
float32, or in float64 when that is `keras.config.floatx()`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_ssl.optimizers.numeric import cast_number

Schedule = keras.optimizers.schedules.LearningRateSchedule


def _float(x: tf.Tensor | float) -> tf.Tensor:
    return cast_number(x, tf.float64 if keras.config.floatx() == "float64" else tf.float32)


def _progress(step: tf.Tensor | int, total: int) -> tf.Tensor:
    """Returns step / total, at most 1; 1 when there is no step at all."""
    return _float(1.0) if total <= 0 else tf.clip_by_value(_float(step) / _float(total), 0.0, 1.0)


def linear_ramp(step: tf.Tensor | int, total: int, start: float, end: float) -> tf.Tensor:
    """Returns start + (end - start) min(step / total, 1), such as DINO's teacher temperature.

    Args:
        step: int scalar. Updates done so far.
        total: int. Steps of the ramp; with 0 the result is `end`.
        start: float. Value at step 0.
        end: float. Value from step `total` on.

    Returns:
        float scalar.
    """
    progress = _progress(step, total)
    return _float(start) * (1.0 - progress) + _float(end) * progress


def cosine_ramp(step: tf.Tensor | int, total: int, start: float, end: float) -> tf.Tensor:
    """Returns end + (start - end) (1 + cos(pi step / total)) / 2, such as DINO's weight decay from 0.04 to 0.4.

    Args:
        step: int scalar. Updates done so far.
        total: int. Steps of the ramp; with 0 the result is `end`.
        start: float. Value at step 0.
        end: float. Value from step `total` on.

    Returns:
        float scalar.
    """
    wave = (1.0 + tf.cos(math.pi * _progress(step, total))) / 2.0
    return _float(end) + (_float(start) - _float(end)) * wave


def teacher_momentum(step: tf.Tensor | int, total: int, initial: float) -> tf.Tensor:
    """Returns the teacher's momentum, which rises from `initial` to 1 over the run.

    m(k) = 1 - (1 - m0) (cos(pi k / K) + 1) / 2, as in BYOL, MoCo v3 and DINO.

    Args:
        step: int scalar. k, updates done so far.
        total: int. K, steps of the run.
        initial: float in [0, 1]. m0.

    Returns:
        float scalar.
    """
    return cosine_ramp(step, total, initial, 1.0)


def scale_learning_rate(
    base: float, batch_size: int, rule: str = "linear", reference: int = 256
) -> float:
    """Returns the learning rate for a batch size.

    Args:
        base: float. Learning rate at the reference batch size.
        batch_size: int. Images in one step over all replicas.
        rule: str. `"linear"`: base batch_size / reference; `"sqrt"`: base sqrt(batch_size / reference), where SimCLR's
            0.075 sqrt(batch_size) has `reference=1`; `"none"`: base. Defaults to `"linear"`.
        reference: int. Defaults to `256`.

    Returns:
        float.

    Raises:
        ValueError: If the rule is unknown or a size is below 1.
    """
    if batch_size < 1 or reference < 1:
        raise ValueError(
            "Expected batch_size and reference to be at least 1. "
            f"Received: batch_size={batch_size}, reference={reference}"
        )
    factors = {
        "linear": batch_size / reference,
        "sqrt": math.sqrt(batch_size / reference),
        "none": 1.0,
    }
    if rule not in factors:
        raise ValueError(f"Expected rule to be one of {sorted(factors)}. Received: rule={rule!r}")
    return base * factors[rule]


@keras.saving.register_keras_serializable(package="keras_ssl")
class WarmupCosine(Schedule):
    """Linear warm-up for each step, then half a cosine that is counted after the warm-up.

    Args:
        peak: float. Value at the end of the warm-up.
        total_steps: int. Steps of the run, warm-up included; afterwards the value stays at `end`.
        warmup_steps: int in [0, total_steps]. Defaults to `0`.
        end: float. Value at `total_steps`. Defaults to `0.0`.
        start: float. Value at step 0 of a warm-up. Defaults to `0.0`.
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        warmup_steps: int = 0,
        end: float = 0.0,
        start: float = 0.0,
    ):
        super().__init__()
        if not 0 <= warmup_steps <= total_steps or total_steps < 1:
            raise ValueError(
                "Expected 0 <= warmup_steps <= total_steps and total_steps of at least 1. "
                f"Received: warmup_steps={warmup_steps}, total_steps={total_steps}"
            )
        self.peak, self.total_steps, self.warmup_steps = peak, total_steps, warmup_steps
        self.end, self.start = end, start

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        step = tf.convert_to_tensor(step)
        after = step - tf.cast(self.warmup_steps, step.dtype)
        cosine = cosine_ramp(after, self.total_steps - self.warmup_steps, self.peak, self.end)
        warmup = linear_ramp(step, self.warmup_steps, self.start, self.peak)
        return tf.where(after < 0, warmup, cosine)

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "end": self.end,
            "start": self.start,
        }


@keras.saving.register_keras_serializable(package="keras_ssl")
class StepDecay(Schedule):
    """A rate that is multiplied by a factor at each boundary.

    Args:
        peak: float. Value before the first boundary.
        boundaries: sequence of int, increasing. From step `boundaries[i]` on the factor has acted i + 1 times.
        factor: float above 0. Defaults to `0.1`.
    """

    def __init__(self, peak: float, boundaries: Sequence[int], factor: float = 0.1):
        super().__init__()
        boundaries = list(boundaries)
        if boundaries != sorted(set(boundaries)):
            raise ValueError(f"Expected boundaries to increase. Received: boundaries={boundaries}")
        if factor <= 0:
            raise ValueError(f"Expected factor above 0. Received: factor={factor}")
        self.peak, self.boundaries, self.factor = peak, boundaries, factor

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        step = tf.convert_to_tensor(step)
        boundaries = tf.constant(self.boundaries, step.dtype)
        passed = tf.math.count_nonzero(step >= boundaries, dtype=tf.int32)
        return _float(self.peak) * tf.pow(_float(self.factor), _float(passed))

    def get_config(self) -> dict:
        return {"peak": self.peak, "boundaries": list(self.boundaries), "factor": self.factor}


@keras.saving.register_keras_serializable(package="keras_ssl")
class Constant(Schedule):
    """The same value at every step.

    Args:
        peak: float.
    """

    def __init__(self, peak: float):
        super().__init__()
        self.peak = peak

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        return _float(self.peak)

    def get_config(self) -> dict:
        return {"peak": self.peak}


@keras.saving.register_keras_serializable(package="keras_ssl")
class CosineRamp(Schedule):
    """`cosine_ramp` as an object that can be saved: DINO's weight decay is `CosineRamp(0.04, 0.4, total_steps)`.

    Args:
        start: float. Value at step 0.
        end: float. Value from `total_steps` on.
        total_steps: int.
    """

    def __init__(self, start: float, end: float, total_steps: int):
        super().__init__()
        self.start, self.end, self.total_steps = start, end, total_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        return cosine_ramp(step, self.total_steps, self.start, self.end)

    def get_config(self) -> dict:
        return {"start": self.start, "end": self.end, "total_steps": self.total_steps}
