"""Products with banded matrices on a CPU: sixteen rows of the result read one short window of rows.

A row of a resized or blurred picture depends on few rows of the original. A dense product spends nearly
all of its time on zeros then; here each block of rows is one small dense product with the window that it
reads. The weights are those of the dense form, so both give the same pictures to rounding.
"""

from __future__ import annotations

import tensorflow as tf

BLOCK = (
    16  # rows of the result that share a window; 16 was quickest at 224 pixels, 32 and 56 slower
)
_GAIN = (
    3  # how many times shorter than the line a window must be; below that the dense form is quicker
)


def pays(window: int, length: int) -> bool:
    """Whether windows of `window` rows beat the dense product with lines of `length` pixels."""
    return _GAIN * window <= length


def block_count(size: int) -> int:
    """Returns the number of blocks that hold `size` rows; the last may be longer than needed."""
    return -(-size // BLOCK)


def product(rows: tf.Tensor, weights: tf.Tensor, first: tf.Tensor, size: int) -> tf.Tensor:
    """Returns `size` rows for each line of windows, weighted sums of the rows of a picture.

    Args:
        rows: float `(batch, length, width)`.
        weights: float `(n, blocks or 1, BLOCK, window)`, with n = views * batch.
        first: int32 `(n, blocks)`. The first row that a block reads. Rows outside the picture are taken
            as its rim; where they should not count their weights are zero.
        size: int. Rows of the result, at most `BLOCK` for each block.

    Returns:
        `(n, size, width)`; row `v * batch + i` is made from picture i.
    """
    _, length, width = rows.shape
    batch, count, window = tf.shape(rows)[0], tf.shape(first)[0], tf.shape(weights)[-1]
    picture = tf.range(count) % batch
    place = tf.clip_by_value(first[..., None] + tf.range(window), 0, length - 1)
    place += picture[:, None, None] * length
    windows = tf.gather(tf.reshape(rows, [-1, width]), place)  # (n, blocks, window, width)
    made = tf.matmul(weights, windows)  # (n, blocks, BLOCK, width)
    return tf.reshape(made, [-1, first.shape[1] * BLOCK, width])[:, :size]
