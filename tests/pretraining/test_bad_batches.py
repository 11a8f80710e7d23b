"""NaN in a run: the step is skipped and kept for replay, three in a row stop it, its weights begin another one."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

import keras_ssl
from keras_ssl.data import SampleStream, load_digits, open_source
from keras_ssl.methods import get_method
from keras_ssl.pretraining import run as running
from keras_ssl.pretraining.bad_batches import BadBatches, batch_of_step, write_batch
from keras_ssl.pretraining.errors import TrainingError
from keras_ssl.pretraining.finish import load_any_encoder
from keras_ssl.pretraining.recipe import SettingError, resolve
from keras_ssl.pretraining.replay import replay
from keras_ssl.pretraining.saved import load_saved

BAD = (2, 4, 5, 6)  # steps as the log numbers them, of 8
SETTINGS = {
    "recipe": "rotnet_laptop",
    "image_size": 16,
    "batch_size": 16,
    "backbone_width": 0.25,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "epochs": 2,
    "save_every": 1,
    "log_every": 1,
    "monitor_every": 0,
    "quiet": True,
}


def digits() -> np.ndarray:
    images, _, _ = load_digits().read_batch(np.arange(64))
    return np.ascontiguousarray(images[:, ::2, ::2])


def lines(workdir, kind):
    found = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def poison(patch):
    """Lets the views of the bad steps be NaN."""
    method = get_method("rotnet")
    real = method.make_views

    def make_views(self, data):
        bad = tf.reduce_any(tf.equal(self.step.value + 1, tf.constant(BAD, tf.int64)))
        views = real(self, data)
        return {**views, "rotations": views["rotations"] + tf.where(bad, math.nan, 0.0)}

    patch.setattr(method, "make_views", make_views)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run folder whose run was stopped at step 6, with its sentence."""
    workdir = tmp_path_factory.mktemp("bad") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingError) as caught:
        poison(patch)
        keras_ssl.pretrain(**SETTINGS, data=digits(), workdir=workdir)
    return workdir, str(caught.value)


def test_one_is_skipped_and_three_in_a_row_stop_the_run(stopped):
    workdir, sentence = stopped
    train = lines(workdir, "train")
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in train if line["skipped"]] == list(BAD)
    assert [line["step"] for line in train if line["loss"] is None] == list(BAD)
    events = [line["step"] for line in lines(workdir, "event") if line["event"] == "skipped"]
    assert events == list(BAD)
    (finding,) = lines(workdir, "finding")
    assert finding["name"] == "not_finite" and finding["step"] == 6
    assert sentence.startswith(f"{finding['sentence']} {finding['remedy']} 3 steps in a row")
    assert f"--init {workdir}" in sentence and f"replay {workdir} 6" in sentence


def test_what_is_saved_is_the_last_good_state(stopped):
    workdir, _ = stopped
    saved = load_saved(workdir)
    assert (saved.step, saved.unchanged_since) == (6, 3)
    values = [v.numpy() for v in saved.model.variables]
    assert all(np.isfinite(value).all() for value in values)
    assert load_saved(workdir, near=4).step == 6  # the weights did not change from 3 to 6


def test_the_batch_is_kept_as_the_step_was_shown_it(stopped):
    workdir, _ = stopped
    files = sorted(path.name for path in (workdir / "bad_batches").iterdir())
    assert files == [f"step-{step:012d}.{end}" for step in BAD for end in ("json", "npz")]
    content = json.loads((workdir / "bad_batches" / "step-000000000006.json").read_text())
    assert content["steps"] == [6] and content["seed"] == 0
    assert content["batches"][0]["position"] == list(range(80, 96))
    stream = SampleStream(open_source(digits(), view_size=16), 16, seed=0)
    (shown,) = stream.dataset(start_step=5, num_steps=1)
    assert content["batches"][0]["sample_id"] == shown["sample_id"].numpy().tolist()
    with np.load(workdir / "bad_batches" / content["images"]) as arrays:
        assert np.array_equal(arrays["images_6"], shown["inputs"]["image"])
        assert np.array_equal(arrays["aspect_6"], shown["aspect"])


