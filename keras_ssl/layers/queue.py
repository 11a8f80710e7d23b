"""First-in first-out memory of past embeddings."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_ssl")
class Queue(keras.layers.Layer):
    """Keeps the latest `size` rows, the newest block first.

    All replicas hold the same rows: enqueue gathered, stop-gradient rows, after the loss that reads the queue.

    Args:
        size: int. Rows kept.
        dim: int. Length of a row.

    Weights, not trained: `rows` `(size, dim)`, zeros at the start, and `filled`, int64.
    """

    def __init__(self, size: int, dim: int, **kwargs):
        for name, number in (("size", size), ("dim", dim)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(
                    f"Expected {name} to be an int of at least 1. Received: {name}={number}"
                )
        super().__init__(autocast=False, **kwargs)
        self.size, self.dim = size, dim
        self._rows = self.add_weight(
            shape=(size, dim), initializer="zeros", trainable=False, name="rows"
        )
        self._filled = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="filled"
        )
        self.built = True

    @property
    def rows(self) -> tf.Tensor:
        """All rows, newest block first, `(size, dim)`; those from `filled` on are zeros that were never written."""
        return tf.convert_to_tensor(self._rows)

    @property
    def filled(self) -> tf.Tensor:
        """Number of rows written so far, at most `size`; int64 scalar."""
        return tf.convert_to_tensor(self._filled)

    @property
    def full(self) -> tf.Tensor:
        """Whether every row is written, bool scalar."""
        return self.filled >= self.size

    def enqueue(self, rows: tf.Tensor, when: bool | tf.Tensor = True) -> None:
        """Puts a block of rows in front and drops the oldest.

        Args:
            rows: `(count, dim)`. The same on every replica; of more than `size` rows the first `size` are kept.
            when: bool or bool scalar tensor, the same on every replica. With False nothing changes. Defaults to `True`.

        Raises:
            ValueError: If the rows do not fit.
        """
        rows = tf.stop_gradient(tf.cast(rows, self._rows.dtype))
        if rows.shape.rank != 2 or rows.shape[1] != self.dim:
            raise ValueError(
                f"Expected rows (count, {self.dim}). Received: rows of shape {tuple(rows.shape)}"
            )
        count = tf.shape(rows, tf.int64)[0]
        moved = tf.concat([rows, self.rows], axis=0)[: self.size]
        filled = tf.minimum(self.filled + count, tf.constant(self.size, tf.int64))
        self._rows.assign(tf.where(when, moved, self.rows))
        self._filled.assign(tf.where(when, filled, self.filled))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "dim": self.dim}
