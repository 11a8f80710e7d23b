"""Images in memory as a source: NumPy arrays, .npz files, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_ssl.data import decode
from keras_ssl.data.base import DataError, Source, check_canvas, count_phrase, digest

_DIGITS_TEST_EVERY = 5
_DIGITS_SIDE = 32


class ArraySource(Source):
    """Images held in an array.

    Args:
        images: uint8 `(n, height, width)`, or with 1 (gray), 3 (RGB) or 4 (RGB and alpha, shown on
            white) channels last.
        labels: integers or strings `(n,)` or `(n, 1)`, or None. Strings are numbered in sorted
            order.
        class_names: list of str or None. Names of integer labels; defaults to the numbers.
        canvas: None or `"auto"` keeps the images' size; an int or `(height, width)` resizes them
            when they are read.

    Raises:
        DataError: if the arrays have other shapes or types, or no images.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Sequence | None = None,
        *,
        class_names: Sequence[str] | None = None,
        canvas: str | int | tuple[int, int] | None = None,
    ) -> None:
        self.images = _check_images(np.asarray(images))
        self.num_samples = len(self.images)
        self._labels, self.class_names = _check_labels(labels, class_names, self.num_samples)
        own = self.images.shape[1:3]
        self.canvas = own if canvas in (None, "auto") else check_canvas(canvas)

    @property
    def labels(self) -> np.ndarray | None:
        return self._labels

    def read_batch(
        self, indices: Sequence[int] | np.ndarray, positions: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        del positions  # nothing in memory is broken
        indices = np.asarray(indices, np.int64)
        images = decode.array_to_rgb(self.images[indices])
        height, width = self.images.shape[1:3]
        if self.canvas != (height, width):
            resized = [decode.resize_array(image, self.canvas) for image in images]
            images = np.reshape(resized, (len(indices), *self.canvas, 3)).astype(np.uint8)
        change = decode.shape_change((width, height), self.canvas)
        aspect = np.full(len(indices), change, np.float32)
        return np.ascontiguousarray(images), aspect, indices

    def describe(self) -> str:
        height, width = self.images.shape[1:3]
        kept = self.canvas == (height, width)
        canvas = "" if kept else f", resized to {self.canvas[1]}x{self.canvas[0]}"
        phrase = count_phrase(self.num_samples, self.class_names)
        return f"{phrase}, {width}x{height} array{canvas}"

    def fingerprint(self) -> str:
        """Covers shape, labels and the pixels of up to 1,024 images spread over the array."""
        some = self.images[:: max(1, self.num_samples // 1024)]
        labels = b"" if self._labels is None else self._labels.tobytes()
        return digest([str(self.images.shape), some.tobytes(), labels])


def load_npz(path: str | Path, split: str | None = None, **settings) -> ArraySource:
    """Reads images, and labels if there are any, from a NumPy .npz file.

    Without a split the images are the first of the keys `images`, `x`, `x_train`, `images_train`,
    `train_images` that exists, and the labels the one of `labels`, `y`, `y_train`, ... that goes
    with it. A split `s` takes `x_s`, `images_s` or `s_images`, with `y_s`, `labels_s` or
    `s_labels`. `class_names` is read if it is there.

    Args:
        path: str or Path. The file.
        split: str or None. Such as `"test"`.
        **settings: `canvas` of `ArraySource`.

    Returns:
        An `ArraySource`.

    Raises:
        DataError: if the file is missing, is not an .npz file or lacks those keys.
    """
    splits = [split] if split else ["", "train"]
    pairs = [pair for name in splits for pair in _split_keys(name)]
    if not Path(path).is_file():
        raise DataError(
            f"Expected an .npz file at {path}, but found nothing there: check the path."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            for images, labels in pairs:
                if images in file:
                    names = file["class_names"].tolist() if "class_names" in file else None
                    given = next((file[key] for key in labels if key in file), None)
                    names = names if given is not None else None
                    return ArraySource(file[images], given, class_names=names, **settings)
            found = ", ".join(file.files)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # zipfile, zlib, pickle and NumPy raise different kinds
        raise DataError(
            f"Expected a NumPy .npz file at {path}, but it could not be read ({error}): save it "
            "with `numpy.savez`."
        ) from error
    raise DataError(
        f"Expected images in {path} under one of {', '.join(key for key, _ in pairs)}, but found "
        f"the keys {found}: rename the array or choose a split with FILE.npz:SPLIT."
    )


def load_digits(split: str | None = None, **settings) -> ArraySource:
    """Returns scikit-learn's 1,797 handwritten digits, 8x8 gray enlarged to 32x32 (bilinear).

    They come with scikit-learn: nothing is downloaded.

    Args:
        split: None for all 1,797; `"test"` for every fifth one (359), `"train"` for the rest
            (1,438). Both are numbered from 0.
        **settings: `canvas` of `ArraySource`.
    """
    from sklearn import datasets

    if split not in (None, "train", "test"):
        raise DataError(
            f"Expected digits, digits:train or digits:test, but found digits:{split}: choose one."
        )
    data = datasets.load_digits()
    gray = np.rint(data.images * (255 / 16)).astype(np.uint8)
    is_test = np.arange(len(gray)) % _DIGITS_TEST_EVERY == _DIGITS_TEST_EVERY - 1
    chosen = np.ones(len(gray), bool) if split is None else is_test == (split == "test")
    rgb = decode.array_to_rgb(gray[chosen])
    images = np.stack([decode.resize_array(image, (_DIGITS_SIDE,) * 2) for image in rgb])
    names = [str(digit) for digit in range(10)]
    return ArraySource(images, data.target[chosen], class_names=names, **settings)


def _split_keys(split: str) -> list[tuple[str, list[str]]]:
    if not split:
        return [("images", ["labels", "y"]), ("x", ["y", "labels"])]
    labels = [f"y_{split}", f"labels_{split}", f"{split}_labels"]
    return [(key, labels) for key in (f"x_{split}", f"images_{split}", f"{split}_images")]


def _check_images(images: np.ndarray) -> np.ndarray:
    shape_ok = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3, 4))
    if images.dtype != np.uint8 or not shape_ok or 0 in images.shape:
        raise DataError(
            "Expected images as a uint8 array (n, height, width) or (n, height, width, channels) "
            f"with 1, 3 or 4 channels, but found {images.dtype} {images.shape}: convert it first."
        )
    return images


def _check_labels(
    labels: np.ndarray | Sequence | None, class_names: Sequence[str] | None, num_samples: int
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if labels is None:
        return None, None
    labels = np.asarray(labels)
    if labels.shape == (num_samples, 1):
        labels = labels[:, 0]
    kind = labels.dtype.kind
    if labels.shape != (num_samples,) or kind not in "iuUS":
        raise DataError(
            f"Expected one integer or string label for each of {num_samples:,} images, but found "
            f"{labels.dtype} {labels.shape}: convert them first."
        )
    if kind in "US":
        names, labels = np.unique(labels.astype(str), return_inverse=True)
        class_names = names.tolist()
    labels = labels.astype(np.int32)
    class_names = class_names or [str(i) for i in range(int(labels.max()) + 1)]
    return labels, tuple(str(name) for name in class_names)
