"""Encoded pictures of any common kind to RGB on a fixed canvas.

One decoder, Pillow, for every format and source. Choices made here:

- EXIF orientation is applied; an unreadable EXIF block is ignored.
- The first frame of an animation is the picture.
- Transparent pixels are shown on white, as a web page would.
- 16 bits become 8 by dividing by 257, rounded (65535 -> 255); 16-bit color keeps its high byte.
- The whole picture is resized to the canvas, antialiased (bilinear with support scaled to the
  reduction), and not cropped: `aspect` says how its shape changed.
- A JPEG at least twice as large as the canvas is decoded at 1/2, 1/4 or 1/8 scale.
- Broken means that Pillow raises: unknown format, missing bytes, or more than 179 million pixels
  (Pillow's limit against decompression bombs).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

# Pillow warns from 89 million pixels on and refuses from twice that; only the refusal matters.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_ORIENTATION_TAG = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
Box = tuple[float, float, float, float]
_REDUCING_GAP = 3.0  # Pillow: indistinguishable from a plain resize, but faster on large pictures


def decode(data: bytes | str | Path, canvas: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Decodes a picture onto a canvas.

    Args:
        data: bytes of an image file, or its path.
        canvas: tuple `(height, width)` in pixels.

    Returns:
        Image, uint8 `(height, width, 3)` RGB, and aspect, float: the picture's width / height
        divided by the canvas's width / height.

    Raises:
        Exception: whatever Pillow raises for a picture that it cannot read completely.
    """
    height, width = canvas
    with Image.open(_stream(data)) as image:
        orientation = _orientation(image)
        original = image.size
        target = (height, width) if orientation in _SIDEWAYS else (width, height)
        drafted = image.draft(None, target)
        box = drafted[1] if drafted else (0, 0, *original)
        rgb = _resize(_to_rgb(image), target, box)
    if orientation in _TURN:
        rgb = rgb.transpose(_TURN[orientation])
        original = original[::-1] if orientation in _SIDEWAYS else original
    return np.asarray(rgb), shape_change(original, canvas)


def cut(
    data: bytes | str | Path, views: Callable[[tuple[int, int]], Sequence[tuple[Box, int, str]]]
) -> list[np.ndarray]:
    """Cuts views from a picture as it is, upright, without a canvas between.

    Args:
        data: bytes of an image file, or its path.
        views: function from `(width, height)` to the box of each view (left, top, right, bottom in pixels), the side
            that it is resized to, and `"bilinear"` or `"bicubic"`, both antialiased. Next to a box's edge its true
            neighbors are read, as in `views.crop`.

    Returns:
        A uint8 `(side, side, 3)` RGB image for each view.

    Raises:
        Exception: whatever Pillow raises for a picture that it cannot read completely.
    """
    with Image.open(_stream(data)) as image:
        orientation = _orientation(image)
        rgb = _to_rgb(image)
        rgb.load()
    if orientation in _TURN:
        rgb = rgb.transpose(_TURN[orientation])
    return [
        np.asarray(rgb.resize((side, side), Image.Resampling[kernel.upper()], box))
        for box, side, kernel in views(rgb.size)
    ]


def shrink(data: bytes, side: int, quality: int) -> bytes:
    """Returns a smaller JPEG of a picture, upright; or the same bytes if it is small already.

    Resized with Lanczos's kernel, which keeps more detail than `decode`'s: the copy is resized again.

    Args:
        data: bytes of an image file.
        side: int. Shorter side in pixels of the result; a shorter side up to that is left alone.
        quality: int in [1, 95]. Of the JPEG.

    Raises:
        Exception: whatever Pillow raises for a picture that it cannot read completely.
    """
    with Image.open(io.BytesIO(data)) as image:
        if min(image.size) <= side:
            return data
        ratio = side / min(image.size)
        target = tuple(max(side, round(length * ratio)) for length in image.size)
        orientation, original = _orientation(image), image.size
        drafted = image.draft(None, target)
        box = drafted[1] if drafted else (0, 0, *original)
        rgb = _resize(_to_rgb(image), target, box, Image.Resampling.LANCZOS)
    if orientation in _TURN:
        rgb = rgb.transpose(_TURN[orientation])
    file = io.BytesIO()
    rgb.save(file, "JPEG", quality=quality)
    return file.getvalue()


def read_header(data: bytes | str | Path) -> tuple[tuple[int, int], str]:
    """Returns `(width, height)` as shown and the format's name, without decoding pixels."""
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        size = image.size[::-1] if _orientation(image) in _SIDEWAYS else image.size
        return size, image.format or "unknown"


def shape_change(size: tuple[int, int], canvas: tuple[int, int]) -> float:
    """Returns (width / height of the picture) / (width / height of the canvas)."""
    return (size[0] / size[1]) * (canvas[0] / canvas[1])


def array_to_rgb(images: np.ndarray) -> np.ndarray:
    """Returns uint8 `(batch, h, w)` or `(batch, h, w, 1 | 3 | 4)` as `(batch, h, w, 3)`; alpha on white."""
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[-1] == 4:
        alpha = images[..., 3:].astype(np.uint32)
        color = images[..., :3].astype(np.uint32)
        return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images


def resize_array(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Returns a uint8 `(h, w, 3)` image resized to the canvas like a decoded picture."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(_resize(picture, (canvas[1], canvas[0]), (0, 0, *picture.size)))


def _stream(data: bytes | str | Path) -> io.BytesIO:
    return io.BytesIO(data if isinstance(data, bytes) else Path(data).read_bytes())


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises several kinds for a damaged block; the pixels may be fine
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    kernel: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    image.load()
    if image.size == size:
        return image
    return image.resize(size, kernel, box, reducing_gap=_REDUCING_GAP)
