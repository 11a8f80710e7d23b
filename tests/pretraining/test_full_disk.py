"""Files that cannot grow: a limit of the system stands for the full disk, so TensorFlow's own writers meet it too."""

from __future__ import annotations

import contextlib
import resource
import types

import keras
import numpy as np
import pytest

from keras_ssl.pretraining.checkpoints import Checkpoints
from keras_ssl.pretraining.errors import TrainingError, writing
from keras_ssl.pretraining.finish import export_run
from keras_ssl.pretraining.journal import Journal

LIMIT = 1 << 16


@contextlib.contextmanager
def small_files(size=LIMIT):
    """No file of this process grows beyond `size` bytes; Python ignores the signal and sees an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_log(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in range(1, 11):
        journal.write("train", step, loss=1.0)
    sentence = r"Expected to write .*log.jsonl. Received: File too large \(.* MB free\). Make room"
    with small_files(), pytest.raises(TrainingError, match=sentence):
        for step in range(11, 100):
            journal.write("train", step, text="x" * 5000)
    journal.close()
    Journal(tmp_path, 10).close()  # the torn line is dropped
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 10


def test_the_events(tmp_path):
    journal = Journal(tmp_path, 0)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)  # 270 kB
    sentence = f"Expected to write {tmp_path}. Received: File too large"
    with small_files(), pytest.raises(TrainingError, match=sentence):
        for step in range(1, 5):
            journal.image("views", step, noise)
            journal.write("train", step, loss=1.0)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines and all(line.endswith('"loss": 1.0}') for line in lines)


def test_a_checkpoint(tmp_path):
    mine = [keras.Variable(np.zeros(100_000, np.float32))]
    checkpoints = Checkpoints(tmp_path, mine, "me")
    checkpoints.save(1, {})
    mine[0].assign(np.ones(100_000))
    with small_files(), pytest.raises(TrainingError, match="step-000000000002. Received: .*large"):
        checkpoints.save(2, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000001"]
    assert checkpoints.restore()["step"] == 1 and not mine[0].numpy().any()


@pytest.mark.parametrize("which", ["encoder.keras", "encoder"])
def test_the_encoder(which, tmp_path, monkeypatch):
    inputs = keras.Input((8, 8, 3))
    features = keras.layers.Dense(20_000)(keras.layers.GlobalAveragePooling2D()(inputs))
    encoder = keras.Model(inputs, {"features": features})
    run = types.SimpleNamespace(
        workdir=tmp_path,
        model=types.SimpleNamespace(encoders=lambda: {"image": encoder}, exported="student"),
        recipe=types.SimpleNamespace(
            method="m", backbone="b", image_size=8, weight_decay=0.0, data="photos"
        ),
    )
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "saved_model.pb").write_bytes(b"old")
    if which == "encoder":
        monkeypatch.setattr(encoder, "save", lambda path: path.write_bytes(b"new"))
    with small_files(), pytest.raises(TrainingError, match=f"Expected to write .*/{which}. Rec"):
        export_run(run, 1)
    assert (tmp_path / "encoder" / "saved_model.pb").read_bytes() == b"old"
    left = {"encoder"} | ({"encoder.keras"} if which == "encoder" else set())
    assert {path.name for path in tmp_path.iterdir()} == left


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="mine"), writing(tmp_path):
        raise ValueError("mine")
