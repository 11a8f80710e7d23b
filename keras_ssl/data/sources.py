"""One way to open every kind of source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from keras_ssl.data.arrays import ArraySource, load_digits, load_npz
from keras_ssl.data.base import DataError, Source
from keras_ssl.data.folder import FolderSource
from keras_ssl.data.tfds import open_tfds

_NPZ = re.compile(r"(?P<path>.*\.npz)(?::(?P<split>\w+))?", re.IGNORECASE)


def open_source(
    spec: str | Path | np.ndarray | tuple | Source,
    *,
    data_dir: str | Path | None = None,
    canvas: str | int | tuple[int, int] | None = None,
    view_size: int | None = None,
    quarantine: str | Path | None = None,
    cache_dir: str | Path | None = None,
    num_threads: int | None = None,
) -> Source:
    """Opens images for training or evaluation.

    Args:
        spec: one of
            - a folder's path: pictures at any depth (`FolderSource`);
            - `"FILE.npz"` or `"FILE.npz:SPLIT"`: arrays in a file (`load_npz`);
            - `"tfds:NAME[/CONFIG][:VERSION][:SPLIT]"`: a prepared TensorFlow Datasets set
              (`open_tfds`), such as `"tfds:cifar10"` or `"tfds:cifar10:train[:90%]"`;
            - `"digits"`, `"digits:train"`, `"digits:test"`: scikit-learn's digits (`load_digits`);
            - an array of images, or a tuple `(images, labels)` (`ArraySource`);
            - a `Source`, which is returned as it is.
        data_dir: str, Path or None. Where TensorFlow Datasets keeps its sets.
        canvas: `"auto"` or None, int, or `(height, width)`. Size in pixels that all images are
            resized to. Defaults to the rule in `choose_canvas`; arrays keep their size.
        view_size: int or None. Side in pixels of the largest view, for that rule.
        quarantine: str, Path or None. File that lists broken records.
        cache_dir: str, Path or None. Where byte offsets of TFRecord shards are kept; None means
            next to the shards.
        num_threads: int or None. Decoding threads; None means one for each processor.

    Returns:
        A `Source`.

    Raises:
        DataError: if there is nothing usable; the message says what to do.
    """
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, np.ndarray):
        return ArraySource(spec, canvas=canvas)
    if isinstance(spec, tuple):
        if len(spec) != 2:
            raise DataError(
                f"Expected a pair (images, labels), but found a tuple of {len(spec)}: pass two "
                "arrays."
            )
        return ArraySource(*spec, canvas=canvas)
    if not isinstance(spec, str | Path):
        raise ValueError(
            "`spec` must be a path, a name, an array, a pair of arrays or a Source. "
            f"Received: spec={spec!r}"
        )
    text = str(spec)
    settings = {
        "canvas": canvas,
        "view_size": view_size,
        "quarantine": quarantine,
        "num_threads": num_threads,
    }
    if text.startswith("tfds:"):
        return open_tfds(text[5:], data_dir=data_dir, cache_dir=cache_dir, **settings)
    if text == "digits" or text.startswith("digits:"):
        return load_digits(text[7:] or None, canvas=canvas)
    text = str(Path(text).expanduser())
    npz = _NPZ.fullmatch(text)
    if npz and not Path(text).is_dir():
        return load_npz(npz["path"], npz["split"], canvas=canvas)
    return FolderSource(text, **settings)
