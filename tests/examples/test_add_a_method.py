"""The example of a new method: it is short, its loss is the paper's, it trains, and replicas change nothing."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.contract.rows import BATCH, SIZE, images

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "add_a_method.py"


def load_example():
    spec = importlib.util.spec_from_file_location("add_a_method", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load_example()


def build(example, **compile_settings):
    from keras_ssl import backbones, optimizers, views

    backbone = backbones.ResNet(
        blocks=(1, 1), bottleneck=False, filters=(6, 12), stem="cifar", image_size=SIZE
    )
    model = example.BarlowTwins(backbone, projection_dim=8)
    recipe = views.customize(views.get("byol_cifar"), image_size=SIZE)
    return model.compile(optimizers.AdamW(3e-3, weight_decay=0.0), views=recipe, **compile_settings)


def lines_of_code(source: str) -> int:
    """Counts the lines that hold code: no blank lines, comments and docstrings."""
    tree, lines = ast.parse(source), set()
    texts = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    }
    skipped = {
        line
        for node in ast.walk(tree)
        if id(node) in texts
        for line in range(node.lineno, node.end_lineno + 1)
    }
    for number, line in enumerate(source.splitlines(), 1):
        if line.strip() and not line.strip().startswith("#") and number not in skipped:
            lines.add(number)
    return len(lines)


def test_lines_are_counted_as_said():
    assert (
        lines_of_code(
            '"""Doc."""\n\n# note\nx = 1  # one\ndef f():\n    """Doc\n    two."""\n    return x\n'
        )
        == 3
    )


def test_it_is_under_60_lines_of_code_and_is_called_so():
    count = lines_of_code(EXAMPLE.read_text(encoding="utf-8"))
    assert count < 60
    readme = (EXAMPLE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "examples/add_a_method.py" in readme


def test_loss_by_hand(example):
    """Identity 0; nothing correlated d; opposite views 4d; identical dimensions weight * d * (d - 1)."""
    dim = 5
    identity = tf.eye(dim, dtype=tf.float64)
    loss = example.barlow_twins_loss
    assert float(loss(identity)) == 0.0
    assert float(loss(0.0 * identity)) == dim
    assert float(loss(-identity)) == 4 * dim
    ones = tf.ones((dim, dim), tf.float64)
    assert float(loss(ones)) == pytest.approx(0.0051 * dim * (dim - 1), rel=1e-12)
    assert float(loss(ones, off_diagonal_weight=0.5)) == pytest.approx(10.0, rel=1e-12)


def test_loss_equals_a_slow_one_written_from_the_equation(example):
    z_a, z_b = np.random.default_rng(0).normal(size=(2, BATCH, 8)).astype(np.float32)
    model = build(example)
    expected = 0.0
    for i in range(8):
        for j in range(8):
            c = sum(z_a[n, i] * z_b[n, j] for n in range(BATCH)) / BATCH
            expected += (c - 1) ** 2 if i == j else 0.0051 * c**2
    value, aux = model.loss({"z_a": tf.constant(z_a), "z_b": tf.constant(z_b)}, {})
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(aux["agreement"]) == pytest.approx(np.mean(z_a * z_b), rel=1e-4)


def test_it_learns_a_repeated_batch_and_constant_embeddings_are_the_collapse(example):
    model = build(example)
    engine = model.view_engine
    keys = tf.constant(np.arange(2 * BATCH).reshape(BATCH, 2), tf.uint32)
    model.view_engine = lambda image, _, aspect=None: {**engine(image, keys, aspect), "keys": keys}
    dataset = tf.data.Dataset.from_tensors(images(BATCH)).repeat(20)
    views = model.make_views(
        {"inputs": {"image": tf.constant(images(BATCH))}, "position": tf.zeros(BATCH, tf.int64)}
    )
    before = float(model.loss(model.embed(views, training=True), views)[0])
    history = model.fit(dataset, epochs=2, verbose=0).history
    first, last = history["loss"]  # of the last step of each epoch
    assert last < first < 0.5 * before
    assert history["agreement"][1] > 0.9
    nothing = {"z_a": tf.zeros((BATCH, 8)), "z_b": tf.zeros((BATCH, 8))}
    assert list(model.collapsed_loss().values()) == [float(model.loss(nothing, {})[0])]
    again = type(model).from_config(model.get_config())
    assert (again.projection_dim, again.off_diagonal_weight) == (8, 0.0051)
    pictures = tf.constant(images(4, seed=1), tf.float32) / 255.0
    assert model.predict(pictures, verbose=0).shape == (4, model.backbone.feature_dim)


REPLICAS = """
import sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import keras
keras.config.set_floatx("float64")
from keras_ssl.distribution import num_replicas, replica_id
from tests.examples.test_add_a_method import build, load_example

example = load_example()
model = build(example)
z = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8)))

def gradient():
    mine = z[:, replica_id() * 4 :][:, :4] if num_replicas() > 1 else z
    with tf.GradientTape() as tape:
        tape.watch(mine)
        value, _ = model.loss({"z_a": mine[0], "z_b": mine[1]}, {})
        share = value / num_replicas()
    return value, tape.gradient(share, mine)

value, whole = tf.function(gradient)()
values, parts = strategy.run(tf.function(gradient))
values, parts = values.values, tf.concat(parts.values, 1)
np.testing.assert_allclose(values, [value, value], rtol=1e-12)
np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-12)
assert np.abs(whole).max() > 1e-3
"""


def test_two_replicas_compute_the_loss_and_gradient_of_one(subprocess_env):
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], env=subprocess_env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
