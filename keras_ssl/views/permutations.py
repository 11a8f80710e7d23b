"""Sets of permutations that are easy to tell apart, the classes of jigsaw puzzles."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

_MOST_TILES = 9  # 362,880 permutations; ten tiles would be 3.6 million
_RULES = ("mean", "least")


@functools.lru_cache(maxsize=8)
def _pool(tiles: int, seed: int) -> np.ndarray:
    """Returns all permutations, uint8 (tiles!, tiles), in an order that the seed alone decides."""
    # RandomState's stream is frozen for all versions of NumPy.
    order = np.random.RandomState(seed).permutation(math.factorial(tiles))
    everything = np.fromiter(
        itertools.chain.from_iterable(itertools.permutations(range(tiles))), np.uint8
    )
    return everything.reshape(-1, tiles)[order]


def jigsaw_permutations(
    count: int, tiles: int = 9, *, rule: str = "mean", seed: int = 0
) -> np.ndarray:
    """Returns permutations that lie far apart, chosen greedily.

    Starts with a random permutation and adds the one that is furthest from those chosen, in Hamming
    distance (number of slots in which two permutations differ). Of equals the first in a random order
    is taken. The same arguments always give the same table.

    Args:
        count: int. Number of permutations, at most tiles!.
        tiles: int. Length of a permutation, 2 to 9. Defaults to `9`.
        rule: `"mean"` for the largest mean distance to the chosen ones, or `"least"` for the largest
            distance to the nearest one, with the mean deciding between equals. Defaults to `"mean"`.
        seed: int. Decides the first permutation and between equals. Defaults to `0`.

    Returns:
        int32 `(count, tiles)`. Slot i receives tile `table[k, i]`.

    Raises:
        ValueError: if there are not so many permutations.

    Reference: Noroozi and Favaro, 2016, https://arxiv.org/abs/1603.09246, algorithm 1.
    """
    if not 2 <= tiles <= _MOST_TILES:
        raise ValueError(f"`tiles` must be 2 to {_MOST_TILES}. Received: tiles={tiles}")
    if not 1 <= count <= math.factorial(tiles):
        raise ValueError(
            f"`count` must be 1 to {math.factorial(tiles)} for {tiles} tiles. Received: count={count}"
        )
    if rule not in _RULES:
        raise ValueError(f"`rule` must be one of {_RULES}. Received: rule={rule!r}")
    pool = _pool(tiles, seed)
    agreeing = np.zeros(len(pool), np.int32)  # slots shared with the chosen ones, summed over these
    closest = np.zeros(len(pool), np.int32)  # most slots shared with any chosen one
    chosen = np.zeros(count, np.int64)
    for number in range(1, count):
        shared = (pool == pool[chosen[number - 1]]).sum(axis=1, dtype=np.int32)
        agreeing += shared
        agreeing[chosen[number - 1]] = np.iinfo(np.int32).max // 2  # never again
        score = agreeing
        if rule == "least":
            np.maximum(closest, shared, out=closest)
            score = closest.astype(np.int64) * (tiles * count + 1) + agreeing
        chosen[number] = np.argmin(score)
    return pool[chosen].astype(np.int32)
