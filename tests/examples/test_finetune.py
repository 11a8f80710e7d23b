"""The example of few labels, with an encoder that knows the digits: its weights are really what is tuned."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "finetune.py"
SIZE = 16


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("finetune", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder_file(example, tmp_path_factory) -> Path:
    """A small encoder that was trained with all labels of the digits: what good pre-training would give."""
    from keras_ssl import backbones

    keras.utils.set_random_seed(0)
    encoder = backbones.ResNet(
        blocks=(1, 1), bottleneck=False, filters=(16, 32), stem="cifar", image_size=SIZE
    )
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Dense(10)(encoder(inputs)["features"]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(*example.read("digits", "train", SIZE), batch_size=128, epochs=8, verbose=0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    encoder.save(path)
    return path


def test_labels_are_a_share_of_each_class(example):
    labels = np.repeat([0, 1, 2], [100, 10, 1000])
    rows = example.choose(labels, 0.05, seed=0)
    assert len(set(rows)) == len(rows)
    assert np.bincount(labels[rows]).tolist() == [5, 1, 50]
    assert np.array_equal(rows, example.choose(labels, 0.05, seed=0))
    assert not np.array_equal(rows, example.choose(labels, 0.05, seed=1))


@pytest.mark.thorough
def test_one_percent_of_the_labels_is_worth_more_with_the_encoder(example, encoder_file, capsys):
    written = encoder_file.with_suffix(".json")
    arguments = [str(encoder_file), "--steps", "30", "--learning-rate", "0.02"]
    tuned, scratch = example.main([*arguments, "--json", str(written)])
    measured = json.loads(written.read_text())
    assert measured["pre_trained"] == round(tuned, 4)
    assert measured["from_scratch"] == round(scratch, 4)
    assert tuned > scratch + 0.1
    printed = capsys.readouterr().out
    assert "14 labels of 1438, 359 test images of digits" in printed
    assert f"{tuned:.1%}" in printed and f"{scratch:.1%}" in printed


def test_wrong_encoders_are_told(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(example.zoo, "list", lambda method: [])
    with pytest.raises(SystemExit):
        example.main([])
    assert "name an encoder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="run folder, a .keras file"):
        example.main([str(tmp_path / "nothing.keras")])
    monkeypatch.setattr(example, "load_any_encoder", lambda name: keras.layers.Identity())
    with pytest.raises(SystemExit):
        example.main([str(tmp_path)])
    assert "cannot be drawn afresh" in capsys.readouterr().err
