"""SwAV: predict the cluster code of one view from the other views."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.distribution import gather, global_mean
from keras_ssl.layers import MLP, Prototypes, Queue, sinkhorn_codes
from keras_ssl.losses import l2_normalize, swav_loss
from keras_ssl.methods.base import (
    Aux,
    Embeddings,
    RunInfo,
    SSLModel,
    Views,
    batch_first,
    embedding_std,
    mean_entropy,
    multi_crop_groups,
)
from keras_ssl.optimizers import ParameterGroup


@keras.saving.register_keras_serializable(package="keras_ssl")
class SwAV(SSLModel):
    """Swapping assignments between views.

    Each large view is assigned to prototypes by Sinkhorn-Knopp, which spreads the batch evenly over all prototypes
    and so prevents collapse; every other view of the image predicts that code.

    Args:
        backbone: Backbone. Its `features` `(batch, feature_dim)` are what is kept.
        hidden_dim: int. Width of the projector's hidden layer. Defaults to `2048`.
        projection_dim: int. Size of the embeddings z. Defaults to `128`.
        num_prototypes: int. K, cluster centers on the unit sphere. Defaults to `3000` (100 to 512 for CIFAR).
        temperature: float. tau of the predictions, above 0. Defaults to `0.1`.
        epsilon: float. Sharpness of the codes, above 0. Defaults to `0.05`.
        sinkhorn_iterations: int. Rounds of row and column scaling. Defaults to `3`.
        freeze_prototypes_epochs: float. Epochs in which the prototypes do not move. Defaults to `1.0`.
        queue_size: int. Past embeddings for the codes, over all replicas, for each large view; 0 for none.
            Defaults to `0` (3840 for a batch of 256).
        queue_start_epoch: float. Epoch at which the queue begins to fill. Defaults to `15.0`.
        name: str. Defaults to the class name.

    Views: `global` `(2, batch, height, width, 3)` and optionally `local` `(views, batch, height, width, 3)`,
    smaller, in [0, 1].

    Metrics: `loss`, nats, ln K when nothing is learned; `code_entropy` and `mean_code_entropy`, nats;
    `unused_prototypes`, share that the latest batches (running mean over about 100) hardly assign;
    `embedding_std`; `gradient_norm`.

    Example:

        >>> import keras_ssl
        >>> backbone = keras_ssl.backbones.build("resnet_mini", image_size=32)
        >>> model = keras_ssl.methods.SwAV(backbone, hidden_dim=512, num_prototypes=256)
        >>> model.compile("adam").fit(images, epochs=10, batch_size=256)
        >>> features = model.predict(images / 255.0)

    Reference: Caron et al., 2020, https://arxiv.org/abs/2006.09882, section 3 and appendix A.
    Reference code: facebookresearch/swav, `main_swav.py`.
    Differs from the reference:
        - Sinkhorn runs on logarithms; the same codes without overflow.
        - The queue is used from the step on which it is full, counted in rows and not by a non-zero last row.
        - Batch-norm is synchronized over all replicas, not in groups of eight.
    """

    view_spec = {"global": 2, "local": None}
    recipes = {"large": "swav", "small": "swav_cifar"}

    def __init__(
        self,
        backbone: keras.Model,
        *,
        hidden_dim: int = 2048,
        projection_dim: int = 128,
        num_prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iterations: int = 3,
        freeze_prototypes_epochs: float = 1.0,
        queue_size: int = 0,
        queue_start_epoch: float = 15.0,
        name: str | None = None,
    ):
        super().__init__(backbone, name=name)
        self.projector = MLP([hidden_dim, projection_dim], name="projector")
        self.projector.build((None, backbone.feature_dim))
        self.prototypes = Prototypes(projection_dim, num_prototypes, name="prototypes")
        self.queues: list[Queue] = []
        self.usage = self.add_weight(
            shape=(num_prototypes,), initializer="ones", trainable=False, name="usage"
        )

    def on_bind(self, run: RunInfo) -> None:
        rows = self.queue_size // run.global_batch * run.global_batch
        if rows and not self.queues:
            self.queues = [Queue(rows, self.projection_dim, name=f"queue_{i}") for i in range(2)]

    @property
    def parameter_groups(self) -> list[ParameterGroup]:
        steps = round(self.freeze_prototypes_epochs * self.run.steps_per_epoch)
        return [ParameterGroup("prototypes", frozen_steps=steps)]

    @property
    def embedding_dim(self) -> int:
        return self.projection_dim

    def embed(self, views: Views, training: bool) -> Embeddings:
        groups = multi_crop_groups(views)
        h = [
            self.features(group, random.fold_in(views["keys"], name), training=training)
            for name, group in groups.items()
        ]
        z = l2_normalize(self.projector(tf.concat(h, 0), training=training))
        z = batch_first(z, sum(group.shape[0] for group in groups.values()))  # (batch, views, dim)
        return {"z": z, "scores": self.prototypes(z)}

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        z, scores = embeddings["z"], embeddings["scores"]
        codes = tf.stack([self.codes(scores[:, i], i) for i in range(2)], 1)  # (batch, 2, K)
        loss = swav_loss(scores, codes, temperature=self.temperature)
        chosen = tf.one_hot(tf.argmax(codes[:, 0], -1), self.num_prototypes, dtype=codes.dtype)
        return loss, {
            "code_entropy": mean_entropy(codes),
            "mean_code_entropy": mean_entropy(global_mean(tf.reduce_mean(codes, [0, 1]))),
            "unused_prototypes": tf.reduce_mean(tf.cast(self.usage.value < 0.1, "float32")),
            "embedding_std": embedding_std(z[:, 0]),
            "z": tf.stop_gradient(z[:, :2]),
            "usage": global_mean(tf.reduce_mean(chosen, 0)),
        }

    def codes(self, scores: tf.Tensor, view: int) -> tf.Tensor:
        """Returns the codes `(batch, K)` of one large view, with its queue once that is full."""
        queue = self.queues[view] if self.queues else None
        return sinkhorn_codes(
            tf.stop_gradient(scores),
            epsilon=self.epsilon,
            iterations=self.sinkhorn_iterations,
            extra=None if queue is None else self.prototypes(queue.rows),
            use_extra=None if queue is None else queue.full,
        )

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        self.prototypes.renormalize()
        views = self.make_views(data)
        aux = self.gradient_step(views)
        self.enqueue(aux)
        return self.report(aux)

    def enqueue(self, aux: Aux) -> None:
        """Remembers this batch's embeddings, from the starting epoch on, and which prototypes it used."""
        start = round(self.queue_start_epoch * self.run.steps_per_epoch)
        for view, queue in enumerate(self.queues):
            queue.enqueue(gather(aux["z"][:, view]), when=self.step.value >= start)
        usage = tf.cast(aux["usage"] * self.num_prototypes, self.usage.dtype)
        self.usage.assign(0.99 * self.usage.value + 0.01 * usage)

    def trivial_loss(self) -> dict[str, float]:
        return {"ln K": math.log(self.num_prototypes)}
