"""Teachers: exact copies that no optimizer touches and that follow their student as a running average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.losses.numeric import promote


def clone_frozen(layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
    """Returns an exact copy of a built layer or model whose variables are not trainable.

    Only the variables are frozen. With `layer.trainable = False` Keras would also put batch-norm in inference mode,
    while the teachers of BYOL and DINO normalize with the statistics of their batch.

    Args:
        layer: Layer or model with all its weights, and a full `get_config`.
        **changes: Entries of the configuration that differ, such as `drop_path=0.0`.

    Returns:
        A layer of the same class with weights of its own, equal to those of `layer`.

    Raises:
        ValueError: If the layer is not built, an entry is unknown or the copy has other weights.
    """
    if not layer.built:
        raise ValueError(
            f"Expected a layer that is built. Received: {type(layer).__name__} {layer.name!r}"
        )
    config = layer.get_config()
    unknown = sorted(set(changes) - set(config))
    if unknown:
        raise ValueError(
            f"Expected changes of entries in the configuration of {type(layer).__name__}. "
            f"Received: {unknown}"
        )
    copy = type(layer).from_config({**config, **changes})
    if not copy.built:
        copy.build_from_config(layer.get_build_config())
    copy_weights(copy, layer)
    for variable in copy.trainable_variables:
        variable.trainable = False
    return copy


def copy_weights(teacher: keras.layers.Layer, student: keras.layers.Layer) -> None:
    """Makes all weights of the teacher equal to the student's, batch statistics included."""
    for target, source in _pairs(teacher, student):
        target.assign(source)


def ema_pairs(
    teacher: keras.layers.Layer, student: keras.layers.Layer, *, average_statistics: bool = False
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns the (teacher, student) variables that are averaged, in the student's order.

    Args:
        teacher: Layer from `clone_frozen`.
        student: Layer it was cloned from.
        average_statistics: bool. Also average what the student does not train, such as batch statistics; else the
            teacher keeps its own. Defaults to `False`.

    Returns:
        list of pairs of Keras variables.
    """
    trained = {id(variable) for variable in student.trainable_variables}
    return [
        (target, source)
        for target, source in _pairs(teacher, student)
        if id(source) in trained or (average_statistics and "float" in str(source.dtype))
    ]


def update_ema(
    teacher: keras.layers.Layer,
    student: keras.layers.Layer,
    momentum: float | tf.Tensor,
    *,
    average_statistics: bool = False,
) -> None:
    """Moves the teacher towards the student: teacher <- m teacher + (1 - m) student, in at least float32.

    Args:
        teacher: Layer from `clone_frozen`.
        student: Layer it was cloned from.
        momentum: float or scalar tensor in [0, 1]. m: 1 keeps the teacher, 0 copies the student, both exactly.
        average_statistics: bool. See `ema_pairs`. Defaults to `False`.
    """
    for target, source in ema_pairs(teacher, student, average_statistics=average_statistics):
        old, new = promote(target), promote(source)
        m = momentum if isinstance(momentum, int | float) else tf.cast(momentum, old.dtype)
        target.assign(tf.cast(m * old + (1 - m) * new, target.dtype))


def _pairs(
    teacher: keras.layers.Layer, student: keras.layers.Layer
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns all weights of two networks of one architecture, side by side."""
    targets, sources = teacher.weights, student.weights
    shapes: Sequence[list[tuple[int, ...]]] = [
        [tuple(variable.shape) for variable in variables] for variables in (targets, sources)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Expected teacher and student of the same architecture. "
            f"Received: {len(targets)} and {len(sources)} weights, {teacher.name!r} and {student.name!r}"
        )
    return list(zip(targets, sources, strict=True))
