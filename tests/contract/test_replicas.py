"""One device or many, the same run: float64, one process for each number of devices, views included."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.contract.rows import ROWS


def xdist_group(item: pytest.Item) -> str:
    return item.nodeid


WORKER = Path(__file__).with_name("replica_worker.py")


@functools.cache
def run(name: str, replicas: int, sabotage: str = "", micro: str = "") -> dict[str, np.ndarray]:
    import os

    environment = {
        **os.environ,
        "PYTHONPATH": str(WORKER.parents[2]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        arguments = [name, str(replicas), str(out), sabotage, micro]
        done = subprocess.run(
            [sys.executable, str(WORKER), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(out))


def compare(one: dict[str, np.ndarray], many: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest errors: loss, each gradient over the whole gradient's norm, state, weights."""
    gradients = [key for key in one if key.startswith("gradient/")]
    norm = np.sqrt(sum(np.sum(one[key] ** 2) for key in gradients))
    assert norm > 1e-3

    def worst(prefix: str, scale: float) -> float:
        keys = [key for key in one if key.startswith(prefix)]
        assert keys
        return max(np.max(np.abs(one[key] - many[key]), initial=0.0) / scale for key in keys)

    return {
        "first_loss": abs(one["losses"][0] - many["losses"][0]),
        "gradient": worst("gradient/", norm),
        "after3": worst("after3/", 1.0),
        "after20": worst("after20/", 1.0),
        "losses": np.max(np.abs(one["losses"] - many["losses"])),
    }


@pytest.mark.parametrize("name", ROWS)
def test_two_replicas_train_like_one(name):
    one, two = run(name, 1), run(name, 2)
    errors = compare(one, two)
    assert errors["first_loss"] < 1e-9
    assert errors["gradient"] < 1e-9
    assert errors["after3"] < 1e-9  # batch-norm statistics, queues, centers, prototypes, teachers
    assert errors["after20"] < 1e-8
    apart = [key for key, value in two.items() if key.startswith("copies/") and not value]
    assert not apart
    moved = sum(
        not np.array_equal(one[key], one[key.replace("after20", "after1")])
        for key in one
        if re.match("after20/", key)
    )
    assert moved > 3  # the run did something


@pytest.mark.parametrize("sabotage", ["local_negatives", "replica_seed"])
def test_sabotage_is_noticed(sabotage):
    errors = compare(run("simclr", 1), run("simclr", 2, sabotage))
    assert errors["gradient"] > 1e-4
    assert errors["after20"] > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_four_replicas_train_like_one(name):
    errors = compare(run(name, 1), run(name, 4))
    assert errors["gradient"] < 1e-9
    assert errors["after20"] < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("micro", ["2", "2twice"])
def test_micro_batches_on_two_replicas_train_like_the_whole_batch_on_one(micro):
    """A network without batch-norm, in one pass and in two."""
    errors = compare(run("mae", 1), run("mae", 2, micro=micro))
    assert errors["gradient"] < 1e-9
    assert errors["after20"] < 1e-8
