"""Sources whose records are encoded pictures: decoded in threads, broken ones replaced."""

from __future__ import annotations

import abc
import functools
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from keras_ssl.data import decode
from keras_ssl.data.base import (
    HEADER_SAMPLE,
    DataError,
    Source,
    choose_canvas,
    count_phrase,
    sampled_indices,
)
from keras_ssl.data.quarantine import Quarantine, stand_in
from keras_ssl.views import ExactCrops

_MOST_ATTEMPTS = 64


class EncodedSource(Source):
    """Base of sources of encoded pictures; a subclass says how to get record i and its name.

    The constructor reads the headers of at most 64 records to choose the canvas.

    Args:
        num_samples: int >= 1. Number of records.
        canvas: `"auto"`, None, int or `(height, width)`. See `choose_canvas`.
        view_size: int or None. Side in pixels of the largest view.
        quarantine: path or None. Where broken records are listed.
        num_threads: int or None. Decoding threads; None means one for each processor.

    Attributes:
        sizes: list of `(width, height)` in pixels of the pictures whose headers were read.
    """

    note = ""  # what else `describe` has to say

    def __init__(
        self,
        num_samples: int,
        *,
        canvas: str | int | tuple[int, int] | None = None,
        view_size: int | None = None,
        quarantine: str | Path | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.num_samples = num_samples
        self.quarantine = Quarantine(num_samples, quarantine)
        self.num_threads = num_threads or os.cpu_count() or 1
        self._pool: ThreadPool | None = None
        self.sizes, self._formats = self._sample_headers()
        self.canvas = choose_canvas(self.sizes, canvas, view_size)

    @abc.abstractmethod
    def record(self, index: int) -> bytes:
        """Returns the encoded picture of a record."""

    @abc.abstractmethod
    def record_name(self, index: int) -> str:
        """Returns where a record is, for people."""

    def header(self, index: int) -> bytes | Path:
        """Returns what to read a record's size from: its bytes, or a path that saves reading them."""
        return self.record(index)

    @property
    def num_broken(self) -> int:
        return self.quarantine.num_broken

    def read_batch(
        self, indices: Sequence[int] | np.ndarray, positions: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        images = np.empty((len(indices), *self.canvas, 3), np.uint8)
        aspect = np.empty(len(indices), np.float32)

        def fill(row: int, data: bytes) -> None:
            images[row], aspect[row] = decode.decode(data, self.canvas)

        return images, aspect, self._fill(fill, indices, positions)

    def read_crops(
        self,
        crops: ExactCrops,
        draws: Sequence[np.ndarray],
        indices: Sequence[int] | np.ndarray,
        positions: np.ndarray | None = None,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Reads records and cuts their views from the whole pictures.

        Args:
            crops: ExactCrops.
            draws: what `crops.draws` gives for the positions.
            indices, positions: as for `read_batch`.

        Returns:
            The crops of each group, uint8 `(V, batch, size, size, 3)`, and the records shown, int64 `(batch,)`.
        """
        kinds = [
            [(config.size, config.interpolation) for config in configs]
            for configs in crops.groups.values()
        ]
        made = [
            np.empty((len(kind), len(indices), kind[0][0], kind[0][0], 3), np.uint8)
            for kind in kinds
        ]

        def fill(row: int, data: bytes) -> None:
            def views(size: tuple[int, int]) -> list[tuple[decode.Box, int, str]]:
                boxes = crops.boxes([drawn[:, row] for drawn in draws], size)
                pairs = zip(itertools.chain(*boxes), itertools.chain(*kinds), strict=True)
                return [(box, *kind) for box, kind in pairs]

            cut = iter(decode.cut(data, views))
            for group in made:
                for view in group:
                    view[row] = next(cut)

        return made, self._fill(fill, indices, positions)

    def _fill(
        self,
        fill: Callable[[int, bytes], None],
        indices: Sequence[int] | np.ndarray,
        positions: np.ndarray | None,
    ) -> np.ndarray:
        """Lets `fill` have the bytes of each row's record, or of its stand-in; returns which record it was."""
        if self._pool is None:
            self._pool = ThreadPool(self.num_threads)
        shuffled = positions is not None
        indices = np.asarray(indices, np.int64)
        positions = np.asarray(positions if shuffled else indices, np.int64)
        shown = np.empty(len(indices), np.int64)

        def one(row: int) -> None:
            shown[row] = self._read(
                functools.partial(fill, row), int(indices[row]), int(positions[row]), shuffled
            )

        self.quarantine.count_reads(len(indices), shuffled)
        try:
            self._pool.map(one, range(len(indices)), chunksize=1)
        except DataError as error:
            self.error = error
            raise
        return shown

    def read_each(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        if self._pool is None:
            self._pool = ThreadPool(self.num_threads)
        indices = np.asarray(indices, np.int64)
        images = np.zeros((len(indices), *self.canvas, 3), np.uint8)
        aspect = np.ones(len(indices), np.float32)
        broken: dict[int, str] = {}

        def fill(row: int) -> None:
            try:
                images[row], aspect[row] = decode.decode(
                    self.record(int(indices[row])), self.canvas
                )
            except Exception as error:  # Pillow raises a dozen kinds for damaged files
                # Pillow names the object in memory, which has another address each time.
                text = re.sub(r" <_io\.\w+ object at 0x\w+>", "", str(error))
                broken[row] = f"{type(error).__name__}: {text}"

        self._pool.map(fill, range(len(indices)), chunksize=1)
        return images, aspect, broken

    def describe(self) -> str:
        shapes = sorted({f"{w}x{h}" for w, h in self.sizes})
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        (w0, h0), (w1, h1) = by_area[0], by_area[-1]
        sizes = shapes[0] if len(shapes) == 1 else f"{w0}x{h0} to {w1}x{h1}"
        formats = "/".join(name for name, _ in self._formats.most_common())
        kept = len(shapes) == 1 and self.canvas == (h0, w0)
        canvas = "" if kept else f", resized to {self.canvas[1]}x{self.canvas[0]}"
        note = f"; {self.note}" if self.note else ""
        phrase = count_phrase(self.num_samples, self.class_names)
        return f"{phrase}, {sizes} {formats}{canvas}{note}"

    def _read(
        self, fill: Callable[[bytes], None], index: int, position: int, shuffled: bool
    ) -> int:
        for attempt in range(_MOST_ATTEMPTS):
            if attempt:
                index = stand_in(position, attempt, self.num_samples)
            if self.quarantine.is_broken(index):
                continue
            try:
                fill(self.record(index))
                return index
            except Exception as error:  # Pillow raises a dozen kinds for damaged files
                self.quarantine.add(index, self.record_name(index), error, shuffled)
        raise DataError(
            f"Expected readable images, but found none in {_MOST_ATTEMPTS} tries at position "
            f"{position}; the last was {self.record_name(index)}: check the data."
        )

    def _sample_headers(self) -> tuple[list[tuple[int, int]], Counter[str]]:
        sizes, formats, reason = [], Counter(), None
        for index in sampled_indices(self.num_samples, HEADER_SAMPLE):
            try:
                size, kind = decode.read_header(self.header(index))
            except Exception as error:  # counted and listed when the record is read
                reason = f"{self.record_name(index)}: {type(error).__name__}: {error}"
                continue
            sizes.append(size)
            formats[kind] += 1
        if not sizes:
            raise DataError(
                f"Expected image files, but none of those sampled could be read ({reason}): "
                "check that the files are complete."
            )
        return sizes, formats
