"""With XLA on one CPU device a step gives the graph's loss and moves the weights to the same place."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import optimizers
from tests.contract.rows import BATCH, ROWS, bind, build, images


def one_step(name: str, batch: dict, jit: bool) -> tuple[float, list[np.ndarray]]:
    sgd = optimizers.SGD(1e-3, momentum=0.0)
    model = bind(build(name, optimizer=sgd, jit_compile=jit))
    if "views" not in batch:
        batch["views"] = model.make_views(batch)
    data = tf.data.Dataset.from_tensors({"views": batch["views"]}).repeat()
    logs = model.make_train_function()(iter(data))
    return float(logs["loss"]), [variable.numpy() for variable in model.trainable_variables]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "rotnet" else pytest.mark.slow) for n in ROWS]
)
def test_a_compiled_step_equals_the_graph(name):
    position = tf.range(BATCH, dtype=tf.int64)
    batch = {"inputs": {"image": tf.constant(images(BATCH))}, "position": position}
    loss, weights = one_step(name, batch, jit=False)
    compiled_loss, compiled_weights = one_step(name, batch, jit=True)
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    for one, other in zip(weights, compiled_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
