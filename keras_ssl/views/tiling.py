"""Groups of tiles: a view is made, cut up, and treated as a whole or tile by tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from keras_ssl import random
from keras_ssl.views.config import ViewConfig
from keras_ssl.views.tiles import grid_tiles

_GEOMETRY = ("size", "scale", "ratio", "interpolation", "pad_crop", "short_side")


def make_tiles(
    make: Callable[..., tf.Tensor],
    pictures: tf.Tensor,
    keys: tf.Tensor,
    aspect: tf.Tensor | None,
    group: str,
    view: ViewConfig,
    sparse: bool,
) -> tf.Tensor:
    """Returns the tiles of a group's one view.

    Args:
        make: the engine's maker of views without tiles.
        pictures: `(batch, height, width, 3)`, uint8 or float in [0, 1].
        keys: uint32 `(batch, 2)`.
        aspect: float `(batch,)` or None. As the engine takes it.
        group: str. Name of the group, which its random numbers carry.
        view: ViewConfig, with `tiles`.
        sparse: bool. As the operations take it.

    Returns:
        `(tiles, batch, side, side, 3)`, row by row.
    """
    tiles = view.tiles
    whole = dataclasses.replace(view, tiles=None)
    if tiles.separate_colors:  # first the geometry of the whole, then all the rest tile by tile
        whole = ViewConfig(**{field: getattr(view, field) for field in _GEOMETRY})
    made = make(pictures, keys, aspect, group, (whole,), sparse)[0]
    cut = grid_tiles(made, random.fold_in(keys, f"{group}/tiles"), tiles)
    cut = tf.transpose(cut, [1, 0, 2, 3, 4])
    if not tiles.separate_colors:
        return cut
    own = [random.fold_in(keys, f"{group}/tile/{index}") for index in range(tiles.count)]
    settings = dataclasses.asdict(view)
    treated = ViewConfig(
        tiles.side,
        **{name: value for name, value in settings.items() if name not in (*_GEOMETRY, "tiles")},
    )
    flat = tf.reshape(cut, [-1, tiles.side, tiles.side, 3])
    made = make(flat, tf.concat(own, axis=0), None, f"{group}/tile", (treated,), sparse)[0]
    return tf.reshape(made, tf.shape(cut))
