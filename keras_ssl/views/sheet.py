"""A picture of views, for people."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def contact_sheet(views: dict[str, tf.Tensor], count: int = 8) -> np.ndarray:
    """Tiles the views of the first samples: a row for each sample, a column for each view.

    Args:
        views: dict from group name to `(V, batch, size, size, 3)` in [0, 1]; `"keys"` is passed over.
        count: int. Samples shown, if there are so many. Defaults to `8`.

    Returns:
        uint8 `(height, width, 3)`; small views stand at the top left of their cell, on gray.
    """
    groups = [np.asarray(tf.cast(v, tf.float32)) for name, v in views.items() if name != "keys"]
    tiles = [view[:count] for group in groups for view in group]  # each (samples, size, size, 3)
    cell = max(tile.shape[1] for tile in tiles) + 2
    sheet = np.full((len(tiles[0]) * cell, len(tiles) * cell, 3), 0.5, np.float32)
    for column, tile in enumerate(tiles):
        for row, image in enumerate(tile):
            top, left = row * cell + 1, column * cell + 1
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return np.round(np.clip(sheet, 0.0, 1.0) * 255.0).astype(np.uint8)
