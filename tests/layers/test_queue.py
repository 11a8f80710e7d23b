"""The queue against a Python list."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import Queue


def block(first, count):
    """Rows first, first + 1, ... in both columns."""
    return np.repeat(np.arange(first, first + count, dtype="float32")[:, None], 2, axis=1)


def test_newest_block_first_and_oldest_dropped():
    queue, expected = Queue(5, 2), []
    for step in range(4):
        queue.enqueue(block(10 * step + 1, 2))
        expected = ([10 * step + 1, 10 * step + 2] + expected)[:5]
        rows = queue.rows.numpy()
        np.testing.assert_array_equal(rows[: len(expected), 0], expected)
        np.testing.assert_array_equal(rows[len(expected) :], 0.0)
        assert int(queue.filled) == len(expected)
        assert bool(queue.full) is (len(expected) == 5)


def test_a_block_longer_than_the_queue():
    queue = Queue(3, 2)
    queue.enqueue(block(1, 5))
    np.testing.assert_array_equal(queue.rows[:, 0], [1, 2, 3])
    assert int(queue.filled) == 3


def test_enqueue_when():
    queue = Queue(4, 2)

    @tf.function
    def step(when):
        queue.enqueue(block(1, 2), when=when)

    step(tf.constant(False))
    assert int(queue.filled) == 0
    np.testing.assert_array_equal(queue.rows, 0.0)
    step(tf.constant(True))
    assert int(queue.filled) == 2


def test_state_is_not_trained_and_is_saved(tmp_path):
    queue = Queue(4, 2)
    assert queue.trainable_weights == []
    queue.enqueue(block(1, 3))
    checkpoint = tf.train.Checkpoint(queue=queue).save(str(tmp_path / "c"))
    copy = Queue.from_config(queue.get_config())
    tf.train.Checkpoint(queue=copy).restore(checkpoint).assert_consumed()
    np.testing.assert_array_equal(copy.rows, queue.rows)
    assert int(copy.filled) == 3


def test_no_gradient_through_the_queue():
    queue, rows = Queue(4, 2), tf.constant(block(1, 2))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        queue.enqueue(rows)
        value = tf.reduce_sum(queue.rows)
    assert tape.gradient(value, rows) is None


def test_rows_are_kept_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        queue = Queue(2, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    queue.enqueue(tf.constant([[1.001, 1.0]]))
    assert queue.rows.dtype == tf.float32
    assert abs(float(queue.rows[0, 0]) - 1.001) < 1e-6


def test_errors():
    with pytest.raises(ValueError, match="size=0"):
        Queue(0, 2)
    with pytest.raises(ValueError, match="rows of shape \\(2, 3\\)"):
        Queue(4, 2).enqueue(np.zeros((2, 3), "float32"))
