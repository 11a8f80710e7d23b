"""Trains a small method in float64 on N logical devices and writes what happened; one process for each N.

python replica_worker.py METHOD REPLICAS OUT.npz [SABOTAGE [STEPS_PER_EXECUTION [MICRO_BATCH]]]

MICRO_BATCH is the images of a replica that the networks see at a time; "2twice" embeds them twice whatever the loss.
"""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf

STEPS = 20
RATE = 2.0**-7  # without momentum, (weights before - after) / rate is the gradient


def main(
    name: str, replicas: int, out: str, sabotage: str = "", executions: int = 1, micro: str = ""
) -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    from keras_ssl import data, distribution, optimizers
    from tests.contract import rows

    spoil(sabotage)
    name_of = "mirrored" if replicas > 1 else "cpu"
    strategy = distribution.create_strategy(name_of, replicas=replicas if replicas > 1 else None)
    with strategy.scope():
        optimizer = optimizers.SGD(RATE, momentum=0.0)
        size = int(micro.removesuffix("twice")) if micro else None
        model = rows.build(
            name, optimizer=optimizer, steps_per_execution=executions, micro_batch=size
        )
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
    for step in range(executions, STEPS + 1, executions):
        losses.append(float(train(batches)["loss"]))
        if step in (1, 3, STEPS):
            for path, variable in zip(paths, model.variables, strict=True):
                result[f"after{step}/{path}"] = value_of(variable)
                result[f"copies{step}/{path}"] = np.array(copies_equal(strategy, variable))
    for path, variable, old in zip(paths, model.variables, before, strict=True):
        if id(variable) in trained and executions == 1:
            result[f"gradient/{path}"] = (old - result[f"after1/{path}"]) / RATE
    np.savez(out, losses=np.array(losses), replicas=strategy.num_replicas_in_sync, **result)


def spoil(sabotage: str) -> None:
    """Breaks what the test must notice."""
    import keras_ssl.methods.simclr
    import keras_ssl.random
    from keras_ssl import distribution

    if sabotage == "local_negatives":
        module = keras_ssl.methods.simclr
        module.gather, module.replica_id = (lambda x: x), (lambda: tf.constant(0))
    if sabotage == "replica_seed":
        real = keras_ssl.random.sample_keys
        keras_ssl.random.sample_keys = lambda seed, position: real(
            tf.cast(seed, tf.int64) + tf.cast(distribution.replica_id(), tf.int64), position
        )


def value_of(variable: keras.Variable) -> np.ndarray:
    return tf.convert_to_tensor(variable.value).numpy()


def copies_equal(strategy: tf.distribute.Strategy, variable: keras.Variable) -> bool:
    copies = [np.array(c) for c in strategy.experimental_local_results(variable.value)]
    assert len(copies) == strategy.num_replicas_in_sync
    return all(np.array_equal(copies[0], copy) for copy in copies)


if __name__ == "__main__":
    method, count, path, broken, steps, pieces = [
        *sys.argv[1:],
        *["", "1", ""][len(sys.argv) - 4 :],
    ]
    main(method, int(count), path, broken, int(steps), pieces)
