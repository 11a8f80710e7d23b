"""A whole new method in one file: Barlow Twins on the library's contract. Run it: `python examples/add_a_method.py`."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_ssl import backbones, data, random
from keras_ssl.distribution import global_mean
from keras_ssl.layers import MLP
from keras_ssl.losses import promote
from keras_ssl.methods import SSLModel
from keras_ssl.methods.base import embedding_std


def barlow_twins_loss(correlation, *, off_diagonal_weight=0.0051):
    """Returns sum_i (C_ii - 1)^2 + weight * sum_{i != j} C_ij^2 of a `(dim, dim)` cross-correlation, a scalar."""
    on_diagonal = tf.linalg.diag_part(correlation)
    off_diagonal = tf.reduce_sum(tf.square(correlation)) - tf.reduce_sum(tf.square(on_diagonal))
    return tf.reduce_sum(tf.square(on_diagonal - 1.0)) + off_diagonal_weight * off_diagonal


@keras.saving.register_keras_serializable(package="examples")
class BarlowTwins(SSLModel):
    """Barlow Twins: the cross-correlation of two views' embeddings, over the global batch, becomes the identity.

    Equal views give ones on the diagonal; zeros elsewhere keep dimensions apart, which prevents collapse.

    Reference: Zbontar et al., 2021, https://arxiv.org/abs/2103.03230, section 2 and algorithm 1.
    Reference code: facebookresearch/barlowtwins, `main.py`.
    Differs from the reference: the gradient also flows through the other replicas' part of the correlation; biases
    have the learning rate of the weights (a `ParameterGroup` would change that).
    """

    view_spec = {"global": 2}
    recipes = {"large": "byol", "small": "byol_cifar"}  # the authors use BYOL's views

    def __init__(self, backbone, *, projection_dim=8192, off_diagonal_weight=0.0051, name=None):
        super().__init__(backbone, name=name)  # the arguments become attributes of their names
        widths = [projection_dim] * 3  # the last batch-norm has no parameters: it standardizes
        self.projector = MLP(widths, use_bias=False, output_norm="plain", name="projector")
        self.projector.build((None, backbone.feature_dim))

    @property
    def embedding_dim(self):
        return self.projection_dim

    def embed(self, views, training):
        outputs = {}
        for index, name in enumerate("ab"):  # one call a view: batch statistics are each view's own
            view = views["global"][index : index + 1]
            keys = random.fold_in(views["keys"], name)
            h = self.features(view, keys, training=training)
            outputs[f"z_{name}"] = self.projector(h, training=training)  # (batch, projection_dim)
        return outputs

    def loss(self, embeddings, views):
        z_a, z_b = promote(embeddings["z_a"]), promote(embeddings["z_b"])
        local = tf.matmul(z_a, z_b, transpose_a=True) / tf.cast(tf.shape(z_a)[0], z_a.dtype)
        correlation = global_mean(local)  # over all replicas; the identity on one
        loss = barlow_twins_loss(correlation, off_diagonal_weight=self.off_diagonal_weight)
        agreement = tf.reduce_mean(tf.linalg.diag_part(correlation))
        return loss, {"agreement": agreement, "embedding_std": embedding_std(z_a)}

    def train_step(self, data):
        views = self.make_views(data)
        aux = self.gradient_step(views)
        return self.report(aux)

    def collapsed_loss(self):
        return {"projection_dim, all embeddings equal": float(self.projection_dim)}


if __name__ == "__main__":
    images = data.load_digits("train").images  # uint8 (1438, 32, 32, 3)
    model = BarlowTwins(backbones.build("resnet_mini", image_size=32), projection_dim=256)
    model.compile(keras.optimizers.AdamW(1e-3), views="byol_cifar")
    model.fit(images, epochs=3, batch_size=128)
    print("features", model.predict(images / 255.0, verbose=0).shape)
