"""Tiles, patches and permutations: exact pixels at the places that the papers name, and labels by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.views import TileConfig, ops


def keys_of(count: int) -> tf.Tensor:
    return random.sample_keys(3, tf.range(count, dtype=tf.int64))


def coordinates(count: int, height: int, width: int | None = None) -> np.ndarray:
    """Images whose three channels are row, column and image number, so that a tile says where it is from."""
    width = width or height
    grid = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([grid[1], grid[2], grid[0]], axis=-1).astype(np.float32)


def check_copies(patches: np.ndarray) -> None:
    """Every patch (batch, patches, size, size, 3) is one whole window of its own image."""
    size = patches.shape[2]
    rows = patches[:, :, :1, :1, 0] + np.arange(size)[:, None]
    columns = patches[:, :, :1, :1, 1] + np.arange(size)[None, :]
    np.testing.assert_array_equal(patches[..., 0], np.broadcast_to(rows, patches.shape[:4]))
    np.testing.assert_array_equal(patches[..., 1], np.broadcast_to(columns, patches.shape[:4]))
    assert (patches[..., 2] == np.arange(len(patches))[:, None, None, None]).all()


def test_patches_are_exact_windows_by_hand():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1) / 12.0
    result = ops.cut_patches(image, tf.constant([[[0, 1], [1, 2]]]), 2)
    assert result.shape == (1, 2, 2, 2, 1)
    np.testing.assert_allclose(result[0, 0, :, :, 0] * 12, [[1, 2], [5, 6]], atol=1e-5)
    np.testing.assert_allclose(result[0, 1, :, :, 0] * 12, [[6, 7], [10, 11]], atol=1e-5)


def test_jigsaw_geometry():
    """255 pixels, cells of 85, tiles of 64: offsets 0 to 21, all equally likely in both axes.

    720 offsets over 22 values: 32.7 expected for each, standard deviation 5.6; 23 is beyond four of them.
    """
    tiles = ops.grid_tiles(coordinates(40, 255), keys_of(40), TileConfig(3, 64)).numpy()
    assert tiles.shape == (40, 9, 64, 64, 3)
    check_copies(tiles)
    cells = 85 * np.array(list(itertools.product(range(3), range(3))))
    offsets = (tiles[:, :, 0, 0, :2] - cells).astype(int)
    counts = np.bincount(offsets.ravel(), minlength=22)
    assert len(counts) == 22 and np.abs(counts - 720 / 22).max() < 23
    assert abs(np.corrcoef(offsets[..., 0].ravel(), offsets[..., 1].ravel())[0, 1]) < 0.21
    assert np.abs(np.corrcoef(offsets[..., 0].T) - np.eye(9)).max() < 0.65  # 4 / sqrt(40)


def test_pirl_offsets_stop_at_20():
    config = TileConfig(3, 64, jitter=20)
    tiles = ops.grid_tiles(coordinates(25, 255), keys_of(25), config).numpy()
    cells = 85 * np.array(list(itertools.product(range(3), range(3))))
    offsets = tiles[:, :, 0, 0, :2] - cells
    assert (offsets.min(), offsets.max()) == (0, 20)


def test_channels_are_shifted_apart_by_0_to_2():
    """Every channel of the picture holds its column, so a tile's channels show their own shifts."""
    column = np.broadcast_to(
        np.arange(255, dtype=np.float32)[None, None, :, None], (15, 255, 255, 3)
    )
    config = TileConfig(3, 64, channel_shift=2)
    left = ops.grid_tiles(column, keys_of(15), config).numpy()[:, :, 0, 0]  # (15, 9, 3)
    spread = left.max(-1) - left.min(-1)
    assert set(np.unique(spread)) == {0, 1, 2}
    assert (left - 85 * (np.arange(9) % 3)[None, :, None]).max() <= 21  # in their cells
    counts = np.bincount((left[..., 0] - left[..., 1] + 2).astype(int).ravel(), minlength=5)
    np.testing.assert_allclose(counts / 135, np.array([1, 2, 3, 2, 1]) / 9, atol=0.16)


