"""SimCLR: contrast the two views of an image with all other images of the batch."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_ssl.distribution import gather, replica_id
from keras_ssl.layers import MLP
from keras_ssl.losses import nt_xent_loss
from keras_ssl.methods.base import Aux, Embeddings, SSLModel, Views, embedding_std


@keras.saving.register_keras_serializable(package="keras_ssl")
class SimCLR(SSLModel):
    """Simple framework for contrastive learning of visual representations.

    The two views of an image attract, all other views of the global batch repel (NT-Xent); the many negatives
    prevent collapse. Batch statistics and negatives are those of the global batch, over all replicas.

    Args:
        backbone: Backbone. Its `features` `(batch, feature_dim)` are what is kept.
        hidden_dim: int. Width of the projector's hidden layers. Defaults to the backbone's `feature_dim`.
        projection_dim: int. Size of the embeddings z. Defaults to `128`.
        num_projector_layers: int. Dense layers of the projector: 2 in the paper, 3 in version 2. Defaults to `2`.
        temperature: float. T of NT-Xent, above 0. Defaults to `0.1` (ImageNet; 0.5 for CIFAR).
        name: str. Defaults to the class name.

    Views: `global` `(2, batch, height, width, 3)` in [0, 1].

    Metrics: `loss`; `contrast_accuracy`, share of images whose other view is the nearest among all second views;
    `contrast_entropy`, nats; `embedding_std`; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("resnet_mini", image_size=32)
        >>> model = keras_ssl.methods.SimCLR(backbone=backbone, temperature=0.5)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=256)
        >>> features = model.predict(images / 255.0)

    Reference: Chen, Kornblith, Norouzi, Hinton, 2020, https://arxiv.org/abs/2002.05709, section 2.1 and equation 1.
    Reference code: google-research/simclr, `tf2/objective.py` and `tf2/model.py`.
    Differs from the reference:
        - The loss is the paper's mean over 2N views; the authors' code returns twice that value.
        - No linear classifier is trained alongside: labels are not read.
        - Running variances are the unbiased ones.
    """

    view_spec = {"global": 2}
    recipes = {"large": "simclr", "small": "simclr_cifar"}

    def __init__(
        self,
        backbone: keras.Model,
        *,
        hidden_dim: int | None = None,
        projection_dim: int = 128,
        num_projector_layers: int = 2,
        temperature: float = 0.1,
        name: str | None = None,
    ):
        super().__init__(backbone, name=name)
        if temperature <= 0:
            raise ValueError(f"Expected temperature above 0. Received: temperature={temperature}")
        hidden = [hidden_dim or backbone.feature_dim] * (num_projector_layers - 1)
        self.projector = MLP(
            [*hidden, projection_dim],
            use_bias=False,
            output_norm="scale",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="projector",
        )
        self.projector.build((None, backbone.feature_dim))

    @property
    def embedding_dim(self) -> int:
        return self.projection_dim

    def embed(self, views: Views, training: bool) -> Embeddings:
        h = self.features(
            views["global"], views["keys"], training=training
        )  # (2 * batch, feature_dim)
        z_a, z_b = tf.split(self.projector(h, training=training), 2)
        return {"z_a": z_a, "z_b": z_b}

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        z_a, z_b = embeddings["z_a"], embeddings["z_b"]
        loss, metrics = nt_xent_loss(
            z_a,
            z_b,
            temperature=self.temperature,
            all_z_a=gather(z_a),
            all_z_b=gather(z_b),
            offset=replica_id() * tf.shape(z_a)[0],
        )
        return loss, {**metrics, "embedding_std": embedding_std(z_a)}

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        views = self.make_views(data)
        aux = self.gradient_step(views)
        return self.report(aux)

    def trivial_loss(self) -> dict[str, float]:
        return {"ln(2N - 1)": math.log(2 * self.run.global_batch - 1)}
