"""What a reference network sees of images instead of normalized colors, in NumPy."""

from __future__ import annotations

import numpy as np


def lightness(images: np.ndarray) -> np.ndarray:
    """Returns L - 50 of images in [0, 1] as OpenCV documents it: `(batch, height, width, 1)` float32."""
    linear = np.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)
    y = linear @ np.array([0.212671, 0.715160, 0.072169])
    value = np.where(y > 0.008856, 116.0 * np.cbrt(y) - 16.0, 903.3 * y)
    return (value - 50.0).astype(np.float32)[..., None]


def lab(images: np.ndarray) -> np.ndarray:
    """Returns CIE Lab (D65) of sRGB images in [0, 1], as it is: `(batch, height, width, 3)` float32, L in [0, 100]."""
    rgb = np.asarray(images, np.float64)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    rows = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169]]
    rows += [[0.019334, 0.119193, 0.950227]]
    x, y, z = np.moveaxis(linear @ np.transpose(rows) / [0.95047, 1.0, 1.08883], -1, 0)
    x, y, z = (np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z))
    stacked = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
    return stacked.astype(np.float32)
