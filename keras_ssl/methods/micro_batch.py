"""The views of a batch in micro-batches, and which models can be trained on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import keras
import tensorflow as tf

from keras_ssl.layers import BatchNormalization

Tensors = dict[str, tf.Tensor]


class PiecewiseViews(Mapping):
    """The views of a batch, made for one micro-batch at a time.

    Read as a dict it makes the views of the whole batch: a loss that reads views gets them all, and one that does not
    costs nothing.

    Args:
        tensors: dict of what the views are made from, `(batch, ...)`; those in `view_major` `(views, batch, ...)`.
        make: callable. From such a dict, of any number of images, to the views.
        size: int. Images in a micro-batch; divides the batch.
        view_major: names of tensors. Defaults to none.

    Raises:
        ValueError: If `size` does not divide the batch.
    """

    def __init__(
        self,
        tensors: Tensors,
        make: Callable[[Tensors], Mapping[str, tf.Tensor]],
        size: int,
        view_major: tuple[str, ...] = (),
    ):
        self._tensors, self._make, self.size = tensors, make, size
        self._axes = {name: int(name in view_major) for name in tensors}
        name, tensor = next(iter(tensors.items()))
        self.batch: int | None = tensor.shape[self._axes[name]]
        self.count: int | tf.Tensor
        if self.batch is None:
            rows = tf.shape(tensor)[self._axes[name]]
            message = f"Expected micro_batch={size} to divide the images of a batch."
            with tf.control_dependencies([tf.debugging.assert_equal(rows % size, 0, message)]):
                self.count = rows // size
        else:
            check_divides(size, self.batch)
            self.count = self.batch // size

    def piece(self, index: tf.Tensor) -> Mapping[str, tf.Tensor]:
        """Returns the views of micro-batch `index`, int32 scalar."""
        return self._make(
            {name: self.cut(x, index, self._axes[name]) for name, x in self._tensors.items()}
        )

    def cut(self, x: tf.Tensor, index: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """Returns the rows of micro-batch `index` of a tensor with the whole batch on this axis, 0 or 1."""
        lead, tail = x.shape[:axis].as_list(), x.shape[axis + 1 :].as_list()
        pieces = tf.reshape(x, [*lead, -1, self.size, *tail])
        return pieces[:, index] if axis else pieces[index]

    def join(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `(batch, ...)` from the stacked rows of all micro-batches, `(count, size, ...)`."""
        return tf.reshape(x, [-1 if self.batch is None else self.batch, *x.shape[2:]])

    @functools.cached_property
    def _whole(self) -> Mapping[str, tf.Tensor]:
        return self._make(self._tensors)

    def __getitem__(self, name: str) -> tf.Tensor:
        return self._whole[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)


def comes_in_pieces(views: Mapping[str, tf.Tensor]) -> bool:
    """Returns whether these are views of more than one micro-batch."""
    single = isinstance(views, PiecewiseViews) and isinstance(views.count, int) and views.count == 1
    return isinstance(views, PiecewiseViews) and not single


def check_divides(size: int, batch: int) -> None:
    """Checks that micro-batches fill a replica's batch.

    Raises:
        ValueError: If they do not.
    """
    if batch % size:
        raise ValueError(
            f"Expected micro_batch to divide the {batch} images that a replica has in a step. "
            f"Received: micro_batch={size}"
        )


def check_model(model: keras.Model, size: int) -> None:
    """Checks that a model gives the same in pieces, and in both passes over them.

    Raises:
        ValueError: If the size is wrong, batch-norm is synchronized over several replicas, or the backbone brings
            layers with a state or random numbers of their own.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(
            f"Expected micro_batch to be an int above 0. Received: micro_batch={size!r}"
        )
    layers = list(model._flatten_layers())
    foreign = any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    if foreign or not getattr(model.backbone, "replica_exact", True):
        raise ValueError(
            "Expected no micro_batch with a backbone that brings its own dropout or batch-norm, which would differ "
            f"between the two passes over a micro-batch. Received: micro_batch={size}"
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    joint = any(isinstance(x, BatchNormalization) and x.synchronized for x in layers)
    if replicas > 1 and joint:
        raise ValueError(
            f"Expected no micro_batch with batch-norm that is synchronized over {replicas} replicas: its statistics "
            f"are those of the global batch, and micro-batches have their own. Received: micro_batch={size}"
        )
