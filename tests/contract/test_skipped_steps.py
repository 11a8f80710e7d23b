"""A step whose loss or gradient is not finite leaves no trace but in the counters, whatever the method keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import optimizers
from keras_ssl.methods import METHODS
from tests.contract.rows import BATCH, bind, build, images


def batch_of(model, step, poison=0.0):
    batch = {
        "inputs": {"image": tf.constant(images(BATCH, step))},
        "position": step * BATCH + tf.range(BATCH, dtype=tf.int64),
    }
    views = model.make_views(batch)
    bad = {name: v + poison if v.dtype.is_floating else v for name, v in views.items()}
    return {"views": bad}


def state(model):
    return {v.path: v.numpy().copy() for v in [*model.variables, *model.optimizer.variables]}


QUICK = ("swav", "dino")  # with a queue; with a teacher, its batch statistics and a center


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]
)
def test_a_bad_batch_changes_only_the_counters(name):
    """NaN in the views reaches weights, slots, batch statistics, teacher, queue and center of any unguarded step."""
    model = bind(build(name, optimizer=optimizers.SGD(0.01, momentum=0.9)))
    for step in range(3):  # the queue fills from the second on
        logs = model.guarded_step(batch_of(model, step))
        assert float(logs["skipped"]) == 0.0
    before = state(model)
    logs = model.guarded_step(batch_of(model, 3, math.nan))
    assert float(logs["skipped"]) == 1.0 and math.isnan(float(logs["loss"]))
    after = state(model)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    counters = {path for path in changed if before[path].dtype == np.int64}
    assert len(counters) == 2 and all(after[path] == before[path] + 1 for path in counters)
    for path in changed - counters:  # SwAV makes its prototypes unit again in every step
        assert "prototypes" in path
        unit = before[path] / np.linalg.norm(before[path], axis=1, keepdims=True)
        np.testing.assert_allclose(after[path], unit, rtol=1e-6)
    logs = model.guarded_step(batch_of(model, 4))
    assert float(logs["skipped"]) == 0.0 and math.isfinite(float(logs["loss"]))
    new = state(model)
    assert all(np.isfinite(value).all() for value in new.values())
    moved = [path for path in new if not np.array_equal(new[path], after[path])]
    assert len(moved) > len(new) / 2


def test_a_loss_that_is_not_finite_is_enough(monkeypatch):
    """An infinite loss whose gradient is finite is skipped too."""
    model = bind(build("rotnet", optimizer=optimizers.SGD(0.01)))
    real = type(model).loss

    def infinite(self, embeddings, views):
        value, aux = real(self, embeddings, views)
        return value + tf.constant(math.inf), aux

    monkeypatch.setattr(type(model), "loss", infinite)
    before = state(model)
    logs = model.guarded_step(batch_of(model, 0))
    assert float(logs["skipped"]) == 1.0 and math.isfinite(float(logs["gradient_norm"]))
    after = state(model)
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    assert len(changed) == 2  # step and iterations


def test_calls_of_several_steps_count_their_skipped_ones():
    model = bind(build("rotnet", optimizer=optimizers.SGD(0.01), steps_per_execution=4))
    poison = [0.0, math.nan, 0.0, math.nan]
    batches = [batch_of(model, step, value) for step, value in enumerate(poison)]
    data = tf.data.Dataset.from_generator(
        lambda: batches, output_signature=tf.nest.map_structure(tf.type_spec_from_value, batches[0])
    )
    logs = model.make_train_function()(iter(data))
    assert float(logs["skipped"]) == 2.0
    assert int(model.step.numpy()) == 4
