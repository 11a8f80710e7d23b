"""What a transformer looks at and how it sorts its patches: attention and principal-component maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_ssl.backbones import ViT
from keras_ssl.evaluation.neighbors import write_png

_GAP, _WHITE, _SMALLEST = 2, 255, 224
FOREGROUNDS = (None, "positive", "negative")


def attention_maps(encoder: Callable, images: np.ndarray) -> np.ndarray:
    """Returns how much the class token attends to each patch in the last block, head by head.

    Args:
        encoder: ViT with a class token.
        images: float `(batch, height, width, 3)` in [0, 1].

    Returns:
        float32 `(batch, heads, rows, columns)`; what is missing to a sum of 1 went to the class token itself and to
        registers.

    Raises:
        ValueError: if the encoder gives no attention or has no class token.

    Reference code: facebookresearch/dino `visualize_attention.py`.
    """
    if not isinstance(encoder, ViT) or encoder.class_token is None:
        raise ValueError(
            f"Expected a `ViT` with a class token. Received: {_describe(encoder)}; "
            "`patch_pca` draws any encoder with tokens or a map."
        )
    outputs = encoder(tf.convert_to_tensor(images), training=False, output="attention")
    weights = tf.cast(outputs["attention"][:, :, 0, encoder.num_prefix_tokens :], tf.float32)
    rows, columns = _grid(images.shape, weights.shape[-1])
    return weights.numpy().reshape(*weights.shape[:2], rows, columns)


def patch_pca(
    encoder: Callable, images: np.ndarray, *, foreground: str | None = None
) -> np.ndarray:
    """Returns the first three principal components of the patches of all images together, as colors.

    Args:
        encoder: gives "tokens" `(batch, patches, dim)` or "map" `(batch, rows, columns, dim)`.
        images: float `(batch, height, width, 3)` in [0, 1].
        foreground: str or None. `"positive"` or `"negative"`: patches with that sign of the first component are the
            foreground; the components are computed again of them alone, the others are black. Which sign is the
            object is chosen by eye. Defaults to `None`: all patches.

    Returns:
        float32 `(batch, rows, columns, 3)` in [0, 1], each component stretched over the colored patches.

    Reference: Oquab et al., 2023, https://arxiv.org/abs/2304.07193, section 7.5.
    """
    outputs = encoder(tf.convert_to_tensor(images), training=False)
    if "map" in outputs:
        patches = outputs["map"]
        shape = tuple(patches.shape[:3])
    elif "tokens" in outputs:
        patches = outputs["tokens"]
        shape = (len(images), *_grid(images.shape, patches.shape[1]))
    else:
        raise ValueError(
            "Expected an encoder that gives 'tokens' or 'map'. "
            f"Received: {_describe(encoder)} with {sorted(outputs)}"
        )
    patches = tf.cast(patches, tf.float32).numpy()
    return pca_colors(patches.reshape(-1, patches.shape[-1]), foreground=foreground).reshape(
        *shape, 3
    )


def pca_colors(patches: np.ndarray, *, foreground: str | None = None) -> np.ndarray:
    """Returns one color for each patch; see `patch_pca`.

    The largest loading of each component is made positive, so that the same patches have the same colors. Components
    that do not vary are 0.5.

    Args:
        patches: float `(patches, dim)`.
        foreground: str or None. Defaults to `None`.

    Returns:
        float32 `(patches, 3)` in [0, 1].
    """
    if foreground not in FOREGROUNDS:
        raise ValueError(
            f"`foreground` must be one of {FOREGROUNDS}. Received: foreground={foreground!r}"
        )
    patches = np.asarray(patches, np.float64)
    chosen = np.ones(len(patches), bool)
    if foreground is not None:
        first = _components(patches)[:, 0]
        chosen = first > 0 if foreground == "positive" else first < 0
    colors = np.zeros((len(patches), 3), np.float32)
    if chosen.any():
        colors[chosen] = _stretch(_components(patches[chosen]))
    return colors


def _components(patches: np.ndarray) -> np.ndarray:
    """Returns the coordinates `(patches, 3)` along the first three principal axes; 0 where there are fewer."""
    centered = patches - patches.mean(0)
    _, values, axes = np.linalg.svd(centered, full_matrices=False)
    axes = axes[:3][values[:3] > 1e-6 * max(values[0], 1e-12)]
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    result = np.zeros((len(patches), 3))
    result[:, : len(axes)] = centered @ axes.T
    return result


def _stretch(values: np.ndarray) -> np.ndarray:
    low, high = values.min(0), values.max(0)
    even = high - low <= 0
    return np.where(even, 0.5, (values - low) / np.where(even, 1.0, high - low))


def save_maps(
    path: str | Path,
    images: np.ndarray,
    *,
    attention: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Writes a sheet as PNG: in each row an image, its attention (mean over the heads, then each head), its colors.

    Args:
        path: path of the file; its folder must exist.
        images: float `(batch, height, width, 3)` in [0, 1].
        attention: float `(batch, heads, rows, columns)`, as `attention_maps` returns it. Each map is stretched from
            black to white. Defaults to `None`.
        colors: float `(batch, rows, columns, 3)` in [0, 1], as `patch_pca` returns it. Defaults to `None`.

    Raises:
        ValueError: if there is not one map for each image, or no map at all.
    """
    given = [value for value in (attention, colors) if value is not None]
    if not given or any(len(value) != len(images) for value in given):
        raise ValueError(
            f"Expected attention or colors, one for each of {len(images)} images. "
            f"Received: {[value.shape for value in given]}"
        )
    rows = []
    for index, image in enumerate(np.asarray(images, np.float32)):
        cells = [image]
        if attention is not None:
            heads = attention[index].astype(np.float64)
            flat = np.concatenate([heads.mean(0, keepdims=True), heads]).reshape(len(heads) + 1, -1)
            gray = _stretch(flat.T).T.reshape(-1, *heads.shape[1:])
            cells += list(np.repeat(gray[..., None], 3, axis=-1))
        if colors is not None:
            cells.append(colors[index])
        rows.append(_row(cells, image.shape[:2]))
    gap = np.full((_GAP, *rows[0].shape[1:]), _WHITE, np.uint8)
    write_png(path, np.concatenate([part for row in rows for part in (row, gap)][:-1]))


def _row(cells: list[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
    """Returns the cells side by side in uint8, each enlarged without smoothing; small images too."""
    factor = -(-_SMALLEST // max(size))
    height, width = (side * factor for side in size)
    gap, parts = np.full((height, _GAP, 3), _WHITE, np.uint8), []
    for cell in cells:
        rows = np.arange(height) * cell.shape[0] // height
        columns = np.arange(width) * cell.shape[1] // width
        large = np.rint(np.clip(cell[rows][:, columns], 0.0, 1.0) * 255).astype(np.uint8)
        parts += [large, gap]
    return np.concatenate(parts[:-1], axis=1)


def _grid(shape: tuple[int, ...], patches: int) -> tuple[int, int]:
    """Returns (rows, columns) of square patches that cover images of this shape."""
    rows = round((patches * shape[1] / shape[2]) ** 0.5)
    if rows < 1 or patches % rows or rows * shape[2] != patches // rows * shape[1]:
        raise ValueError(
            f"Expected square patches that cover the images. Received: {patches} tokens for "
            f"images of {shape[1]} x {shape[2]} pixels"
        )
    return rows, patches // rows


def _describe(encoder: Callable) -> str:
    without = getattr(encoder, "class_token", encoder) is None
    return type(encoder).__name__ + (" without a class token" if without else "")
