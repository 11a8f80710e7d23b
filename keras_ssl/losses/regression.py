"""Losses that regress a target: BYOL's teacher projection and MAE's hidden pixels."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl.losses.numeric import check_rank, check_same_shape, l2_normalize, promote


def normalized_regression_loss(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns |p / |p| - sg(t) / |t||^2 = 2 - 2 cos(p, t) for each sample.

    Args:
        prediction: `(batch, dim)`.
        target: `(batch, dim)`. No gradient reaches it.

    Returns:
        `(batch,)`, at least float32, in [0, 4]; summed over the features.

    Reference: Grill et al., 2020, https://arxiv.org/abs/2006.07733, equation 2.
    """
    prediction, target = l2_normalize(prediction), l2_normalize(target)
    check_same_shape(prediction=prediction, target=target)
    return tf.reduce_sum(tf.math.squared_difference(prediction, tf.stop_gradient(target)), axis=-1)


def byol_loss(p_a: tf.Tensor, p_b: tf.Tensor, z_a: tf.Tensor, z_b: tf.Tensor) -> tf.Tensor:
    """Returns BYOL's symmetric loss: the prediction of each view regresses the teacher's projection of the other.

    Args:
        p_a: `(batch, dim)`. Student's prediction of view a.
        p_b: `(batch, dim)`. Student's prediction of view b.
        z_a: `(batch, dim)`. Teacher's projection of view a; no gradient reaches it.
        z_b: `(batch, dim)`. Teacher's projection of view b; no gradient reaches it.

    Returns:
        Scalar, at least float32, in [0, 8]: the sum of both directions, mean over the batch. 4 when nothing is learned.

    Reference: Grill et al., 2020, https://arxiv.org/abs/2006.07733, equation 2 and section 3.1.
    """
    towards_b = normalized_regression_loss(p_a, tf.stop_gradient(z_b))
    towards_a = normalized_regression_loss(p_b, tf.stop_gradient(z_a))
    return tf.reduce_mean(towards_b + towards_a)


def normalize_patches(patches: tf.Tensor, epsilon: float = 1e-6) -> tf.Tensor:
    """Returns each patch with mean 0 and variance 1 over its own pixels: MAE's normalized target.

    The variance is the unbiased one (divided by values - 1), as in the authors' code.

    Args:
        patches: `(batch, num_patches, values)`, values of at least 2.
        epsilon: float. Added to the variance. Defaults to `1e-6`.

    Returns:
        Same shape, at least float32. A patch of one color becomes 0.

    Raises:
        ValueError: If a patch has fewer than two values.

    Reference code: facebookresearch/mae `models_mae.py`.
    """
    patches = promote(patches)
    values = patches.shape[-1]
    if values < 2:
        raise ValueError(
            "Expected at least two values in a patch. "
            f"Received: patches of shape {tuple(patches.shape)}"
        )
    mean = tf.reduce_mean(patches, axis=-1, keepdims=True)
    squares = tf.reduce_sum(tf.math.squared_difference(patches, mean), axis=-1, keepdims=True)
    return (patches - mean) / tf.sqrt(squares / (values - 1) + epsilon)


def mae_loss(prediction: tf.Tensor, target: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the squared error of the hidden patches: mean over their values, then over all hidden patches.

    Visible patches have no part in it. With the same number of hidden patches on every replica the mean of the
    replicas' losses is the loss of the global batch.

    Args:
        prediction: `(batch, num_patches, values)`.
        target: `(batch, num_patches, values)`. Pixels, or `normalize_patches` of them.
        mask: bool `(batch, num_patches)`. True = hidden; at least one in the batch.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: If shapes disagree.

    Reference: He et al., 2022, https://arxiv.org/abs/2111.06377, section 3, "Reconstruction target".
    """
    prediction, target = promote(prediction), promote(target)
    check_rank(3, prediction=prediction)
    check_same_shape(prediction=prediction, target=target)
    hidden = tf.cast(mask, prediction.dtype)
    if not hidden.shape.is_compatible_with(prediction.shape[:2]):
        raise ValueError(
            "Expected mask (batch, num_patches). "
            f"Received: mask {tuple(hidden.shape)}, prediction {tuple(prediction.shape)}"
        )
    target = tf.cast(target, prediction.dtype)
    errors = tf.reduce_mean(tf.math.squared_difference(prediction, target), axis=-1)
    return tf.reduce_sum(errors * hidden) / tf.reduce_sum(hidden)
