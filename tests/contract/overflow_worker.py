"""Plants an infinity in one replica's gradient, in the second of three steps, and prints what each replica did.

python overflow_worker.py mixed_float16|float32 [SABOTAGE]
"""

from __future__ import annotations

import json
import math
import sys

import keras
import numpy as np
import tensorflow as tf

GUILTY, SIZE = 1, 4.0


def main(precision: str, sabotage: str = "") -> None:
    keras.config.set_dtype_policy(precision)
    from keras_ssl import distribution, optimizers
    from tests.contract import rows

    if sabotage == "own_gradient":  # what Keras does: each replica looks at its own gradient
        import keras_ssl.methods.base as module

        plain = module.clip_gradients
        own = []
        module.global_sum = lambda x: own.append(x) or distribution.global_sum(x)

        def clip(gradients, *rest):
            *_, finite = plain([own.pop(0) for _ in gradients], *rest)
            return *plain(gradients, *rest)[:2], finite

        module.clip_gradients = clip
    strategy = distribution.create_strategy("mirrored", replicas=2)
    planted = tf.Variable(0.0, trainable=False)

    @tf.custom_gradient
    def plant(kernel):
        """Adds 0 to the loss, and `planted` to one element of the guilty replica's gradient."""
        mine = tf.cast(distribution.replica_id() == GUILTY, kernel.dtype)
        where = tf.one_hot(0, tf.size(kernel), dtype=kernel.dtype)
        amount = tf.where(mine > 0, tf.cast(planted, kernel.dtype), 0.0)
        return tf.zeros(()), lambda _: tf.reshape(tf.where(where > 0, amount, 0.0), kernel.shape)

    with strategy.scope():
        model = rows.build(
            "rotnet", optimizer=optimizers.SGD(0.5, momentum=0.0), clip_norm=SIZE / 2
        )
        rows.bind(model, replicas=2)
    plain_loss = model.loss

    def loss(embeddings, views):
        value, aux = plain_loss(embeddings, views)
        return value + plant(model.classifier.kernel.value), aux

    model.loss = loss
    shape = (4, rows.BATCH // 2, rows.SIZE, rows.SIZE, 3)
    rng = np.random.default_rng(0)
    views = [rng.uniform(size=shape).astype("float32") for _ in range(2)]

    def of_replica(context):
        images = tf.constant(views[context.replica_id_in_sync_group])
        return {"views": {"rotations": images, "keys": tf.zeros((rows.BATCH // 2, 2), tf.uint32)}}

    batch = strategy.experimental_distribute_values_from_function(of_replica)

    @tf.function
    def step():
        logs = strategy.run(model.train_step, args=(batch,))
        return {name: strategy.experimental_local_results(value) for name, value in logs.items()}

    weights = model.trainable_variables
    seen = []
    for value in (0.0, math.inf, 0.0, 1e6):
        planted.assign(value)
        before = copies(strategy, weights)
        logs = {name: [float(copy) for copy in values] for name, values in step().items()}
        after = copies(strategy, weights)
        length = [
            float(
                np.sqrt(sum(np.sum((a[i] - b[i]) ** 2) for a, b in zip(after, before, strict=True)))
            )
            for i in range(2)
        ]
        equal = all(np.array_equal(one, other) for one, other in after)
        seen.append({"step_length": length, "equal": equal, **logs})
    print(json.dumps(seen))


def copies(strategy: tf.distribute.Strategy, variables: list) -> list[list[np.ndarray]]:
    """Returns each variable's value on each replica."""
    return [
        [np.array(copy) for copy in strategy.experimental_local_results(variable.value)]
        for variable in variables
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
