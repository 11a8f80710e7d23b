"""The counter-based generator: known answers, independence, and the same numbers everywhere."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random

WORD = 0xFFFFFFFF


def pcg4d(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    """PCG4D in Python integers, from the paper's listing: LCG, mix, xor-shift by 16, mix."""
    v = [(word * 1664525 + 1013904223) & WORD for word in (a, b, c, d)]

    def mix() -> None:
        for target, x, y in ((0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)):
            v[target] = (v[target] + v[x] * v[y]) & WORD

    mix()
    v = [word ^ (word >> 16) for word in v]
    mix()
    return tuple(v)


def slow_key(seed: int, position: int) -> tuple[int, int]:
    words = (position & WORD, position >> 32, seed & WORD, (seed >> 32) ^ 0x5EED0001)
    return pcg4d(*words)[:2]


def slow_fold(key: tuple[int, int], name: str | int) -> tuple[int, int]:
    first = zlib.crc32(name.encode()) if isinstance(name, str) else name
    second = zlib.adler32(name.encode()) if isinstance(name, str) else 0
    return pcg4d(*key, first, second ^ 0x5EED0002)[:2]


def slow_bits(key: tuple[int, int], count: int) -> list[int]:
    words: list[int] = []
    while len(words) < count:
        words += pcg4d(*key, len(words) // 4, 0x5EED0003)
    return words[:count]


def keys_of(count: int, seed: int = 0) -> tf.Tensor:
    return random.sample_keys(seed, tf.range(count, dtype=tf.int64))


def test_hash_of_zeros_by_hand():
    """All words start as 1013904223; the first mix gives a = i + i*i, b = i + i*a, ... modulo 2^32."""
    i = 1013904223
    a = (i + i * i) & WORD
    b = (i + i * a) & WORD
    c = (i + a * b) & WORD
    d = (i + b * c) & WORD
    a, b, c, d = (word ^ (word >> 16) for word in (a, b, c, d))
    a = (a + b * d) & WORD
    b = (b + c * a) & WORD
    c = (c + a * b) & WORD
    d = (d + b * c) & WORD
    assert pcg4d(0, 0, 0, 0) == (a, b, c, d)


@pytest.mark.parametrize("seed", [0, 1, 2**32 + 7, 2**63 - 1])
def test_sample_keys_match_the_slow_reference(seed):
    positions = [0, 1, 2, 2**32 - 1, 2**32, 2**40 + 3]
    expected = [slow_key(seed, position) for position in positions]
    keys = random.sample_keys(seed, tf.constant(positions, tf.int64))
    assert keys.dtype == tf.uint32
    np.testing.assert_array_equal(keys, expected)


@pytest.mark.parametrize("name", ["crop", "global/0/flip", "", 5, 2**31])
def test_fold_in_matches_the_slow_reference(name):
    expected = [slow_fold(slow_key(3, position), name) for position in range(4)]
    np.testing.assert_array_equal(random.fold_in(keys_of(4, seed=3), name), expected)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (5,), (2, 3)])
def test_draws_match_the_slow_reference(shape):
    count = int(np.prod(shape, initial=1))
    words = np.array([slow_bits(slow_key(0, position), count) for position in range(3)])
    keys = keys_of(3)
    np.testing.assert_array_equal(random.bits(keys, shape), words.reshape(3, *shape))
    grid = (words >> 8) * 2.0**-24
    np.testing.assert_array_equal(
        random.uniform(keys, shape, dtype="float64"), grid.reshape(3, *shape)
    )
    np.testing.assert_allclose(
        random.uniform(keys, shape, -2.0, 5.0), (grid * 7.0 - 2.0).reshape(3, *shape), atol=1e-6
    )


def test_known_words():
    """Values stored on first writing: a change here changes every recorded run."""
    keys = random.sample_keys(0, tf.constant([0, 1], tf.int64))
    assert keys.numpy().tolist() == [list(slow_key(0, 0)), list(slow_key(0, 1))]
    words = random.bits(random.fold_in(keys, "crop")).numpy().tolist()
    assert words == [3009021334, 1147722015]


