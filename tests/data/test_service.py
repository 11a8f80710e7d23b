"""A `tf.data` service of real processes on loopback addresses: a dispatcher, two input workers and this trainer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import cli, views
from keras_ssl.data import (
    DataError,
    PreparedSource,
    SampleStream,
    open_source,
    prepare,
    remote_call,
    service,
)
from keras_ssl.data.stream import read_arrays
from keras_ssl.pretraining.build import on_host
from keras_ssl.pretraining.recipe import SettingError
from keras_ssl.pretraining.run import pretrain

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT, BATCH = 64, 8


def start(folder: Path, name: str, *arguments: str) -> tuple[subprocess.Popen, Path]:
    """Starts a server; its output goes to the file that is returned."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "keras_ssl.cli", "input-service", *arguments]
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file), log


def said(process: subprocess.Popen, log: Path, words: str) -> str:
    """Returns the line with some words as soon as the server has written it."""
    for _ in range(1200):
        lines = [line for line in log.read_text().splitlines() if words in line]
        if lines or process.poll() is not None:
            break
        time.sleep(0.1)
    assert lines, log.read_text()
    return lines[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """64 pictures in two classes, of which one is broken."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        path = folder / f"class{index % 2}" / f"{index:03d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (20 + index % 3, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    path.write_text("this is no picture")
    return folder


class Servers:
    """The processes of a service."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.folder = folder
        self.dispatcher, log = start(folder, "dispatcher", "dispatcher", "--port", "0")
        port = said(self.dispatcher, log, "listens on port").split()[-1]
        self.address = f"127.0.0.1:{port}"
        self.worker_port = free_port()
        common = ["worker", "--dispatcher", self.address, "--data", str(photos), "--quarantine"]
        started = [
            start(folder, "first", *common, str(self.listed("first"))),
            start(
                folder,
                "second",
                *common,
                str(self.listed("second")),
                "--port",
                str(self.worker_port),
            ),
        ]
        self.workers = [process for process, _ in started]
        for process, log in started:
            assert f"{COUNT} images in 2 classes" in said(process, log, "worker: serves")

    def listed(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def took_part(self) -> None:
        """Each worker has met the broken picture."""
        for name in ("first", "second"):
            (line,) = self.listed(name).read_text().splitlines()
            assert json.loads(line)["path"].endswith("063.png")

    def end(self) -> None:
        for process in (*self.workers, self.dispatcher):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def servers(photos, tmp_path_factory):
    running = Servers(tmp_path_factory.mktemp("service"), photos)
    yield running
    running.end()


def stream_of(data, **settings) -> SampleStream:
    return SampleStream(open_source(data, **settings), BATCH, seed=3)


def test_every_batch_is_that_of_its_position(servers, photos):
    """Views made by the workers are bit-equal to those made here, on a canvas that the workers did not choose."""
    stream = stream_of(str(photos), canvas=18)
    engine = views.ViewEngine(
        views.customize(views.get("simclr_cifar"), image_size=16), kernel="host"
    )

    def batches(remote):
        dataset = stream.dataset(start_step=5, num_steps=40, remote=remote)
        dataset = dataset.map(lambda batch: on_host(batch, engine, 7))
        return service.through_service(dataset, servers.address) if remote else dataset

    here = {int(batch["position"][0]): batch for batch in batches(remote=False)}
    seen = set()
    for batch in batches(remote=True):
        seen.add(first := int(batch["position"][0]))
        assert set(batch) == {"position", "sample_id", "labels", "views"}
        tf.nest.map_structure(np.testing.assert_array_equal, batch, here[first])
    assert seen == set(here) == set(range(5 * BATCH, 45 * BATCH, BATCH))


@pytest.mark.slow
def test_elements_of_replicas_come_too(servers, photos):
    dataset = stream_of(str(photos)).dataset(num_steps=6, per_replica_batch=4, remote=True)
    positions = [b["position"] for b in service.through_service(dataset, servers.address)]
    assert np.all(np.diff(positions, axis=1) == 1)
    assert sorted(np.ravel(positions)) == list(range(6 * BATCH))


def test_a_trainer_with_other_images_is_refused(servers):
    dataset = service.through_service(stream_of("digits").dataset(remote=True), servers.address)
    with pytest.raises(tf.errors.OpError) as failed:
        next(iter(dataset))
    sentence = str(service.remote_cause(failed.value))
    assert sentence.startswith("Expected input workers with the trainer's images (fingerprint ")
    assert "64 images in 2 classes" in sentence and sentence.endswith("--data and --data-dir.")


def test_a_worker_is_no_dispatcher(servers, photos):
    dataset = stream_of(str(photos)).dataset(remote=True)
    with pytest.raises(DataError, match="not a worker's"):
        service.through_service(dataset, f"127.0.0.1:{servers.worker_port}")


def test_a_worker_dies_and_the_stream_goes_on(servers, photos):
    """kill -9: the stream does not end, no batch comes twice. Then Ctrl-C ends what is left, in order."""
    dataset = stream_of(str(photos)).dataset(remote=True)
    batches = iter(service.through_service(dataset, servers.address))
    before = [int(next(batches)["position"][0]) for _ in range(60)]
    servers.workers[0].send_signal(signal.SIGKILL)
    assert servers.workers[0].wait(timeout=20) == -signal.SIGKILL
    after = [int(next(batches)["position"][0]) for _ in range(60)]
    assert len(set(before + after)) == 120 and max(after) > max(before)
    servers.took_part()
    for process, number in (
        (servers.workers[1], signal.SIGINT),
        (servers.dispatcher, signal.SIGTERM),
    ):
        process.send_signal(number)
        assert process.wait(timeout=20) == 0


@pytest.mark.slow
def test_a_worker_is_killed_and_the_training_goes_on(photos, tmp_path, monkeypatch, capfd):
    """kill -9 of one of two workers: all steps are done, with whole batches of which none came twice."""
    servers = Servers(tmp_path, photos)
    taken, original = [], service.through_service

    def watched(dataset, address):
        def note(batch):
            position = tf.numpy_function(
                lambda p: taken.append(p) or p, [batch["position"]], tf.int64
            )
            return {**batch, "position": tf.ensure_shape(position, (BATCH,))}

        return original(dataset, address).map(note)

    def kill():
        log = tmp_path / "run" / "log.jsonl"
        while not (log.is_file() and '"step": 12,' in log.read_text()):
            time.sleep(0.01)
        servers.workers[0].send_signal(signal.SIGKILL)

    monkeypatch.setattr(service, "through_service", watched)
    settings = {
        "recipe": "simclr_cifar", "backbone": "resnet_mini", "image_size": 16, "batch_size": BATCH,
        "monitor_every": 0, "log_every": 1, "data": str(photos), "workdir": str(tmp_path / "run"),
        "learning_rate": 0.01, "optimizer": "sgd", "views_on": "host", "input_service": servers.address,
    }  # fmt: skip
    threading.Thread(target=kill, daemon=True).start()
    result = pretrain(**settings, epochs=6)
    assert servers.workers[0].wait(timeout=20) == -signal.SIGKILL
    assert result.step == 6 * COUNT // BATCH and steps_of(tmp_path / "run") == list(range(1, 49))
    first = np.array([positions[0] for positions in taken])
    assert np.all(np.array(taken) == first[:, None] + np.arange(BATCH))
    assert np.all(first % BATCH == 0) and len(set(first)) == len(first) > 47
    servers.took_part()
    shown = capfd.readouterr().out
    assert f"read by the input service at {servers.address}, in order of arrival" in shown
    assert "made in the input service" in shown

    taken.clear()
    resumed = pretrain(**settings, epochs=7)  # by the worker that is left
    assert resumed.step == 56 and steps_of(tmp_path / "run") == list(range(1, 57))
    assert min(positions[0] for positions in taken) == 48 * BATCH
    servers.end()


def steps_of(workdir: Path) -> list[int]:
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nobody_there_is_one_sentence_and_code_2(photos, tmp_path, capsys):
    arguments = ["--method", "simclr", "--data", str(photos), "--workdir", str(tmp_path / "run")]
    address = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", *arguments, "--input-service", address])
    assert stop.value.code == 2 and time.monotonic() - begin < 10
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"keras-ssl: Expected an input service at {address}, but found none")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answer", [None, b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_another_server_is_noticed(answer, monkeypatch):
    """One that never answers, and one that speaks something else."""
    monkeypatch.setattr(service, "_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            if answer is not None:
                connection.sendall(answer)
            time.sleep(2)
            connection.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(DataError, match="timed out" if answer is None else "something else"):
            service.check_address(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["localhost", ":5050", "localhost:port", "localhost:70000"])
def test_an_address_needs_host_and_port(address):
    with pytest.raises(DataError, match="as HOST:PORT"):
        service.check_address(address)


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as other, pytest.raises(DataError, match="free port"):
        service.run_dispatcher(print, other.getsockname()[1])
    with pytest.raises(DataError, match="free port"):
        service.run_dispatcher(print, 70000)


def test_arrays_cannot_be_read_elsewhere():
    images = np.zeros((8, 16, 16, 3), np.uint8)
    with pytest.raises(SettingError, match=r"arrays and input_service='localhost:1'.*\.npz"):
        pretrain(method="simclr", data=images, input_service="localhost:1")


def test_a_reader_published_second_is_refused():
    """The number that workers count on is gone once a graph of this process holds a Python function."""
    with tf.Graph().as_default():
        tf.numpy_function(lambda: np.float32(0), [], tf.float32)
    with pytest.raises(RuntimeError, match="in a process of its own"):
        remote_call.publish(lambda: [np.float32(0)])


def test_a_worker_of_another_program_is_named():
    """TensorFlow's own message, for a function that was never published."""
    with pytest.raises(tf.errors.OpError) as failed:
        tf.raw_ops.PyFunc(input=[], token="pyfunc_never", Tout=[tf.float32])
    assert "another program" in str(service.remote_cause(failed.value))
    other = tf.errors.InternalError(None, None, "the disk is full")
    assert service.remote_cause(other) is None


def test_a_dispatcher_that_is_gone_is_named():
    gone = tf.errors.UnavailableError(None, None, "Failed to connect to the dispatcher: refused")
    assert "Expected the dispatcher of the input service to answer" in str(
        service.remote_cause(gone)
    )


def test_the_trainers_canvas_decides_about_prepared_copies(tmp_path):
    """Copies of 40 pixels are too small for the worker, and will do for a trainer with a canvas of 32."""
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (60, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    prepare(open_source(str(tmp_path)), tmp_path / ".keras_ssl-cache", size=40)
    reader = service.SharedReader(str(tmp_path))
    assert not isinstance(reader.source, PreparedSource)
    trainers = open_source(str(tmp_path), canvas=32)
    assert isinstance(trainers, PreparedSource)
    assert trainers.fingerprint() != reader.source.fingerprint()
    records, positions = np.arange(4), np.arange(4)
    given = trainers.fingerprint().encode(), np.array(trainers.canvas), records, positions
    for mine, expected in zip(
        reader(*given), read_arrays(trainers, records, positions), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)


def test_waiting_is_reported(monkeypatch):
    monkeypatch.setattr(service, "_PATIENCE", 0.05)
    said_lines = []
    for address in (None, "host:1"):
        with service.patience(address, said_lines.append):
            time.sleep(0.3)
    with service.patience("host:2", said_lines.append):
        pass
    time.sleep(0.2)
    (line,) = said_lines
    assert "are input workers of host:1 running?" in line
