"""Losses in which each view predicts the assignment of another view: SwAV and DINO."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.losses.numeric import check_rank, over_temperature, promote


def swav_loss(scores: tf.Tensor, codes: tf.Tensor, *, temperature: float = 0.1) -> tf.Tensor:
    """Returns SwAV's swapped prediction: each view predicts the codes of the other, assigning views.

    Mean over the assigning views i of the mean over the views v != i of the cross-entropy of softmax(scores_v / T)
    against code_i, mean over the batch. No gradient reaches the codes.

    Args:
        scores: `(batch, views, num_prototypes)`. Similarity of each view with each prototype.
        codes: `(batch, assigning, num_prototypes)`. Codes of the first `assigning` views, each summing to 1.
        temperature: float above 0. Divides the scores of the prediction only. Defaults to `0.1`.

    Returns:
        Scalar, at least float32. ln(num_prototypes) when nothing is learned; never below the mean entropy of the codes.

    Raises:
        ValueError: If there are fewer than two views, more codes than views, or shapes disagree.

    Reference: Caron et al., 2020, https://arxiv.org/abs/2006.09882, equations 1 and 6.
    """
    return _cross_view_cross_entropy(over_temperature(scores, temperature), codes)


def dino_loss(
    student_logits: tf.Tensor,
    teacher_probabilities: tf.Tensor,
    *,
    student_temperature: float = 0.1,
) -> tf.Tensor:
    """Returns DINO's loss: the student sees every view, the teacher only the first, global ones.

    Mean over the ordered pairs (teacher view q, student view v != q) of the cross-entropy of
    softmax(student_logits_v / T) against the teacher's probabilities of q, mean over the batch. With 2 global and L
    local views there are 2 (2 + L) - 2 pairs. No gradient reaches the teacher.

    Args:
        student_logits: `(batch, views, num_prototypes)`.
        teacher_probabilities: `(batch, global_views, num_prototypes)`, from `center_and_sharpen`.
        student_temperature: float above 0. Defaults to `0.1`.

    Returns:
        Scalar, at least float32. ln(num_prototypes) for a uniform student; never below the teacher's entropy.

    Raises:
        ValueError: If there are fewer than two views, more teacher than student views, or shapes disagree.

    Reference: Caron et al., 2021, https://arxiv.org/abs/2104.14294, equation 3.
    """
    logits = over_temperature(student_logits, student_temperature, "student_temperature")
    return _cross_view_cross_entropy(logits, teacher_probabilities)


def center_and_sharpen(
    teacher_logits: tf.Tensor, *, center: tf.Tensor, temperature: float | tf.Tensor
) -> tf.Tensor:
    """Returns DINO's teacher probabilities softmax((logits - center) / temperature), without gradient.

    Args:
        teacher_logits: `(..., num_prototypes)`.
        center: `(num_prototypes,)`. Running mean of the teacher's logits.
        temperature: float or scalar tensor above 0.

    Returns:
        Probabilities, same shape, at least float32.

    Reference: Caron et al., 2021, https://arxiv.org/abs/2104.14294, algorithm 1.
    """
    logits = promote(teacher_logits)
    logits = over_temperature(logits - tf.cast(center, logits.dtype), temperature)
    return tf.stop_gradient(tf.nn.softmax(logits))


def _cross_view_cross_entropy(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Mean over targets i, views v != i and the batch of CE(target_i, softmax(logits_v)); no gradient to targets."""
    targets = tf.cast(tf.stop_gradient(targets), logits.dtype)
    check_rank(3, logits=logits, targets=targets)
    views, assigning = logits.shape[1], targets.shape[1]
    if views < 2 or not 1 <= assigning <= views:
        raise ValueError(
            "Expected at least two views, and targets of at least one and at most all of them. "
            f"Received: views={views}, targets={assigning}"
        )
    if not logits.shape[2:].is_compatible_with(targets.shape[2:]):
        raise ValueError(
            "Expected as many target probabilities as logits. "
            f"Received: logits {tuple(logits.shape)}, targets {tuple(targets.shape)}"
        )
    # b: image, a: assigning view, v: predicting view, k: prototype
    entropies = -tf.einsum("bak,bvk->bav", targets, tf.nn.log_softmax(logits))
    others = 1.0 - tf.eye(assigning, views, dtype=logits.dtype)
    return tf.reduce_sum(tf.reduce_mean(entropies, axis=0) * others) / (assigning * (views - 1))
