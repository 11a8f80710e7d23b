"""The twin of the kill test: resume is exact, and a resume from the wrong sample is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.pretraining import build
from keras_ssl.pretraining.run import Run, pretrain
from tests.contract.rows import images
from tests.e2e.test_commands import weights

pytestmark = pytest.mark.thorough

SETTINGS = {
    "recipe": "rotnet_cifar",
    "backbone": "resnet_mini",
    "image_size": 16,
    "batch_size": 16,
    "epochs": 2,
    "save_every": 1,
    "monitor_every": 0,
    "quiet": True,
}


def train(workdir):
    tf.keras.backend.clear_session()
    return pretrain(data=images(64), workdir=workdir, **SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert train(workdir).step == 8
    return weights(workdir)


def stop_after_three_steps(monkeypatch, workdir):
    save = Run._save

    def stopping(self, step, logs):
        save(self, step, logs)
        self.stopped = 15 * (step == 3)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save", stopping)
        result = train(workdir)
    assert (result.step, result.stopped) == (3, 15)


def test_resumed_in_one_process_it_ends_with_the_same_bits(whole, tmp_path, monkeypatch):
    stop_after_three_steps(monkeypatch, tmp_path / "run")
    assert train(tmp_path / "run").step == 8
    assert all(np.array_equal(a, b) for a, b in zip(whole, weights(tmp_path / "run"), strict=True))


def test_resumed_at_the_wrong_sample_it_does_not(whole, tmp_path, monkeypatch):
    stop_after_three_steps(monkeypatch, tmp_path / "run")
    real = build.build_batches
    monkeypatch.setattr(
        build, "build_batches", lambda *a, start_step, **k: real(*a, start_step=0, **k)
    )
    assert train(tmp_path / "run").step == 8
    assert not all(
        np.array_equal(a, b) for a, b in zip(whole, weights(tmp_path / "run"), strict=True)
    )