def test_replay_names_the_first_tensor(stopped, capsys, monkeypatch):
    workdir, _ = stopped
    with monkeypatch.context() as patch:
        real = get_method("rotnet").make_views

        def make_views(self, data):  # one pixel of one image
            views = real(self, data)
            bad = tf.one_hot(5, 16)[None, :, None, None, None] * 1.0
            return {**views, "rotations": tf.where(bad > 0, math.inf, views["rotations"])}

        patch.setattr(get_method("rotnet"), "make_views", make_views)
        assert replay(str(workdir), "6") == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "weights   those of the step, from the checkpoint of step 5"
    assert "step 6: 16 images 16x16" in text[1] and text[1].endswith("step-000000000006.npz")
    first = text[-1]
    assert first.startswith("first     ") and "not finite either, largest inf" in first
    assert ": output (64, 16, 16, " in first  # 4 x 16 views, before anything makes them smaller
    loss, gradient = text[-3:-1]
    assert loss == "loss      nan" and gradient.startswith("gradient  norm nan; ")

    model = load_saved(workdir).model
    before = [v.numpy() for v in model.trainable_variables]
    file = workdir / "bad_batches" / "step-000000000002.json"
    assert replay(str(workdir), str(file)) == 0  # without the poison nothing is wrong with it
    text = capsys.readouterr().out
    assert "every layer's output is finite" in text and "; 0 of " in text and "nan" not in text
    again = load_saved(workdir).model
    assert all(map(np.array_equal, before, [v.numpy() for v in again.trainable_variables]))


def test_replay_finds_a_weight_and_a_layer_that_overflow(stopped, capsys, monkeypatch):
    workdir, _ = stopped
    saved = load_saved(workdir)
    kernel = next(v for v in saved.model.trainable_variables if "kernel" in v.path)
    kernel.assign(tf.fill(kernel.shape, 3e38))
    monkeypatch.setattr("keras_ssl.pretraining.replay.load_saved", lambda *_, **__: saved)
    replay(str(workdir), "6")
    first = capsys.readouterr().out.splitlines()[-1]
    assert kernel.path.rpartition("/")[0] in first and "its input was finite" in first


def test_wrong_batches_are_refused(stopped, tmp_path):
    workdir, _ = stopped
    for wrong in ("0", "seven", "no.json"):
        with pytest.raises(SettingError, match="number of a step, from 1 on, or a file"):
            replay(str(workdir), wrong)
    with pytest.raises(SettingError, match="made from arrays in memory"):
        replay(str(workdir), "3")
    with pytest.raises(SettingError, match="Expected a run folder"):
        replay(str(tmp_path), "3")


def test_an_unfinished_run_begins_another_one(stopped, tmp_path):
    workdir, _ = stopped
    other = {**SETTINGS, "learning_rate": 0.01, "data": "array", "workdir": str(tmp_path / "new")}
    recipe, options = resolve(**other, init=str(workdir))
    model = running.Run(recipe, options, arrays=digits()).model
    expected = [v.numpy() for v in load_saved(workdir).model.backbone.variables]
    assert all(map(np.array_equal, expected, [v.numpy() for v in model.backbone.variables]))
    older = load_any_encoder(workdir / "checkpoints" / "step-000000000005")
    assert all(map(np.array_equal, expected, [v.numpy() for v in older.variables]))


