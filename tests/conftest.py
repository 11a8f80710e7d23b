"""What every test shares: quiet TensorFlow, few threads, fixed seeds, an environment for subprocesses."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives a file to one worker, so that what its tests share is built once.

    A file cuts itself up by defining `xdist_group(item) -> str`; tests of one name stay together.
    """
    for item in items:
        name = getattr(item.module, "xdist_group", lambda item: item.module.__name__)(item)
        item.add_marker(pytest.mark.xdist_group(re.sub(r"\W+", "_", name)))
