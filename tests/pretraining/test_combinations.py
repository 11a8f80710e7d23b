"""Strategies, precisions and XLA that do not go together are refused before anything is opened."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_ssl.pretraining import combinations
from keras_ssl.pretraining.recipe import SettingError, resolve

_TWO = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'
_THREE = '{"cluster": {"worker": ["a:1", "b:1", "c:1"]}, "task": {"type": "worker", "index": 0}}'

# name -> TF_CONFIG, flags, a part of the sentence
REFUSED = {
    "unknown strategy": ("", ["--strategy", "mirored"], "strategy to be one of auto, cpu"),
    "unknown precision": ("", ["--precision", "float16"], "precision to be one of float32"),
    "unknown jit": ("", ["--jit", "yes"], "jit to be one of auto, on, off"),
    "no execution": ("", ["--steps-per-execution", "0"], "steps_per_execution above 0"),
    "replicas of one device": ("", ["--replicas", "2"], "--replicas only with --strategy mirrored"),
    "replicas of workers": (
        _TWO,
        ["--strategy", "multiworker", "--replicas", "2"],
        "--replicas only with --strategy mirrored",
    ),
    "no replicas": (
        "",
        ["--strategy", "mirrored", "--replicas", "0"],
        "--replicas to be at least 1",
    ),
    "batch over replicas": (
        "",
        ["--strategy", "mirrored", "--replicas", "3"],
        "--batch-size divisible by the 3 replicas",
    ),
    "batch over two replicas": (
        "",
        ["--strategy", "mirrored", "--batch-size", "15"],
        "--batch-size divisible by the 2 replicas",
    ),
    "batch over workers": (
        _THREE,
        ["--strategy", "multiworker"],
        "--batch-size divisible by the 3 replicas",
    ),
    "xla on replicas": (
        "",
        ["--strategy", "mirrored", "--jit", "on"],
        "--jit off with several CPU",
    ),
    "xla on workers": (
        _TWO,
        ["--strategy", "multiworker", "--jit", "on"],
        "--jit off with several",
    ),
    "exact crops of arrays": ("", ["--data", "digits", "--crops", "exact"], "no arrays as --data"),
    "exact crops and a canvas": ("", ["--crops", "exact", "--canvas", "64"], "no --canvas with"),
    "exact crops in the step": (
        "",
        ["--crops", "exact", "--views-on", "device"],
        "no --views-on device with --crops exact",
    ),
    "exact crops and micro-batches": (
        "",
        ["--crops", "exact", "--micro-batch", "4"],
        "no --micro-batch with --crops exact",
    ),
    "exact crops of other views": (
        "",
        ["--crops", "exact", "--views", "none"],
        "Expected views that are random resized crops",
    ),
    "no gpu": ("", ["--strategy", "gpu"], "a GPU that TensorFlow can see"),
    "no tpu": ("", ["--strategy", "tpu"], "a TPU for --strategy tpu"),
    "float16 on a tpu": (
        "",
        ["--strategy", "tpu", "--precision", "mixed_float16"],
        "--precision float32 or mixed_bfloat16 with --strategy tpu",
    ),
    "float64 on a tpu": (
        "",
        ["--strategy", "tpu", "--precision", "float64"],
        "--precision float32 or mixed_bfloat16 with --strategy tpu",
    ),
    "xla off on a tpu": ("", ["--strategy", "tpu", "--jit", "off"], "no --jit with --strategy tpu"),
    "xla on on a tpu": ("", ["--strategy", "tpu", "--jit", "on"], "no --jit with --strategy tpu"),
    "workers without a cluster": (
        "",
        ["--strategy", "multiworker"],
        "Expected TF_CONFIG in the env",
    ),
    "workers of a torn cluster": ("{", ["--strategy", "multiworker"], "TF_CONFIG of the form"),
    "a cluster and one device": (_TWO, [], "--strategy multiworker where TF_CONFIG names 2"),
    "a cluster and replicas": (
        _TWO,
        ["--strategy", "mirrored"],
        "multiworker where TF_CONFIG names",
    ),
}

_BUSY = '{"cluster": {"worker": ["127.0.0.1:PORT", "b:1"]}, "task": {"type": "worker", "index": 0}}'
# First: TensorFlow takes part in a cluster only before it has done anything else in the process.
_TAKEN = (_BUSY, ["--strategy", "multiworker"], "TF_CONFIG to be free on")
REFUSED = {"a port that is taken": _TAKEN, **REFUSED}

_IN_PROCESS = """
import json, os, sys
from keras_ssl import data
from keras_ssl.cli import main
for tf_config, arguments in json.loads(sys.argv[1]):
    os.environ["TF_CONFIG"] = tf_config
    try:
        code = main(["pretrain", "--recipe", "simclr_laptop", "--batch-size", "16", "--data", "nowhere", *arguments])
    except SystemExit as stop:
        code = stop.code
    print("<end>", code, file=sys.stderr)
"""


def test_every_refused_combination_is_one_sentence(tmp_path, subprocess_env):
    """The data do not exist, which would be said first if anything had opened them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [(case[0].replace("PORT", port), case[1]) for case in REFUSED.values()]
        done = subprocess.run(
            [sys.executable, "-c", _IN_PROCESS, json.dumps(cases)],
            cwd=tmp_path,
            env=subprocess_env,
            capture_output=True,
            text=True,
            timeout=600,
        )
    parts = done.stderr.split("<end>")[:-1]
    codes = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("<end>")]
    assert len(parts) == len(REFUSED), done.stderr[-3000:]
    for (name, case), part, code in zip(REFUSED.items(), parts, codes, strict=True):
        sentences = [line for line in part.splitlines() if line.startswith("keras-ssl: ")]
        assert code == "2" and len(sentences) == 1, (name, part)
        assert case[2] in sentences[0] and "Received: " in sentences[0], (name, sentences)
        assert "nowhere" not in part and "Traceback" not in part
    assert list(tmp_path.iterdir()) == []


def settings(**changes):
    return resolve(recipe="simclr_laptop", data="digits", batch_size=16, **changes)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("jit", ["auto", "on", "off"])
@pytest.mark.parametrize("gpus", [0, 2])
def test_what_is_allowed(precision, jit, gpus, monkeypatch):
    """Every precision with XLA as one likes on one device, and on several if they are GPUs."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    recipe, options = settings(precision=precision, jit=jit)
    combinations.check(recipe, options, 1)
    if gpus or jit != "on":
        combinations.check(recipe, options, 2)
    with pytest.raises(SettingError, match="divisible by the 5 replicas"):
        combinations.check(recipe, options, 5)


def test_a_tpu_tells_its_replicas_when_it_is_reached():
    recipe, options = settings(strategy="tpu")
    combinations.check(recipe, options, None)
    combinations.check(recipe, options, 8)
    with pytest.raises(SettingError, match="divisible by the 5 replicas"):
        combinations.check(recipe, options, 5)
