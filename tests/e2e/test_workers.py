"""Two workers in two processes train like one; one lost stops the other; together they go on as if nothing was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import keras_ssl
from tests.contract.rows import images
from tests.e2e.test_commands import REPOSITORY, steps_of, weights

STEPS = 20  # five epochs of four
SETTINGS = {
    "recipe": "simclr_cifar",
    "backbone": "resnet_mini",
    "image_size": 16,
    "batch_size": 16,
    "epochs": 5,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "projection_dim": 8,
    "precision": "float64",
    "monitor_every": 0,
    "log_every": 1,
    "save_every": 3,
}
STOPPED_WITHIN = 120.0  # seconds, on a busy machine; see docs/distributed.md


def ports() -> list[int]:
    """Returns two free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return numbers


def start(workdir: Path, *changes: str, cwd: Path | None = None) -> list[subprocess.Popen]:
    """Starts both workers through the launch script; what worker i prints goes to WORKDIR.i.

    Each works in its own folder of `cwd`, if that is given; INDEX in a flag is the worker's number.
    """
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    flags += [f"--data={workdir.parent / 'data.npz'}", "--strategy=multiworker"]
    processes = []
    for index in range(2):
        script = [str(REPOSITORY / "training/launch/worker.sh"), hosts, str(index)]
        command = [*script, sys.executable, str(REPOSITORY / "training/run.py"), *flags]
        own = [change.replace("INDEX", str(index)) for change in changes]
        with Path(f"{workdir}.{index}").open("w") as output:
            processes.append(
                subprocess.Popen(
                    [*command, f"--workdir={workdir}", *own],
                    cwd=cwd and cwd / str(index),
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            )
    return processes


def finish(processes: list[subprocess.Popen], workdir: Path, codes: tuple[int, int] = (0, 0)):
    """Waits for both; returns what each has printed."""
    try:
        found = tuple(process.wait(timeout=1500) for process in processes)
    finally:
        for process in processes:
            process.kill()
    printed = [Path(f"{workdir}.{index}").read_text() for index in range(2)]
    assert found == codes, printed[0][-3000:] + printed[1][-3000:]
    return printed


def reach(step: int, workdir: Path, processes: list[subprocess.Popen]) -> None:
    """Returns when this step is in the log and all processes still run."""
    log = workdir / "log.jsonl"
    while not (log.is_file() and f'"train", "step": {step},' in log.read_text()):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


def distance(one: Path, other: Path) -> float:
    pairs = zip(weights(one), weights(other), strict=True)
    return max(np.max(np.abs(a.astype(np.float64) - b), initial=0.0) for a, b in pairs)


def sentences(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line.startswith("keras-ssl: ")]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with the data."""
    folder = tmp_path_factory.mktemp("workers")
    np.savez(folder / "data.npz", images=images(64))
    return folder


@pytest.fixture(scope="module")
def one(base) -> Path:
    """The folder of the run of one process."""
    data = str(base / "data.npz")
    return keras_ssl.pretrain(**SETTINGS, data=data, workdir=base / "one", quiet=True).workdir


@pytest.fixture(scope="module")
def whole(base) -> Path:
    """The folder of an undisturbed run of two workers."""
    workdir = base / "whole"
    printed = finish(start(workdir), workdir)
    assert "2 replica(s)" in printed[0] and "Done: " in printed[0]
    assert "replica(s)" not in printed[1] and "Done: " not in printed[1]
    return workdir


@pytest.mark.slow
def test_two_workers_train_like_one_process(one, whole):
    """Views, batch statistics and negatives are those of the whole batch; only the chief writes."""
    assert distance(one, whole) < 1e-8
    assert steps_of(whole) == list(range(1, STEPS + 1))  # once each
    lines, others = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (one, whole)
    )
    for line, other in zip(lines, others, strict=True):
        assert line["kind"] == other["kind"]
        assert line.get("loss", 0) == pytest.approx(other.get("loss", 0), abs=1e-8)
    names = [path.name.split(".")[0] for path in whole.iterdir()]
    assert names.count("events") == 1
    assert {*names} == {path.name.split(".")[0] for path in one.iterdir()}
    assert (whole / "encoder" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_one_is_killed_the_other_stops_and_both_go_on(base, whole, victim, tmp_path):
    shutil.copy(base / "data.npz", tmp_path)
    workdir = tmp_path / "killed"
    processes = start(workdir, f"--data={base / 'data.npz'}")
    reach(6, workdir, processes)  # in the middle of an epoch, after the checkpoint of step 3
    processes[victim].kill()
    before = time.monotonic()
    code = processes[1 - victim].wait(timeout=600)
    seconds = time.monotonic() - before
    print(f"worker {1 - victim} stopped {seconds:.1f} s after worker {victim} was killed")
    assert code == 1 and seconds < STOPPED_WITHIN, seconds
    (sentence,) = sentences(Path(f"{workdir}.{1 - victim}").read_text())
    assert f"Worker {1 - victim} lost the connection to" in sentence and "same command" in sentence
    assert processes[victim].wait() == -signal.SIGKILL
    assert steps_of(workdir)[-1] < STEPS

    printed = finish(start(workdir, f"--data={base / 'data.npz'}"), workdir)
    assert "resumes" in printed[0]
    assert steps_of(workdir) == list(range(1, STEPS + 1))
    assert distance(whole, workdir) == 0.0


@pytest.mark.slow
def test_a_frozen_worker_is_noticed_and_one_process_goes_on(base, one, tmp_path):
    workdir, data = tmp_path / "frozen", str(base / "data.npz")
    processes = start(workdir, f"--data={data}")
    reach(6, workdir, processes)
    processes[1].send_signal(signal.SIGSTOP)
    before = time.monotonic()
    assert processes[0].wait(timeout=600) == 1
    seconds = time.monotonic() - before
    print(f"worker 0 stopped {seconds:.1f} s after worker 1 froze")
    assert seconds < STOPPED_WITHIN
    assert len(sentences(Path(f"{workdir}.0").read_text())) == 1
    processes[1].kill()
    processes[1].wait()
    result = keras_ssl.pretrain(**SETTINGS, data=data, workdir=workdir, quiet=True)
    assert result.step == STEPS
    assert distance(one, workdir) < 1e-8


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_one_step(base, whole, tmp_path):
    """In executions of two steps; both save, and go on to the same end."""
    workdir, data = tmp_path / "stopped", str(base / "data.npz")
    changes = [f"--data={data}", "--steps-per-execution=2"]
    processes = start(workdir, *changes)
    reach(4, workdir, processes)
    processes[1].send_signal(signal.SIGTERM)
    printed = finish(processes, workdir, (128 + signal.SIGTERM, 128 + signal.SIGTERM))
    done = int(printed[0].split("Stopped by SIGTERM after step ")[1].split()[0])
    assert done < STEPS and done % 2 == 0
    assert (workdir / "checkpoints" / f"step-{done:012d}" / "manifest.json").is_file()
    finish(start(workdir, *changes), workdir)
    assert distance(whole, workdir) < 1e-9


@pytest.mark.slow
def test_executions_of_four_steps_change_nothing(base, whole):
    workdir = base / "executions"
    finish(start(workdir, "--steps-per-execution=4"), workdir)
    assert steps_of(workdir) == list(range(4, STEPS + 1, 4))
    assert distance(whole, workdir) < 1e-9


@pytest.mark.parametrize(
    "change, codes, sentence",
    [
        ("--seed=INDEX", (2, 2), "the same settings on all workers"),
        pytest.param(
            "--data=data.npz", (2, 2), "the same data on all workers", marks=pytest.mark.slow
        ),
        pytest.param(
            "--workdir=run", (1, 2), "a --workdir that all workers share", marks=pytest.mark.slow
        ),
    ],
)
def test_workers_that_do_not_fit_stop(base, change, codes, sentence, tmp_path):
    """Other settings, other data under the same name, folders that are not shared."""
    for index in range(2):
        (tmp_path / str(index)).mkdir()
        np.savez(tmp_path / str(index) / "data.npz", images=images(64, seed=index))
    workdir, data = tmp_path / "run", f"--data={base / 'data.npz'}"
    printed = finish(start(workdir, data, change, cwd=tmp_path), workdir, codes)
    (found,) = sentences(printed[1])
    assert sentence in found
    assert len(sentences(printed[0])) == 1 and not (workdir / "checkpoints").exists()
