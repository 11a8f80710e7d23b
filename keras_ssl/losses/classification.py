"""Cross-entropy with integer labels, for pretext tasks such as rotation."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.losses.numeric import check_rank, promote


def cross_entropy_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the softmax cross-entropy, natural logarithm.

    Args:
        logits: `(batch, num_classes)`, num_classes of at least 2.
        labels: int `(batch,)` in [0, num_classes).

    Returns:
        Scalar, at least float32, mean over the batch. ln(num_classes) for a uniform prediction.

    Raises:
        ValueError: If there are fewer than two classes or the shapes disagree.
    """
    logits, labels = promote(logits), tf.convert_to_tensor(labels)
    check_rank(2, logits=logits)
    check_rank(1, labels=labels)
    if logits.shape[1] < 2 or not labels.shape.is_compatible_with(logits.shape[:1]):
        raise ValueError(
            "Expected logits (batch, num_classes) of at least two classes and labels (batch,). "
            f"Received: logits {tuple(logits.shape)}, labels {tuple(labels.shape)}"
        )
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
