"""Uses exported encoders with TensorFlow alone; run as a script in a folder without the library.

Arguments: folder of the work. Reads `resnet/`, `vit/` (SavedModels), `images.npy`, `features_*.npy`, `*.bin` picture
files; prints one JSON object.
"""

import json
import sys
from pathlib import Path


class Hidden:
    """Makes the library impossible to import, also where it is installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "keras_ssl":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Hidden())
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

assert not any(name.startswith("keras_ssl") for name in sys.modules)
work = Path(sys.argv[1])
images = np.load(work / "images.npy")
facts = {}
for name in ("resnet", "vit"):
    module = tf.saved_model.load(str(work / name))
    expected = np.load(work / f"features_{name}.npy")
    facts[f"{name}_call"] = float(np.abs(module(images) - expected).max())
    default = module.signatures["serving_default"](images=tf.constant(images))
    facts[f"{name}_default"] = float(np.abs(default["features"] - expected).max())
    facts[f"{name}_signatures"] = sorted(module.signatures)
    extra = "feature_map" if name == "resnet" else "tokens"
    [(key, value)] = module.signatures[extra](images=tf.constant(images)).items()
    facts[f"{name}_extra"] = [key, list(value.shape), value.dtype.name]

# The TensorFlow 1 loader, which finds tensors by name, as TensorFlow Serving does.
graph = tf.Graph()
with tf.compat.v1.Session(graph=graph) as session:
    meta = tf.compat.v1.saved_model.load(session, ["serve"], str(work / "resnet"))
    signature = meta.signature_def["serving_default"]
    facts["inputs"], facts["outputs"] = sorted(signature.inputs), sorted(signature.outputs)
    fed = {signature.inputs["images"].name: images}
    got = session.run(signature.outputs["features"].name, fed)
    expected = np.load(work / "features_resnet.npy")
    facts["tf1"] = float(np.abs(got - expected).max())

# Eight steps of fine-tuning with a linear head that starts at zero.
module = tf.saved_model.load(str(work / "resnet"))
labels = tf.constant(np.arange(len(images)) % 2)
head = tf.Variable(tf.zeros((expected.shape[1], 2)))
trained = [*module.trainable_variables, head]
statistics = [v for v in module.variables if "moving" in v.name]
before = [v.numpy() for v in (*module.trainable_variables, *statistics)]


def loss_of(training):
    logits = module(images, training=training) @ head
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


losses = []
for _ in range(8):
    with tf.GradientTape() as tape:
        loss = loss_of(training=True)
    losses.append(float(loss))
    for variable, gradient in zip(trained, tape.gradient(loss, trained), strict=True):
        variable.assign_sub(0.2 * gradient)
after = [v.numpy() for v in (*module.trainable_variables, *statistics)]
moved = [bool(np.any(a != b)) for a, b in zip(before, after, strict=True)]
facts["losses"] = losses
facts["statistics"] = len(statistics)
facts["moved"] = [sum(moved), len(moved)]
frozen = [v.numpy() for v in statistics]
loss_of(training=False)
facts["still"] = all(np.array_equal(a, v.numpy()) for a, v in zip(frozen, statistics, strict=True))
print(json.dumps(facts))
