"""Sinkhorn-Knopp: codes that use all prototypes equally, over the global batch."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.distribution import gather
from keras_ssl.losses.numeric import over_temperature


def sinkhorn_codes(
    scores: tf.Tensor,
    epsilon: float = 0.05,
    iterations: int = 3,
    *,
    extra: tf.Tensor | None = None,
    use_extra: bool | tf.Tensor = True,
) -> tf.Tensor:
    """Returns SwAV's codes: exp(scores / epsilon) scaled so that samples and prototypes share the mass evenly.

    Each iteration first gives every prototype the same total over the global batch (and the extra rows), then every
    sample the total 1. It ends on the samples: each code sums to 1 exactly, prototypes are balanced approximately.
    All is done on logarithms, which is the same algebra and cannot overflow. No gradient flows.

    On several replicas only one number per prototype and replica is exchanged in each iteration; the codes equal those
    of one device with the global batch.

    Args:
        scores: `(batch, num_prototypes)`. Cosines of this replica's samples with the prototypes.
        epsilon: float above 0. The smaller, the harder the codes. Defaults to `0.05`.
        iterations: int of at least 1. Defaults to `3`.
        extra: `(rows, num_prototypes)`. Scores of a queue that takes part but gets no codes; the same on every
            replica. Defaults to `None`.
        use_extra: bool or bool scalar tensor. Whether the extra rows take part, such as `queue.full`. Defaults to
            `True`.

    Returns:
        `(batch, num_prototypes)`, at least float32; rows sum to 1.

    Raises:
        ValueError: If epsilon or iterations are out of range or shapes disagree.

    Reference: Caron et al., 2020, https://arxiv.org/abs/2006.09882, equations 3 to 5 and appendix A.1.
    Reference code: facebookresearch/swav `main_swav.py`, `distributed_sinkhorn`.
    """
    if iterations < 1:
        raise ValueError(f"Expected iterations of at least 1. Received: iterations={iterations}")
    logs = tf.stop_gradient(over_temperature(scores, epsilon, "epsilon"))
    extra_logs = None
    if extra is not None:
        extra_logs = tf.cast(
            tf.stop_gradient(over_temperature(extra, epsilon, "epsilon")), logs.dtype
        )
    if logs.shape.rank != 2 or (extra is not None and extra.shape[1] != logs.shape[1]):
        raise ValueError(
            "Expected scores (batch, num_prototypes) and extra (rows, num_prototypes). "
            f"Received: scores {tuple(logs.shape)}, extra {None if extra is None else tuple(extra.shape)}"
        )
    for _ in range(iterations):
        mass = _log_mass(logs, extra_logs, use_extra)  # (1, num_prototypes)
        logs = tf.nn.log_softmax(logs - mass)
        if extra_logs is not None:
            extra_logs = tf.nn.log_softmax(extra_logs - mass)
    return tf.exp(logs)


def _log_mass(
    logs: tf.Tensor, extra_logs: tf.Tensor | None, use_extra: bool | tf.Tensor
) -> tf.Tensor:
    """Returns the logarithm of each prototype's total over all replicas and the extra rows."""
    own = tf.reduce_logsumexp(logs, axis=0, keepdims=True)
    mass = tf.reduce_logsumexp(gather(own), axis=0, keepdims=True)
    if extra_logs is None:
        return mass
    both = tf.stack([mass, tf.reduce_logsumexp(extra_logs, axis=0, keepdims=True)])
    return tf.where(use_extra, tf.reduce_logsumexp(both, axis=0), mass)
