"""Position tables of vision transformers: fixed sine-cosine values and resizing to another grid.

Everything here is NumPy at trace time, except the two small products with the table itself.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_CUBIC = -0.75  # PyTorch's coefficient; tf.image.resize and PIL use -0.5


def sincos_positions(
    dim: int, grid: tuple[int, int], *, class_token: bool = False, row_first: bool = False
) -> np.ndarray:
    """Returns the fixed two-dimensional sine-cosine table.

    One half of a row encodes the column of the patch, the other its row, each as
    [sin(c * f_0), ..., sin(c * f_k), cos(c * f_0), ..., cos(c * f_k)] with f_i = 10000^(-i / (dim / 4)).

    Args:
        dim: int, a multiple of 4. Token width.
        grid: (rows, columns).
        class_token: bool. Whether a row of zeros for the class token comes first. Defaults to `False`.
        row_first: bool. Which coordinate the first half encodes: the column (False, as in MAE) or the row
            (True, as in MoCo v3). Defaults to `False`.

    Returns:
        float64 `([1 +] rows * columns, dim)`.

    Raises:
        ValueError: if `dim` is no multiple of 4.

    Reference code: facebookresearch/mae `util/pos_embed.py`; facebookresearch/moco-v3 `vits.py`.
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"`dim` must be a multiple of 4. Received: dim={dim}")
    frequencies = 10000.0 ** (-np.arange(dim // 4) / (dim / 4))
    row, column = (axis.reshape(-1, 1) * frequencies for axis in np.indices(grid).astype("float64"))
    first, second = (row, column) if row_first else (column, row)
    table = np.concatenate([np.sin(first), np.cos(first), np.sin(second), np.cos(second)], axis=1)
    return np.concatenate([np.zeros((1, dim)), table]) if class_token else table


def _cubic_weight(distance: np.ndarray) -> np.ndarray:
    """Returns Keys's cubic convolution kernel at `distance`."""
    a, d = _CUBIC, np.abs(distance)
    near = (a + 2.0) * d**3 - (a + 3.0) * d**2 + 1.0
    far = a * d**3 - 5.0 * a * d**2 + 8.0 * a * d - 4.0 * a
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))


def bicubic_matrix(source: int, target: int, *, offset: float = 0.0) -> np.ndarray:
    """Returns the matrix that resizes one axis by cubic interpolation.

    PyTorch's `interpolate(mode="bicubic", align_corners=False, antialias=False)`: four taps, a = -0.75,
    indices clamped at the ends. Output i reads at (i + 0.5) * source / (target + offset) - 0.5.

    Args:
        source: int > 0. Old length.
        target: int > 0. New length.
        offset: float. DINO, iBOT and DINOv2 ask for a scale of (target + 0.1) / source, which shifts the
            places that are read: 0.1 for parity with them. Defaults to `0.0`.

    Returns:
        float64 `(target, source)`; rows sum to 1.
    """
    center = (np.arange(target) + 0.5) * source / (target + offset) - 0.5
    start = np.floor(center).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        place = np.clip(start + tap, 0, source - 1)
        np.add.at(matrix, (np.arange(target), place), _cubic_weight(center - (start + tap)))
    return matrix


def interpolate_positions(
    table: tf.Tensor, source: tuple[int, int], target: tuple[int, int], *, offset: float = 0.0
) -> tf.Tensor:
    """Resizes a table of patch positions to another grid.

    Args:
        table: float `(1, rows * columns, dim)`, patches only, no class token.
        source: (rows, columns) of the table.
        target: (rows, columns) wanted. Equal to `source`: the table comes back untouched.
        offset: float. See `bicubic_matrix`. Defaults to `0.0`.

    Returns:
        `(1, target rows * target columns, dim)`, dtype of the table.

    Raises:
        ValueError: if the table does not have the rows of `source`.
    """
    source, target = tuple(source), tuple(target)
    if table.shape[1] != source[0] * source[1]:
        raise ValueError(
            f"Expected a table of {source[0]} * {source[1]} positions. "
            f"Received: table.shape={tuple(table.shape)}"
        )
    if source == target:
        return table
    vertical, horizontal = (
        tf.constant(bicubic_matrix(old, new, offset=offset), table.dtype)
        for old, new in zip(source, target, strict=True)
    )
    dim = table.shape[-1]
    # h, w: old grid; y, x: new grid; d: channel
    patches = tf.reshape(table, (*source, dim))
    resized = tf.einsum("yh,xw,hwd->yxd", vertical, horizontal, patches, optimize="optimal")
    return tf.reshape(resized, (1, target[0] * target[1], dim))
