"""Few labels: fine-tunes an encoder on 1 % of the labels, then the same network from scratch, and compares them.

    python examples/finetune.py                                            # the zoo's SimCLR encoder on digits
    python examples/finetune.py swav_rnmini_cifar10 --data cifar10.npz     # a zoo entry
    python examples/finetune.py runs/photos --data tfds:my_photos          # a run of your own

Labels come from the `train` split of the data, the accuracies from the `test` split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np

from keras_ssl import data, zoo
from keras_ssl.pretraining.finish import load_any_encoder


def read(spec: str, split: str, size: int):
    """Returns the images of a split, float32 (n, size, size, 3) in [0, 1], and their labels."""
    source = data.open_source(f"{spec}:{split}", canvas=size)
    images, _, shown = source.read_batch(np.arange(source.num_samples))
    return images.astype("float32") / 255.0, source.labels_of(shown)


def choose(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Returns the rows of a random share of each class, at least one row of each."""
    rng, rows = np.random.default_rng(seed), []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        rows.extend(own[: max(1, round(share * len(own)))])
    return rng.permutation(rows)


def fine_tune(encoder, train, test, *, steps: int, learning_rate: float) -> float:
    """Trains encoder and a linear head on (images, labels); returns the accuracy on the test pair."""
    keras.utils.set_random_seed(0)  # the same head and order for both
    inputs = keras.Input(train[0].shape[1:])
    logits = keras.layers.Dense(int(train[1].max()) + 1)(encoder(inputs)["features"])
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batch = min(64, len(train[0]))
    epochs = max(1, round(steps * batch / len(train[0])))
    model.fit(*train, batch_size=batch, epochs=epochs, verbose=0)
    return model.evaluate(*test, batch_size=256, verbose=0)[1]


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", nargs="?", help="zoo entry, run folder or .keras file")
    parser.add_argument("--data", default="digits", help="data with splits train and test [digits]")
    parser.add_argument("--share", type=float, default=0.01, help="share of the labels [0.01]")
    parser.add_argument("--steps", type=int, default=200, help="steps of either training [200]")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak, of both [0.003]")
    parser.add_argument("--seed", type=int, default=0, help="chooses the labels [0]")
    parser.add_argument("--json", metavar="FILE", help="also write what was measured")
    flags = parser.parse_args(arguments)
    name = flags.encoder or next((entry.name for entry in zoo.list(method="simclr")), None)
    if name is None:
        parser.error("the zoo has no SimCLR entry here: name an encoder")
    encoder = load_any_encoder(name)
    if not isinstance(encoder, keras.Model):
        parser.error(
            f"a SavedModel cannot be drawn afresh: name its run or .keras file, not {name}"
        )
    keras.utils.set_random_seed(flags.seed)
    config = {**encoder.get_config(), "trainable": True}  # a teacher's encoder is saved frozen
    scratch, tuned = (type(encoder).from_config(dict(config)) for _ in range(2))
    tuned.set_weights(encoder.get_weights())

    train, test = (read(flags.data, split, encoder.image_size) for split in ("train", "test"))
    rows = choose(train[1], flags.share, flags.seed)
    few = train[0][rows], train[1][rows]
    settings = {"steps": flags.steps, "learning_rate": flags.learning_rate}
    accuracies = tuple(fine_tune(network, few, test, **settings) for network in (tuned, scratch))
    print(f"{len(rows)} labels of {len(train[1])}, {len(test[1])} test images of {flags.data}")
    print(f"from {name}: {accuracies[0]:.1%}, from scratch: {accuracies[1]:.1%}")
    if flags.json:
        measured = {
            "encoder": name,
            "data": Path(flags.data).name,
            "labels": len(rows),
            "test_images": len(test[1]),
            "steps": flags.steps,
            "pre_trained": round(accuracies[0], 4),
            "from_scratch": round(accuracies[1], 4),
        }
        Path(flags.json).write_text(json.dumps(measured, indent=1) + "\n")
    return accuracies


if __name__ == "__main__":
    main()
