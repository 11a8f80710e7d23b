"""RotNet: tell by which quarter turn an image was rotated."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.losses import cross_entropy_loss
from keras_ssl.methods.base import Aux, Embeddings, SSLModel, Views, batch_first, embedding_std

NUM_ROTATIONS = 4


@keras.saving.register_keras_serializable(package="keras_ssl")
class RotNet(SSLModel):
    """Rotation prediction.

    Every image is shown in its four rotations, all in the same batch, and a linear layer names the rotation: that
    needs to know what the things in the image are and how they usually stand. A four-way classifier cannot
    collapse; labels are balanced by construction.

    Args:
        backbone: Backbone. Its `features` `(batch, feature_dim)` are what is kept; the paper transfers features from
            the middle of the network, which usually transfer better than the last ones.
        name: str. Defaults to the class name.

    Views: `rotations` `(4, batch, height, width, 3)` in [0, 1], view k turned by k times 90 degrees
    counter-clockwise.

    Metrics: `loss`, nats, ln 4 at the start; `rotation_accuracy`; `embedding_std` of the
    features; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("resnet_mini", image_size=32)
        >>> model = keras_ssl.methods.RotNet(backbone)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=128)
        >>> features = model.predict(images / 255.0)

    Reference: Gidaris, Singh, Komodakis, 2018, https://arxiv.org/abs/1803.07728, section 3.
    Reference code: gidariss/FeatureLearningRotNet, `dataloader.py` and `algorithms/ClassificationModel.py`.
    Differs from the reference:
        - The backbone is any of this library's; the authors train AlexNet and Network-in-Network.
    """

    view_spec = {"rotations": NUM_ROTATIONS}
    recipes = {"large": "rotnet", "small": "rotnet_cifar"}
    loss_averages_samples = True

    def __init__(self, backbone: keras.Model, *, name: str | None = None):
        super().__init__(backbone, name=name)
        self.classifier = keras.layers.Dense(NUM_ROTATIONS, name="classifier")
        self.classifier.build((None, backbone.feature_dim))

    def embed(self, views: Views, training: bool) -> Embeddings:
        h = self.features(views["rotations"], views["keys"], training=training)
        logits = self.classifier(h)  # (4 * batch, 4), view-major
        return {
            "h": batch_first(h, NUM_ROTATIONS),
            "logits": batch_first(logits, NUM_ROTATIONS),  # (batch, view, rotation)
        }

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        logits = tf.reshape(embeddings["logits"], [-1, NUM_ROTATIONS])  # (batch * view, rotation)
        labels = tf.tile(tf.range(NUM_ROTATIONS), [tf.shape(logits)[0] // NUM_ROTATIONS])
        right = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels)
        accuracy = tf.reduce_mean(tf.cast(right, "float32"))
        return cross_entropy_loss(logits, labels), {
            "rotation_accuracy": accuracy,
            "embedding_std": embedding_std(embeddings["h"][:, 0]),
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        views = self.make_views(data)
        aux = self.gradient_step(views)
        return self.report(aux)

    def trivial_loss(self) -> dict[str, float]:
        return {"ln 4": math.log(NUM_ROTATIONS)}
