"""One way to open every kind of source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from keras_ssl.data.arrays import ArraySource, load_digits, load_npz
from keras_ssl.data.base import DataError, Source
from keras_ssl.data.examples import open_tfrecords
from keras_ssl.data.parquet import ParquetSource
from keras_ssl.data.prepared import open_folder, read_manifest
from keras_ssl.data.shards import kind_of
from keras_ssl.data.tar import TarSource
from keras_ssl.data.tfds import open_tfds

_NPZ = re.compile(r"(?P<path>.*\.npz)(?::(?P<split>\w+))?", re.IGNORECASE)
_PACKED = re.compile(
    r"(?P<kind>tfrecord|tar|parquet):(?P<pattern>.+?)(:image=(?P<image>[^:]+))?(:label=(?P<label>[^:]*))?"
)


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
            - a folder's path: pictures at any depth (`FolderSource`), or their prepared cache
              (`open_folder`);
            - `"FILE.npz"` or `"FILE.npz:SPLIT"`: arrays in a file (`load_npz`);
            - `"tfds:NAME[/CONFIG][:VERSION][:SPLIT]"`: a prepared TensorFlow Datasets set
              (`open_tfds`), such as `"tfds:cifar10"` or `"tfds:cifar10:train[:90%]"`;
            - `"tfrecord:PATTERN"`: shards of `tf.train.Example` records (`open_tfrecords`), with
              `:image=KEY` and `:label=KEY` behind it where the features are not found by themselves;
            - `"tar:PATTERN"`: plain .tar files (`TarSource`);
            - `"parquet:PATTERN"`: Parquet files (`ParquetSource`), with `:image=` and `:label=` too;
            - one of these without its prefix, if the files' names tell;
            - `"digits"`, `"digits:train"`, `"digits:test"`: scikit-learn's digits (`load_digits`);
            - an array of images, or a tuple `(images, labels)` (`ArraySource`);
            - a `Source`, which is returned as it is.
        data_dir: str, Path or None. Where TensorFlow Datasets keeps its sets.
        canvas: `"auto"` or None, int, or `(height, width)`. Size in pixels that all images are
            resized to. Defaults to the rule in `choose_canvas`; arrays keep their size.
        view_size: int or None. Side in pixels of the largest view, for that rule.
        quarantine: str, Path or None. File that lists broken records.
        cache_dir: str, Path or None. Where the indices of TFRecord and tar files are kept; None
            means next to them.
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
    packed = _PACKED.fullmatch(text)
    if packed is None and read_manifest(Path(text)) is None and (kind := kind_of(text)):
        packed = _PACKED.fullmatch(f"{kind}:{text}")
    return _open_packed(packed, cache_dir, settings) if packed else open_folder(text, **settings)


def _open_packed(spec: re.Match, cache_dir: str | Path | None, settings: dict) -> Source:
    """Opens TFRecord, tar or Parquet files."""
    keys = {"image_key": spec["image"], "label_key": spec["label"]}
    if spec["kind"] == "tfrecord":
        return open_tfrecords(spec["pattern"], cache_dir=cache_dir, **keys, **settings)
    if spec["kind"] == "parquet":
        return ParquetSource(spec["pattern"], **keys, **settings)
    if any(key is not None for key in keys.values()):
        raise DataError(
            f"Expected tar:PATTERN, but found {spec[0]}: members of tar files have no features."
        )
    return TarSource(spec["pattern"], cache_dir=cache_dir, **settings)
