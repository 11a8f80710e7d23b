"""Files of features: `.npz` of NumPy or Parquet, written part by part and read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_ssl.data.shards import replacing

SUFFIXES = (".npz", ".parquet")
_KEY = "keras_ssl"  # of the metadata in a Parquet file's schema


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of images, in the order of the source; broken images are left out.

    Attributes:
        features: float32 or float16 `(images, feature_dim)`.
        paths: str `(images,)`. Below the folder, with forward slashes; or what else names the image.
        ids: int64 `(images,)`. Number of each image in its source.
        labels: int32 `(images,)`, -1 where there is no class, or None.
        meta: dict of JSON values: `data`, `encoder`, `image_size`, `crop_ratio`, `canvas`, `normalized`,
            `class_names` and more.
    """

    features: np.ndarray
    paths: np.ndarray
    ids: np.ndarray
    labels: np.ndarray | None
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Returns 16 hexadecimal digits that change with the images, the encoder and the settings."""
        text = json.dumps([len(self), self.features.shape[1], self.meta], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_suffix(path: Path) -> None:
    """Refuses a file that is neither kind, and Parquet where `pyarrow` is not installed."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"Expected a file ending in {' or '.join(SUFFIXES)} for features. Received: {path}."
        )
    if path.suffix == ".parquet":
        _pyarrow()


def write_features(path: Path, parts: Iterable[Features], meta: dict[str, Any], count: int) -> None:
    """Writes features that come in parts, one part in memory at a time; the file appears whole or not at all.

    The same parts give the same bytes.

    Args:
        path: Path. Ends in `.npz` or `.parquet`.
        parts: Features, in order; gone through once for each column of an `.npz`, so a list or a class with `__iter__`.
        meta: dict of JSON values.
        count: int. Images in all parts.
    """
    check_suffix(path)
    with replacing(path) as file:
        (_write_npz if path.suffix == ".npz" else _write_parquet)(file, parts, meta, count)


def read_features(path: str | Path) -> Features:
    """Returns what `keras-ssl embed` wrote.

    Args:
        path: path. Ends in `.npz` or `.parquet`.

    Raises:
        ValueError: If it is no such file.
        ImportError: If it is Parquet and `pyarrow` is not installed.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"Expected a file of features. Received: {path}, where there is none.")
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    except Exception as error:  # zipfile, NumPy, pyarrow and json raise different kinds
        raise ValueError(
            f"Expected a file of features that `keras-ssl embed` wrote. Received: {path} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'empty'})."
        ) from error


def _write_npz(file: IO[bytes], parts: Iterable[Features], meta: dict, count: int) -> None:
    first = next(iter(parts))
    longest = max(part.paths.dtype.itemsize for part in parts) // 4
    columns = {"features": (first.features.dtype, first.features.shape[1:]), "ids": ("<i8", ())}
    columns["paths"] = (f"<U{max(longest, 1)}", ())
    if first.labels is not None:
        columns["labels"] = ("<i4", ())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _add(archive, "meta", np.array(json.dumps(meta, sort_keys=True)))
        for name, (dtype, shape) in columns.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
                    "fortran_order": False,
                    "shape": (count, *shape),
                }
                np.lib.format.write_array_header_2_0(member, header)
                for part in parts:
                    member.write(np.ascontiguousarray(getattr(part, name), dtype).tobytes())


def _add(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    # The date of a ZipInfo that is not told otherwise is 1980: the same bytes at any time.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, value, allow_pickle=False)


def _read_npz(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        labels = file.get("labels")
        return Features(file["features"], file["paths"], file["ids"], labels, meta)


def _write_parquet(file: IO[bytes], parts: Iterable[Features], meta: dict, count: int) -> None:
    arrow = _pyarrow()
    del count  # known to the file from its row groups
    first = next(iter(parts))
    kind = arrow.float16() if first.features.dtype == np.float16 else arrow.float32()
    width = first.features.shape[1]
    fields = [
        arrow.field("path", arrow.string()),
        arrow.field("id", arrow.int64()),
        arrow.field("features", arrow.list_(kind, width)),
    ]
    if first.labels is not None:
        fields.insert(2, arrow.field("label", arrow.int32()))
    schema = arrow.schema(fields, metadata={_KEY: json.dumps(meta, sort_keys=True)})
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            flat = arrow.array(np.ascontiguousarray(part.features).ravel())
            columns = {
                "path": arrow.array(part.paths.tolist(), arrow.string()),
                "id": arrow.array(part.ids),
                "label": None if part.labels is None else arrow.array(part.labels),
                "features": arrow.FixedSizeListArray.from_arrays(flat, width),
            }
            arrays = [columns[field.name] for field in fields]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _read_parquet(path: Path) -> Features:
    table = _pyarrow().parquet.read_table(path)
    meta = json.loads(table.schema.metadata[_KEY.encode()])
    column = table.column("features").combine_chunks()
    width = column.type.list_size
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    labels = table.column("label").to_numpy() if "label" in table.column_names else None
    paths = np.array(table.column("path").to_pylist(), dtype=np.str_)
    return Features(values, paths, table.column("id").to_numpy(), labels, meta)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet  # makes `pyarrow.parquet` there
    except ImportError as error:
        raise ImportError(
            "Expected the package pyarrow for Parquet files, but it is not installed: run "
            "`pip install 'keras_ssl[parquet]'`, or write .npz."
        ) from error
    return pyarrow
