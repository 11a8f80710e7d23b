"""What a source of images promises, and the error that a bad source raises."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
HEADER_SAMPLE = 64  # pictures whose headers are read at the start to choose the canvas
_DEFAULT_VIEW_SIZE, _SMALLEST_CANVAS, _CANVAS_STEP = 224, 32, 16


class DataError(ValueError):
    """A source cannot be used: one sentence with what was expected, what was found and what to do."""


class Source(abc.ABC):
    """Numbered images with random access; every image is delivered on one fixed canvas.

    Attributes:
        num_samples: int. Number of records; they are numbered from 0.
        canvas: tuple `(height, width)` in pixels that every image is resized to.
        class_names: tuple of str, empty if labels have no names, or None without labels.
        error: `DataError` or None. The error that ended a read, kept because TensorFlow
            turns exceptions raised inside `tf.data` into errors of its own.
    """

    num_samples: int
    canvas: tuple[int, int]
    class_names: tuple[str, ...] | None = None
    error: DataError | None = None

    @property
    @abc.abstractmethod
    def labels(self) -> np.ndarray | None:
        """int32 `(num_samples,)`, the class of every record, or None."""

    @abc.abstractmethod
    def read_batch(
        self, indices: Sequence[int] | np.ndarray, positions: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reads records by number.

        Args:
            indices: int64 `(batch,)` in [0, num_samples). Records to read.
            positions: int64 `(batch,)` or None. Positions in the sample stream; they decide which
                record stands in for a broken one. None means `indices`, for reading in order.

        Returns:
            Three arrays: images, uint8 `(batch, height, width, 3)`; aspect, float32 `(batch,)`, the
            picture's width / height divided by the canvas's width / height (1 = shape kept);
            shown_ids, int64 `(batch,)`, the records really shown.

        Raises:
            DataError: if too many records are broken.
        """

    def read_each(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        """Reads records by number, and no other record in the place of a broken one.

        Args:
            indices: int64 `(batch,)` in [0, num_samples).

        Returns:
            images and aspect as `read_batch` gives them, and what is wrong with each broken record, by its row in
            the batch; its image is black. Broken records are neither counted nor listed.
        """
        images, aspect, _ = self.read_batch(indices)
        return images, aspect, {}

    def record_name(self, index: int) -> str:
        """Returns where a record is, for people; its number where there is no better name."""
        return str(index)

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns one line for people: how many images, classes, sizes, formats."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that change when the data change."""

    @property
    def has_labels(self) -> bool:
        """True if records have classes; never reads data, unlike `labels` of some sources."""
        return self.labels is not None

    def labels_of(self, sample_ids: np.ndarray) -> np.ndarray:
        """Returns int32 `(batch,)`, the classes of records that `read_batch` has just shown."""
        return self.labels[np.asarray(sample_ids)]

    @property
    def num_broken(self) -> int:
        """int. Distinct broken records that this process has met and replaced."""
        return 0

    def __len__(self) -> int:
        return self.num_samples


def choose_canvas(
    sizes: Sequence[tuple[int, int]],
    canvas: str | int | tuple[int, int] | None,
    view_size: int | None,
) -> tuple[int, int]:
    """Chooses the canvas for pictures of several sizes.

    Args:
        sizes: list of `(width, height)` in pixels of sampled pictures, not empty.
        canvas: `"auto"` or None for the rule below; an int for a square; or `(height, width)`.
        view_size: int or None. Side in pixels of the largest view; None means 224.

    Returns:
        `(height, width)`. The rule: pictures that all have one size of at most `2 * view_size` keep
        it; otherwise a square whose side is the largest multiple of 16 not above the median of the
        longer sides, at least 32 and at most `2 * view_size`.
    """
    if canvas is not None and canvas != "auto":
        return check_canvas(canvas)
    limit = 2 * (view_size or _DEFAULT_VIEW_SIZE)
    if len(set(sizes)) == 1 and max(sizes[0]) <= limit:
        return sizes[0][1], sizes[0][0]
    median = int(np.median([max(size) for size in sizes]))
    side = min(max(median // _CANVAS_STEP * _CANVAS_STEP, _SMALLEST_CANVAS), limit)
    return side, side


def check_canvas(canvas: int | tuple[int, int]) -> tuple[int, int]:
    """Returns a canvas given as a side or as `(height, width)` in the latter form."""
    pair = (canvas, canvas) if isinstance(canvas, int | np.integer) else canvas
    ok = isinstance(pair, tuple | list) and len(pair) == 2
    if not ok or not all(isinstance(side, int | np.integer) and side >= 1 for side in pair):
        raise ValueError(
            "`canvas` must be 'auto', a side in pixels or a pair (height, width). "
            f"Received: canvas={canvas!r}"
        )
    return int(pair[0]), int(pair[1])


def sampled_indices(num_samples: int, count: int) -> list[int]:
    """Returns at most `count` record numbers, evenly spread over the source."""
    return sorted({i * num_samples // count for i in range(count)})


def digest(parts: Iterable[str | bytes]) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of some strings."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape"))
        sha.update(b"\0")
    return sha.hexdigest()[:16]


def count_phrase(num_samples: int, class_names: Sequence[str] | None) -> str:
    """Returns "2,400 images in 10 classes", "... with labels" (no names) or "... without labels"."""
    images = f"{num_samples:,} image{'s' if num_samples != 1 else ''}"
    if class_names is None:
        return f"{images} without labels"
    if not class_names:
        return f"{images} with labels"
    return f"{images} in {len(class_names):,} class{'es' if len(class_names) != 1 else ''}"
