"""Whole runs in this process: one tiny run is shared, the others are compared with it."""

from __future__ import annotations

import json
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ssl
from keras_ssl.data import load_digits
from keras_ssl.evaluation import diagnose
from keras_ssl.pretraining import commands
from keras_ssl.pretraining import run as running
from keras_ssl.pretraining.finish import load_any_encoder
from keras_ssl.pretraining.monitor import Monitor
from keras_ssl.pretraining.recipe import SettingError, resolve

TINY = {"image_size": 16, "batch_size": 16, "backbone_width": 0.25, "log_every": 1}
SETTINGS = {
    **TINY,
    "recipe": "rotnet_laptop",
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "epochs": 2,
    "save_every": 2,
}


def digits() -> tuple[np.ndarray, np.ndarray]:
    source = load_digits()
    images, _, _ = source.read_batch(np.arange(64))
    return np.ascontiguousarray(images[:, ::2, ::2]), source.labels[:64]


def lines(workdir, kind=None):
    found = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line for line in found if kind in (None, line["kind"])]


def happened(workdir):
    """Returns what the log says, without times and speeds."""
    left_out = ("time", "images_per_second")
    return [
        {name: value for name, value in line.items() if name not in left_out}
        for line in lines(workdir)
        if line.get("event") != "resume"
    ]


def weights(model):
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return keras_ssl.pretrain(**SETTINGS, data=digits(), workdir=workdir)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def killed_at(monkeypatch):
    """Runs until a step is in the log, or until the monitor is to look at it."""

    def run(moment, step, **settings):
        owner, name = {"log": (running.Run, "_log"), "look": (Monitor, "look")}[moment]
        real = getattr(owner, name)

        def die(self, now, *rest):
            if moment == "log":
                real(self, now, *rest)
            if now == step:
                raise Killed
            if moment == "look":
                real(self, now)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, die)
            keras_ssl.pretrain(**settings)

    return run


def test_what_a_run_leaves(whole):
    workdir = whole.workdir
    assert whole.step == 8 and whole.stopped == 0
    assert {path.name for path in workdir.iterdir() if not path.name.startswith("events")} == {
        ".lock",
        "recipe.json",
        "log.jsonl",
        "views.png",
        "checkpoints",
        "encoder",
        "encoder.keras",
    }
    stored = json.loads((workdir / "recipe.json").read_text())["recipe"]
    assert stored["data"] == "array" and stored["optimizer"] == "sgd"
    first = lines(workdir, "event")[0]
    assert first["event"] == "start"
    assert first["compute"] == {
        "device": "cpu",
        "replicas": 1,
        "strategy": "OneDeviceStrategy",
        "precision": "float32",
        "xla": "off",
        "steps_per_execution": 1,
        "views": "the input pipeline",
        "keras_ssl": keras_ssl.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    assert [line["step"] for line in lines(workdir, "train")] == list(range(1, 9))
    looks = lines(workdir, "monitor")
    assert [line["step"] for line in looks] == [0, 4, 8]
    assert all(line["rankme"] > 1 and 0 < line["knn_accuracy"] <= 1 for line in looks)
    assert whole.monitor.items() <= looks[-1].items()
    pictures = digits()[0][:3] / np.float32(255)
    features = whole.encoder(pictures)["features"]
    np.testing.assert_allclose(
        load_any_encoder(workdir)(pictures)["features"], features, rtol=1e-5, atol=1e-6
    )
    assert features.shape == (3, 48) and float(tf.math.reduce_std(features)) > 0


def test_a_finished_run_stays_as_it_is(whole, capsys):
    before = weights(whole.model), happened(whole.workdir)
    again = keras_ssl.pretrain(**SETTINGS, data=digits(), workdir=whole.workdir)
    assert "resumes   after step 8 of 8" in capsys.readouterr().out
    assert again.step == 8
    assert all(map(np.array_equal, before[0], weights(again.model)))
    assert happened(whole.workdir) == before[1]


def test_killed_twice_and_then_longer(whole, killed_at, tmp_path, capsys):
    """Killed before the first checkpoint, and between one and the monitor's look; then extended by an epoch."""
    settings = {**SETTINGS, "data": digits(), "workdir": tmp_path / "run"}
    killed_at("log", 1, **settings)
    assert not (tmp_path / "run" / "checkpoints").exists()
    killed_at("look", 4, **settings)
    assert [line["step"] for line in lines(tmp_path / "run", "train")] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(tmp_path / "run", "monitor")] == [0]
    shutil.copytree(tmp_path / "run", tmp_path / "longer")
    capsys.readouterr()
    result = keras_ssl.pretrain(**settings)
    assert "resumes   after step 4 of 8" in capsys.readouterr().out
    assert all(map(np.array_equal, weights(whole.model), weights(result.model)))
    assert happened(result.workdir) == happened(whole.workdir)

    settings |= {"workdir": tmp_path / "longer", "epochs": 3, "quiet": False}
    result = keras_ssl.pretrain(**settings)
    assert "extends   the run from 2 to 3 epochs" in capsys.readouterr().out
    assert result.step == 12
    assert [line["step"] for line in lines(result.workdir, "train")] == list(range(1, 13))
    stored = json.loads((result.workdir / "recipe.json").read_text())["recipe"]
    assert stored["epochs"] == 3
    with pytest.raises(SettingError, match="at least the 3 epochs.*Received: 2"):
        keras_ssl.pretrain(**{**settings, "epochs": 2})


