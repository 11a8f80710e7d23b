"""Turns the shared test data into what users have: .npz files and folders of files.

The shared folder keeps CIFAR-10 as PNG sheets of tiles (reading order = data-set order) with
`labels.npz` beside them, and the other sets as tar files. This writes, below `--to`:

    cifar10.npz                       x_train, y_train, x_test, y_test, class_names
    imagenette224/{train,val}/<class>/*.JPEG
    hymenoptera/{train,val}/<class>/*.jpg
    fsdd/recordings/*.wav

What is there already is kept. Nothing else in this repository knows the shared folder's layout.

    python benchmarks/shared_data.py --shared SHEETS --to data
"""

from __future__ import annotations

import argparse
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR10_TILE = 32
CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
# Set: (tar file in the shared folder, folder below `--to/set` that it is unpacked into).
TARS = {
    "imagenette224": [("imagenette224/train.tar", "train"), ("imagenette224/val.tar", "val")],
    "hymenoptera": [("hymenoptera/hymenoptera.tar", ".")],
    "fsdd": [("fsdd/recordings.tar.gz", ".")],
}
SETS = ("cifar10", *TARS)


def tiles(path: Path, size: int) -> np.ndarray:
    """Returns uint8 `(n, size, size, 3)`, the tiles of a sheet row by row."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = sheet.shape[0] // size, sheet.shape[1] // size
    grid = sheet.reshape(rows, size, columns, size, 3).swapaxes(1, 2)
    return grid.reshape(-1, size, size, 3)


def write_cifar10(shared: Path, target: Path) -> None:
    """Writes CIFAR-10 as one .npz file."""
    folder = shared / "cifar10"
    sheets = sorted(folder.glob("train_*.png"))
    with np.load(folder / "labels.npz") as labels:
        arrays = {
            "x_train": np.concatenate([tiles(sheet, CIFAR10_TILE) for sheet in sheets]),
            "y_train": labels["y_train"],
            "x_test": tiles(folder / "test.png", CIFAR10_TILE),
            "y_test": labels["y_test"],
            "class_names": np.array(CIFAR10_CLASSES),
        }
    for split in ("train", "test"):
        images, classes = len(arrays[f"x_{split}"]), len(arrays[f"y_{split}"])
        if images != classes:
            raise ValueError(
                f"Expected one label for each of {images} {split} tiles, got {classes}"
            )
    with target.open("wb") as file:
        np.savez(file, **arrays)


def unpack(shared: Path, target: Path, parts: list[tuple[str, str]]) -> None:
    """Unpacks the tar files of one set."""
    for archive, folder in parts:
        with tarfile.open(shared / archive) as tar:
            # Python before 3.11.4 has no filters
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(target / folder, **safe)


def convert(name: str, shared: Path, to: Path) -> Path:
    """Writes one set unless it is there, and returns its path; a stopped conversion leaves nothing."""
    target = to / ("cifar10.npz" if name == "cifar10" else name)
    if target.exists():
        return target
    write: Callable[[Path], None] = (
        (lambda path: write_cifar10(shared, path))
        if name == "cifar10"
        else (lambda path: unpack(shared, path, TARS[name]))
    )
    partial = to / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.unlink(missing_ok=True)
    write(partial)
    os.replace(partial, target)
    return target


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--to", type=Path, required=True, help="folder to write to")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="default: all")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        print(convert(name, options.shared, options.to))


if __name__ == "__main__":
    main()
