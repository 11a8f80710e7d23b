"""Collectives inside a training step; each is the identity on one replica.

`gather` writes the replica's block into zeros and sums over the replicas, as SimCLR's TensorFlow code does: unlike
`all_gather` that path needs no merge call, so it can be compiled, and its gradient is right on every replica.
Call these unconditionally and with the same shapes on all replicas; a collective inside `tf.cond`, a loop or a nested
`tf.function` fails or hangs.
"""

from __future__ import annotations

import tensorflow as tf


def _replica_context() -> tf.distribute.ReplicaContext | None:
    """Returns the context of a step that runs on several replicas, else None."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context


def num_replicas() -> int:
    """Returns how many replicas run the current step."""
    context = _replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_id() -> tf.Tensor:
    """Returns the number of this replica, an int32 scalar. For positions of rows only, never for randomness."""
    context = _replica_context()
    if context is None:
        return tf.constant(0, tf.int32)
    return tf.cast(context.replica_id_in_sync_group, tf.int32)


def global_sum(x: tf.Tensor) -> tf.Tensor:
    """Returns the sum of `x` over the replicas, same shape and dtype. Differentiable."""
    context = _replica_context()
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def global_mean(x: tf.Tensor) -> tf.Tensor:
    """Returns the mean of `x` over the replicas, same shape and dtype. Differentiable."""
    count = num_replicas()
    return x if count == 1 else global_sum(x) / tf.cast(count, x.dtype)


def gather(x: tf.Tensor) -> tf.Tensor:
    """Returns the blocks of all replicas one after the other. Differentiable.

    Args:
        x: `(batch, ...)`. This replica's block; all blocks have the same static batch.

    Returns:
        `(replicas * batch, ...)`, replica 0 first: the order of the global batch.
    """
    context = _replica_context()
    if context is None:
        return x
    count = context.num_replicas_in_sync
    blocks = tf.scatter_nd(replica_id()[None, None], x[None], tf.concat([[count], tf.shape(x)], 0))
    return tf.reshape(global_sum(blocks), tf.concat([[-1], tf.shape(x)[1:]], 0))


def global_max(x: tf.Tensor) -> tf.Tensor:
    """Returns the elementwise maximum of `x` over the replicas, same shape and dtype."""
    return x if _replica_context() is None else tf.reduce_max(gather(x[None]), axis=0)
