"""One device or many, the same run: float64, one process for each number of devices, views included."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from keras_ssl.methods import METHODS
from tests.contract.rows import ROWS

WORKER = Path(__file__).with_name("replica_worker.py")


# What a method keeps beside its weights: parts of the names of variables that must be among those compared.
STATE = {
    "simclr": ("moving_mean", "moving_variance"),
    "swav": ("queue_0/rows", "queue_1/rows", "prototypes/kernel", "swav/usage", "moving_mean"),
    "byol": ("moving_mean", "moving_variance", "predictor/dense1/kernel"),
    "dino": ("center/center", "last_layer/kernel"),
    "mae": ("mae/step",),
    "rotnet": ("moving_mean", "moving_variance"),
}
# One of each kind in every run; those whose step takes longest to trace in the pipeline's.
LONG = ("byol", "dino", "swav")
NAMES = [pytest.param(name, marks=pytest.mark.thorough if name in LONG else ()) for name in ROWS]
COUNTS = (2, pytest.param(4, marks=pytest.mark.slow))


@functools.cache
def run(
    name: str, replicas: int, sabotage: str = "", executions: int = 1, micro: str = ""
) -> dict[str, np.ndarray]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(WORKER.parents[2]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        arguments = [name, str(replicas), str(out), sabotage, str(executions), micro]
        done = subprocess.run(
            [sys.executable, str(WORKER), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(out))


def worst(one: dict[str, np.ndarray], many: dict[str, np.ndarray], part: str) -> float:
    """Returns the largest difference of the variables of one kind."""
    keys = [key for key in one if key.startswith(part)]
    assert keys
    return max(np.max(np.abs(one[key] - many[key]), initial=0.0) for key in keys)


def compare(one: dict[str, np.ndarray], many: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns the largest errors: loss, each gradient over the whole gradient's norm, state, weights."""
    gradients = [key for key in one if key.startswith("gradient/")]
    norm = np.sqrt(sum(np.sum(one[key] ** 2) for key in gradients))
    assert norm > 1e-3
    return {
        "first_loss": abs(one["losses"][0] - many["losses"][0]),
        "gradient": worst(one, many, "gradient/") / norm,
        "after3": worst(one, many, "after3/"),
        "after20": worst(one, many, "after20/"),
        "losses": np.max(np.abs(one["losses"] - many["losses"])),
    }


def test_every_method_is_here():
    assert set(ROWS) == set(METHODS) == set(STATE)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", NAMES)
def test_replicas_train_like_one(name, count):
    one, many = run(name, 1), run(name, count)
    assert (one["replicas"], many["replicas"]) == (1, count)
    errors = compare(one, many)
    print(name, count, errors)
    assert errors["first_loss"] < 1e-9
    assert errors["gradient"] < 1e-9
    assert errors["after3"] < 1e-9  # batch-norm statistics, queues, centers, prototypes, teachers
    assert errors["after20"] < 1e-8
    assert errors["losses"] < 1e-8
    copies = [key for key in many if key.startswith("copies")]
    assert len(copies) == 3 * sum(key.startswith("after3/") for key in one)
    assert not [key for key in copies if not many[key]]
    after3 = [key for key in one if key.startswith("after3/")]
    for part in STATE[name]:
        kept = [key for key in after3 if part in key]
        assert any(not np.array_equal(one[key], one[key.replace("3", "1", 1)]) for key in kept), (
            part
        )


@pytest.mark.parametrize(
    "sabotage", ["local_negatives", pytest.param("replica_seed", marks=pytest.mark.thorough)]
)
def test_sabotage_is_noticed(sabotage):
    errors = compare(run("simclr", 1), run("simclr", 2, sabotage))
    assert errors["gradient"] > 1e-4
    assert errors["after20"] > 1e-4


@pytest.mark.parametrize(
    "count",
    [pytest.param(1, marks=pytest.mark.thorough), pytest.param(2, marks=pytest.mark.slow)],
)
def test_executions_of_four_steps_change_nothing(count):
    """Bit-equal on one device, where nothing is summed in another order."""
    single, four = run("rotnet", count), run("rotnet", count, executions=4)
    assert len(four["losses"]) == 5
    np.testing.assert_allclose(four["losses"], single["losses"][3::4], rtol=0, atol=1e-9)
    error = worst(single, four, "after20/")
    assert error == 0.0 if count == 1 else error < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("micro", ["2", "2twice"])
def test_micro_batches_on_two_replicas_train_like_the_whole_batch_on_one(micro):
    """A network without batch-norm, in one pass and in two."""
    errors = compare(run("mae", 1), run("mae", 2, micro=micro))
    assert errors["gradient"] < 1e-9
    assert errors["after20"] < 1e-8
