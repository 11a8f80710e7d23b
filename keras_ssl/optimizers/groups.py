"""Which variables have their own learning rate, decay, trust ratio or frozen start."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import keras


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Settings of the variables whose `path` matches a pattern.

    Groups are tried in order and the first that matches a variable decides alone.

    Args:
        pattern: str. Regular expression, searched (not matched from the start) in `variable.path`.
        learning_rate_scale: float. Factor on the learning rate, at least 0. Defaults to `1.0`.
        constant_learning_rate: bool. Keep the peak learning rate (times the scale) instead of the schedule, as
            SimSiam does for its predictor. Defaults to `False`.
        decay: bool. Whether weight decay acts, or None to ask the optimizer's `exclude` rule. Defaults to `None`.
        trust: bool. Whether the trust ratio of LARS or LAMB acts, or None to ask the `exclude` rule.
            Defaults to `None`.
        frozen_steps: int. The variable and its optimizer state stay untouched in the first `frozen_steps` steps.
            Defaults to `0`.
    """

    pattern: str
    learning_rate_scale: float = 1.0
    constant_learning_rate: bool = False
    decay: bool | None = None
    trust: bool | None = None
    frozen_steps: int = 0

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"Expected pattern to be a regular expression ({error}). "
                f"Received: pattern={self.pattern!r}"
            ) from error
        if self.learning_rate_scale < 0:
            raise ValueError(
                "Expected learning_rate_scale to be at least 0. "
                f"Received: learning_rate_scale={self.learning_rate_scale}"
            )
        if self.frozen_steps < 0:
            raise ValueError(
                "Expected frozen_steps to be at least 0. "
                f"Received: frozen_steps={self.frozen_steps}"
            )


@dataclasses.dataclass(frozen=True)
class VariableRule:
    """What `resolve_rules` decided for one variable."""

    learning_rate_scale: float
    constant_learning_rate: bool
    decay: bool
    trust: bool
    frozen_steps: int


def is_excluded(variable: keras.Variable, exclude: str) -> bool:
    """Returns whether decay and trust ratio skip a variable.

    Args:
        variable: Keras variable.
        exclude: str. `"1d"`: tensors with at most one axis; `"none"`: nothing; else a regular expression searched in
            `variable.path`.

    Returns:
        bool.
    """
    if exclude == "none":
        return False
    if exclude == "1d":
        return len(variable.shape) <= 1
    return re.search(exclude, variable_path(variable)) is not None


def variable_path(variable: keras.Variable) -> str:
    """Returns the path of a Keras variable, or the name of a plain TensorFlow one."""
    return getattr(variable, "path", None) or variable.name


def resolve_rules(
    variables: Sequence[keras.Variable], groups: Sequence[ParameterGroup], exclude: str
) -> list[VariableRule]:
    """Returns the rule of each variable.

    Args:
        variables: sequence of variables.
        groups: sequence of ParameterGroup. The first whose pattern is found in the path decides.
        exclude: str. See `is_excluded`.

    Returns:
        list of VariableRule, in the order of `variables`.

    Raises:
        ValueError: If a group matches no variable.
    """
    paths = [variable_path(variable) for variable in variables]
    for group in groups:
        if not any(re.search(group.pattern, path) for path in paths):
            raise ValueError(
                "Expected the pattern of each parameter group to be found in the path of a variable. "
                f"Received: pattern={group.pattern!r}, paths such as {paths[:5]}"
            )
    rules = []
    for variable, path in zip(variables, paths, strict=True):
        matches = (group for group in groups if re.search(group.pattern, path))
        group = next(matches, ParameterGroup(pattern=""))
        included = not is_excluded(variable, exclude)
        rules.append(
            VariableRule(
                learning_rate_scale=group.learning_rate_scale,
                constant_learning_rate=group.constant_learning_rate,
                decay=included if group.decay is None else group.decay,
                trust=included if group.trust is None else group.trust,
                frozen_steps=group.frozen_steps,
            )
        )
    return rules
