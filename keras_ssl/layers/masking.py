"""Random masks over tokens: which are kept, and how to put them back."""

from __future__ import annotations

import tensorflow as tf

from keras_ssl import random


def num_kept(num_tokens: int, mask_ratio: float) -> int:
    """Returns how many of `num_tokens` stay visible: int(num_tokens (1 - mask_ratio)).

    Args:
        num_tokens: int.
        mask_ratio: float in [0, 1).

    Returns:
        int of at least 1.

    Raises:
        ValueError: If nothing would stay visible or the ratio is out of range.
    """
    # The small addend keeps 10 (1 - 0.9) = 0.99999... from becoming 0.
    kept = int(num_tokens * (1.0 - mask_ratio) + 1e-6)
    if not 0 <= mask_ratio < 1 or kept < 1:
        raise ValueError(
            "Expected mask_ratio in [0, 1) that leaves at least one token. "
            f"Received: mask_ratio={mask_ratio}, num_tokens={num_tokens}"
        )
    return kept


def random_keep_indices(
    keys: tf.Tensor, num_tokens: int, mask_ratio: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the visible tokens of each sample, as MAE does: the first ones of a random order.

    Args:
        keys: uint32 `(batch, 2)`. Each sample's random numbers.
        num_tokens: int.
        mask_ratio: float in [0, 1). Share of hidden tokens; `num_kept` says how it is rounded.

    Returns:
        `keep` int32 `(batch, kept)`, the visible tokens in random order; `restore` int32 `(batch, num_tokens)`, where
        each token lies in the order (kept, then hidden); `mask` bool `(batch, num_tokens)`, True = hidden.

    Raises:
        ValueError: If nothing would stay visible or the ratio is out of range.

    Reference: He et al., 2022, https://arxiv.org/abs/2111.06377, section 3, "Simple implementation".
    """
    kept = num_kept(num_tokens, mask_ratio)
    order = random.permutation(keys, num_tokens)
    restore = tf.argsort(order, axis=-1, stable=True)
    return order[:, :kept], restore, restore >= kept


def gather_tokens(tokens: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Returns the tokens at `indices`.

    Args:
        tokens: `(batch, num_tokens, ...)`.
        indices: int `(batch, count)`.

    Returns:
        `(batch, count, ...)`.
    """
    return tf.gather(tokens, indices, batch_dims=1)


def restore_tokens(visible: tf.Tensor, restore: tf.Tensor, mask_token: tf.Tensor) -> tf.Tensor:
    """Puts visible tokens back in place and a mask token in every hidden one.

    Args:
        visible: `(batch, kept, dim)`, in the order of `keep`.
        restore: int32 `(batch, num_tokens)` from `random_keep_indices`.
        mask_token: `(dim,)`, or any shape with that many values.

    Returns:
        `(batch, num_tokens, dim)`.
    """
    dim = visible.shape[-1]
    hidden = tf.shape(restore)[1] - tf.shape(visible)[1]
    token = tf.cast(tf.reshape(mask_token, (1, 1, dim)), visible.dtype)
    filler = tf.tile(token, tf.stack([tf.shape(visible)[0], hidden, 1]))
    return gather_tokens(tf.concat([visible, filler], axis=1), restore)
