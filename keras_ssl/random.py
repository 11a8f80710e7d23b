"""Random numbers that depend on (seed, position, name) and on nothing else.

Every number the library draws for an image comes from here: crop boxes, colour factors, masks, drop-path.
A key is two uint32 words for each sample, made from the run's seed and the sample's running position;
`fold_in` derives an independent key for each named use. No generator has state, so the same sample gets the
same numbers on one replica or on many, before and after a restart, eagerly, in a graph and under XLA.

Reference: the counter hash is PCG4D (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 2020,
section 4 and listing in the supplement).
"""

from __future__ import annotations

import math
import zlib

import tensorflow as tf

_MULTIPLIER, _INCREMENT = 1664525, 1013904223
_SAMPLE_STREAM, _FOLD_STREAM, _DRAW_STREAM = 0x5EED0001, 0x5EED0002, 0x5EED0003
_WORDS = 4  # words that one hash call returns


def _pcg4d(a: tf.Tensor, b: tf.Tensor, c: tf.Tensor, d: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Hashes four uint32 tensors of one broadcastable shape to four uint32 tensors."""
    multiplier, increment = tf.constant(_MULTIPLIER, tf.uint32), tf.constant(_INCREMENT, tf.uint32)
    a, b, c, d = (word * multiplier + increment for word in (a, b, c, d))
    for last in (False, True):
        a = a + b * d
        b = b + c * a
        c = c + a * b
        d = d + b * c
        if not last:
            sixteen = tf.constant(16, tf.uint32)
            a, b, c, d = (
                tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, sixteen))
                for word in (a, b, c, d)
            )
    return a, b, c, d


def _word(value: int) -> tf.Tensor:
    return tf.constant(value & 0xFFFFFFFF, tf.uint32)


def sample_keys(seed: int | tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Returns the key of each sample of a batch.

    Args:
        seed: int in [0, 2^63) or int64 scalar. The run's seed.
        position: int64 `(batch,)`. Running count of samples shown.

    Returns:
        uint32 `(batch, 2)`.
    """
    position = tf.cast(position, tf.int64)
    seed = tf.cast(seed, tf.int64)

    def split(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        low = tf.cast(tf.bitwise.bitwise_and(value, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)
        return low, tf.cast(tf.bitwise.right_shift(value, tf.constant(32, tf.int64)), tf.uint32)

    (low, high), (seed_low, seed_high) = split(position), split(seed)
    first, second, _, _ = _pcg4d(
        low,
        high,
        seed_low + tf.zeros_like(low),
        (tf.bitwise.bitwise_xor(seed_high, _word(_SAMPLE_STREAM))) + tf.zeros_like(low),
    )
    return tf.stack([first, second], axis=-1)


def fold_in(keys: tf.Tensor, name: str | int) -> tf.Tensor:
    """Returns independent keys for a named use.

    Args:
        keys: uint32 `(batch, 2)`.
        name: str or int. Two names give unrelated keys; the same name always the same.

    Returns:
        uint32 `(batch, 2)`.
    """
    words = (
        (zlib.crc32(name.encode()), zlib.adler32(name.encode()))
        if isinstance(name, str)
        else (name, 0)
    )
    zeros = tf.zeros_like(keys[:, 0])
    first, second, _, _ = _pcg4d(
        keys[:, 0], keys[:, 1], zeros + _word(words[0]), zeros + _word(words[1] ^ _FOLD_STREAM)
    )
    return tf.stack([first, second], axis=-1)


def bits(keys: tf.Tensor, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Returns uniform uint32 words `(batch, *shape)`; `shape` is static."""
    count = math.prod(shape)
    counters = tf.range((count + _WORDS - 1) // _WORDS, dtype=tf.int32)[None, :]
    zeros = tf.zeros_like(keys[:, :1])
    words = _pcg4d(
        keys[:, :1],
        keys[:, 1:],
        tf.cast(counters, tf.uint32) + zeros,
        zeros + tf.zeros_like(tf.cast(counters, tf.uint32)) + _word(_DRAW_STREAM),
    )
    flat = tf.reshape(tf.stack(words, axis=-1), [-1, counters.shape[1] * _WORDS])[:, :count]
    return tf.reshape(flat, (-1, *shape))


def uniform(
    keys: tf.Tensor,
    shape: tuple[int, ...] = (),
    low: float = 0.0,
    high: float = 1.0,
    dtype: str | tf.DType = "float32",
) -> tf.Tensor:
    """Returns numbers uniform in [low, high).

    Args:
        keys: uint32 `(batch, 2)`.
        shape: tuple of ints. Shape for each sample, static. Defaults to `()`.
        low: float. Lower end. Defaults to `0.0`.
        high: float. Upper end. Defaults to `1.0`.
        dtype: float type of the result. All types see the same 24-bit grid. Defaults to `"float32"`.

    Returns:
        `(batch, *shape)`.
    """
    dtype = tf.as_dtype(dtype)
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    grid = tf.cast(tf.bitwise.right_shift(bits(keys, shape), tf.constant(8, tf.uint32)), wide)
    return tf.cast(grid * (2.0**-24) * (high - low) + low, dtype)


def bernoulli(keys: tf.Tensor, rate: float, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Returns booleans `(batch, *shape)`, True with probability `rate`."""
    return uniform(keys, shape) < rate


def normal(
    keys: tf.Tensor, shape: tuple[int, ...] = (), dtype: str | tf.DType = "float32"
) -> tf.Tensor:
    """Returns standard normal numbers `(batch, *shape)` by the Box-Muller transform."""
    dtype = tf.as_dtype(dtype)
    wide = tf.float64 if dtype == tf.float64 else tf.float32
    pair = uniform(keys, (2, *shape), dtype=wide)
    radius = tf.sqrt(-2.0 * tf.math.log1p(-pair[:, 0]))
    return tf.cast(radius * tf.cos(2.0 * math.pi * pair[:, 1]), dtype)


def permutation(keys: tf.Tensor, count: int) -> tf.Tensor:
    """Returns one random order of `count` items for each sample, int32 `(batch, count)`."""
    return tf.argsort(bits_as_int(keys, (count,)), axis=-1, stable=True)


def bits_as_int(keys: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Returns 31 random bits as non-negative int32 `(batch, *shape)`, a type that every device can sort."""
    return tf.cast(tf.bitwise.right_shift(bits(keys, shape), tf.constant(1, tf.uint32)), tf.int32)
