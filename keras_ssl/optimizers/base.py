"""The optimizer base class: parameter groups, decay inside the update, and steps that can be refused."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.optimizers.groups import ParameterGroup, VariableRule, resolve_rules
from keras_ssl.optimizers.numeric import cast_number, widen

Schedule = keras.optimizers.schedules.LearningRateSchedule


@dataclasses.dataclass(frozen=True)
class Rates:
    """The numbers of one step for one variable.

    Attributes:
        learning_rate: float scalar tensor, at least float32; the group's scale is applied.
        decay: float scalar tensor, or None where weight decay does not act.
        trust: bool. Whether the trust ratio acts.
    """

    learning_rate: tf.Tensor
    decay: tf.Tensor | None
    trust: bool


class SSLOptimizer(keras.optimizers.Optimizer):
    """Base class of the optimizers: a subclass writes `slot_names` and the pure function `compute`.

    Keras's own `weight_decay` stays None: it decays every variable before the update, also frozen ones and in steps
    that are refused, and is always decoupled. Keras's clipping is not offered either, because it acts on each
    replica's gradient before the sum; clip in the training step.

    All arithmetic is done in at least float32.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        weight_decay: float, or a callable of the step (int64 scalar) that returns a scalar. At least 0. A
            `LearningRateSchedule` is such a callable and can be saved. Defaults to `0.0`.
        exclude: str. Which variables get neither decay nor trust ratio: `"1d"` (biases, normalization parameters:
            at most one axis), `"none"`, or a regular expression searched in `variable.path`. Defaults to `"1d"`.
        name: str. Defaults to the class name.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: float | Schedule,
        *,
        weight_decay: float | Callable[[tf.Tensor], tf.Tensor] = 0.0,
        exclude: str = "1d",
        name: str | None = None,
    ):
        if not isinstance(learning_rate, Schedule):
            if callable(learning_rate) or learning_rate < 0:
                raise ValueError(
                    "Expected learning_rate to be a float of at least 0 or a LearningRateSchedule. "
                    f"Received: learning_rate={learning_rate}"
                )
            learning_rate = float(learning_rate)
        if not callable(weight_decay) and weight_decay < 0:
            raise ValueError(
                f"Expected weight_decay to be at least 0. Received: weight_decay={weight_decay}"
            )
        try:
            re.compile(exclude)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Expected exclude to be '1d', 'none' or a regular expression ({error}). "
                f"Received: exclude={exclude!r}"
            ) from error
        super().__init__(learning_rate=learning_rate, name=name)
        self.decay, self.exclude = weight_decay, exclude
        self.parameter_groups: tuple[ParameterGroup, ...] = ()
        self.peak_learning_rate = (
            getattr(learning_rate, "peak", None)
            if isinstance(learning_rate, Schedule)
            else learning_rate
        )

    # What a subclass writes --------------------------------------------------------------------------------

    def compute(
        self, value: tf.Tensor, gradient: tf.Tensor, slots: list[tf.Tensor], rates: Rates
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the new value and the new slots of one variable; assigns nothing.

        Args:
            value: the variable, at least float32.
            gradient: same shape and dtype.
            slots: tensors in the order of `create_slots`.
            rates: Rates.

        Returns:
            The new value and the list of new slots.
        """
        raise TypeError(f"{type(self).__name__} does not define compute().")

    def create_slots(self, variable: keras.Variable) -> list[keras.Variable]:
        """Returns new optimizer state for one variable: zeros of its shape for each of `slot_names`."""
        return [self.add_variable_from_reference(variable, name=name) for name in self.slot_names]

    # Setting up ----------------------------------------------------------------------------------------------

    def set_parameter_groups(self, groups: Sequence[ParameterGroup]) -> None:
        """Sets the groups of variables with settings of their own; before `build`.

        Args:
            groups: sequence of ParameterGroup. The first whose pattern is found in a variable's path decides.

        Raises:
            ValueError: If the optimizer is already built with other groups, or a group asks for a constant learning
                rate and the schedule has no attribute `peak`.
        """
        groups = tuple(groups)
        if self.built and groups != tuple(self.parameter_groups):
            raise ValueError(
                "Expected set_parameter_groups() before the optimizer is built. "
                f"Received: groups={groups}, built with {tuple(self.parameter_groups)}"
            )
        if self.peak_learning_rate is None and any(g.constant_learning_rate for g in groups):
            raise ValueError(
                "Expected a schedule with an attribute `peak` for a group with constant_learning_rate=True. "
                f"Received: learning_rate={self._learning_rate}"
            )
        self.parameter_groups = groups

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        variables = list(variables)
        self._rules = tuple(resolve_rules(variables, self.parameter_groups, self.exclude))
        super().build(variables)
        self._slots = [self.create_slots(variable) for variable in variables]

    def reset_slots(self, variables: Sequence[keras.Variable]) -> None:
        """Sets the optimizer state of some variables back to zero, for a head that is drawn afresh."""
        for variable in variables:
            for slot in self._slots[self._get_variable_index(variable)]:
                slot.assign(tf.zeros(slot.shape, slot.dtype))

    # Stepping ------------------------------------------------------------------------------------------------

    def apply(
        self,
        grads: Sequence[tf.Tensor | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Takes one step; the gradients are summed over the replicas first, as everywhere in Keras.

        Args:
            grads: sequence of gradients. A None leaves its variable and state alone.
            trainable_variables: sequence of variables. Defaults to those of `build`.
        """
        self.apply_if(True, grads, trainable_variables)

    def apply_if(
        self,
        finite: bool | tf.Tensor,
        gradients: Sequence[tf.Tensor | None],
        variables: Sequence[keras.Variable] | None = None,
        *,
        reduced: bool = False,
    ) -> None:
        """Takes one step if `finite` is True; else only counts it: variables and their state keep their bits.

        Args:
            finite: bool scalar, the same on every replica.
            gradients: sequence of gradients. A None leaves its variable and state alone.
            variables: sequence of variables. Defaults to those of `build`.
            reduced: bool. The gradients are already summed over the replicas. Defaults to `False`.

        Raises:
            ValueError: If there is no gradient at all, or a variable is unknown.
        """
        if not self.built:
            self.build(variables)
        variables = self._trainable_variables if variables is None else list(variables)
        self._check_variables_are_known(variables)
        pairs = [
            (tf.convert_to_tensor(gradient), getattr(variable, "value", variable))
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        if not pairs:
            raise ValueError("Expected a gradient for at least one variable. Received: only None")
        if not reduced:
            sums = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, [gradient for gradient, _ in pairs]
            )
            pairs = [(total, variable) for total, (_, variable) in zip(sums, pairs, strict=True)]
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._update_all, self._distribution_strategy, pairs, self._scalars(finite)
        )
        self._iterations.assign_add(1)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable, as Keras's own optimizers do; the gradient is already summed over the replicas."""
        self._update_variable(
            variable, gradient, {**self._scalars(True), "learning_rate": learning_rate}
        )

    def _scalars(self, finite: bool | tf.Tensor) -> dict[str, Any]:
        """What the whole step shares, computed once for all variables."""
        step = tf.convert_to_tensor(self._iterations)
        decay = self.decay(step) if callable(self.decay) else self.decay
        return {
            "learning_rate": tf.convert_to_tensor(self.learning_rate),
            "decay": decay,
            "step": step,
            "finite": finite,
        }

    def _update_all(
        self,
        strategy: tf.distribute.Strategy,
        pairs: list[tuple[tf.Tensor, tf.Variable]],
        scalars: dict[str, Any],
    ) -> None:
        for gradient, variable in pairs:
            strategy.extended.update(
                variable, self._update_variable, args=(gradient, scalars), group=False
            )

    def _update_variable(
        self, variable: tf.Variable, gradient: tf.Tensor, scalars: dict[str, Any]
    ) -> None:
        # Under a strategy `variable` is one replica's component, so it is known by its index only.
        index = self._get_variable_index(variable)
        rule, slots = self._rules[index], self._slots[index]
        value = widen(tf.convert_to_tensor(variable))
        old = [value, *(widen(tf.convert_to_tensor(slot)) for slot in slots)]
        rates = self._rates(rule, scalars, value.dtype)
        new_value, new_slots = self.compute(value, tf.cast(gradient, value.dtype), old[1:], rates)
        new = [new_value, *new_slots]
        allowed = scalars["finite"]
        if rule.frozen_steps:
            allowed = tf.logical_and(allowed, scalars["step"] >= rule.frozen_steps)
        if allowed is not True:
            new = [tf.where(allowed, after, before) for after, before in zip(new, old, strict=True)]
        for target, after in zip([variable, *slots], new, strict=True):
            self.assign(target, after)

    def _rates(self, rule: VariableRule, scalars: dict[str, Any], dtype: tf.DType) -> Rates:
        rate = self.peak_learning_rate if rule.constant_learning_rate else scalars["learning_rate"]
        decays = rule.decay and (callable(self.decay) or self.decay > 0)
        return Rates(
            learning_rate=cast_number(rate, dtype) * rule.learning_rate_scale,
            decay=cast_number(scalars["decay"], dtype) if decays else None,
            trust=rule.trust,
        )

    # Saving --------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        base = super().get_config()
        decay = self.decay
        return {
            "name": base["name"],
            "learning_rate": base["learning_rate"],
            "weight_decay": keras.saving.serialize_keras_object(decay)
            if callable(decay)
            else float(decay),
            "exclude": self.exclude,
            "parameter_groups": [dataclasses.asdict(group) for group in self.parameter_groups],
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> SSLOptimizer:
        config = dict(config)
        groups = config.pop("parameter_groups", ())
        for key in ("learning_rate", "weight_decay"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        optimizer = cls(**config)
        optimizer.set_parameter_groups([ParameterGroup(**group) for group in groups])
        return optimizer