def test_another_run_is_refused_in_an_old_folder(whole):
    settings = {**SETTINGS, "data": digits(), "workdir": whole.workdir}
    before = (whole.workdir / "recipe.json").read_text()
    with pytest.raises(SettingError, match=r"learning_rate 0.1 -> 0.2\); use another --workdir"):
        keras_ssl.pretrain(**{**settings, "learning_rate": 0.2})
    images, labels = digits()
    with pytest.raises(SettingError, match="Expected the data that the run .* began with"):
        keras_ssl.pretrain(**{**settings, "data": (255 - images, labels)})
    assert (whole.workdir / "recipe.json").read_text() == before


def built(**settings):
    recipe, options = resolve(**{**SETTINGS, "data": "array", **settings})
    return running.Run(recipe, options, arrays=digits())


def test_init_copies_the_encoder(whole, tmp_path):
    model = built(
        recipe="byol_laptop", hidden_dim=8, init=str(whole.workdir), workdir=str(tmp_path / "new")
    ).model
    old = [variable.numpy() for variable in whole.encoder.variables]
    for network in (model.backbone, model.teacher_backbone):
        assert all(map(np.array_equal, old, [v.numpy() for v in network.variables]))
    assert not (tmp_path / "new").exists()


def test_init_refuses_what_does_not_fit(whole, tmp_path):
    with pytest.raises(SettingError, match="weights of this backbone.*arrays of other shapes"):
        built(init=str(whole.workdir), backbone_width=0.5, workdir=str(tmp_path / "a"))
    with pytest.raises(SettingError, match="Expected a run folder, a .keras file, a SavedModel or"):
        built(init="nowhere", workdir=str(tmp_path / "b"))


