"""How every op here sees images: channel planes, in at least float32, and a choice of images."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601 as rounded by torchvision


def as_float(images: tf.Tensor, dtype: str | tf.DType | None = None) -> tf.Tensor:
    """Returns images as floats in [0, 1].

    Args:
        images: uint8 in [0, 255] or float in [0, 1], any shape.
        dtype: float type of the result. Defaults to float64 for float64 images, else float32.

    Returns:
        Tensor of the same shape, float32 or float64.
    """
    images = tf.convert_to_tensor(images)
    if dtype is None:
        dtype = tf.float64 if images.dtype == tf.float64 else tf.float32
    if images.dtype == tf.uint8:
        return tf.cast(images, dtype) * (1.0 / 255.0)
    if not images.dtype.is_floating:
        raise ValueError(
            f"Images must be uint8 in [0, 255] or float in [0, 1]. Received: dtype={images.dtype.name}"
        )
    return tf.cast(images, dtype)


def to_planes(images: tf.Tensor) -> tf.Tensor:
    """Returns `(batch, height, width, channels)` as `(batch, channels, height, width)`."""
    return tf.transpose(images, [0, 3, 1, 2])


def from_planes(planes: tf.Tensor) -> tf.Tensor:
    """Returns `(..., channels, height, width)` as `(..., height, width, channels)`."""
    axes = list(range(planes.shape.rank))
    return tf.transpose(planes, [*axes[:-3], axes[-2], axes[-1], axes[-3]])


def image_op(op: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Gives an op written for planes the library's calling convention.

    The wrapped op takes `(batch, height, width, channels)` images, uint8 or float, and returns floats in
    [0, 1], float64 for float64 input and float32 for all others. With `planes=True` it takes and returns
    `(batch, channels, height, width)` instead, which spares a chain of ops the two transpositions each.
    """

    @functools.wraps(op)
    def wrapped(
        images: tf.Tensor, *args: object, planes: bool = False, **settings: object
    ) -> tf.Tensor:
        images = tf.convert_to_tensor(images)
        if images.shape.rank != 4:
            raise ValueError(
                f"`{op.__name__}` expects images of rank 4. Received: shape={images.shape}"
            )
        if planes:
            return op(as_float(images), *args, **settings)
        return from_planes(op(as_float(to_planes(images)), *args, **settings))

    return wrapped


def on_chosen(
    op: Callable[..., tf.Tensor],
    planes: tf.Tensor,
    chosen: tf.Tensor,
    numbers: tuple[tf.Tensor, ...] = (),
    sparse: bool = False,
) -> tf.Tensor:
    """Applies an op to the chosen images of a batch and leaves the others as they are.

    Args:
        op: function of `(planes, *numbers)`.
        planes: `(batch, channels, height, width)`.
        chosen: bool `(batch,)`.
        numbers: tensors `(batch, ...)` that the op takes for each image.
        sparse: bool. True computes the chosen images only (dynamic shapes, for CPUs); False computes
            all and selects (static shapes, for XLA). Defaults to `False`.

    Returns:
        Tensor like `planes`.
    """
    chosen = tf.convert_to_tensor(chosen)
    if not sparse:
        return tf.where(chosen[:, None, None, None], op(planes, *numbers), planes)
    rows = tf.where(chosen)
    picked = [tf.gather(tensor, rows[:, 0]) for tensor in (planes, *numbers)]
    return tf.tensor_scatter_nd_update(planes, rows, op(*picked))
