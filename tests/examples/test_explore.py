"""The example that draws maps, with the encoders and the mistakes that it may meet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "explore.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("explore", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_entry_of_the_zoo(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example.main(["mae_vitmini_cifar10", "--count", "3"])
    drawn = "attention of 4 heads and colors of 3 images, 8 x 8 patches each"
    assert f"maps.png: {drawn}, by mae_vitmini_cifar10" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "maps.png"))
    assert sheet.shape == (3 * 226 - 2, 7 * 226 - 2, 3)  # image, mean, four heads, colors
    maps = sheet[:, 226:]
    assert maps.std() > 20 and len(np.unique(maps[..., 0])) > 50


def test_other_encoders_and_sizes(example, tmp_path, capsys):
    from keras_ssl import backbones

    file, sheet = str(tmp_path / "encoder.keras"), str(tmp_path / "sheet.png")
    backbones.build("resnet_mini").save(file)
    example.main([file, "--size", "48", "--output", sheet, "--count", "2"])
    assert "sheet.png: colors of 2 images, 6 x 6 patches" in capsys.readouterr().out
    settings = {"width": 16, "depth": 1, "num_registers": 2, "patch_size": 4}
    backbones.build("vit_mini", **settings).save(file)
    example.main([file, "--size", "40", "--foreground", "negative", "--output", sheet])
    assert "4 heads and colors of 6 images, 10 x 10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing_of_that_name"], "which does not exist here"),
        (["mae_vitmini_cifar10", "--size", "30"], "patches' 4 pixels, not 30"),
        (["mae_vitmini_cifar10", "--data", "/no/such/folder"], "/no/such/folder"),
        (["mae_vitmini_cifar10", "--output", "/no/such/folder/a.png"], "/no/such/folder"),
    ],
)
def test_mistakes_are_one_sentence(example, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        example.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
