"""Batches made on other machines: both ends of a `tf.data` service."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from keras_ssl.data import remote_call
from keras_ssl.data.base import DataError, Source
from keras_ssl.data.encoded import EncodedSource
from keras_ssl.data.sources import open_source
from keras_ssl.data.stream import read_arrays

_SECONDS, _PATIENCE = 8.0, 60.0
# How a client of HTTP/2, which gRPC speaks, says hello, and the kind of frame that a server answers with first.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = bytes([4])
Report = Callable[[str], object]
_SENTENCE = re.compile(r"\bDataError: (.*)")
_NO_READER = "Could not find callback"  # what TensorFlow says when nothing was published


# The trainer's end ------------------------------------------------------------------------------------------


def through_service(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Returns the elements of a dataset as the workers of a service make them.

    The dispatcher hands the elements out one by one, so that workers make different ones. Their order is that of
    arrival; an element that a worker had begun when it died is lost.

    Args:
        dataset: `tf.data.Dataset`. From `SampleStream.dataset(remote=True)`, with in-graph operations on top.
        address: str. `HOST:PORT` of the dispatcher.

    Returns:
        A `tf.data.Dataset` of the same elements.

    Raises:
        DataError: if no dispatcher answers there.
    """
    check_address(address)
    options = tf.data.Options()
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE  # the reader, which the workers have
    )
    remote = tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
        service=f"grpc://{address}",
        compression=None,
    )
    try:
        return dataset.with_options(options).apply(remote)
    except tf.errors.OpError as error:
        raise DataError(
            f"Expected the dispatcher of an input service at {address}, but found another server there: give "
            "the dispatcher's port, not a worker's."
        ) from error


def check_address(address: str) -> str:
    """Checks that a server of this kind answers, since TensorFlow itself would wait for one.

    Args:
        address: str. `HOST:PORT`.

    Returns:
        The address by which that host sees this machine.

    Raises:
        DataError: if the address is none, or nobody answers within eight seconds.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise DataError(
            f"Expected the address of an input service as HOST:PORT, but found {address!r}: give the "
            "dispatcher's, such as 10.0.0.2:5050."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS / 2) as connection:
            connection.settimeout(_SECONDS / 2)
            connection.sendall(_GREETING)
            answer = connection.recv(9, socket.MSG_WAITALL)
            own = connection.getsockname()[0]
        if answer[3:4] != _SETTINGS:
            raise OSError("something else answers")
    except OSError as error:
        raise DataError(
            f"Expected an input service at {address}, but found none there ({error}): start "
            f"`keras-ssl input-service dispatcher --port {port}` on that host, or check the address."
        ) from error
    return f"[{own}]" if ":" in own else own


@contextlib.contextmanager
def patience(address: str | None, report: Report) -> Iterator[None]:
    """Reports when what is done inside takes more than a minute, for perhaps it waits and no worker is there.

    Args:
        address: str. `HOST:PORT` of the dispatcher, or None without a service.
        report: function of a str. Called from another thread.
    """
    text = f"note      no step for {_PATIENCE:.0f} s: are input workers of {address} running?\n"
    timer = threading.Timer(_PATIENCE, report, [text])
    timer.daemon = True
    if address is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def remote_cause(error: tf.errors.OpError) -> DataError | None:
    """Returns the sentence of an input worker that TensorFlow wrapped into an error of its own, or None."""
    found = _SENTENCE.search(error.message)
    if found:
        return DataError(found[1].strip())
    if "dispatcher" in error.message:
        return DataError(
            "Expected the dispatcher of the input service to answer, but found it gone: start it again, with its "
            "--workdir, and then this command."
        )
    if _NO_READER in error.message:
        return DataError(
            "Expected input workers started with `keras-ssl input-service worker`, but found one of another "
            "program: stop it."
        )
    return None


# The input hosts' end ---------------------------------------------------------------------------------------


class SharedReader:
    """Reads records for trainers, and refuses those that have other data.

    Args:
        data: str. Images in a form that `open_source` takes.
        **settings: further settings of `open_source`, but the canvas, which the trainer decides.

    Raises:
        DataError: if there is nothing usable.
    """

    def __init__(self, data: str, **settings: Any) -> None:
        self.data, self.settings = data, settings
        self.source = open_source(data, **settings)
        self._lock = threading.Lock()
        self._opened = {self.source.canvas: (self.source, self.source.fingerprint())}

    def __call__(
        self, fingerprint: bytes, canvas: np.ndarray, records: np.ndarray, positions: np.ndarray
    ) -> list[np.ndarray]:
        """Returns what `read_arrays` does for the trainer's source."""
        expected = fingerprint.decode()
        source, found = self._on_canvas((int(canvas[0]), int(canvas[1])))
        if expected != found:
            raise DataError(
                f"Expected input workers with the trainer's images (fingerprint {expected}), but found "
                f"{source.describe()} (fingerprint {found}) in one on {socket.gethostname()}: "
                "start it with the trainer's --data and --data-dir."
            )
        return read_arrays(source, records, positions)

    def _on_canvas(self, canvas: tuple[int, int]) -> tuple[Source, str]:
        """Returns the images and their fingerprint; the canvas decides whether prepared copies will do."""
        with self._lock:
            if canvas not in self._opened:
                source = open_source(self.data, canvas=canvas, **self.settings)
                if isinstance(source, EncodedSource):
                    source.quarantine = self.source.quarantine  # broken on any canvas, listed once
                self._opened[canvas] = source, source.fingerprint()
            return self._opened[canvas]


