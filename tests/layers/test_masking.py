"""Random masks over tokens."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import gather_tokens, num_kept, random_keep_indices, restore_tokens
from keras_ssl.random import sample_keys


def keys(count, first=0):
    return sample_keys(3, tf.range(first, first + count, dtype=tf.int64))


@pytest.mark.parametrize(
    ("tokens", "ratio", "kept"),
    [(196, 0.75, 49), (64, 0.75, 16), (10, 0.9, 1), (7, 0.5, 3), (5, 0.0, 5)],
)
def test_number_of_visible_tokens(tokens, ratio, kept):
    assert num_kept(tokens, ratio) == kept
    keep, restore, mask = random_keep_indices(keys(3), tokens, ratio)
    assert keep.shape == (3, kept)
    assert restore.shape == mask.shape == (3, tokens)
    assert (keep.dtype, restore.dtype, mask.dtype) == (tf.int32, tf.int32, tf.bool)
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(mask, tf.int32), 1), tokens - kept)


def test_keep_mask_and_restore_agree():
    keep, restore, mask = (x.numpy() for x in random_keep_indices(keys(5), 16, 0.75))
    for b in range(5):
        assert sorted(keep[b]) == list(np.flatnonzero(~mask[b]))
        assert sorted(restore[b]) == list(range(16))
        for place, token in enumerate(keep[b]):
            assert restore[b, token] == place


def test_restore_puts_tokens_back():
    tokens = np.random.default_rng(0).normal(size=(4, 12, 3)).astype("float32")
    keep, restore, mask = random_keep_indices(keys(4), 12, 0.5)
    token = np.array([7.0, 8.0, 9.0], "float32")
    full = restore_tokens(gather_tokens(tokens, keep), restore, token).numpy()
    np.testing.assert_array_equal(full[~mask.numpy()], tokens[~mask.numpy()])
    np.testing.assert_array_equal(full[mask.numpy()], np.tile(token, (24, 1)))


def test_masks_depend_on_the_sample_alone():
    whole = random_keep_indices(keys(6), 16, 0.75)[2].numpy()
    second = random_keep_indices(keys(3, first=3), 16, 0.75)[2].numpy()
    np.testing.assert_array_equal(whole[3:], second)
    assert len({row.tobytes() for row in whole}) == 6


def test_every_token_is_hidden_as_often():
    """4000 samples, ratio 0.75: the standard error of each share is 0.0068."""
    mask = random_keep_indices(keys(4000), 8, 0.75)[2].numpy()
    assert np.abs(mask.mean(0) - 0.75).max() < 0.03
    # pairs too: two given tokens are visible together with probability (2 / 8) (1 / 7)
    together = np.mean(~mask[:, 0] & ~mask[:, 1])
    assert abs(together - 2 / 8 / 7) < 0.012


def test_gradient_of_restore():
    """Each visible token is used once, the mask token once for each hidden place."""
    visible, token = tf.ones((2, 3, 4)), tf.ones((1, 1, 4))
    restore = random_keep_indices(keys(2), 8, 0.625)[1]
    with tf.GradientTape() as tape:
        tape.watch([visible, token])
        value = tf.reduce_sum(restore_tokens(visible, restore, token))
    g_visible, g_token = tape.gradient(value, [visible, token])
    np.testing.assert_array_equal(g_visible, 1.0)
    np.testing.assert_array_equal(g_token, 10.0)


@pytest.mark.parametrize("ratio", [1.0, -0.1, 0.99])
def test_errors(ratio):
    with pytest.raises(ValueError, match=f"mask_ratio={ratio}, num_tokens=16"):
        random_keep_indices(keys(2), 16, ratio)
