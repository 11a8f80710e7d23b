"""What a search found as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from keras_ssl import views
from keras_ssl.data import open_source
from keras_ssl.data.decode import decode
from keras_ssl.embedding.files import Features
from keras_ssl.embedding.search import Query

_GAP, _TEXT, _WHITE = 4, 14, 255  # pixels, pixels, gray


def search_sheet(
    found: Features,
    queries: Sequence[Query],
    cosine: np.ndarray,
    rows: np.ndarray,
    *,
    data: str | None = None,
    size: int = 112,
) -> np.ndarray:
    """Draws each query in a row with its neighbors, nearest first, as the encoder sees them.

    Args:
        found: Features.
        queries: Query. What was looked for.
        cosine: float `(queries, k)`. Written below the neighbors, with their classes.
        rows: int `(queries, k)`. Rows of the neighbors.
        data: str. Where the embedded images are, if they have moved. Defaults to `None`.
        size: int. Side of each image, pixels. Defaults to `112`.

    Returns:
        uint8 `(height, width, 3)`.

    Raises:
        ValueError: If the embedded images are not there any more, or are not the same.
    """
    place = data or found.meta["data"]
    if not place:
        raise ValueError(
            "Expected --data with the embedded images, which the features do not name. Received: nothing."
        )
    source = open_source(place, view_size=size)
    if source.fingerprint() != found.meta["data_fingerprint"]:
        raise ValueError(
            f"Expected the images that were embedded. Received: {place}, which has changed since; embed again, or "
            "name the right folder with --data."
        )
    images, aspect, _ = source.read_each(found.ids[rows.ravel()])
    ratio = found.meta["crop_ratio"]
    shown = _squares(images, aspect, size, ratio).reshape(*rows.shape, size, size, 3)
    names = found.meta.get("class_names")
    bands = []
    for number, query in enumerate(queries):
        asked, change = decode(Path(query.path), source.canvas)
        cells = [_cell(_squares(asked[None], np.array([change]), size, ratio)[0], "query")]
        for image, value, row in zip(shown[number], cosine[number], rows[number], strict=True):
            label = -1 if found.labels is None else int(found.labels[row])
            name = f" {names[label]}" if names and 0 <= label < len(names) else ""
            cells.append(_cell(image, f"{value:.3f}{name}"))
        bands.append(np.concatenate(cells, axis=1))
    return np.concatenate(bands)


def _squares(images: np.ndarray, aspect: np.ndarray, size: int, ratio: float) -> np.ndarray:
    cropped = views.center_crop(images, aspect.astype(np.float32), size=size, crop_ratio=ratio)
    return np.rint(np.clip(np.asarray(cropped, np.float32), 0.0, 1.0) * 255).astype(np.uint8)


def _cell(image: np.ndarray, text: str) -> np.ndarray:
    """Returns an image with a line of text below it and a white edge."""
    side = len(image)
    cell = Image.new("RGB", (side + _GAP, side + _TEXT + _GAP), (_WHITE,) * 3)
    cell.paste(Image.fromarray(image), (_GAP // 2, _GAP // 2))
    plain = text.encode("ascii", "replace").decode()  # the built-in font may have no more
    ImageDraw.Draw(cell).text((_GAP // 2, side + _GAP // 2 + 1), plain, fill=(0, 0, 0))
    return np.asarray(cell)
