"""Encoders as folders laid out like KerasHub's presets."""

import json
import os

import keras
import numpy as np
import pytest

from keras_ssl import cli, export

IMAGES = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_an_encoder_comes_back(kind, make_encoder, tmp_path, capsys):
    network = make_encoder(kind)
    network.save(tmp_path / "encoder.keras")
    target = tmp_path / "deep" / "preset"
    arguments = ["export", str(tmp_path / "encoder.keras"), "--to", str(target)]
    assert cli.main([*arguments, "--format", "preset", "--crop-ratio", "0.9"]) == 0
    assert "from_preset" in capsys.readouterr().out
    names = ["config.json", "image_converter.json", "metadata.json", "model.weights.h5"]
    assert sorted(os.listdir(target)) == names
    again = export.from_preset(target)
    assert type(again) is type(network) and again.image_size == 32
    np.testing.assert_allclose(again(IMAGES)["features"], network(IMAGES)["features"], atol=1e-6)

    facts = json.loads((target / "metadata.json").read_text())
    assert facts["parameter_count"] == network.count_params()
    assert facts["keras_version"] == keras.__version__
    assert facts["keras_ssl"]["crop_ratio"] == 0.9
    assert facts["keras_ssl"]["source"]["source"].endswith("encoder.keras")
    converter = json.loads((target / "image_converter.json").read_text())["config"]
    assert converter["image_size"] == [32, 32] and converter["scale"] == pytest.approx(1 / 255)


def test_other_weights_and_other_folders_are_named(small_network, tmp_path):
    network = small_network
    export.write_preset(network, tmp_path / "preset", image_size=32)
    for variable in network.variables:
        if "kernel" in variable.path:
            variable.assign(variable * 1.5)
    network.save_weights(tmp_path / "preset" / "model.weights.h5")
    with pytest.raises(ValueError, match="compute what it computed when it was written"):
        export.from_preset(tmp_path / "preset")
    export.write_preset(network, tmp_path / "preset", image_size=32)  # over the older one
    export.from_preset(tmp_path / "preset")
    assert os.listdir(tmp_path) == ["preset"]

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(ValueError, match="new or empty folder or over an older preset"):
        export.write_preset(network, tmp_path / "photos", image_size=32)
    (tmp_path / "photos" / "cat.jpg").rename(
        tmp_path / "photos" / "config.json"
    )  # of another program
    (tmp_path / "photos" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="over an older preset.*photos', which holds something"):
        export.write_preset(network, tmp_path / "photos", image_size=32)
    assert (tmp_path / "photos" / "notes.txt").read_text() == "mine"
    (tmp_path / "photos" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no config.json"):
        export.from_preset(tmp_path / "photos")
    saved = export.export_encoder(network, tmp_path / "saved", image_size=32)
    loaded = export.load_encoder(saved)
    with pytest.raises(ValueError, match="Received: a SavedModel"):
        export.write_preset(loaded, tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["photos", "preset", "saved"]
