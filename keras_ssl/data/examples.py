"""`tf.train.Example` records with encoded pictures as a source: TFRecord shards with random access."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ssl.data import decode
from keras_ssl.data.base import DataError, digest, sampled_indices
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.shards import ends_of, find_shards, locate
from keras_ssl.data.tfrecord import TFRecordShard

_IMAGE_KEYS = ("image/encoded", "image", "image_raw", "encoded", "img", "jpg", "jpeg", "png")
_LABEL_KEYS = ("image/class/label", "label", "class", "target", "cls", "fine_label")
_LOOKED_AT = 8  # records that are searched for an image when no feature is named
_INDEX_THREADS = 8  # building an index waits for the disk


class ExampleSource(EncodedSource):
    """The images of `tf.train.Example` records in TFRecord shards.

    Shards are read through byte offsets. Labels are noted as records are read; `labels` reads the
    records that are still missing.

    Args:
        name: str. Name for people, such as `"cifar10/3.0.2 train"`.
        ranges: list of `(shard, skip, take)`: `TFRecordShard` and the records taken from it.
        image_key: str. Feature that holds the encoded image.
        label_key: str or None. Feature that holds the class as an integer.
        class_names: list of str or None. None with a `label_key`: classes without known names.
        **settings: see `EncodedSource`.
    """

    def __init__(
        self,
        name: str,
        ranges: Sequence[tuple[TFRecordShard, int, int]],
        image_key: str,
        label_key: str | None = None,
        class_names: Sequence[str] | None = None,
        **settings,
    ) -> None:
        self.name = name
        self._ranges = list(ranges)
        self._ends = ends_of(take for _, _, take in ranges)
        self._image_key, self._label_key = image_key, label_key
        self.class_names = None if label_key is None else tuple(class_names or ())
        count = int(self._ends[-1])
        self._labels = np.full(count, -1, np.int32)
        self._label_known = np.zeros(count, bool)
        super().__init__(count, **settings)

    @property
    def has_labels(self) -> bool:
        return self._label_key is not None

    @property
    def labels(self) -> np.ndarray | None:
        """int32 `(num_samples,)`, or None; -1 where a record has no class or cannot be read."""
        if self._label_key is None:
            return None
        for index in np.flatnonzero(~self._label_known):
            try:
                self._example(int(index))
            except Exception:  # a damaged record: counted when its image is read
                self._label_known[index] = True
        return self._labels

    def labels_of(self, sample_ids: np.ndarray) -> np.ndarray:
        return self._labels[np.asarray(sample_ids)]

    def record(self, index: int) -> bytes:
        values = self._example(index)[self._image_key].bytes_list.value
        if not values:
            raise OSError(f"no image in the feature {self._image_key}")
        return values[0]

    def record_name(self, index: int) -> str:
        shard, row = self._locate(index)
        return f"{shard.path}[{row}]"

    def fingerprint(self) -> str:
        """Covers the set's name, and name, size and records of every shard."""
        parts = [
            f"{shard.path.name} {shard.starts[-1]} {skip} {take}"
            for shard, skip, take in self._ranges
        ]
        return digest([self.name, str(self.num_samples), *parts])

    def describe(self) -> str:
        return f"{self.name}: {super().describe()}"

    def _locate(self, index: int) -> tuple[TFRecordShard, int]:
        number, row = locate(self._ends, index)
        shard, skip, _ = self._ranges[number]
        return shard, row + skip

    def _example(self, index: int) -> Any:
        """Returns the features of a record and notes its label."""
        shard, row = self._locate(index)
        feature = tf.train.Example.FromString(shard[row]).features.feature
        if self._label_key is not None:
            values = feature[self._label_key].int64_list.value
            self._labels[index] = values[0] if values else -1
            self._label_known[index] = True
        return feature


