"""Random masks over the patches of an image: scattered, in blocks, as context and targets.

A mask is bool `(batch, height * width)`, row by row, True = hidden. MAE's form, with the indices of the
visible patches, is `keras_ssl.layers.masking.random_keep_indices`.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_ssl import random


def _check_grid(grid: tuple[int, int]) -> None:
    if len(grid) != 2 or min(grid) < 1:
        raise ValueError(f"`grid` must be (height, width) in patches. Received: grid={grid}")


def _counts(count: int | tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns a count for each sample, int32 (batch,)."""
    return tf.cast(count, tf.int32) + tf.cast(tf.zeros_like(keys[:, 0]), tf.int32)


def random_mask(
    keys: tf.Tensor, grid: tuple[int, int], count: int | tf.Tensor, *, unit: int = 1
) -> tf.Tensor:
    """Hides exactly `count` randomly chosen squares of `unit` by `unit` patches.

    Args:
        keys: uint32 `(batch, 2)`.
        grid: pair of ints. Height and width in patches, both multiples of `unit`.
        count: int or int `(batch,)`. Squares to hide. SimMIM hides 0.6 of them, rounded up, and its unit
            is 32 pixels (2 patches of 16); iBOT's "rand" has unit 1.
        unit: int. Side of a square in patches. Defaults to `1`.

    Returns:
        bool `(batch, height * width)`. With unit 1 the mask of `random_keep_indices` for the same keys.

    Reference: Xie et al., 2022, https://arxiv.org/abs/2111.09886, and microsoft/SimMIM.
    """
    _check_grid(grid)
    if unit < 1 or grid[0] % unit or grid[1] % unit:
        raise ValueError(f"`grid` must be a multiple of `unit`. Received: grid={grid}, unit={unit}")
    height, width = grid[0] // unit, grid[1] // unit
    cells = height * width
    if isinstance(count, int) and not 0 <= count <= cells:
        raise ValueError(f"`count` must be 0 to {cells}. Received: count={count}")
    rank = tf.argsort(random.permutation(keys, cells), axis=-1, stable=True)
    hidden = rank >= cells - _counts(count, keys)[:, None]
    hidden = tf.reshape(hidden, [-1, height, 1, width, 1]) & tf.ones([1, 1, unit, 1, unit], tf.bool)
    return tf.reshape(hidden, [-1, grid[0] * grid[1]])


def mask_counts(
    keys: tf.Tensor,
    num_patches: int,
    *,
    ratio: tuple[float, float] = (0.1, 0.5),
    rate: float = 0.5,
) -> tf.Tensor:
    """Draws how many patches of each image to hide: none, or a uniform share.

    Args:
        keys: uint32 `(batch, 2)`.
        num_patches: int.
        ratio: pair of floats in [0, 1]. Range of the share. Defaults to `(0.1, 0.5)`.
        rate: float. Probability that anything is hidden. Defaults to `0.5`.

    Returns:
        int32 `(batch,)`, rounded down.

    Reference: Zhou et al., 2022, https://arxiv.org/abs/2111.07832, and bytedance/ibot (prediction ratio 0
    or 0.3, with variance 0 or 0.2).
    """
    share = random.uniform(random.fold_in(keys, "ratio"), (), *ratio)
    counts = tf.cast(tf.floor(share * num_patches), tf.int32)
    return tf.where(random.bernoulli(random.fold_in(keys, "masked"), rate), counts, 0)


