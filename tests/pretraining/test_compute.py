"""What a run chooses where the user leaves it open, and that its first lines are true."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import distribution, env
from keras_ssl.pretraining import header
from keras_ssl.pretraining.build import precision_scope
from keras_ssl.pretraining.compute import choose, device_of, padding_note
from keras_ssl.pretraining.recipe import RunOptions, SettingError, resolve
from keras_ssl.pretraining.run import Run


@pytest.mark.parametrize(
    "device, jit, views_on, expected",
    [
        ("cpu", "auto", "auto", (False, True)),
        ("cpu", "on", "device", (True, False)),
        ("cpu", "off", "host", (False, True)),
        ("gpu", "auto", "auto", (True, False)),
        ("gpu", "on", "host", (True, True)),
        ("gpu", "off", "auto", (False, False)),
        ("tpu", "auto", "auto", (False, False)),
        ("tpu", "auto", "host", (False, True)),
    ],
)
def test_xla_and_the_place_of_the_views(device, jit, views_on, expected):
    options = RunOptions(jit=jit, views_on=views_on)
    chosen = choose(options, device=device, steps_per_epoch=100)
    assert (chosen.jit, chosen.views_on_host) == expected


@pytest.mark.parametrize(
    "device, steps_per_epoch, given, log_every, expected",
    [
        ("cpu", 1250, None, None, 1),
        ("gpu", 1250, None, None, 1),
        ("gpu", 1250, 50, None, 50),
        ("tpu", 1250, None, None, 25),  # of 1, 2, 5, 10, 25, 50, ...
        ("tpu", 1251, None, None, 9),  # of 1, 3, 9, 139, ...
        ("tpu", 195, None, None, 5),  # a line in the log each 195 // 20 = 9 steps
        ("tpu", 1250, None, 10, 10),
        ("tpu", 1249, None, None, 1),  # a prime
        ("tpu", 7, None, None, 1),
        ("tpu", 1250, 2, None, 2),
    ],
)
def test_steps_in_a_call(device, steps_per_epoch, given, log_every, expected):
    options = RunOptions(steps_per_execution=given, log_every=log_every)
    chosen = choose(options, device=device, steps_per_epoch=steps_per_epoch)
    assert chosen.steps_per_execution == expected


def test_calls_fill_an_epoch():
    with pytest.raises(SettingError, match=r"steps of an epoch \(100\). Received: 3"):
        choose(RunOptions(steps_per_execution=3), device="gpu", steps_per_epoch=100)


def test_devices_are_those_of_the_strategy_not_of_the_machine():
    """A machine with GPUs may be told to use its CPU."""
    assert device_of(tf.distribute.OneDeviceStrategy("/cpu:0")) == "cpu"
    assert device_of(tf.distribute.OneDeviceStrategy("/gpu:0")) == "gpu"
    assert device_of(object.__new__(tf.distribute.TPUStrategy)) == "tpu"  # needs a TPU to be made


@pytest.mark.parametrize(
    "batch, note",
    [
        (256, None),
        (64, None),
        (96, "each TPU core has 12 images and computes 16; a --batch-size of 128 takes as long"),
        (8, "each TPU core has 1 images and computes 8; a --batch-size of 64 takes as long"),
    ],
)
def test_padding_on_eight_cores(batch, note):
    assert padding_note(batch, 8) == note


def test_a_tpu_run_is_in_bfloat16_unless_told_otherwise():
    def precision(**settings):
        return resolve(recipe="simclr_cifar", data="digits", **settings)[0].precision

    assert precision() == precision(strategy="mirrored") == "float32"
    assert precision(strategy="tpu") == "mixed_bfloat16"
    assert precision(strategy="tpu", precision="float32") == "float32"
    with pytest.raises(
        SettingError, match="float32 or mixed_bfloat16 with --strategy tpu. Received: float64"
    ):
        precision(strategy="tpu", precision="float64")


def test_the_precision_belongs_to_the_recipe():
    """The same recipe on another device goes on with a TPU's run once the precision is said."""
    on_tpu, _ = resolve(recipe="simclr_cifar", data="digits", strategy="tpu")
    on_gpu, _ = resolve(recipe="simclr_cifar", data="digits", strategy="gpu")
    same, _ = resolve(recipe="simclr_cifar", data="digits", precision="mixed_bfloat16")
    assert on_tpu.identity() == same.identity() != on_gpu.identity()


