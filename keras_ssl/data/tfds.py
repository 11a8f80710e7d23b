"""A prepared TensorFlow Datasets set as a source: offline, with random access."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data.base import DataError
from keras_ssl.data.examples import ExampleSource
from keras_ssl.data.tfrecord import TFRecordShard

_SPEC = re.compile(r"(?P<name>[^:]+)(?::(?P<version>\d+\.\d+\.\d+))?(?::(?P<split>.+))?")


class TFDSSource(ExampleSource):
    """The images of one split of a prepared TensorFlow Datasets set.

    They are decoded by this library, so nothing of the set's own code is needed.
    """


def open_tfds(
    spec: str,
    *,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **settings,
) -> TFDSSource:
    """Opens a set that TensorFlow Datasets has prepared on this machine; downloads nothing.

    Args:
        spec: str. `NAME[/CONFIG][:VERSION][:SPLIT]`, where NAME may be the folder of one prepared
            version. The split may be a slice such as `train[:90%]`; without one it is `train`, or
            the only split there is.
        data_dir: str, Path or None. None means TensorFlow Datasets' own default.
        cache_dir: str, Path or None. See `TFRecordShard`.
        **settings: see `EncodedSource`.

    Returns:
        A `TFDSSource`.

    Raises:
        DataError: if the set is not prepared, has no such split or no images, or is not stored as
            TFRecord.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise DataError(
            f"Expected tfds:NAME[/CONFIG][:VERSION][:SPLIT], but found tfds:{spec}: give the name "
            "of a data set."
        )
    builder = _find_builder(match["name"], match["version"], data_dir)
    info = builder.info
    if str(info.file_format.value) != "tfrecord":
        raise DataError(
            f"Expected TensorFlow Datasets set {info.full_name} stored as tfrecord, but found "
            f"{info.file_format.value}: prepare it again with file_format='tfrecord'."
        )
    split = match["split"] or ("train" if "train" in info.splits else "".join(info.splits))
    try:
        instructions = info.splits[split].file_instructions
    except Exception as error:
        raise DataError(
            f"Expected a split of {info.full_name} ({', '.join(info.splits)}), but found "
            f"{split!r}: choose one with tfds:NAME:SPLIT."
        ) from error
    image_key, label_key = _image_and_label(info)
    names = info.features[label_key].names if label_key else None
    ranges = [_shard_range(part, cache_dir) for part in instructions if part.take]
    if not ranges:
        raise DataError(
            f"Expected images in {info.full_name} {split}, but found none: choose another split."
        )
    return TFDSSource(f"{info.full_name} {split}", ranges, image_key, label_key, names, **settings)


def _find_builder(name: str, version: str | None, data_dir: str | Path | None) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    if (Path(name) / "dataset_info.json").is_file():
        return tfds.builder_from_directory(name)
    data_dir = None if data_dir is None else str(Path(data_dir).expanduser())
    full = f"{name}:{version}" if version else name
    try:
        return read_only_builder.builder_from_files(full, data_dir=data_dir)
    except Exception as error:  # the set's name, folder or version can be wrong in many ways
        where = data_dir or "its default folder"
        option = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"Expected TensorFlow Datasets set {full} prepared in {where}, but did not find it: "
            f"run `tfds build {name}{option}` once, or check the name and the folder."
        ) from error


def _image_and_label(info: Any) -> tuple[str, str | None]:
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and feature.np_dtype in (np.uint8, np.uint16)
    ]
    labels = [k for k, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if not images:
        raise DataError(
            f"Expected an image among the features of {info.full_name}, but found "
            f"{', '.join(features) or 'no dictionary of features'}: choose a set of images."
        )
    image = "image" if "image" in images else images[0]
    label = "label" if "label" in labels else (labels[0] if labels else None)
    return image, label


def _shard_range(part: Any, cache_dir: str | Path | None) -> tuple[TFRecordShard, int, int]:
    shard = TFRecordShard(str(part.filename), cache_dir)
    if len(shard) != part.examples_in_shard:
        raise DataError(
            f"Expected {part.examples_in_shard:,} records in {shard.path}, but found "
            f"{len(shard):,}: the data set is damaged, prepare it again."
        )
    return shard, part.skip, part.take