def stratified_mask_counts(
    keys: tf.Tensor,
    num_patches: int,
    *,
    ratio: tuple[float, float] = (0.1, 0.5),
    share: float = 0.5,
) -> tf.Tensor:
    """Draws how many patches to hide, spread evenly over a batch.

    Exactly int(batch * share) images are masked, and their n ratios come one from each nth of `ratio`.
    So a count depends on the batch that a sample is in, unlike every other number here.

    Args:
        keys: uint32 `(batch, 2)`, the batch of known size.
        num_patches: int.
        ratio: pair of floats in [0, 1]. Range of the hidden share. Defaults to `(0.1, 0.5)`.
        share: float. Share of masked images. Defaults to `0.5`.

    Returns:
        int32 `(batch,)`.

    Reference: Oquab et al., 2023, https://arxiv.org/abs/2304.07193, and facebookresearch/dinov2, collate.
    """
    batch = keys.shape[0]
    if batch is None:
        raise ValueError("Expected keys of known batch size. Received: a batch of unknown size.")
    masked = int(batch * share)
    order = tf.argsort(random.bits_as_int(random.fold_in(keys, "order"), ()), stable=True)
    rank = tf.cast(tf.argsort(order, stable=True), tf.float32)  # of each sample among the batch
    within = random.uniform(random.fold_in(keys, "ratio"))
    place = (rank + within) / max(masked, 1)
    counts = tf.floor((ratio[0] + (ratio[1] - ratio[0]) * place) * num_patches)
    return tf.where(rank < masked, tf.cast(counts, tf.int32), 0)


def _rectangle(
    top: tf.Tensor, left: tf.Tensor, tall: tf.Tensor, wide: tf.Tensor, grid: tuple[int, int]
) -> tf.Tensor:
    """Returns bool (..., height, width), True inside; all numbers float (...)."""
    rows, columns = tf.range(grid[0], dtype=tf.float32), tf.range(grid[1], dtype=tf.float32)
    top, left, tall, wide = (number[..., None] for number in (top, left, tall, wide))
    down = (rows >= top) & (rows < top + tall)
    across = (columns >= left) & (columns < left + wide)
    return down[..., :, None] & across[..., None, :]


