"""The library's own small backbones go through the zoo and come back."""

from __future__ import annotations

import numpy as np
import pytest

from keras_ssl import backbones, zoo
from keras_ssl.zoo import catalog, publish, weights

RECIPE = {"method": "simclr", "dataset": "noise", "epochs": 1, "command": "none"}


@pytest.mark.parametrize("name, settings", [("resnet_mini", {}), ("vit_mini", {"depth": 3})])
def test_backbone_comes_back(name, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "entries_folder", lambda: tmp_path)
    rng = np.random.default_rng(0)
    encoder = backbones.build(name, **settings)
    for variable in encoder.variables:
        # Numbers that depend on the place, positive for the sake of variances.
        variable.assign(np.abs(variable.numpy()) + 0.05 * rng.random(variable.shape))
    images = rng.random((2, encoder.image_size, encoder.image_size, 3), dtype=np.float32)
    expected = np.asarray(encoder(images)["features"])
    assert np.ptp(expected) > 0

    with monkeypatch.context() as patch:  # float32 is too large to publish, float16 is not
        patch.setattr(publish, "LARGEST_FILE", 10_000_000)
        zoo.pack_entry(encoder, "exact", {**RECIPE, "backbone": name}, {}, directory=tmp_path)
    loaded = zoo.load("exact")
    np.testing.assert_array_equal(loaded(images)["features"], expected)
    assert loaded.get_config() == encoder.get_config()

    entry = zoo.pack_entry(
        encoder, "half", {**RECIPE, "backbone": name}, {}, directory=tmp_path, half=True
    )
    close = np.asarray(zoo.load(entry.name)(images)["features"])
    assert 0 < np.abs(close - expected).max() < 5e-3 * np.abs(expected).max()


def test_loading_twice_in_one_process_works(tmp_path, monkeypatch):
    """Keras counts the names of models up; the stored paths must not depend on that."""
    monkeypatch.setattr(catalog, "entries_folder", lambda: tmp_path)
    encoder = backbones.build("resnet_mini")
    zoo.pack_entry(
        encoder, "mini", {**RECIPE, "backbone": "resnet_mini"}, {}, directory=tmp_path, half=True
    )
    first, second = zoo.load("mini"), zoo.load("mini")
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["resnet_mini", "vit_mini"])
def test_the_mini_networks_fit_an_entry(name):
    assert (
        len(weights.pack(backbones.build(name, image_size=32), half=True)) <= publish.LARGEST_FILE
    )
