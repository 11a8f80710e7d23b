"""Pictures in Parquet files, as Hugging Face keeps its data sets, with random access by row group."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data.base import DataError, digest
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.shards import ends_of, find_shards, locate

_IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
_CACHE_BYTES = 256 * 2**20  # row groups kept in memory


class ParquetSource(EncodedSource):
    """The pictures of Parquet files, in the order of the sorted files.

    A picture is the `bytes` of a struct column or a column of binary values. The smallest piece
    that can be read is a row group, often 100 or 1,000 pictures: the last ones are kept, up to
    256 MB, but a shuffled pass over a large set reads a row group for nearly every picture.
    `keras-ssl prepare` copies it once into files with cheap random access.

    Args:
        pattern: str. A file, folder or glob pattern; see `find_shards`.
        image_key: str or None. The column of pictures. None takes `image`, `img`, ... or the only
            column that can hold pictures.
        label_key: str or None. The column of classes, integers; `""` for none. None takes `label`,
            `labels`, ... if it is there. Names of classes are read from Hugging Face's schema.
        **settings: see `EncodedSource`.

    Raises:
        DataError: if there are no such files, if one cannot be read, if no column can hold
            pictures, or if `pyarrow` is not installed.
    """

    def __init__(
        self,
        pattern: str,
        *,
        image_key: str | None = None,
        label_key: str | None = None,
        **settings: Any,
    ) -> None:
        self._parquet = _import_parquet()
        files, split = find_shards(pattern, "parquet")
        self._metadata = [_read_metadata(self._parquet, path) for path in files]
        self._groups = [
            (path, number, metadata)
            for path, metadata in zip(files, self._metadata, strict=True)
            for number in range(metadata.num_row_groups)
        ]
        self._ends = ends_of(meta.row_group(number).num_rows for _, number, meta in self._groups)
        if not len(self._ends) or not self._ends[-1]:
            raise DataError(f"Expected rows in {pattern}, but found none: choose other files.")
        schema = self._metadata[0].schema.to_arrow_schema()
        self._leaf, self._label_key = _choose_columns(schema, files[0], image_key, label_key)
        self.class_names = None if self._label_key is None else _names_in(schema, self._label_key)
        number = f"{len(files):,} Parquet file{'s' if len(files) != 1 else ''}"
        self.name = f"{number}{f' of {split}' if split else ''}"
        self._files = files
        self._labels: np.ndarray | None = None
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Any] = OrderedDict()
        super().__init__(int(self._ends[-1]), **settings)

    @property
    def has_labels(self) -> bool:
        return self._label_key is not None

    @property
    def labels(self) -> np.ndarray | None:
        """int32 `(num_samples,)`, or None; -1 where a row has no class. Reads that column only."""
        if self._label_key is None:
            return None
        with self._lock:
            if self._labels is None:
                columns = [
                    self._parquet.ParquetFile(path).read(columns=[self._label_key]).column(0)
                    for path in self._files
                ]
                parts = [column.cast("int32").fill_null(-1).to_numpy() for column in columns]
                self._labels = np.concatenate(parts)
            return self._labels

    def record(self, index: int) -> bytes:
        group, row = locate(self._ends, index)
        value = self._pictures(group)[row].as_py()
        if value is None:
            raise OSError(f"no bytes in the column {self._leaf}")
        return value

    def record_name(self, index: int) -> str:
        group, row = locate(self._ends, index)
        path, number, _ = self._groups[group]
        return f"{path}[row group {number}, row {row}]"

    def fingerprint(self) -> str:
        """Covers names and rows of all files, and where the pictures of each row group lie."""
        parts = [
            f"{path.name} {number} {meta.row_group(number).num_rows} "
            f"{meta.row_group(number).total_byte_size}"
            for path, number, meta in self._groups
        ]
        return digest([self._leaf, str(self._label_key), *parts])

    def describe(self) -> str:
        return f"{self.name}: {super().describe()}"

    def _pictures(self, group: int) -> Any:
        """Returns the binary column of a row group, from the cache if it is there."""
        with self._lock:
            if group in self._cache:
                self._cache.move_to_end(group)
                return self._cache[group]
        path, number, metadata = self._groups[group]
        with self._parquet.ParquetFile(path, metadata=metadata) as file:
            column = file.read_row_group(number, columns=[self._leaf]).column(0)
        column = column.combine_chunks()
        if "." in self._leaf:
            column = column.field("bytes")
        with self._lock:
            self._cache[group] = column
            while len(self._cache) > 1 and self._cached_bytes() > _CACHE_BYTES:
                self._cache.popitem(last=False)
        return column

    def _cached_bytes(self) -> int:
        return sum(column.nbytes for column in self._cache.values())


def _import_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            "Expected the package pyarrow to read Parquet files, but it is not installed: run "
            "`pip install 'keras_ssl[parquet]'`."
        ) from error
    return pyarrow.parquet


def _read_metadata(parquet: Any, path: Path) -> Any:
    try:
        return parquet.read_metadata(path)
    except Exception as error:  # pyarrow raises several kinds
        raise DataError(
            f"Expected a Parquet file at {path}, but found {error}: copy it again."
        ) from error


def _choose_columns(
    schema: Any, path: Path, image_key: str | None, label_key: str | None
) -> tuple[str, str | None]:
    """Returns the leaf column of pictures, such as `image.bytes`, and the column of classes."""
    import pyarrow.types as types

    leaves: dict[str, str] = {}
    for field in schema:
        kind = field.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            leaves[field.name] = f"{field.name}.bytes"
        elif types.is_binary(kind) or types.is_large_binary(kind):
            leaves[field.name] = field.name
    known = [name for name in _IMAGE_COLUMNS if name in leaves]
    chosen = image_key or (known[0] if known else "".join(leaves) if len(leaves) == 1 else "")
    if chosen not in leaves:
        raise DataError(
            f"Expected {image_key or 'one column of encoded pictures'} in {path}, but found "
            f"{', '.join(leaves) or ', '.join(schema.names)}: name it with "
            "parquet:PATTERN:image=COLUMN."
        )
    integers = [field.name for field in schema if types.is_integer(field.type)]
    if label_key and label_key not in integers:
        raise DataError(
            f"Expected {label_key} among the integer columns of {path}, but found "
            f"{', '.join(integers) or 'none'}: name one with parquet:PATTERN:label=COLUMN."
        )
    if label_key is None:
        label_key = next((name for name in _LABEL_COLUMNS if name in integers), None)
    return leaves[chosen], label_key or None


def _names_in(schema: Any, label: str) -> Sequence[str]:
    """Returns the names of classes that Hugging Face wrote into the schema; () without any."""
    try:
        info = json.loads(schema.metadata[b"huggingface"])["info"]
        return tuple(str(name) for name in info["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
