"""Trains a small method in float64 on N logical devices and writes what happened; one process for each N.

python replica_worker.py METHOD REPLICAS OUT.npz [SABOTAGE [MICRO_BATCH]]

MICRO_BATCH is the images of a replica that the networks see at a time; "2twice" embeds them twice whatever the loss.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf


def main(name: str, replicas: int, out: str, sabotage: str = "", micro: str = "") -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    from keras_ssl import data, distribution, optimizers
    from tests.contract import rows

    if sabotage == "local_negatives":
        import keras_ssl.methods.simclr as module

        module.gather, module.replica_id = (lambda x: x), (lambda: tf.constant(0))
    if sabotage == "replica_seed":
        import keras_ssl.random as module

        real = module.sample_keys
        module.sample_keys = lambda seed, position: real(
            tf.cast(seed, tf.int64) + tf.cast(distribution.replica_id(), tf.int64), position
        )
    name_of = "mirrored" if replicas > 1 else "cpu"
    strategy = distribution.create_strategy(name_of, replicas=replicas if replicas > 1 else None)
    steps = 20
    rate = 2.0**-7  # without momentum, (weights before - after) / rate is the gradient
    with strategy.scope():
        size = int(micro.removesuffix("twice")) if micro else None
        model = rows.build(name, optimizer=optimizers.SGD(rate, momentum=0.0), micro_batch=size)
        if micro.endswith("twice"):
            model.loss_averages_samples = False
        rows.bind(model, replicas=replicas)
    source = data.open_source(rows.images(4 * rows.BATCH))
    stream = data.SampleStream(source, rows.BATCH, seed=0)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: stream.dataset(per_replica_batch=rows.BATCH // replicas)
        )
    )
    result = {}
    train = model.make_train_function()
    paths = [f"{i}:{v.path}" for i, v in enumerate(model.variables)]
    trained = {id(v) for v in model.trainable_variables}
    before = [value_of(v) for v in model.variables]
    losses = []
    for step in range(steps):
        losses.append(float(train(batches)["loss"]))
        if step in (0, 2, steps - 1):
            for path, variable in zip(paths, model.variables, strict=True):
                result[f"after{step + 1}/{path}"] = value_of(variable)
    for path, variable, old in zip(paths, model.variables, before, strict=True):
        if id(variable) in trained:
            result[f"gradient/{path}"] = (old - result[f"after1/{path}"]) / rate
        copies = [np.array(c) for c in strategy.experimental_local_results(variable.value)]
        result[f"copies/{path}"] = np.array(all(np.array_equal(copies[0], c) for c in copies))
    np.savez(out, losses=np.array(losses), **result)


def value_of(variable: keras.Variable) -> np.ndarray:
    return tf.convert_to_tensor(variable.value).numpy()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