def run_dispatcher(report: Report, port: int, workdir: str | None = None) -> NoReturn:
    """Runs the dispatcher of an input service until SIGINT or SIGTERM.

    Args:
        report: function of a str. Told in one line when the server is ready.
        port: int. To listen on; 0 for any that is free.
        workdir: str or None. Folder of a journal: a dispatcher that is started again with it goes on.

    Raises:
        DataError: if the port is taken.
    """
    _check_port(port)
    tf.config.set_visible_devices([], "GPU")
    config = tf.data.experimental.service.DispatcherConfig(
        port=port, protocol="grpc", work_dir=workdir, fault_tolerant_mode=workdir is not None
    )
    server = tf.data.experimental.service.DispatchServer(config)
    report(f"dispatcher: listens on port {server.target.rpartition(':')[2]}\n")
    _serve_until_signal()


def run_worker(
    report: Report,
    dispatcher: str,
    data: str,
    *,
    data_dir: str | None = None,
    quarantine: str | None = None,
    port: int = 0,
) -> NoReturn:
    """Runs a worker of an input service until SIGINT or SIGTERM.

    Trainers are told to reach it by the address that it has towards the dispatcher.

    Args:
        report: function of a str. Told in one line when the server is ready.
        dispatcher: str. `HOST:PORT` of the dispatcher.
        data: str. The trainer's images, in any form that `open_source` takes.
        data_dir: str or None. Where TFDS keeps its prepared data sets.
        quarantine: str or None. File that lists broken images.
        port: int. To listen on. Defaults to `0`, any that is free.

    Raises:
        DataError: if no dispatcher answers, the data are not usable or the port is taken.
    """
    _check_port(port)
    tf.config.set_visible_devices([], "GPU")
    own = check_address(dispatcher)
    reader: list[SharedReader] = []
    remote_call.publish(lambda *arrays: reader[0](*arrays))  # first: see `remote_call`
    reader.append(SharedReader(data, data_dir=data_dir, quarantine=quarantine))
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher,
        worker_address=f"{own}:%port%",
        port=port,
        protocol="grpc",
    )
    try:
        server = tf.data.experimental.service.WorkerServer(config)  # noqa: F841, serves while it lives
    except tf.errors.OpError as error:
        raise DataError(
            f"Expected the dispatcher of an input service at {dispatcher}, but found another server there: "
            "give the dispatcher's port."
        ) from error
    report(f"worker: serves {reader[0].source.describe()} to {dispatcher} as {own}\n")
    _serve_until_signal()


def _check_port(port: int) -> None:
    """Refuses a port that is taken: gRPC would share it with the other server."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Expected a free port, but found {port} ({error}): choose another --port."
        ) from error


def _serve_until_signal() -> NoReturn:
    """Ends the process at SIGINT or SIGTERM.

    Neither waits for its threads nor stops the server, which would wait, holding Python's lock, for reads that want
    it. Nothing is lost: a journal and a list of broken images are on the disk after each entry.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(1.0):
        pass
    os._exit(0)
