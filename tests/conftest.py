"""What every test shares: quiet TensorFlow, few threads, fixed seeds, an environment for subprocesses."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Read when TensorFlow is first imported, so set here and not in a fixture. Two workers on two cores are
# fastest with one thread each.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def subprocess_env() -> dict[str, str]:
    """Environment for a Python subprocess that imports this checkout, on the CPU, with one thread."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


# Files whose tests share nothing and are long: each of them may run on any worker.
_APART = (
    "tests/contract/test_replicas.py",
    "tests/e2e/test_commands.py",
    "tests/e2e/test_kills.py",
)
_TOGETHER = "tests/serving/"  # its tests share a server
_BY_METHOD = "tests/contract/test_methods.py"  # the tests of one method share its compiled step


def group_of(nodeid: str) -> str:
    """Returns the group of a test; one worker runs a group, so that what its tests share is built once."""
    file, _, test = nodeid.partition("::")
    if file in _APART:
        return nodeid
    if file.startswith(_TOGETHER):
        return _TOGETHER
    if file == _BY_METHOD:
        return f"{file} {test.partition('[')[2].rstrip(']').partition('-')[0] or 'others'}"
    return file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spreads groups, not tests. The plugin's own groups are lost under pytest 9, whose node ids cannot be renamed."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)
