"""The launch files, with small stand-ins for what is not here: ssh, SLURM's commands and a pod's python."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_ssl.distribution import read_cluster

LAUNCH = Path(__file__).resolve().parents[2] / "training" / "launch"
PRINT = "import os, sys; print(os.environ['TF_CONFIG'], *sys.argv[1:], sep='|')"


def run(*command, code=0, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture
def stand_in(tmp_path):
    """Puts a shell script of some name first on the PATH; returns that PATH."""

    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return f"{path.parent}:{os.environ['PATH']}"

    return write


@pytest.mark.parametrize(
    "hosts, index, environment, workers",
    [
        ("node-a,node-b", 1, {}, ("node-a:29400", "node-b:29400")),
        ("node-a,node-b,c", 0, {"KERAS_SSL_PORT": "7"}, ("node-a:7", "node-b:7", "c:7")),
        ("127.0.0.1:1,127.0.0.1:2", 1, {}, ("127.0.0.1:1", "127.0.0.1:2")),
        ("alone.example.com", 0, {}, ("alone.example.com:29400",)),
    ],
)
def test_a_worker_gets_its_cluster_and_becomes_the_command(hosts, index, environment, workers):
    script = [LAUNCH / "worker.sh", hosts, index, sys.executable, "-c", PRINT, "two words", "*"]
    config, *arguments = run(*script, **environment).rstrip("\n").split("|")
    cluster = read_cluster(config)
    assert (cluster.workers, cluster.index) == (workers, index)
    assert arguments == ["two words", "*"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["a,b", "0"], "Expected HOSTS INDEX COMMAND"),
        (["a,,b", "0", "true"], "Expected host names separated by commas. Received: 'a,,b'"),
        (["", "0", "true"], "Expected host names"),
        (['a"b', "0", "true"], "Expected names, dots, colons and commas"),
        (["a b", "0", "true"], "Expected names, dots, colons and commas"),
        (["a,b", "2", "true"], "Expected INDEX below 2"),
        (["a,b", "one", "true"], "Expected INDEX to be a number"),
        (["a,b", "-1", "true"], "Expected INDEX to be a number"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, sentence):
    message = run(LAUNCH / "worker.sh", *arguments, code=2)
    assert message.startswith("worker.sh: ") and sentence in message and message.count("\n") == 1


def test_hosts_start_one_worker_each(stand_in):
    """Through a shell on the other side, which sees quotes once more."""
    path = stand_in("ssh", 'host=$1; shift; REACHED=$host exec sh -c "$*"')
    code = PRINT.replace("['TF_CONFIG']", "['TF_CONFIG'], os.environ['REACHED']")
    words = ["it's", "two  words", "$HOME", ""]
    out = run(LAUNCH / "hosts.sh", "a,b:7", sys.executable, "-c", code, *words, PATH=path)
    found = {}
    for line in out.splitlines():
        index, config, host, *arguments = re.sub(r"^\[(\d)\] ", r"\1|", line).split("|")
        cluster = read_cluster(config)
        assert cluster.workers == ("a:29400", "b:7") and cluster.index == int(index)
        assert arguments == words
        found[cluster.index] = host
    assert found == {0: "a", 1: "b"}


def test_hosts_end_as_the_worst_worker(stand_in):
    path = stand_in("ssh", 'shift; exec sh -c "$*"')
    worker = 'case $TF_CONFIG in *"index\\": 1"*) exit 3;; esac'
    run(LAUNCH / "hosts.sh", "a,b", "sh", "-c", worker, PATH=path, code=3)
    run(LAUNCH / "hosts.sh", "a,b", "true", PATH=path)


def test_hosts_pass_a_signal_on(stand_in):
    path = stand_in("ssh", 'shift; exec sh -c "$*"')
    worker = "trap 'echo stopped; exit 143' TERM; echo started; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [LAUNCH / "hosts.sh", "a,b", "sh", "-c", worker],
        env={"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert {process.stdout.readline() for _ in range(2)} == {"[0] started\n", "[1] started\n"}
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert sorted(out.splitlines()) == ["[0] stopped", "[1] stopped"]


@pytest.mark.parametrize(
    "ended, restarts, queued", [(0, 0, 0), (2, 0, 0), (1, 0, 1), (1, 5, 0), (143, 9, 1)]
)
def test_slurm_starts_a_worker_on_each_node(stand_in, tmp_path, ended, restarts, queued):
    stand_in(
        "scontrol", f'[ "$1" = requeue ] && echo "$2" >> {tmp_path}/queued || printf "n1\\nn2\\n"'
    )
    path = stand_in("srun", 'shift; for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done')
    environment = {
        "PATH": path,
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_ID": "77",
        "SLURM_SUBMIT_DIR": str(LAUNCH.parents[1]),
        "SLURM_RESTART_COUNT": str(restarts),
    }
    code = f"{PRINT}; sys.exit({ended})"
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sbatch", sys.executable, "-c", code, "two words"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == ended, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines()]
    clusters = [read_cluster(line[0]) for line in lines]
    assert [cluster.index for cluster in clusters] == [0, 1]
    assert clusters[0].workers == ("n1:29400", "n2:29400")
    assert [line[1:] for line in lines] == [["two words"]] * 2
    log = tmp_path / "queued"
    assert (log.read_text().split() if log.exists() else []) == ["77"] * queued


def test_each_pod_is_one_worker(stand_in):
    """The command of the manifest, run for each index of the job, with a python that prints what it got."""
    manifest = (LAUNCH / "kubernetes.yaml").read_text()
    block = manifest.split("- >-\n")[1].split("          ports:")[0]
    command = " ".join(block.split())
    count = int(re.search(r"completions: (\d+)", manifest)[1])
    assert f"parallelism: {count}" in manifest and "completionMode: Indexed" in manifest
    job, service = re.findall(r"^  name: (\S+)$", manifest, re.M)
    subdomain = re.search(r"subdomain: (\S+)", manifest)[1]
    port = re.search(r"containerPort: (\d+)", manifest)[1]
    assert subdomain == service
    path = stand_in("python", f'exec {sys.executable} -c "{PRINT}" "$@"')
    for index in range(count):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=LAUNCH.parents[1],
            env={"PATH": path, "JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        config, *flags = done.stdout.rstrip("\n").split("|")
        cluster = read_cluster(config)
        assert cluster.index == index
        assert cluster.workers == tuple(f"{job}-{i}.{subdomain}:{port}" for i in range(count))
        assert "multiworker" in flags and "--workdir" in flags
        assert json.loads(config)["task"]["type"] == "worker"