def block_mask(
    keys: tf.Tensor,
    grid: tuple[int, int],
    count: int | tf.Tensor,
    *,
    min_block: float = 16,
    max_block: float | None = None,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    tries: int = 10,
) -> tf.Tensor:
    """Hides overlapping rectangles until `count` patches are hidden or no further one is found.

    Args:
        keys: uint32 `(batch, 2)`.
        grid: pair of ints. Height and width in patches.
        count: int or int `(batch,)`. Patches to hide; never exceeded, and often missed by a few.
        min_block: float. Least area drawn for a rectangle: 16 in BEiT, (min(grid) // 3)^2 in iBOT,
            4 in DINOv2. Defaults to `16`.
        max_block: float. Largest area drawn. Defaults to all that is still to hide.
        aspect: pair of floats > 0. Range of height / width, log-uniform. Defaults to `(0.3, 1 / 0.3)`.
        tries: int. Rectangles drawn in vain one after another before a mask is left as it is: one that
            does not fit, hides nothing new or hides too much. Defaults to `10`.

    Returns:
        bool `(batch, height * width)`.

    One loop runs for the whole batch, as long as any mask grows; a finished one waits. A mask does not
    depend on the batch it is in.

    Reference: Bao et al., 2021, https://arxiv.org/abs/2106.08254, algorithm 1, and microsoft/unilm, beit.
    """
    _check_grid(grid)
    count = _counts(count, keys)
    span = math.log(aspect[1] / aspect[0])

    def growing(keys: tf.Tensor, mask: tf.Tensor, left: tf.Tensor, failed: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any((left > 0) & (failed < tries))

    def grow(keys: tf.Tensor, mask: tf.Tensor, left: tf.Tensor, failed: tf.Tensor) -> tuple:
        draws = random.uniform(keys, (4,))
        room = tf.cast(left, tf.float32)
        most = room if max_block is None else tf.minimum(room, float(max_block))
        area = min_block + (most - min_block) * draws[:, 0]
        shape = aspect[0] * tf.exp(span * draws[:, 1])
        tall, wide = tf.round(tf.sqrt(area * shape)), tf.round(tf.sqrt(area / shape))
        top = tf.floor(draws[:, 2] * (grid[0] - tall + 1.0))
        across = tf.floor(draws[:, 3] * (grid[1] - wide + 1.0))
        block = _rectangle(top, across, tall, wide, grid) & ~mask
        fresh = tf.reduce_sum(tf.cast(block, tf.int32), axis=[1, 2])
        fits = (
            (tall < grid[0]) & (wide < grid[1]) & (fresh > 0) & (fresh <= tf.cast(most, tf.int32))
        )
        fits &= (left > 0) & (failed < tries)
        mask |= block & fits[:, None, None]
        left -= tf.where(fits, fresh, 0)
        return random.fold_in(keys, "next"), mask, left, tf.where(fits, 0, failed + 1)

    nothing = (keys[:, :1] != keys[:, :1])[:, :, None] & tf.zeros([1, *grid], tf.bool)
    start = (random.fold_in(keys, "block"), nothing, count, tf.zeros_like(count))
    _, mask, _, _ = tf.while_loop(growing, grow, start)
    return tf.reshape(mask, [-1, grid[0] * grid[1]])


def _block_sizes(
    draw: tf.Tensor, grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns heights and widths; one number decides area and shape, as in the reference."""
    height, width = grid
    area = tf.floor(height * width * (scale[0] + (scale[1] - scale[0]) * draw))
    shape = aspect[0] + (aspect[1] - aspect[0]) * draw
    tall = tf.minimum(tf.round(tf.sqrt(area * shape)), height - 1.0)
    return tall, tf.minimum(tf.round(tf.sqrt(area / shape)), width - 1.0)


def context_and_targets(
    keys: tf.Tensor,
    grid: tuple[int, int],
    *,
    num_targets: int = 4,
    target_scale: tuple[float, float] = (0.15, 0.2),
    target_aspect: tuple[float, float] = (0.75, 1.5),
    context_scale: tuple[float, float] = (0.85, 1.0),
    min_context: int = 10,
    tries: int = 20,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws target rectangles of one size, and a square context from which they are taken out.

    Args:
        keys: uint32 `(batch, 2)`.
        grid: pair of ints. Height and width in patches.
        num_targets: int. Defaults to `4`.
        target_scale: pair of floats. Range of a target's area, as a fraction. Defaults to `(0.15, 0.2)`.
        target_aspect: pair of floats. Range of its height / width. Defaults to `(0.75, 1.5)`.
        context_scale: pair of floats. Range of the context's area. Defaults to `(0.85, 1.0)`.
        min_context: int. A context must keep more patches than this. Defaults to `10`.
        tries: int. Places drawn for the context; the first that keeps enough is taken, else the one that
            keeps most. Defaults to `20`.

    Returns:
        `mask` bool `(batch, height * width)`, True = hidden from the context network, and `targets` bool
        `(batch, num_targets, height * width)`, True = to be predicted.

    Reference: Assran et al., 2023, https://arxiv.org/abs/2301.08243, and facebookresearch/ijepa,
    `src/masks/multiblock.py`, with the numbers of `configs/in1k_vith14_ep300.yaml`.
    Differs from the reference: each sample has its own block sizes, not each batch; masks are not cut to
    the smallest of the batch.
    """
    _check_grid(grid)
    height, width = grid
    sizes = random.uniform(random.fold_in(keys, "sizes"), (2,))
    tall, wide = _block_sizes(sizes[:, :1], grid, target_scale, target_aspect)
    place = random.uniform(random.fold_in(keys, "targets"), (num_targets, 2))
    targets = _rectangle(
        tf.floor(place[..., 0] * (height - tall)), tf.floor(place[..., 1] * (width - wide)),
        tall + 0.0 * place[..., 0], wide + 0.0 * place[..., 0], grid,
    )  # fmt: skip
    tall, wide = _block_sizes(sizes[:, 1:], grid, context_scale, (1.0, 1.0))
    place = random.uniform(random.fold_in(keys, "context"), (tries, 2))
    contexts = _rectangle(
        tf.floor(place[..., 0] * (height - tall)), tf.floor(place[..., 1] * (width - wide)),
        tall + 0.0 * place[..., 0], wide + 0.0 * place[..., 0], grid,
    )  # fmt: skip
    contexts &= ~tf.reduce_any(targets, axis=1, keepdims=True)  # (batch, tries, height, width)
    kept = tf.reduce_sum(tf.cast(contexts, tf.int32), axis=[2, 3])
    chosen = tf.argmax(tf.minimum(kept, min_context + 1), axis=-1, output_type=tf.int32)
    context = tf.gather(contexts, chosen, batch_dims=1)
    return (
        tf.reshape(~context, [-1, height * width]),
        tf.reshape(targets, [-1, num_targets, height * width]),
    )
