"""A folder of pictures as a source."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from keras_ssl.data.base import IMAGE_EXTENSIONS, DataError, digest, sampled_indices
from keras_ssl.data.encoded import EncodedSource

_FINGERPRINT_SIZES = 1024


class FolderSource(EncodedSource):
    """Pictures below a folder, at any depth, in the sorted order of their relative paths.

    Counted are files that end in .jpg, .jpeg, .png, .webp, .bmp or .gif, in any case. Links are
    followed; names that begin with a dot are ignored. There are labels if every picture lies
    directly in a sub-folder of `root` and there are at least two such sub-folders: classes are
    their sorted names. Otherwise there are none. At the start no picture but the 64 headers of
    `EncodedSource` is opened.

    Args:
        root: str or Path. The folder.
        **settings: see `EncodedSource`.

    Raises:
        DataError: if `root` does not exist, is not a folder or has no pictures.
    """

    def __init__(self, root: str | Path, **settings) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            found = "a file" if self.root.exists() else "nothing"
            raise DataError(
                f"Expected a folder of images at {self.root}, but found {found} there: check the "
                "path."
            )
        try:
            self.files = _list_images(self.root)
        except OSError as error:
            raise DataError(
                f"Expected a readable folder of images at {self.root}, but found {error}: check "
                "its permissions."
            ) from error
        self._labels, self.class_names = class_folders(self.files)
        super().__init__(len(self.files), **settings)

    @property
    def labels(self) -> np.ndarray | None:
        return self._labels

    def record(self, index: int) -> bytes:
        return (self.root / self.files[index]).read_bytes()

    def header(self, index: int) -> Path:
        return self.root / self.files[index]

    def record_name(self, index: int) -> str:
        return str(self.root / self.files[index])

    def fingerprint(self) -> str:
        """Covers all relative paths, and the sizes in bytes of up to 1,024 files spread over them."""
        sizes = []
        for index in sampled_indices(self.num_samples, _FINGERPRINT_SIZES):
            path = self.root / self.files[index]
            sizes.append(str(path.stat().st_size) if path.exists() else "missing")
        return digest([str(self.num_samples), *self.files, *sizes])


def _list_images(root: Path) -> list[str]:
    """Returns sorted relative paths with forward slashes."""
    files: list[str] = []
    others: Counter[str] = Counter()

    def walk(folder: str, prefix: str, parents: tuple[tuple[int, int], ...]) -> None:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in parents:  # a link back to a folder above
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    walk(entry.path, f"{prefix}{entry.name}/", (*parents, here))
                elif entry.name.lower().endswith(IMAGE_EXTENSIONS):
                    files.append(prefix + entry.name)
                else:
                    others[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1

    walk(str(root), "", ())
    if not files:
        found = ", ".join(f"{n} x {kind}" for kind, n in others.most_common(4)) or "no files"
        packed = any(kind in others for kind in (".tar", ".zip", ".gz", ".tgz"))
        advice = "unpack the archive first" if packed else "check the path"
        raise DataError(
            f"Expected files ending in {', '.join(IMAGE_EXTENSIONS)} in {root}, but found "
            f"{found}: {advice}."
        )
    return sorted(files)


def class_folders(files: list[str]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Returns labels and class names of paths that are all `class/picture`, else None and None."""
    if any(name.count("/") != 1 for name in files):
        return None, None
    folders = [name.split("/")[0] for name in files]
    names = tuple(sorted(set(folders)))
    if len(names) < 2:
        return None, None
    number = {name: i for i, name in enumerate(names)}
    return np.array([number[name] for name in folders], np.int32), names
