"""Masks: exact counts, shapes and places against the papers' rules, and a slow loop for block-wise masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.layers.masking import random_keep_indices
from keras_ssl.views import ops

BEIT = {"min_block": 16}
IBOT = {"min_block": (14 // 3) ** 2}


def keys_of(count: int, start: int = 0) -> tf.Tensor:
    return random.sample_keys(7, tf.range(start, start + count, dtype=tf.int64))


def test_random_mask_is_maes():
    mask = ops.random_mask(keys_of(5), (8, 8), 48)
    np.testing.assert_array_equal(mask, random_keep_indices(keys_of(5), 64, 0.75)[2])


def test_simmim_hides_whole_units():
    """224 pixels, patches of 16, units of 32: ceil(0.6 * 49) = 30 of 7 x 7 units of 2 x 2 patches."""
    mask = ops.random_mask(keys_of(300), (14, 14), math.ceil(0.6 * 49), unit=2).numpy()
    units = mask.reshape(300, 7, 2, 7, 2)
    np.testing.assert_array_equal(units.all(axis=(2, 4)), units.any(axis=(2, 4)))
    assert (mask.sum(-1) == 120).all()
    share = units[:, :, 0, :, 0].mean(axis=0)  # 0.612 each, standard deviation 0.028
    assert np.abs(share - 30 / 49).max() < 0.13


def test_counts_of_each_sample():
    mask = ops.random_mask(keys_of(4), (4, 4), tf.constant([0, 3, 16, 7]))
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(mask, tf.int32), -1), [0, 3, 16, 7])
    for settings in ({"count": 17}, {"count": 1, "unit": 3}):
        with pytest.raises(ValueError, match="Received: "):
            ops.random_mask(keys_of(1), (4, 4), **settings)


def slow_block_mask(key, grid, count, min_block, max_block=math.inf, tries=10):
    """BEiT's algorithm for one sample, with the numbers of our keys, in Python's arithmetic."""
    height, width = grid
    mask, key = np.zeros(grid, bool), random.fold_in(key, "block")
    while mask.sum() < count:
        for _ in range(tries):
            draws = random.uniform(key, (4,)).numpy()[0].astype(float)
            key = random.fold_in(key, "next")
            most = min(count - mask.sum(), max_block)
            area = min_block + (most - min_block) * draws[0]
            aspect = math.exp(math.log(0.3) + draws[1] * (math.log(1 / 0.3) - math.log(0.3)))
            tall, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if tall < height and wide < width:
                top = int(draws[2] * (height - tall + 1))
                left = int(draws[3] * (width - wide + 1))
                new = mask.copy()
                new[top : top + tall, left : left + wide] = True
                if 0 < (new & ~mask).sum() <= most:
                    mask = new
                    break
        else:
            break
    return mask


@pytest.mark.parametrize(
    "grid, settings",
    [((14, 14), BEIT), ((14, 14), IBOT), ((8, 10), {"min_block": 4, "max_block": 20})],
)
def test_block_masks_against_a_slow_loop(grid, settings):
    counts = [75, 0, 20, 31]
    masks = ops.block_mask(keys_of(4), grid, tf.constant(counts), **settings).numpy()
    for index, count in enumerate(counts):
        expected = slow_block_mask(keys_of(1, index), grid, min(count, 80 if grid[0] == 8 else count),
                                   **settings)  # fmt: skip
        np.testing.assert_array_equal(masks[index].reshape(grid), expected)


def test_block_masks_nearly_reach_and_never_exceed_their_count():
    """BEiT: 75 of 196 patches. Blocks, so a hidden patch has more hidden neighbors than by chance."""
    masks = ops.block_mask(keys_of(200), (14, 14), 75).numpy().reshape(-1, 14, 14)
    counts = masks.sum(axis=(1, 2))
    assert counts.max() <= 75 and counts.mean() > 70 and counts.min() > 50
    right = (masks[:, :, 1:] & masks[:, :, :-1]).sum() / masks[:, :, :-1].sum()
    assert right > 0.6  # scattered masks: 0.38
    share = masks.mean(axis=0)  # highest in the middle, and alike in every direction
    for other in (share[::-1], share[:, ::-1], share.T):
        assert np.abs(share[:7] - other[:7]).mean() < 0.05
    small = ops.block_mask(keys_of(50), (2, 2), 3, min_block=1).numpy()  # most blocks do not fit
    assert small.sum(-1).max() <= 3


def test_a_block_mask_does_not_depend_on_its_batch():
    whole = ops.block_mask(keys_of(8), (14, 14), 75)
    np.testing.assert_array_equal(ops.block_mask(keys_of(1, 5), (14, 14), 75)[0], whole[5])


def test_ibot_counts():
    """Half of the crops have none, the others int(U(0.1, 0.5) * 196), whose mean is 58.3."""
    counts = ops.mask_counts(keys_of(4000), 196).numpy()
    masked = counts[counts > 0]
    assert abs(len(masked) / 4000 - 0.5) < 0.032
    assert masked.min() >= 19 and masked.max() <= 97 and abs(masked.mean() - 58.3) < 2.1
    assert (ops.mask_counts(keys_of(50), 196, rate=0.0) == 0).numpy().all()


def test_dinov2_counts_are_stratified():
    """Of 16 crops 8 are masked, one ratio in each eighth of [0.1, 0.5]; who and in which order is drawn."""
    counts = ops.stratified_mask_counts(keys_of(16), 1000).numpy()
    drawn = np.sort(counts[counts > 0])
    assert len(drawn) == 8
    edges = np.linspace(100, 500, 9)
    assert (drawn >= np.floor(edges[:-1])).all() and (drawn <= edges[1:]).all()
    other = ops.stratified_mask_counts(keys_of(16, 16), 1000).numpy()
    assert ((other > 0) != (counts > 0)).any()
    assert (ops.stratified_mask_counts(keys_of(1), 1000) == 0).numpy().all()


def test_context_and_targets():
    """14 x 14: targets of 29 to 39 patches and shape 0.75 to 1.5, one size for a sample's four."""
    hidden, targets = (x.numpy() for x in ops.context_and_targets(keys_of(300), (14, 14)))
    targets = targets.reshape(300, 4, 14, 14)
    tall, wide = targets.any(axis=3).sum(axis=2), targets.any(axis=2).sum(axis=2)
    np.testing.assert_array_equal(tall * wide, targets.sum(axis=(2, 3)))  # rectangles
    assert (tall == tall[:, :1]).all() and (wide == wide[:, :1]).all()
    assert tall.min() >= 4 and tall.max() <= 8 and set(np.unique(tall / wide >= 0.66)) == {True}
    assert (tall * wide).min() >= 25 and (tall * wide).max() <= 42
    assert (targets[:, 0] != targets[:, 1]).any(axis=(1, 2)).mean() > 0.9
    context = ~hidden.reshape(300, 14, 14)
    assert not (context & targets.any(axis=1)).any()
    kept = context.sum(axis=(1, 2))
    assert kept.min() > 10 and 60 < kept.mean() < 110
    block = context | targets.any(axis=1)
    assert block.any(axis=2).sum(axis=1).max() <= 14


def test_a_context_that_can_keep_nothing_is_still_drawn():
    hidden, _ = ops.context_and_targets(
        keys_of(3), (4, 4), target_scale=(0.9, 0.9), context_scale=(0.1, 0.1), min_context=20
    )
    assert hidden.shape == (3, 16)
