"""Pictures cut into tiles: jigsaw puzzles, neighboring patches, overlapping grids."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.planes import as_float

# Position of patch 2 relative to patch 1 as (dx, dy), in the order of the labels of context prediction.
NEIGHBORS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """How a square view is cut into tiles, which become the views of its group, row by row.

    Args:
        grid: int. Tiles in a row and in a column.
        size: int. Side of a tile in pixels.
        pitch: int. Pixels from one tile's cell to the next; 0 divides the view's side by `grid`.
            Defaults to `0`.
        jitter: int or None. Each tile lies 0 to `jitter` pixels from its cell's corner, independently
            in both axes; None takes all the room of the cell. Defaults to `None`.
        channel_shift: int. Each color channel of each tile lies a further 0 to `channel_shift` pixels
            off, against chromatic aberration. Defaults to `0`.
        rim: int. Pixels of black put around each tile. Defaults to `0`.
        separate_colors: bool. True draws flip and colors for each tile apart, False once for the whole
            view before it is cut. Defaults to `False`.
    """

    grid: int
    size: int
    pitch: int = 0
    jitter: int | None = None
    channel_shift: int = 0
    rim: int = 0
    separate_colors: bool = False

    def __post_init__(self) -> None:
        for field, least in (
            ("grid", 1),
            ("size", 1),
            ("pitch", 0),
            ("channel_shift", 0),
            ("rim", 0),
        ):
            value = getattr(self, field)
            if value < least:
                raise ValueError(f"`{field}` must be at least {least}. Received: {field}={value}")

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.grid * self.grid

    @property
    def side(self) -> int:
        """Side of what the network sees of one tile, rim included."""
        return self.size + 2 * self.rim

    def layout(self, view_size: int) -> tuple[int, int]:
        """Returns pitch and jitter for views of this size.

        Raises:
            ValueError: if the tiles do not fit into the view.
        """
        pitch = self.pitch or view_size // self.grid
        room = pitch - self.size - self.channel_shift
        jitter = room if self.jitter is None else self.jitter
        reach = (self.grid - 1) * pitch + self.size + self.channel_shift + jitter
        if jitter < 0 or reach > view_size:
            raise ValueError(
                f"The tiles do not fit: a grid of {self.grid} x {self.grid} cells of {pitch} pixels in "
                f"views of {view_size} pixels leaves no room for them. Received: {self}"
            )
        return pitch, jitter


def cut_patches(images: tf.Tensor, corners: tf.Tensor, size: int) -> tf.Tensor:
    """Copies square patches out of each image, pixel by pixel.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8.
        corners: int32 `(batch, patches, 2)`, or `(batch, patches, channels, 2)` with a corner for each
            channel. Top and left pixel; the patch must lie inside the image.
        size: int. Side of the patches.

    Returns:
        `(batch, patches, size, size, channels)`.
    """
    images = as_float(images)
    if images.shape.rank != 4:
        raise ValueError(f"Expected images of rank 4. Received: shape={images.shape}")
    _, height, width, channels = images.shape
    patches = corners.shape[1]
    inside = tf.range(size)[:, None] * width + tf.range(size)[None, :]
    start = corners[..., 0] * width + corners[..., 1]
    if corners.shape.rank == 4:  # (batch, patches, size, size, channels) places in a flat image
        index = (start[:, :, None, None] + inside[..., None]) * channels + tf.range(channels)
        flat = tf.reshape(images, [-1, height * width * channels])
    else:  # whole pixels at once
        index = start[:, :, None, None] + inside
        flat = tf.reshape(images, [-1, height * width, channels])
    count = size * size * (channels if corners.shape.rank == 4 else 1)
    picked = tf.gather(flat, tf.reshape(index, [-1, patches * count]), batch_dims=1)
    return tf.reshape(picked, [-1, patches, size, size, channels])


def _cells(grid: int, pitch: int) -> tf.Tensor:
    """Returns the corners of the cells, int32 (1, grid^2, 2), row by row."""
    index = np.stack(np.divmod(np.arange(grid * grid), grid), axis=-1)
    return tf.constant(pitch * index[None], tf.int32)


def _whole(keys: tf.Tensor, shape: tuple[int, ...], most: int) -> tf.Tensor:
    """Returns int32 (batch, *shape), uniform in 0..most."""
    return tf.cast(tf.floor(random.uniform(keys, shape) * (most + 1)), tf.int32)


def grid_tiles(images: tf.Tensor, keys: tf.Tensor, tiles: TileConfig) -> tf.Tensor:
    """Cuts each square image into the tiles of a grid, each at a random place of its cell.

    Args:
        images: `(batch, side, side, channels)` in [0, 1] or uint8.
        keys: uint32 `(batch, 2)`.
        tiles: TileConfig. `separate_colors` plays no part here.

    Returns:
        `(batch, grid * grid, tiles.side, tiles.side, channels)`, row by row; pixels are copied exactly.

    Reference: Noroozi and Favaro, 2016, https://arxiv.org/abs/1603.09246 (255 pixels, cells of 85, tiles
    of 64, channels shifted by 0 to 2).
    Differs from the reference: a shifted channel stays in its cell, so offsets are 0 to 19 where channels
    shift by 0 to 2, not 0 to 21.
    """
    _, height, width, channels = images.shape
    if height != width:
        raise ValueError(
            f"`grid_tiles` expects square images. Received: height={height}, width={width}"
        )
    pitch, jitter = tiles.layout(height)
    corners = _cells(tiles.grid, pitch) + _whole(
        random.fold_in(keys, "tile"), (tiles.count, 2), jitter
    )
    if tiles.channel_shift:
        shift = _whole(
            random.fold_in(keys, "channel"), (tiles.count, channels, 2), tiles.channel_shift
        )
        corners = corners[:, :, None] + shift
    made = cut_patches(images, corners, tiles.size)
    rim = [tiles.rim, tiles.rim]
    return tf.pad(made, [[0, 0], [0, 0], rim, rim, [0, 0]]) if tiles.rim else made


def patch_grid(
    images: tf.Tensor,
    keys: tf.Tensor,
    *,
    grid: int = 3,
    size: int = 96,
    gap: int = 48,
    jitter: int = 7,
) -> tf.Tensor:
    """Cuts a grid of patches with gaps at a random place of each image, every patch a little off.

    Args:
        images: `(batch, height, width, channels)` in [0, 1] or uint8, at least
            `grid * size + (grid - 1) * gap + 2 * jitter` pixels high and wide.
        keys: uint32 `(batch, 2)`.
        grid: int. Patches in a row and in a column. Defaults to `3`.
        size: int. Side of a patch in pixels. Defaults to `96`.
        gap: int. Pixels between patches. Defaults to `48`.
        jitter: int. Each patch lies up to so many pixels off in both axes. Defaults to `7`.

    Returns:
        `(batch, grid * grid, size, size, channels)`, row by row; pixels are copied exactly.

    Reference: Doersch et al., 2015, https://arxiv.org/abs/1505.05192, section 3, and cdoersch/deepcontext.
    """
    _, height, width, _ = images.shape
    reach = grid * size + (grid - 1) * gap + 2 * jitter
    if min(height, width) < reach:
        raise ValueError(
            f"`patch_grid` needs images of at least {reach} pixels for {grid} x {grid} patches of {size} "
            f"with gap {gap} and jitter {jitter}. Received: height={height}, width={width}"
        )
    places = random.uniform(random.fold_in(keys, "origin"), (1, 2))
    room = tf.constant([height - reach + 1, width - reach + 1], tf.float32)
    origin = tf.cast(tf.floor(places * room), tf.int32)
    offset = _whole(random.fold_in(keys, "patch"), (grid * grid, 2), 2 * jitter)
    return cut_patches(images, origin + _cells(grid, size + gap) + offset, size)


def neighbor_pairs(grid: int = 3, center_only: bool = False) -> np.ndarray:
    """Returns the pairs of adjacent patches of a grid, diagonals included, in both orders.

    Args:
        grid: int. Patches in a row and in a column. Defaults to `3`.
        center_only: bool. Only the pairs whose first patch is the middle one of a grid of odd side.
            Defaults to `False`.

    Returns:
        int32 `(pairs, 3)`: index of patch 1, of patch 2, and the label 0 to 7 of `NEIGHBORS`; swapped
        patches have label 7 - l. A 3 x 3 grid has 40 pairs, 8 of them with the middle one first.
    """
    if grid < 2 or (center_only and grid % 2 == 0):
        raise ValueError(
            "`grid` must be at least 2, and odd with center_only=True. "
            f"Received: grid={grid}, center_only={center_only}"
        )
    center = grid * grid // 2
    return np.array(
        [
            (first, (first // grid + dy) * grid + first % grid + dx, label)
            for first in range(grid * grid)
            for label, (dx, dy) in enumerate(NEIGHBORS)
            if 0 <= first // grid + dy < grid and 0 <= first % grid + dx < grid
            if not center_only or first == center
        ],
        np.int32,
    )


def random_pair(
    patches: tf.Tensor, keys: tf.Tensor, pairs: np.ndarray
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws one pair of neighboring patches for each sample.

    Args:
        patches: `(batch, patches, ...)`.
        keys: uint32 `(batch, 2)`.
        pairs: int32 `(pairs, 3)` from `neighbor_pairs`; all are equally likely.

    Returns:
        The two patches `(batch, ...)` and the labels int32 `(batch,)`.
    """
    chosen = tf.gather(tf.constant(pairs), _whole(random.fold_in(keys, "pair"), (), len(pairs) - 1))
    first, second = (tf.gather(patches, chosen[:, end], batch_dims=1) for end in (0, 1))
    return first, second, chosen[:, 2]


def permute_tiles(tiles: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Puts tile `order[i]` into slot i.

    Args:
        tiles: `(batch, tiles, ...)`.
        order: int `(batch, tiles)`, a permutation for each sample, such as rows of `jigsaw_permutations`
            or `random.permutation(keys, tiles)`.

    Returns:
        Tensor like `tiles`. The inverse permutation restores the tiles.
    """
    return tf.gather(tiles, order, batch_dims=1)