def test_a_damaged_checkpoint_is_passed_over(stopped, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run")
    *_, older, newest = sorted((workdir / "checkpoints").glob("step-*"))
    expected = load_saved(workdir, near=int(older.name[5:])).model.backbone.variables[0].numpy()
    (state,) = newest.glob("state.data*")
    state.write_bytes(state.read_bytes()[:-1000])
    saved = load_saved(workdir)
    assert saved.step == int(older.name[5:])
    np.testing.assert_array_equal(saved.model.backbone.variables[0].numpy(), expected)
    (state,) = older.glob("state.data*")
    state.write_bytes(b"")
    with pytest.raises(SettingError, match="Expected a checkpoint that is as it was written"):
        load_saved(workdir)


def test_replay_reads_no_other_images(stopped, tmp_path):
    workdir = shutil.copytree(stopped[0], tmp_path / "run")
    content = json.loads((workdir / "recipe.json").read_text())
    content["recipe"]["data"] = "digits"  # not the arrays of the run
    (workdir / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(SettingError, match="Expected the images that the run in"):
        replay(str(workdir), "3")


def test_a_run_without_checkpoint_is_refused(stopped, tmp_path):
    (tmp_path / "recipe.json").write_text((stopped[0] / "recipe.json").read_text())
    with pytest.raises(SettingError, match="Expected a run with a checkpoint"):
        load_any_encoder(tmp_path)


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_next_batches(stopped):
    workdir, _ = stopped
    result = keras_ssl.pretrain(**SETTINGS, data=digits(), workdir=workdir)
    assert result.step == 8
    assert [line["step"] for line in lines(workdir, "train")] == list(range(1, 9))


# Counting ----------------------------------------------------------------------------------------------------


def watch(tmp_path, executions=1, service=None):
    """Returns the watcher of a run that is only a name, and what it says."""
    said, saved = [], []
    source = open_source(digits(), view_size=16)
    run = types.SimpleNamespace(
        compute=types.SimpleNamespace(steps_per_execution=executions),
        options=types.SimpleNamespace(input_service=service),
        recipe=types.SimpleNamespace(crops="canvas"),
        journal=types.SimpleNamespace(write=lambda kind, step, **_: said.append((kind, step))),
        reporter=types.SimpleNamespace(line=lambda text: None),
        checkpoints=types.SimpleNamespace(save=lambda step, facts: saved.append((step, facts))),
        facts=lambda step: {},
        model=types.SimpleNamespace(step=tf.Variable(0, dtype=tf.int64)),
        stream=SampleStream(source, 16, seed=0),
        workdir=tmp_path,
        chief=True,
        total_steps=1000,
    )
    return BadBatches(run), said, saved


NAN = {"loss": math.nan, "gradient_norm": math.nan, "skipped": 1.0}
GOOD = {"loss": 1.0, "gradient_norm": 1.0, "skipped": 0.0}
OVERFLOW = {"loss": 1.0, "gradient_norm": math.inf, "skipped": 1.0, "loss_scale": 2.0**14}


@pytest.mark.parametrize(
    "logs, stops_at",
    [
        ([NAN, NAN, GOOD, NAN, NAN, GOOD], None),
        ([GOOD, NAN, NAN, NAN], 4),
        ([OVERFLOW] * 15, None),
        ([{**OVERFLOW, "loss_scale": 1.0}] * 3, 3),  # nothing left to lower
        ([{**NAN, "loss_scale": 2.0**14}] * 3, 3),  # the loss itself: not the scale's fault
    ],
)
def test_what_counts(logs, stops_at, tmp_path):
    bad, said, saved = watch(tmp_path)
    try:
        for step, values in enumerate(logs, 1):
            bad.run.model.step.assign(step)
            bad.look(step, values)
    except TrainingError:
        assert step == stops_at and ("finding", step) in said
        assert saved == [(step, {"unchanged_since": step - 3})]
    else:
        assert stops_at is None and not saved
    if logs[0] is OVERFLOW:
        assert not said and not (tmp_path / "bad_batches").exists()


def test_calls_of_several_steps(tmp_path):
    bad, _, saved = watch(tmp_path, executions=2)
    for step, count in ((2, 1.0), (4, 2.0), (6, 1.0), (8, 1.0), (10, 2.0)):
        bad.look(step, {**NAN, "skipped": count})
    content = json.loads((tmp_path / "bad_batches" / "step-000000000010.json").read_text())
    assert content["steps"] == [9, 10]
    assert [b["position"][0] for b in content["batches"]] == [128, 144]
    bad.run.model.step.assign(12)
    with pytest.raises(TrainingError, match="4 steps in a row"):
        bad.look(12, {**NAN, "skipped": 2.0})
    assert saved == [(12, {"unchanged_since": 8})]


def test_batches_of_an_input_service_are_not_guessed(tmp_path):
    """They come in order of arrival: those of the step's positions are others."""
    bad, said, _ = watch(tmp_path, service="host:1")
    with pytest.raises(TrainingError, match="without --input-service the batches would be kept"):
        for step in (1, 2, 3):
            bad.look(step, NAN)
    assert ("event", 1) in said and not (tmp_path / "bad_batches").exists()


def test_a_nan_inside_a_call_of_several_steps_stays_in_sight(tmp_path, monkeypatch):
    """Step 3 is the first of its call; step 4, which is good, must not hide that the loss was NaN."""
    monkeypatch.setattr(sys.modules[__name__], "BAD", (3,))
    poison(monkeypatch)
    settings = {**SETTINGS, "steps_per_execution": 2, "save_every": 2, "epochs": 1}
    keras_ssl.pretrain(**settings, data=digits(), workdir=tmp_path / "run")
    (event,) = (e for e in lines(tmp_path / "run", "event") if e["event"] == "skipped")
    assert event["step"] == 4 and not math.isfinite(event["loss"] or math.nan)


def test_only_some_batches_keep_their_images(tmp_path, monkeypatch):
    stream = SampleStream(open_source(digits(), view_size=16), 16, seed=0)
    monkeypatch.setattr("keras_ssl.pretraining.bad_batches._WITH_IMAGES", 2)
    for step in (1, 2, 3):
        write_batch(tmp_path, stream, range(step, step + 1))
    assert len(list(tmp_path.glob("*.npz"))) == 2 and len(list(tmp_path.glob("*.json"))) == 3
    third = json.loads((tmp_path / "step-000000000003.json").read_text())
    assert third["images"] is None
    assert third["batches"][0]["sample_id"] == batch_of_step(stream, 3)["sample_id"].tolist()