def open_tfrecords(
    pattern: str,
    *,
    image_key: str | None = None,
    label_key: str | None = None,
    cache_dir: str | Path | None = None,
    **settings,
) -> ExampleSource:
    """Opens TFRecord shards of `tf.train.Example` records with encoded images.

    The byte offsets of each shard are found once and kept; when that is interrupted, it goes on
    with the shards that are missing.

    Args:
        pattern: str. A file, folder or glob pattern; see `find_shards`.
        image_key: str or None. Feature with the encoded image. None looks for one: a feature of
            bytes that holds a picture, `image/encoded` and `image` first.
        label_key: str or None. Feature with the class as an integer; `""` for none. None takes the
            first of `image/class/label`, `label`, `class`, ... that is there.
        cache_dir: str, Path or None. See `TFRecordShard`.
        **settings: see `EncodedSource`.

    Returns:
        An `ExampleSource`.

    Raises:
        DataError: if there are no such files, if one is compressed or damaged, or if no feature
            holds an image.
    """
    files, split = find_shards(pattern, "tfrecord")
    with ThreadPool(min(_INDEX_THREADS, len(files))) as pool:
        shards = pool.map(lambda path: TFRecordShard(path, cache_dir), files, chunksize=1)
    ranges = [(shard, 0, len(shard)) for shard in shards if len(shard)]
    if not ranges:
        raise DataError(f"Expected records in {pattern}, but found none: choose other files.")
    image_key, label_key = _choose_keys(shards, image_key, label_key)
    keys = image_key + (f", {label_key}" if label_key else "")
    number = f"{len(files):,} TFRecord file{'s' if len(files) != 1 else ''}"
    name = f"{number}{f' of {split}' if split else ''} ({keys})"
    return ExampleSource(name, ranges, image_key, label_key, **settings)


def _choose_keys(
    shards: Sequence[TFRecordShard], image_key: str | None, label_key: str | None
) -> tuple[str, str | None]:
    """Returns the features of image and label, looked for in the first record with an image."""
    images: list[str] = []
    kinds: dict[str, str | None] = {}
    for feature in _some_features(shards):
        kinds |= {key: value.WhichOneof("kind") for key, value in feature.items()}
        images = [key for key, value in sorted(feature.items()) if _is_picture(value)]
        images = [key for key in images if image_key in (None, key)]
        if images:
            break
    known = [key for key in _IMAGE_KEYS if key in images]
    if not images or (len(images) > 1 and not known):
        wanted = image_key or "one feature with an encoded image"
        found = ", ".join(images or sorted(kinds)) or "no tf.train.Example records"
        raise DataError(
            f"Expected {wanted} in the records of {shards[0].path}, but found {found}: name it "
            "with tfrecord:PATTERN:image=KEY (raw pixels cannot be read)."
        )
    integers = [key for key, kind in kinds.items() if kind == "int64_list"]
    if label_key and label_key not in integers:
        raise DataError(
            f"Expected {label_key} among the integers in the records of {shards[0].path}, but "
            f"found {', '.join(sorted(integers)) or 'none'}: name one with "
            "tfrecord:PATTERN:label=KEY."
        )
    if label_key is None:
        label_key = next((key for key in _LABEL_KEYS if key in integers), None)
    return known[0] if known else images[0], label_key or None


def _some_features(shards: Sequence[TFRecordShard]) -> Any:
    """Yields the features of a few readable records spread over the shards."""
    filled = [shard for shard in shards if len(shard)]
    for number in sampled_indices(len(filled), _LOOKED_AT):
        for row in sampled_indices(len(filled[number]), max(1, _LOOKED_AT // len(filled))):
            try:
                yield tf.train.Example.FromString(filled[number][row]).features.feature
            except Exception:  # a damaged record: others will tell
                continue


def _is_picture(value: Any) -> bool:
    if len(value.bytes_list.value) != 1:
        return False
    try:
        decode.read_header(value.bytes_list.value[0])
    except Exception:  # Pillow raises a dozen kinds for what is no picture
        return False
    return True