def test_cpc_grid_overlaps_and_has_a_black_rim():
    """256 pixels, 7 x 7 patches of 64 every 32 pixels, of each a window of 60 with 2 black pixels around."""
    config = TileConfig(7, 60, pitch=32, jitter=4, rim=2)
    tiles = ops.grid_tiles(coordinates(20, 256) + 1.0, keys_of(20), config).numpy()
    assert tiles.shape == (20, 49, 64, 64, 3)
    assert tiles[:, :, :2].max() == 0 and tiles[:, :, :, -2:].max() == 0
    check_copies(tiles[:, :, 2:-2, 2:-2] - 1.0)
    offsets = tiles[:, :, 2, 2, 0] - 1.0 - 32 * (np.arange(49) // 7)
    assert (offsets.min(), offsets.max()) == (0, 4)


@pytest.mark.parametrize(
    "config, size",
    [
        (TileConfig(3, 64), 180),
        (TileConfig(3, 60, jitter=30), 200),
        (TileConfig(3, 64, jitter=22), 255),
        (TileConfig(2, 16, channel_shift=1), 32),
    ],
)
def test_tiles_that_do_not_fit_are_refused(config, size):
    with pytest.raises(ValueError, match="do not fit"):
        config.layout(size)


def test_wrong_tile_settings_are_refused():
    with pytest.raises(ValueError, match="Received: size=0"):
        TileConfig(3, 0)
    with pytest.raises(ValueError, match="square images"):
        ops.grid_tiles(coordinates(1, 30, 40), keys_of(1), TileConfig(2, 10))


def test_context_prediction_geometry():
    """96 pixels, gap 48, jitter 7: neighbors lie 144 +- 14 apart, and the grid anywhere in the picture."""
    patches = ops.patch_grid(coordinates(30, 420, 500), keys_of(30)).numpy()
    check_copies(patches)
    corners = patches[:, :, 0, 0, :2].reshape(30, 3, 3, 2)
    steps = corners[:, 1:, :, 0] - corners[:, :-1, :, 0]
    assert 130 <= steps.min() < 137 and 151 < steps.max() <= 158
    assert corners.min() >= 0 and corners[..., 0].max() <= 420 - 96
    assert corners[..., 1].max() <= 500 - 96 and corners[:, 0, 0, 1].max() > 75
    with pytest.raises(ValueError, match="at least 398 pixels"):
        ops.patch_grid(coordinates(1, 397), keys_of(1))


def test_neighbor_labels_by_hand():
    pairs = ops.neighbor_pairs(3)
    assert len(pairs) == 40 and len(np.unique(pairs[:, :2], axis=0)) == 40
    centers = ops.neighbor_pairs(3, center_only=True)
    # Around the middle patch (4), row by row: left above, above, right above, left, right, ...
    np.testing.assert_array_equal(
        centers, [[4, p, k] for k, p in enumerate([0, 1, 2, 3, 5, 6, 7, 8])]
    )
    labels = {(first, second): label for first, second, label in pairs.tolist()}
    assert all(labels[second, first] == 7 - label for (first, second), label in labels.items())
    assert ops.neighbor_pairs(2).tolist()[0] == [0, 1, 4]  # its right-hand neighbor
    with pytest.raises(ValueError, match="Received: grid=4, center_only=True"):
        ops.neighbor_pairs(4, center_only=True)


def test_random_pairs_show_the_neighbor_that_the_label_names():
    patches = ops.patch_grid(coordinates(400, 48), keys_of(400), size=8, gap=4, jitter=1)
    pairs = ops.neighbor_pairs(3, center_only=True)
    first, second, label = (x.numpy() for x in ops.random_pair(patches, keys_of(400), pairs))
    place = second[:, 0, 0, :2] - first[:, 0, 0, :2]
    direction = np.sign(np.round(place / 12)).astype(int)  # (dy, dx)
    expected = np.array([(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)])
    np.testing.assert_array_equal(direction[:, ::-1], expected[label])
    assert np.bincount(label, minlength=8).min() > 25  # 50 expected, standard deviation 6.6


def test_tile_permutations_are_undone_by_their_inverse():
    tiles = tf.constant(np.random.default_rng(0).random((5, 9, 2, 2, 3)))
    order = random.permutation(keys_of(5), 9)
    shuffled = ops.permute_tiles(tiles, order)
    np.testing.assert_array_equal(shuffled[2, 4], tiles[2, int(order[2, 4])])
    restored = ops.permute_tiles(shuffled, tf.argsort(order, axis=-1))
    np.testing.assert_array_equal(restored, tiles)


def distances(table: np.ndarray) -> np.ndarray:
    pairs = (table[:, None] != table[None]).sum(-1)
    return pairs[np.triu_indices(len(table), 1)]


def test_the_100_permutations_of_jigsaw():
    """The released table of 100 has mean distance 8.08 and least 2; the first nine are all 9 apart."""
    table = ops.jigsaw_permutations(100)
    assert table.shape == (100, 9) and table.dtype == np.int32
    np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(np.arange(9), (100, 1)))
    assert distances(table).min() >= 2 and abs(distances(table).mean() - 8.08) < 0.005
    assert (distances(table[:9]) == 9).all()


def test_the_rule_of_the_nearest_keeps_all_apart():
    """Of 20 permutations the nearest two are 7 slots apart; the rule of the mean lets them be nearer."""
    assert distances(ops.jigsaw_permutations(20, rule="least")).min() == 7
    assert distances(ops.jigsaw_permutations(20)).min() < 7


@pytest.mark.parametrize("rule", ["mean", "least"])
def test_each_permutation_is_the_furthest_there_is(rule):
    """After every prefix of the table no free permutation of four lies further away than the next one."""
    table = ops.jigsaw_permutations(7, 4, rule=rule, seed=5)
    for used in range(1, 7):
        pool = np.array(list(itertools.permutations(range(4))))
        far = (pool[:, None] != table[None, :used]).sum(-1)
        free = (far > 0).all(axis=1)
        score = far.mean(axis=1) if rule == "mean" else far.min(axis=1)
        own = (table[used] != table[:used]).sum(-1)
        assert (own.mean() if rule == "mean" else own.min()) == score[free].max()


def test_permutation_tables_are_fixed_by_their_arguments():
    np.testing.assert_array_equal(ops.jigsaw_permutations(2), [
        [5, 7, 0, 4, 2, 3, 6, 1, 8], [6, 1, 3, 7, 4, 8, 2, 5, 0],
    ])  # fmt: skip
    assert (ops.jigsaw_permutations(5, 4, seed=1) != ops.jigsaw_permutations(5, 4)).any()
    assert len(np.unique(ops.jigsaw_permutations(24, 4), axis=0)) == 24  # all there are
    for settings in (
        {"count": 25, "tiles": 4},
        {"count": 3, "tiles": 10},
        {"count": 3, "rule": "max"},
    ):
        with pytest.raises(ValueError, match="Received: "):
            ops.jigsaw_permutations(**settings)
