"""Position tables of vision transformers: fixed sine-cosine values and resizing to another grid.

Everything here is NumPy at trace time, except the two small products with the table itself.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

_CUBIC = -0.75  # PyTorch's coefficient; tf.image.resize and PIL use -0.5
_CUBIC_ANTIALIAS = -0.5  # PyTorch's with antialias=True


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


def fourier_positions(grid: tuple[int, int], frequencies: int) -> np.ndarray:
    """Returns XCiT's code of each place in a grid: sines and cosines of its row, then of its column.

    Row i of n is the angle 2 pi (i + 1) / (n + 1e-6), so the code spans the image whatever the grid; entry j of a half
    is its sine (even j) or cosine (odd j) divided, inside, by 10000^(2 (j // 2) / frequencies).

    Args:
        grid: (rows, columns).
        frequencies: int > 0, even. Entries of each half; 32 in XCiT.

    Returns:
        float64 `(1, rows, columns, 2 * frequencies)`.

    Reference code: facebookresearch/xcit `xcit.py`, `PositionalEncodingFourier`.
    """
    index = np.arange(frequencies)
    scales = 10000.0 ** (2 * (index // 2) / frequencies)

    def half(count: int) -> np.ndarray:
        angles = 2.0 * np.pi * np.arange(1, count + 1) / (count + 1e-6)
        angles = angles[:, None] / scales
        return np.where(index % 2 == 0, np.sin(angles), np.cos(angles))

    rows, columns = (half(count) for count in grid)
    shape = (*grid, frequencies)
    rows = np.broadcast_to(rows[:, None], shape)
    return np.concatenate([rows, np.broadcast_to(columns[None], shape)], axis=-1)[None]


def _cubic_weight(distance: np.ndarray, a: float) -> np.ndarray:
    """Returns Keys's cubic convolution kernel at `distance`."""
    d = np.abs(distance)
    near = (a + 2.0) * d**3 - (a + 3.0) * d**2 + 1.0
    far = a * d**3 - 5.0 * a * d**2 + 8.0 * a * d - 4.0 * a
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))


def bicubic_matrix(
    source: int, target: int, *, offset: float = 0.0, antialias: bool = False
) -> np.ndarray:
    """Returns the matrix that resizes one axis by cubic interpolation.

    PyTorch's `interpolate(mode="bicubic", align_corners=False)`. Output i reads at
    (i + 0.5) * source / (target + offset) - 0.5. Without antialias: four taps, a = -0.75, indices clamped at the
    ends. With it: a = -0.5, the kernel widened when shrinking, weights beyond the ends dropped and the rest rescaled.

    Args:
        source: int > 0. Old length.
        target: int > 0. New length.
        offset: float. DINO, iBOT and DINOv2 without registers ask for a scale of (target + 0.1) / source, which
            shifts the places that are read: 0.1 for parity with them. Defaults to `0.0`.
        antialias: bool. True for parity with DINOv2's networks with registers. Defaults to `False`.

    Returns:
        float64 `(target, source)`; rows sum to 1.
    """
    center = (np.arange(target) + 0.5) * source / (target + offset) - 0.5
    if antialias:
        wide = max(source / (target + offset), 1.0)
        distance = np.arange(source) - center[:, None]
        matrix = _cubic_weight(distance / wide, _CUBIC_ANTIALIAS)
        return matrix / matrix.sum(1, keepdims=True)
    start = np.floor(center).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        place = np.clip(start + tap, 0, source - 1)
        np.add.at(matrix, (np.arange(target), place), _cubic_weight(center - (start + tap), _CUBIC))
    return matrix


def interpolate_positions(
    table: tf.Tensor,
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    offset: float = 0.0,
    antialias: bool = False,
) -> tf.Tensor:
    """Resizes a table of patch positions to another grid.

    Args:
        table: float `(1, rows * columns, dim)`, patches only, no class token.
        source: (rows, columns) of the table.
        target: (rows, columns) wanted. Equal to `source`: the table comes back untouched.
        offset: float. See `bicubic_matrix`. Defaults to `0.0`.
        antialias: bool. See `bicubic_matrix`. Defaults to `False`.

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
        tf.constant(bicubic_matrix(old, new, offset=offset, antialias=antialias), table.dtype)
        for old, new in zip(source, target, strict=True)
    )
    dim = table.shape[-1]
    # h, w: old grid; y, x: new grid; d: channel
    patches = tf.reshape(table, (*source, dim))
    resized = tf.einsum("yh,xw,hwd->yxd", vertical, horizontal, patches, optimize="optimal")
    return tf.reshape(resized, (1, target[0] * target[1], dim))
