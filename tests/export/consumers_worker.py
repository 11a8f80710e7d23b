"""Fine-tunes an exported encoder with other libraries' layers; run as a script where the library cannot be imported.

Arguments: `tfsm` or `hub`, folder of the work. Reads `encoder/` (SavedModel with a `train` signature), `images.npy`,
`features.npy`; prints one JSON object.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path


class Hidden:
    """Makes the library impossible to import, also where it is installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_ssl":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Hidden())
import numpy as np  # noqa: E402

kind, work = sys.argv[1], Path(sys.argv[2])
folder = str(work / "encoder")
images, expected = np.load(work / "images.npy"), np.load(work / "features.npy")
labels = (images.mean(axis=(1, 2, 3)) > np.median(images.mean(axis=(1, 2, 3)))).astype(np.int32)
facts = {}


def fine_tune(keras, encode, layer, training):
    """Trains encoder and head for one epoch; returns the loss before and after, in the mode that it was trained in."""
    inputs = keras.Input((32, 32, 3))
    head = keras.layers.Dense(2, kernel_initializer="zeros")
    model = keras.Model(inputs, head(encode(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.3), loss=loss)
    before = [v.numpy() for v in layer.weights]
    trained = len(layer.trainable_weights)
    first = float(loss(labels, model(images, training=training)))
    model.fit(images, labels, batch_size=8, epochs=1, verbose=0, shuffle=False)
    last = float(loss(labels, model(images, training=training)))
    moved = [bool(np.any(a != v.numpy())) for a, v in zip(before, layer.weights, strict=True)]
    return {
        "first": first,
        "last": last,
        "trained": trained,
        "moved": sum(moved),
        "all": len(moved),
    }


if kind == "tfsm":
    import keras

    layer = keras.layers.TFSMLayer(folder, call_endpoint="serving_default")
    facts["same"] = float(np.abs(layer(images)["features"] - expected).max())
    facts["inference"] = fine_tune(keras, lambda x: layer(x)["features"], layer, False)
    both = keras.layers.TFSMLayer(
        folder, call_endpoint="serving_default", call_training_endpoint="train"
    )
    facts["training"] = fine_tune(keras, lambda x: both(x)["features"], both, True)
else:
    if (
        importlib.util.find_spec("pkg_resources") is None
    ):  # setuptools 81 has none; hub 0.16 asks for one function
        from packaging.version import parse

        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        sys.modules["pkg_resources"].parse_version = parse
    import tensorflow_hub as hub
    import tf_keras

    for trainable in (False, True):
        layer = hub.KerasLayer(folder, trainable=trainable)
        facts["same"] = float(np.abs(layer(images) - expected).max())
        facts[str(trainable)] = fine_tune(tf_keras, layer, layer, trainable)
    facts["penalties"] = len(layer.losses)
assert not any(name.startswith("keras_ssl") for name in sys.modules)
print(json.dumps(facts))
