"""The sample stream: which record is shown at which position, as a `tf.data` pipeline."""

from __future__ import annotations

import atexit
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_ssl import random
from keras_ssl.data import remote_call
from keras_ssl.data.base import DataError, Source
from keras_ssl.views import ExactCrops

_ROUNDS = 8  # TensorFlow's default of 4 leaves neighbors correlated
_PARALLEL_READS = 2
_Reader = Callable[[tf.Tensor, tf.Tensor, list[tf.DType]], list[tf.Tensor]]
_STILL, _LONGEST_WAIT = 0.1, 30.0  # seconds without a read before Python may end, and at most


class _Reads:
    """Counts the reads that run now, and lets Python end only between them.

    Pipelines read ahead in threads of TensorFlow. A thread that enters Python while the interpreter shuts down is
    killed inside TensorFlow, which can leave the process spinning. When Python begins to end nobody takes elements
    any more, so the buffers fill up within a few reads and then all is still.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._ended = 0, 0.0
        atexit.register(self._wait)

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1
            self._ended = time.monotonic()

    def _wait(self) -> None:
        deadline = time.monotonic() + _LONGEST_WAIT
        while time.monotonic() < deadline:
            with self._lock:
                still = not self._running and time.monotonic() - self._ended > _STILL
            if still:
                return
            time.sleep(_STILL / 4)


_reads = _Reads()


class SampleStream:
    """Numbered samples in an order that is a pure function of (seed, position).

    Position p belongs to epoch e = p // (steps_per_epoch * batch). Each epoch has its own random
    permutation of all records, made without a table by `RandomIndexShuffle` with 8 rounds and a
    seed hashed from (seed, e), and shows its first steps_per_epoch * batch records: the tail that
    does not fill a batch is dropped, another one each time, and no batch spans two epochs.
    Starting at any step costs nothing, at any data size.

    Args:
        source: `Source`. The records.
        global_batch_size: int >= 1. Samples per step over all workers and replicas.
        seed: int in [0, 2^63). Decides the order. Defaults to `0`.
        shuffle: bool. False shows the records in order. Defaults to `True`.

    Raises:
        DataError: if the batch is larger than the source.
    """

    def __init__(
        self, source: Source, global_batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        if global_batch_size < 1:
            raise ValueError(
                f"`global_batch_size` must be positive. Received: {global_batch_size=}"
            )
        if not 0 <= seed < 2**63:
            raise ValueError(f"`seed` must be in [0, 2^63). Received: {seed=}")
        if global_batch_size > source.num_samples:
            raise DataError(
                f"Expected at least as many images as a batch of {global_batch_size:,}, but found "
                f"{source.num_samples:,}: use a smaller batch or more images."
            )
        self.source = source
        self.global_batch_size = int(global_batch_size)
        self.seed = int(seed)
        self.shuffle = shuffle
        self.steps_per_epoch = source.num_samples // self.global_batch_size

    def records(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns the record of each position.

        Args:
            positions: int64 `(batch,)`, all in one epoch.

        Returns:
            int64 `(batch,)` in [0, num_samples).
        """
        shown_per_epoch = self.steps_per_epoch * self.global_batch_size
        within = tf.math.floormod(positions, shown_per_epoch)
        if not self.shuffle:
            return within
        epoch = positions[:1] // shown_per_epoch
        keys = random.fold_in(random.sample_keys(self.seed, epoch), "epoch_order")
        return tf.raw_ops.RandomIndexShuffle(
            index=within,
            seed=random.bits(keys, (3,))[0],
            max_index=tf.constant(self.source.num_samples - 1, tf.int64),
            rounds=_ROUNDS,
        )

    def dataset(
        self,
        start_step: int = 0,
        num_steps: int | None = None,
        per_replica_batch: int | None = None,
        num_workers: int = 1,
        worker_index: int = 0,
        remote: bool = False,
        crops: ExactCrops | None = None,
    ) -> tf.data.Dataset:
        """Returns the samples of one worker from a step on.

        Each worker takes its contiguous block of every global batch, cut into one element for each
        of its replicas, in order; together they are the one-process batch, whatever their number.
        Elements of one step are consecutive, as `distribute_datasets_from_function` wants them.

        Args:
            start_step: int >= 0. First step. Defaults to `0`.
            num_steps: int or None. How many steps; None never ends.
            per_replica_batch: int or None. Samples per element; None means the worker's whole
                block. It must divide the block.
            num_workers: int. Defaults to `1`.
            worker_index: int in [0, num_workers). Defaults to `0`.
            remote: bool. The records are read by the process that runs the graph, an input worker
                (see `keras_ssl.data.service`), and not by this one. Defaults to `False`.
            crops: ExactCrops or None. What is cut from each picture, in place of one image. The source must be an
                `EncodedSource`, read here. Defaults to `None`.

        Returns:
            A `tf.data.Dataset` of flat dicts with static shapes: `inputs` {`image`: uint8
            `(b, height, width, 3)`}, `aspect` float32 `(b,)`, `position` int64 `(b,)`, `sample_id`
            int64 `(b,)`, and `labels` int32 `(b,)` if the source has them. With `crops` there are, in place of
            `inputs` and `aspect`, `crops`: a dict from group to uint8 `(V, b, size, size, 3)`.
        """
        block = _share(self.global_batch_size, num_workers, "num_workers")
        if start_step < 0 or not 0 <= worker_index < num_workers:
            raise ValueError(
                "`start_step` must not be negative and `worker_index` must be in [0, num_workers). "
                f"Received: {start_step=}, {worker_index=}, {num_workers=}"
            )
        batch = block if per_replica_batch is None else per_replica_batch
        replicas = _share(block, batch, "per_replica_batch")
        stop = tf.int64.max // (2 * replicas) if num_steps is None else start_step + num_steps
        read = self._remote_reader() if remote else self._local_reader()

        def load(element: tf.Tensor) -> dict[str, tf.Tensor | dict[str, tf.Tensor]]:
            step, replica = element // replicas, element % replicas
            first = step * self.global_batch_size + worker_index * block + replica * batch
            positions = first + tf.range(batch, dtype=tf.int64)
            if crops is not None:
                return self._read_crops(self.records(positions), positions, batch, crops)
            return self._read(self.records(positions), positions, batch, read)

        elements = tf.data.Dataset.range(start_step * replicas, stop * replicas)
        dataset = elements.map(load, num_parallel_calls=_PARALLEL_READS, deterministic=True)
        if num_steps is None:
            dataset = dataset.apply(
                tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            )
        return dataset.prefetch(max(2, replicas)).with_options(_options())

    def _local_reader(self) -> _Reader:
        read = functools.partial(read_arrays, self.source)
        return lambda records, positions, types: tf.numpy_function(
            read, [records, positions], types
        )

    def _remote_reader(self) -> _Reader:
        fingerprint, canvas = self.source.fingerprint(), self.source.canvas
        return lambda records, positions, types: remote_call.call(
            [tf.constant(fingerprint), tf.constant(canvas, tf.int64), records, positions], types
        )

    def _read(
        self, records: tf.Tensor, positions: tf.Tensor, batch: int, read: _Reader
    ) -> dict[str, tf.Tensor | dict[str, tf.Tensor]]:
        source = self.source
        types = [tf.uint8, tf.float32, tf.int64] + [tf.int32] * source.has_labels
        image, *rest = read(records, positions, types)
        image.set_shape((batch, *source.canvas, 3))
        aspect, *numbers = _with_shape(rest, (batch,))
        sample = {"inputs": {"image": image}, "aspect": aspect, "position": positions}
        return sample | dict(zip(("sample_id", "labels"), numbers, strict=False))

    def _read_crops(
        self, records: tf.Tensor, positions: tf.Tensor, batch: int, crops: ExactCrops
    ) -> dict[str, tf.Tensor | dict[str, tf.Tensor]]:
        source, groups = self.source, crops.groups
        types = [tf.uint8] * len(groups) + [tf.int64] + [tf.int32] * source.has_labels

        @tf.autograph.experimental.do_not_convert
        def read(records: np.ndarray, positions: np.ndarray, *draws: np.ndarray) -> list:
            with _reads:
                made, shown = source.read_crops(crops, draws, records, positions)
                return [*made, shown, *_labels(source, shown)]

        arrays = tf.numpy_function(read, [records, positions, *crops.draws(positions)], types)
        made = dict(zip(groups, arrays, strict=False))
        for name, configs in groups.items():
            size = configs[0].size
            made[name].set_shape((len(configs), batch, size, size, 3))
        numbers = _with_shape(arrays[len(groups) :], (batch,))
        sample = {"crops": made, "position": positions}
        return sample | dict(zip(("sample_id", "labels"), numbers, strict=False))


