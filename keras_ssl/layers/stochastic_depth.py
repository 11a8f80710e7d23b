"""Drop-path whose choices depend on the sample and on nothing else."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random


def stochastic_depth(
    branch: tf.Tensor, keys: tf.Tensor | None, *, name: str, rate: float, training: bool | None
) -> tf.Tensor:
    """Drops the residual branch of some samples and scales up the others.

    Each sample's branch is multiplied by 0 with probability `rate`, else by 1 / (1 - rate), so the expectation
    is the branch. The choice is drawn from (key of the sample, name). Outside training and at rate 0 the
    branch comes back as it is.

    Args:
        branch: float `(batch, ...)`. What a residual block adds to its input.
        keys: uint32 `(batch, 2)` from `keras_ssl.random`; may be None where nothing is dropped.
        name: str. Name of this use, unique in the network.
        rate: float in [0, 1). Probability of dropping.
        training: bool or None.

    Returns:
        Tensor of the shape and dtype of `branch`.

    Raises:
        ValueError: if `rate` is outside [0, 1), or if samples have to be dropped and `keys` is None.

    Reference: Huang et al., 2016, https://arxiv.org/abs/1603.09382, per sample and with the scaling of timm's
    drop-path.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate}")
    if not training or rate == 0.0:
        return branch
    if keys is None:
        raise ValueError(
            f"Drop-path at rate {rate} in training needs `keys`, uint32 (batch, 2), as "
            "keras_ssl.random.sample_keys(seed, position) makes them. Received: keys=None"
        )
    kept = random.uniform(random.fold_in(keys, name)) >= rate
    factor = tf.where(kept, 1.0 / (1.0 - rate), 0.0)
    return branch * tf.cast(tf.reshape(factor, (-1, *(1,) * (len(branch.shape) - 1))), branch.dtype)
