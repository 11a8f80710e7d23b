"""Contrastive losses: the sibling view is told from the views of other images."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.losses.numeric import (
    check_rank,
    check_same_shape,
    l2_normalize,
    over_temperature,
    promote,
)


def nt_xent_loss(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    *,
    temperature: float = 0.1,
    all_z_a: tf.Tensor | None = None,
    all_z_b: tf.Tensor | None = None,
    offset: int | tf.Tensor = 0,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Returns NT-Xent, SimCLR's loss, as the paper's mean over all views.

    Each view is an anchor: its candidates are all other views of the global batch, the positive among them is the
    other view of the same image. Similarity is the cosine over the temperature. Nothing is stop-gradiented.

    On several replicas the anchors are the local rows and the candidates are gathered: pass `all_z_a`, `all_z_b` and
    the `offset` of the local rows in them. The mean of the replicas' losses is then the loss of the global batch.

    Args:
        z_a: `(batch, dim)`. Projections of the first views; any length.
        z_b: `(batch, dim)`. Projections of the second views, in the same order.
        temperature: float above 0. Defaults to `0.1`.
        all_z_a: `(global_batch, dim)`. First views of all replicas. Defaults to `z_a`.
        all_z_b: `(global_batch, dim)`. Second views of all replicas. Defaults to `z_b`.
        offset: int or int32 scalar. Row of `all_z_a` that holds `z_a[0]`. Defaults to `0`.

    Returns:
        The loss, scalar, at least float32, mean over the 2 x batch anchors; and a dict of scalars without gradient:
        `contrast_accuracy`, the share of first views whose nearest among all second views is their own, and
        `contrast_entropy`, the entropy of that softmax in nats.

    Raises:
        ValueError: If there are fewer than two images in the candidates, shapes disagree or only one of `all_z_a`,
            `all_z_b` is given.

    Reference: Chen et al., 2020, https://arxiv.org/abs/2002.05709, equation 1.
    Differs from the reference code: google-research/simclr `tf2/objective.py` returns twice this value.
    """
    if (all_z_a is None) != (all_z_b is None):
        raise ValueError("Expected both all_z_a and all_z_b, or neither. Received: one of them")
    z_a, z_b = l2_normalize(z_a), l2_normalize(z_b)
    all_a = z_a if all_z_a is None else l2_normalize(all_z_a)
    all_b = z_b if all_z_b is None else l2_normalize(all_z_b)
    check_rank(2, z_a=z_a, all_z_a=all_a)
    check_same_shape(z_a=z_a, z_b=z_b)
    check_same_shape(all_z_a=all_a, all_z_b=all_b)
    if all_a.shape[0] is not None and all_a.shape[0] < 2:
        raise ValueError(
            "Expected at least two images: with one there is nothing to tell it from. "
            f"Received: z_a of shape {tuple(all_a.shape)}"
        )
    own = offset + tf.range(tf.shape(z_a)[0])
    is_self = tf.one_hot(own, tf.shape(all_a)[0], on_value=True, off_value=False, dtype=tf.bool)

    def similarity(anchors: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:  # (batch, global_batch)
        return over_temperature(tf.matmul(anchors, candidates, transpose_b=True), temperature)

    towards_b, towards_a = similarity(z_a, all_b), similarity(z_b, all_a)
    among_a, among_b = (
        _mask(similarity(z_a, all_a), is_self),
        _mask(similarity(z_b, all_b), is_self),
    )
    loss_a = _cross_entropy(tf.concat([towards_b, among_a], axis=1), own)
    loss_b = _cross_entropy(tf.concat([towards_a, among_b], axis=1), own)
    loss = (tf.reduce_mean(loss_a) + tf.reduce_mean(loss_b)) / 2.0
    return loss, _contrast_metrics(tf.stop_gradient(towards_b), own)


def info_nce_loss(
    queries: tf.Tensor, positives: tf.Tensor, negatives: tf.Tensor, *, temperature: float = 0.07
) -> tf.Tensor:
    """Returns InfoNCE: the positive key against a list of negatives, such as MoCo's queue.

    -log(exp(s+ / T) / (exp(s+ / T) + sum_j exp(s_j / T))) with s the cosine. Gradient flows to all three; stop that of
    the keys before the call where the paper does.

    Args:
        queries: `(batch, dim)`.
        positives: `(batch, dim)`. Row i belongs to query i.
        negatives: `(count, dim)`, the same for all queries, or `(batch, count, dim)`.
        temperature: float above 0. Defaults to `0.07`.

    Returns:
        Scalar, at least float32, mean over the queries.

    Raises:
        ValueError: If there is no negative or shapes disagree.

    Reference: van den Oord, Li, Vinyals, 2018, https://arxiv.org/abs/1807.03748, equation 4.
    """
    queries, positives, negatives = (l2_normalize(x) for x in (queries, positives, negatives))
    check_rank(2, queries=queries)
    check_same_shape(queries=queries, positives=positives)
    if negatives.shape.rank not in (2, 3) or negatives.shape[-2] == 0:
        raise ValueError(
            "Expected negatives (count, dim) or (batch, count, dim) with count of at least 1. "
            f"Received: negatives of shape {tuple(negatives.shape)}"
        )
    # b: query, j: negative, d: channel
    pattern = "bd,jd->bj" if negatives.shape.rank == 2 else "bd,bjd->bj"
    positive = tf.reduce_sum(queries * positives, axis=-1, keepdims=True)  # (batch, 1)
    logits = tf.concat([positive, tf.einsum(pattern, queries, negatives)], axis=1)
    logits = over_temperature(logits, temperature)
    return tf.reduce_mean(_cross_entropy(logits, tf.zeros_like(logits[:, 0], tf.int32)))


def _mask(logits: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
    """Returns logits that give no probability, and get no gradient, where `hidden` is True."""
    return tf.where(hidden, tf.constant(logits.dtype.min / 2, logits.dtype), logits)


def _cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _contrast_metrics(logits: tf.Tensor, own: tf.Tensor) -> dict[str, tf.Tensor]:
    nearest = tf.argmax(logits, axis=1, output_type=own.dtype)
    log_p = tf.nn.log_softmax(logits)
    return {
        "contrast_accuracy": tf.reduce_mean(promote(nearest == own)),
        "contrast_entropy": -tf.reduce_mean(tf.reduce_sum(tf.exp(log_p) * log_p, axis=1)),
    }
