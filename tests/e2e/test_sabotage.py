"""Twins of the promises' tests: the library is broken on purpose, and what should notice it does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_ssl
from keras_ssl import export, zoo
from keras_ssl.data import encoded
from keras_ssl.export import module
from keras_ssl.methods import byol
from keras_ssl.pretraining.run import pretrain
from keras_ssl.zoo.catalog import read_entry
from tests.contract.rows import images
from tests.zoo.test_published import (
    test_published_files_are_those_that_were_measured as check_files,
)


def findings(workdir: Path) -> set[str]:
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return {line["name"] for line in lines if line["kind"] == "finding"}


# It says when learning has failed -----------------------------------------------------------------------------


def train_byol(workdir: Path) -> set[str]:
    tf.keras.backend.clear_session()
    settings = {"recipe": "byol_laptop", "image_size": 16, "batch_size": 16, "epochs": 10}
    settings |= {"hidden_dim": 32, "projection_dim": 16, "optimizer": "sgd", "monitor_every": 10}
    settings |= {"learning_rate": 0.5, "learning_rate_rule": "none", "weight_decay": 0.0}
    pretrain(data=images(64), workdir=workdir, quiet=True, **settings)
    return findings(workdir)


@pytest.mark.slow
def test_a_lost_stop_gradient_is_called_a_collapse(tmp_path, monkeypatch):
    """BYOL whose targets are its own predictions, gradient and all, makes all embeddings equal."""
    assert "embedding_collapse" not in train_byol(tmp_path / "sound")

    def embed(self, views, training):
        outputs = real(self, views, training)
        return {**outputs, "t_a": outputs["p_a"], "t_b": outputs["p_b"]}

    real = byol.BYOL.embed
    monkeypatch.setattr(byol.BYOL, "embed", embed)
    monkeypatch.setattr(byol.tf, "stop_gradient", tf.identity)
    assert "embedding_collapse" in train_byol(tmp_path / "broken")


# What is published is what was measured -----------------------------------------------------------------------


def test_a_number_that_was_not_measured_is_noticed(tmp_path):
    """A result edited by hand no longer has the hash that the entry was packed with."""
    published = zoo.list()[0].folder
    copy = tmp_path / published.name
    shutil.copytree(published, copy)
    check_files(read_entry(copy))
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**results, "knn": results["knn"] + 0.01}))
    with pytest.raises(AssertionError, match="results.json"):
        check_files(read_entry(copy))


# The artefact needs nothing of ours ---------------------------------------------------------------------------


def load_elsewhere(folder: Path) -> subprocess.CompletedProcess:
    code = (
        "import sys, tensorflow as tf\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "print(loaded(tf.zeros((1, 32, 32, 3))).shape)\n"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-P", "-c", code, str(folder)]
    return subprocess.run(command, env=kept, capture_output=True, text=True, cwd=folder.parent)


def test_an_artefact_that_calls_back_into_python_fails_elsewhere(tmp_path, monkeypatch):
    encoder = keras_ssl.backbones.build("resnet_mini", image_size=32, filters=(8, 8, 16, 16))
    real = module.encoder_outputs

    def outputs(network, inputs):
        features = real(network, inputs)["features"]
        called = tf.numpy_function(lambda x: x, [features], tf.float32)
        return {"features": tf.ensure_shape(called, features.shape)}

    monkeypatch.setattr(module, "encoder_outputs", outputs)
    export.export_encoder(encoder, tmp_path / "encoder")
    done = load_elsewhere(tmp_path / "encoder")
    assert done.returncode != 0 and "pyfunc" in done.stderr


# Bad data does not end a run ----------------------------------------------------------------------------------


def test_a_broken_image_that_is_not_replaced_ends_the_run(tmp_path, monkeypatch):
    from PIL import Image

    for index, image in enumerate(images(24)):
        Image.fromarray(image).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "24.png").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    source = encoded_source(tmp_path)
    assert source.read_batch(np.arange(25), np.arange(25))[2][24] != 24
    assert source.num_broken == 1

    monkeypatch.setattr(encoded, "_MOST_ATTEMPTS", 1)  # the first try is all there is
    with pytest.raises(keras_ssl.data.DataError, match="Expected readable images"):
        encoded_source(tmp_path).read_batch(np.arange(25), np.arange(25))


def encoded_source(folder: Path):
    return keras_ssl.data.open_source(str(folder), canvas=16)