@tf.autograph.experimental.do_not_convert
def read_arrays(source: Source, records: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
    """Returns what `source.read_batch` does and, if there are labels, the class of each record shown."""
    with _reads:
        images, aspect, shown = source.read_batch(records, positions)
        return [images, aspect, shown, *_labels(source, shown)]


def _labels(source: Source, shown: np.ndarray) -> list[np.ndarray]:
    return [source.labels_of(shown).astype(np.int32)] if source.has_labels else []


def _with_shape(tensors: Sequence[tf.Tensor], shape: tuple[int, ...]) -> Sequence[tf.Tensor]:
    for tensor in tensors:
        tensor.set_shape(shape)
    return tensors


def batches(
    source: Source, batch_size: int, indices: Sequence[int] | np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields records in order as NumPy arrays, the last partial batch included.

    Args:
        source: `Source`. The records.
        batch_size: int >= 1.
        indices: int64 `(count,)` or None. Which records; None means all.

    Yields:
        What `source.read_batch` returns.
    """
    indices = np.arange(source.num_samples) if indices is None else np.asarray(indices)
    for start in range(0, len(indices), batch_size):
        yield source.read_batch(indices[start : start + batch_size])


def _share(total: int, parts: int, name: str) -> int:
    if parts < 1 or total % parts:
        raise ValueError(f"`{name}` must divide {total}. Received: {name}={parts}")
    return total // parts


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.threading.private_threadpool_size = os.cpu_count() or 1
    options.threading.max_intra_op_parallelism = 1
    return options