def test_uniform_is_uniform_and_in_range():
    """Kolmogorov-Smirnov at n = 40,000: the bound 1.95 / sqrt(n) is exceeded once in 1,000 seeds."""
    draws = np.sort(random.uniform(keys_of(10_000), (4,)).numpy().ravel())
    assert draws[0] >= 0.0 and draws[-1] < 1.0
    steps = np.arange(1, draws.size + 1) / draws.size
    assert np.abs(draws - steps).max() < 1.95 / np.sqrt(draws.size)


def test_names_positions_seeds_and_draws_are_independent():
    """Correlations of 20,000 pairs have standard error 0.007; 0.03 is beyond four of them."""
    keys = keys_of(20_000)
    base = random.uniform(keys).numpy()
    others = {
        "name": random.uniform(random.fold_in(keys, "crop")),
        "similar name": random.uniform(random.fold_in(keys, "crop1")),
        "nested": random.uniform(random.fold_in(random.fold_in(keys, "crop"), "crop")),
        "seed": random.uniform(keys_of(20_000, seed=1)),
        "next position": np.roll(base, 1),
        "second draw": random.uniform(keys, (2,))[:, 1],
        "far draw": random.uniform(keys, (9,))[:, 8],
    }
    table = np.corrcoef(np.stack([base, *(np.asarray(other) for other in others.values())]))
    assert np.abs(table - np.eye(len(table))).max() < 0.03


def test_bernoulli_has_its_rate():
    """Standard error at n = 20,000 and p = 0.2 is 0.0028."""
    keys = keys_of(20_000)
    assert abs(random.bernoulli(keys, 0.2).numpy().mean() - 0.2) < 0.012
    assert not random.bernoulli(keys, 0.0).numpy().any()
    assert random.bernoulli(keys, 1.0, (3,)).numpy().all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_has_the_moments_of_a_standard_normal(dtype):
    draws = random.normal(keys_of(20_000), (2,), dtype=dtype)
    assert draws.dtype == dtype and draws.shape == (20_000, 2)
    values = draws.numpy()
    assert np.isfinite(values).all()
    moments = [(values**power).mean() for power in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0.0, 1.0, 0.0, 3.0], atol=0.15)
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.03


def test_permutation_is_valid_and_every_order_is_equally_likely():
    """24 orders, 24,000 samples: chi-square with 23 degrees of freedom stays under 50 in 999 of 1,000."""
    orders = random.permutation(keys_of(24_000), 4).numpy()
    assert orders.dtype == np.int32
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(4), (24_000, 1)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 24
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 50.0


def test_a_sample_does_not_depend_on_its_batch():
    """Two replicas with half the batch each draw what one replica draws."""
    whole = random.normal(random.fold_in(keys_of(8), "noise"), (3,)).numpy()
    halves = [
        random.normal(
            random.fold_in(
                random.sample_keys(0, tf.range(start, start + 4, dtype=tf.int64)), "noise"
            ),
            (3,),
        )
        for start in (0, 4)
    ]
    np.testing.assert_allclose(whole, np.concatenate(halves), rtol=0, atol=1e-6)
    words = [random.bits(random.sample_keys(0, tf.constant([i], tf.int64)), (3,)) for i in range(8)]
    np.testing.assert_array_equal(random.bits(keys_of(8), (3,)), np.concatenate(words))


def test_eager_graph_xla_and_tf_data_agree():
    def draw(position):
        keys = random.fold_in(random.sample_keys(11, position), "a")
        return random.bits(keys, (5,)), random.uniform(keys, (5,)), random.permutation(keys, 6)

    positions = tf.range(7, dtype=tf.int64)
    eager = draw(positions)
    for compiled in (False, True):
        for ours, theirs in zip(
            eager, tf.function(draw, jit_compile=compiled)(positions), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    mapped = next(iter(tf.data.Dataset.from_tensors(positions).map(draw)))
    for ours, theirs in zip(eager, mapped, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_float_types_see_the_same_numbers():
    wide, single, half = (
        random.uniform(keys_of(100), (3,), dtype=dtype).numpy().astype("float64")
        for dtype in ("float64", "float32", "bfloat16")
    )
    np.testing.assert_array_equal(wide, single)
    np.testing.assert_allclose(half, wide, atol=2.0**-8)