def test_no_tpu_is_one_sentence(monkeypatch):
    """`TPU_NAME` is asked first; without it the TPU VM's own is meant."""
    monkeypatch.delenv("TPU_NAME", raising=False)
    assert env.tpu_name() == "local"
    monkeypatch.setenv("TPU_NAME", "pod-1")
    assert env.tpu_name() == "pod-1"
    asked = []

    def resolver(tpu):
        asked.append(tpu)
        raise RuntimeError("nobody there")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    with pytest.raises(distribution.StrategyError, match="no TPU named 'pod-1' .RuntimeError.;"):
        distribution.create_strategy("tpu")
    assert asked == ["pod-1"]


# The header, held to what runs -----------------------------------------------------------------------------------


def prepared(**settings):
    """Returns a run on 32 tiny images whose step only counts."""
    images = np.zeros((32, 16, 16, 3), np.uint8)
    defaults = {
        "recipe": "rotnet_laptop",
        "image_size": 16,
        "batch_size": 8,
        "backbone_width": 0.25,
    }
    recipe, options = resolve(data="array", dry_run=True, **{**defaults, **settings})
    with precision_scope(recipe.precision):
        run = Run(recipe, options, arrays=images)

    def count(batch):
        run.model.step.assign_add(1)
        return {"loss": tf.reduce_sum(tf.zeros((3,)))}

    run.model.train_step = count
    return run


def facts(run):
    """Returns (XLA in the program, groups of views in a batch, steps of one call), found by looking."""
    batches = run._batches(0)
    spec = batches.element_spec
    train = run.model.make_train_function()
    library = train.get_concrete_function(batches).graph.as_graph_def().library.function
    compiled = any(function.attr["_XlaMustCompile"].b for function in library)
    before = int(run.model.step)
    train(batches)
    return compiled, sorted(spec.get("views", ())), int(run.model.step) - before


@pytest.mark.parametrize(
    "settings, line, found",
    [
        ({}, "float32; XLA off; 1 step(s) in a call", (False, ["keys", "rotations"], 1)),
        (
            {"jit": "on", "views_on": "device", "precision": "mixed_bfloat16"},
            "mixed_bfloat16; XLA on, in each replica; 1 step(s) in a call",
            (True, [], 1),
        ),
        (
            {"jit": "off", "views_on": "device", "steps_per_execution": 2},
            "float32; XLA off; 2 step(s) in a call",
            (False, [], 2),
        ),
    ],
)
def test_the_first_lines_are_true(settings, line, found):
    run = prepared(**settings)
    lines = header.lines(run, None)
    assert f"compute   {line}" in lines
    (views,) = [text for text in lines if text.startswith("views ")]
    place = "the input pipeline" if found[1] else "the step"
    assert views.endswith(f"made in {place}")
    assert facts(run) == found
    policy = run.model.backbone.compute_dtype
    assert settings.get("precision", "float32").removeprefix("mixed_") == policy


def test_compiled_views_are_told():
    run = prepared(recipe="simclr_laptop", image_size=64, views="simclr_cifar")
    assert header.compute(run)["xla"] == "off, but for views from 64 pixels on"
    run = prepared(recipe="simclr_laptop", image_size=64, views="simclr_cifar", jit="on")
    assert header.compute(run)["xla"] == "on, in each replica"


def test_keras_may_refuse_to_compile(monkeypatch):
    """It does under TensorFlow's op determinism, with a warning; the header says so too."""
    from tensorflow.python.framework import config

    monkeypatch.setattr(config, "is_op_determinism_enabled", lambda: True)
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        run = prepared(jit="on", views_on="device")
    assert run.compute.jit and header.compute(run)["xla"] == "off"
    assert not facts(run)[0]
