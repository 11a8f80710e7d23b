"""`kill -9` at random steps of real runs: in the end it is as if it never was."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.test_commands import SWAV, TINY, photos, start, steps_of, weights

__all__ = ["photos"]  # the fixture


def check_kills(arguments: list[str], kills: int, cwd: Path) -> np.ndarray:
    """Trains for 16 steps undisturbed and with so many `kill -9` at random steps: bit-equal in the end."""
    whole, killed = cwd / "whole", cwd / "killed"
    process = start(*arguments, "--workdir", str(whole), cwd=cwd)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    assert steps_of(whole) == list(range(1, 17))
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    goals = np.sort(rng.choice(np.arange(1, 15), kills, replace=False))
    for goal in goals:
        process = start(*arguments, "--workdir", str(killed), cwd=cwd)
        log = killed / "log.jsonl"
        while process.poll() is None and not (
            log.is_file() and f'"step": {goal},' in log.read_text() and '"train"' in log.read_text()
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"finished before step {goal}"
    process = start(*arguments, "--workdir", str(killed), cwd=cwd)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    assert "resumes" in output
    assert steps_of(killed) == list(range(1, 17))
    pairs = zip(weights(whole), weights(killed), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert (killed / "encoder" / "saved_model.pb").is_file()
    return goals


def test_killed_three_times_it_is_as_if_it_never_was(photos, tmp_path):
    """A multi-crop SwAV run with its queue on."""
    check_kills([*SWAV, "--data", str(photos)], 3, tmp_path)


KILLS = {
    "simclr": ["--recipe", "simclr_cifar", *TINY, "--backbone-width", "0.25"],
    "swav": [*SWAV, "--backbone-width", "0.25"],
    "dino": [
        "--recipe", "dino_cifar", *TINY, "--backbone-width", "0.25", "--views", "dino_cifar_local",
        "--views-num-local", "2", "--views-local-size", "8", "--num-prototypes", "64", "--hidden-dim", "32",
        "--bottleneck-dim", "16",
    ],
    "mae": [
        "--recipe", "mae_laptop", *TINY, "--backbone", "vit_mini", "--decoder-dim", "32", "--decoder-depth", "1",
        "--decoder-heads", "2",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLS)
def test_killed_at_twenty_random_steps(method, photos, tmp_path):
    """Five kills for each of four methods: contrastive, queue and multi-crop, teacher and center, ViT and masks."""
    arguments = [*KILLS[method], "--epochs", "4", "--save-every", "3", "--log-every", "1"]
    goals = check_kills([*arguments, "--data", str(photos)], 5, tmp_path)
    print(f"{method}: killed at steps {goals.tolist()}")