def test_inert_views_and_a_loss_that_is_lost(tmp_path, capsys):
    """Views that change nothing are named before the first step; NaN ends the run, what was saved before stays."""
    settings = {
        **TINY,
        "recipe": "simclr_laptop",
        "epochs": 2,
        "warmup_epochs": 1.0,
        "learning_rate": 1e30,
        "save_every": 1,
        "monitor_every": 0,
        "workdir": tmp_path / "run",
    }
    inert = ("flip", "jitter", "grayscale", "blur")
    settings |= {"views_min_scale": 1.0} | {f"views_{name}_rate": 0.0 for name in inert}
    with pytest.raises(running.TrainingError, match="NaN .* 3 recent step.*learning rate.*--init"):
        keras_ssl.pretrain(**settings, data=digits()[0])
    assert "Two views of an image differ by 0 on average" in capsys.readouterr().out
    finding, last = lines(settings["workdir"], "finding")
    assert finding["name"] == "views_inert" and finding["step"] == 0 and finding["remedy"]
    assert last["name"] == "not_finite" and last["remedy"]
    losses = [line["loss"] for line in lines(settings["workdir"], "train")]
    assert len(losses) > 3 and losses[-3:] == [None] * 3  # JSON's word for NaN
    assert np.isfinite(losses[:-3]).all()
    saved = sorted((settings["workdir"] / "checkpoints").iterdir())
    assert saved and int(saved[-1].name[5:]) == len(losses) == last["step"]
    for path in saved:
        reader = tf.train.load_checkpoint(str(path / "state"))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith("variables/")]
        assert all(np.isfinite(reader.get_tensor(name)).all() for name in names)
    assert keras.config.floatx() == "float32"


def test_wrong_combinations_are_refused(tmp_path):
    workdir = str(tmp_path / "run")
    with pytest.raises(SettingError, match="steps-per-execution to divide the steps of an epoch"):
        built(steps_per_execution=3, workdir=workdir)
    with pytest.raises(ValueError, match="divide the 16 images that a replica has.*micro_batch=5"):
        built(micro_batch=5, workdir=workdir)
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(SettingError, match="empty or new --workdir"):
            built(workdir=str(taken))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.json.writing").write_text("{")  # killed at the very beginning
    assert built(workdir=str(tmp_path / "begun")).total_steps == 8
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_out_of_memory_goes_on_in_micro_batches_and_recomputes(tmp_path, capsys):
    """Neither is part of the recipe's identity: the same workdir, one more epoch."""
    settings = {**SETTINGS, "monitor_every": 0, "workdir": tmp_path / "run", "data": digits()[0]}
    keras_ssl.pretrain(**{**settings, "epochs": 1})
    capsys.readouterr()
    result = keras_ssl.pretrain(**settings, micro_batch=8, backbone_recompute=True)
    assert "memory    micro-batches of 8 images" in capsys.readouterr().out
    assert result.step == 8 and result.model.micro_batch == 8 and result.model.backbone.recompute
    events = lines(settings["workdir"], "event")
    assert [(event["event"], event["micro_batch"]) for event in events] == [
        ("start", None),
        ("resume", 8),
    ]
    assert all(np.isfinite(line["loss"]) for line in lines(settings["workdir"], "train"))


def test_micro_batches_have_their_views_made_in_the_step(tmp_path):
    assert built(workdir=str(tmp_path / "run")).compute.views_on_host
    run = built(workdir=str(tmp_path / "run"), micro_batch=8)
    assert not run.compute.views_on_host and run.model.micro_batch == 8


def test_evaluation_of_a_run_on_arrays_asks_for_data(whole):
    with pytest.raises(SettingError, match="Expected --data: the run was made from arrays"):
        commands.evaluate(str(whole.workdir))


@pytest.mark.parametrize("scale, alarm", [(None, True), (2.0**10, False), (1.0, True)])
def test_a_skipped_step_of_float16_is_no_alarm(scale, alarm):
    recent = {"loss": 1.0, "gradient_norm": float("inf")}
    recent |= {} if scale is None else {"loss_scale": scale}
    model = types.SimpleNamespace(embedding_dim=8, trivial_loss=dict, collapsed_loss=dict)
    monitor = object.__new__(Monitor)
    monitor.run = types.SimpleNamespace(recent=recent, total_steps=10, model=model)
    names = [finding.name for finding in diagnose(monitor._loss_stats(5))]
    assert names == (["not_finite"] if alarm else [])
