"""BYOL: predict the teacher's view of an image from another view of it, without negatives."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.layers import MLP, clone_frozen
from keras_ssl.losses import byol_loss
from keras_ssl.methods.base import Aux, Embeddings, SSLModel, Views, embedding_std
from keras_ssl.optimizers import teacher_momentum


@keras.saving.register_keras_serializable(package="keras_ssl")
class BYOL(SSLModel):
    """Bootstrap your own latent.

    The student's predictor regresses the teacher's projection of the other view; the teacher is a slow average of
    the student. The predictor, the stop-gradient and batch-norm in the heads keep it from collapse; nothing repels.

    Args:
        backbone: Backbone. Its `features` `(batch, feature_dim)` are what is kept.
        hidden_dim: int. Width of the hidden layers of projector and predictor. Defaults to `4096`.
        projection_dim: int. Size of projections and predictions. Defaults to `256`.
        teacher_momentum: float in [0, 1]. tau at the first step; rises to 1 along a cosine. Defaults to `0.996`
            (1000 epochs; 0.99 for 100 to 300).
        name: str. Defaults to the class name.

    Views: `global` `(2, batch, height, width, 3)` in [0, 1].

    Metrics: `loss`, in [0, 8], about 4 at the start; `embedding_std` of the predictions; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("resnet_mini", image_size=32)
        >>> model = keras_ssl.methods.BYOL(backbone, hidden_dim=512, teacher_momentum=0.99)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=256)
        >>> features = model.predict(images / 255.0)

    Reference: Grill et al., 2020, https://arxiv.org/abs/2006.07733, section 3 and equation 2.
    Reference code: deepmind/deepmind-research, `byol/byol_experiment.py`.
    Differs from the reference:
        - The teacher starts as an exact copy of the student; the authors' code draws it anew.
        - The teacher has no predictor; the authors' has one whose output is never used.
        - Dense kernels start uniform in +-1/sqrt(fan_in), not from Haiku's truncated normal.
        - No linear classifier is trained alongside: labels are not read.
    """

    view_spec = {"global": 2}
    recipes = {"large": "byol", "small": "byol_cifar"}
    loss_averages_samples = True

    def __init__(
        self,
        backbone: keras.Model,
        *,
        hidden_dim: int = 4096,
        projection_dim: int = 256,
        teacher_momentum: float = 0.996,
        name: str | None = None,
    ):
        super().__init__(backbone, name=name)
        if not 0 <= teacher_momentum <= 1:
            raise ValueError(
                f"Expected teacher_momentum in [0, 1]. Received: teacher_momentum={teacher_momentum}"
            )
        self.projector = MLP([hidden_dim, projection_dim], output_bias=False, name="projector")
        self.projector.build((None, backbone.feature_dim))
        self.predictor = MLP([hidden_dim, projection_dim], output_bias=False, name="predictor")
        self.predictor.build((None, projection_dim))
        self.teacher_backbone = clone_frozen(backbone)
        self.teacher_projector = clone_frozen(self.projector)

    @property
    def ema_pairs(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
        ]

    def teacher_momentum_at(self, step: tf.Tensor) -> tf.Tensor:
        return teacher_momentum(step, self.run.total_steps, self.teacher_momentum)

    @property
    def embedding_dim(self) -> int:
        return self.projection_dim

    def embed(self, views: Views, training: bool) -> Embeddings:
        outputs = {}
        for index, name in enumerate("ab"):  # one call a view: batch statistics are each view's own
            view, keys = views["global"][index : index + 1], random.fold_in(views["keys"], name)
            h = self.features(view, keys, training=training)
            z = self.projector(h, training=training)
            t = self.features(view, keys, network=self.teacher_backbone, training=training)
            outputs[f"t_{name}"] = self.teacher_projector(t, training=training)
            outputs[f"p_{name}"] = self.predictor(z, training=training)
        return outputs

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        e = embeddings
        sg = tf.stop_gradient
        return byol_loss(e["p_a"], e["p_b"], sg(e["t_a"]), sg(e["t_b"])), {
            "embedding_std": embedding_std(e["p_a"])
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        views = self.make_views(data)
        aux = self.gradient_step(views)
        self.update_teacher()
        return self.report(aux)

    def collapsed_loss(self) -> dict[str, float]:
        return {"0, all predictions equal": 0.0}
