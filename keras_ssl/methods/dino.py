"""DINO: the student matches the teacher's soft labels for other views of the image."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.distribution import global_mean
from keras_ssl.layers import MLP, Center, WeightNormDense, clone_frozen
from keras_ssl.losses import center_and_sharpen, dino_loss, l2_normalize
from keras_ssl.methods.base import (
    Aux,
    Embeddings,
    SSLModel,
    Views,
    batch_first,
    embedding_std,
    mean_entropy,
    multi_crop_groups,
)
from keras_ssl.optimizers import ParameterGroup, linear_ramp, teacher_momentum


@keras.saving.register_keras_serializable(package="keras_ssl")
class DINO(SSLModel):
    """Self-distillation with no labels.

    The teacher, a slow average of the student, sees the large views; the student sees all. Centering keeps one
    output from winning, sharpening keeps the teacher from the uniform answer; together they prevent collapse.

    Args:
        backbone: Backbone, ViT or convnet. Its `features` `(batch, feature_dim)` are what is kept.
        num_prototypes: int. K, outputs of the head. Defaults to `65536`.
        hidden_dim: int. Width of the head's hidden layers. Defaults to `2048`.
        bottleneck_dim: int. Width before the last layer. Defaults to `256`.
        norm_last_layer: bool. Whether the last layer's weight norms stay 1; False learns them. Defaults to `True`.
        student_temperature: float. Of the student's softmax, above 0. Defaults to `0.1`.
        teacher_temperature: float. After the warm-up; above 0.07 is unstable. Defaults to `0.04`.
        warmup_teacher_temperature: float. The teacher's at the first step. Defaults to `0.04`.
        warmup_teacher_temperature_epochs: float. Epochs of the linear ramp between them. Defaults to `0.0`.
        teacher_momentum: float in [0, 1]. At the first step; rises to 1 along a cosine. Defaults to `0.996`
            (0.9995 for a batch of 256).
        center_momentum: float in [0, 1]. Share of the old center in each step. Defaults to `0.9`.
        freeze_last_layer_epochs: float. Epochs in which the last layer does not move. Defaults to `1.0`.
        head_stddev: float. Standard deviation of the head's first kernels; 0 for 1/sqrt(fan_in), which a head much
            narrower than the authors' needs. Defaults to `0.02`.
        name: str. Defaults to the class name.

    Views: `global` `(2, batch, height, width, 3)` and optionally `local`, smaller, in [0, 1].

    Metrics: `loss`, nats, about ln K at the start; `teacher_entropy`, nats, 0 or ln K when collapsed;
    `teacher_student_kl`, nats; `embedding_std` of the bottleneck; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("vit_mini", image_size=32)
        >>> model = keras_ssl.methods.DINO(backbone, num_prototypes=1024, hidden_dim=512)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=256)
        >>> features = model.predict(images / 255.0)  # of the teacher

    Reference: Caron et al., 2021, https://arxiv.org/abs/2104.14294, section 3 and algorithm 1.
    Reference code: facebookresearch/dino, `main_dino.py` and `vision_transformer.py`.
    Differs from the reference:
        - Teacher temperature is interpolated at every step, not once an epoch.
        - The teacher's batch-norm, where there is one, uses each resolution's own batch statistics.
    """

    view_spec = {"global": 2, "local": None}
    recipes = {"large": "dino", "small": "dino_cifar"}
    loss_averages_samples = True
    exported = "teacher"

    def __init__(
        self,
        backbone: keras.Model,
        *,
        num_prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_teacher_temperature_epochs: float = 0.0,
        teacher_momentum: float = 0.996,
        center_momentum: float = 0.9,
        freeze_last_layer_epochs: float = 1.0,
        head_stddev: float = 0.02,
        name: str | None = None,
    ):
        super().__init__(backbone, name=name)
        initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
        if head_stddev:
            initializer = keras.initializers.RandomNormal(stddev=head_stddev)
        self.projector = MLP(
            [hidden_dim, hidden_dim, bottleneck_dim],
            hidden_norm=False,
            activation="gelu",
            kernel_initializer=initializer,
            name="projector",
        )
        self.projector.build((None, backbone.feature_dim))
        self.last_layer = WeightNormDense(
            bottleneck_dim, num_prototypes, train_norm=not norm_last_layer, name="last_layer"
        )
        self.center = Center(num_prototypes, momentum=center_momentum, name="center")
        whole = {"drop_path": 0.0} if "drop_path" in backbone.get_config() else {}
        self.teacher_backbone = clone_frozen(backbone, **whole)
        self.teacher_projector = clone_frozen(self.projector)
        self.teacher_last_layer = clone_frozen(self.last_layer)

    @property
    def ema_pairs(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
            (self.teacher_last_layer, self.last_layer),
        ]

    @property
    def parameter_groups(self) -> list[ParameterGroup]:
        steps = round(self.freeze_last_layer_epochs * self.run.steps_per_epoch)
        return [ParameterGroup("last_layer", frozen_steps=steps)]

    def encoders(self) -> dict[str, keras.Model]:
        return {"image": self.teacher_backbone}

    def teacher_momentum_at(self, step: tf.Tensor) -> tf.Tensor:
        return teacher_momentum(step, self.run.total_steps, self.teacher_momentum)

    def teacher_temperature_at(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the teacher's temperature at this step."""
        steps = round(self.warmup_teacher_temperature_epochs * self.run.steps_per_epoch)
        return linear_ramp(step, steps, self.warmup_teacher_temperature, self.teacher_temperature)

    @property
    def embedding_dim(self) -> int:
        return self.bottleneck_dim

    def embed(self, views: Views, training: bool) -> Embeddings:
        keys = views["keys"]
        groups = multi_crop_groups(views)
        h = [
            self.features(group, random.fold_in(keys, name), training=training)
            for name, group in groups.items()
        ]
        z = l2_normalize(self.projector(tf.concat(h, 0), training=training))
        t = self.features(views["global"], keys, network=self.teacher_backbone, training=training)
        t = l2_normalize(self.teacher_projector(t, training=training))
        count = sum(group.shape[0] for group in groups.values())
        return {
            "z": batch_first(z, count),  # (batch, views, bottleneck_dim)
            "logits": batch_first(self.last_layer(z), count),
            "teacher_logits": batch_first(self.teacher_last_layer(t), 2),
        }

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        student, teacher = embeddings["logits"], tf.stop_gradient(embeddings["teacher_logits"])
        targets = center_and_sharpen(
            teacher, center=self.center.value, temperature=self.teacher_temperature_at(self.step)
        )
        loss = dino_loss(student, targets, student_temperature=self.student_temperature)
        entropy = mean_entropy(targets)
        return loss, {
            "teacher_entropy": entropy,
            "teacher_student_kl": tf.stop_gradient(loss) - entropy,
            "embedding_std": embedding_std(embeddings["z"][:, 0]),
            "teacher_mean": tf.reduce_mean(teacher, [0, 1]),
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        views = self.make_views(data)
        aux = self.gradient_step(views)
        self.update_teacher()
        self.center.update(global_mean(aux["teacher_mean"]))
        return self.report(aux)

    def trivial_loss(self) -> dict[str, float]:
        return {"ln K": math.log(self.num_prototypes)}
