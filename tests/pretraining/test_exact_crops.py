"""A run whose views are cut from whole pictures."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import keras_ssl
from keras_ssl.pretraining.replay import replay

SETTINGS = {
    "recipe": "simclr_laptop",
    "image_size": 16,
    "batch_size": 8,
    "epochs": 2,
    "backbone_width": 0.25,
    "hidden_dim": 16,
    "projection_dim": 8,
    "learning_rate": 0.01,
    "warmup_epochs": 0,
    "monitor_every": 0,
    "save_every": 1,
    "log_every": 1,
    "crops": "exact",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, first lines) of a run on 16 pictures, none of which is square."""
    folder = tmp_path_factory.mktemp("exact")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for index in range(16):
        pixels = rng.integers(0, 256, (40, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index:02d}.png")
    keras_ssl.pretrain(**SETTINGS, data=folder / "pictures", workdir=folder / "run")
    return folder / "run"


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def test_replay_sees_the_views_of_the_step(run, capsys):
    """Step 4 again, from the checkpoint of step 3: the same loss, so the same crops."""
    replay(str(run), "4")
    (loss,) = re.findall(r"loss +([\d.]+)", capsys.readouterr().out)
    assert float(loss) == pytest.approx(losses(run)[4], rel=1e-4)


def test_a_canvas_would_show_others(run, tmp_path, capsys):
    """The loss of the first step is another one without the setting, and the header says which is which."""
    settings = {**SETTINGS, "crops": "canvas", "epochs": 1}
    keras_ssl.pretrain(**settings, data=run.parent / "pictures", workdir=tmp_path / "run")
    assert "cut from whole pictures" not in capsys.readouterr().out
    first = losses(tmp_path / "run")[1]
    assert first != pytest.approx(losses(run)[1], rel=1e-6)
    with pytest.raises(
        keras_ssl.pretraining.recipe.SettingError, match="crops 'exact' -> 'canvas'"
    ):
        keras_ssl.pretrain(**settings | {"epochs": 2}, data=run.parent / "pictures", workdir=run)
