"""The training contract that every method keeps: the verbs its `train_step` is written in."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.distribution import global_sum, num_replicas
from keras_ssl.layers import copy_weights, update_ema
from keras_ssl.losses import l2_normalize, promote
from keras_ssl.methods.gradients import embed, loss_and_gradients
from keras_ssl.methods.inputs import RunInfo
from keras_ssl.methods.micro_batch import check_divides
from keras_ssl.methods.scaling import clip_gradients
from keras_ssl.methods.training import Trainer, Views
from keras_ssl.optimizers import ParameterGroup, SSLOptimizer

Embeddings = dict[str, tf.Tensor]
Aux = dict[str, tf.Tensor]


class SSLModel(Trainer):
    """Base class of the methods: a `keras.Model` whose `train_step` learns from images alone.

    A subclass declares `view_spec`, `recipes` and `exported`, builds its heads in `__init__`, writes `embed` and
    `loss`, and overrides `train_step` with the order of its paper.

    Batches: a dict of `"inputs"` {"image": uint8 or float `(batch, height, width, 3)`}, `"position"` int64
    `(batch,)`, `"sample_id"`, or the same with ready-made `"views"`; a tensor of images; or a tuple whose first
    entry is one. Labels are never read.

    Args:
        backbone: Backbone. Maps RGB in [0, 1] to {"features": `(batch, feature_dim)`, ...}.
        name: str. Defaults to the class name.

    The arguments of a method's own `__init__` become attributes of the same names, and part of its config.
    """

    exported = "student"
    # Whether the loss, and every entry of its `aux`, is a mean over the samples, each of which gives the same whatever
    # the others are, without a collective. Micro-batches then need one pass instead of two. False is always right.
    loss_averages_samples = False

    def __new__(cls, *args: Any, **kwargs: Any) -> SSLModel:
        """Notes what the method was made with, so that no method has to list its arguments twice."""
        model = super().__new__(cls, *args, **kwargs)
        given = inspect.signature(cls.__init__).bind(model, *args, **kwargs)
        given.apply_defaults()
        own = set(given.arguments) - {"self", "backbone", "name"}
        object.__setattr__(model, "_settings", {name: given.arguments[name] for name in own})
        return model

    def __init__(self, backbone: keras.Model, *, name: str | None = None):
        super().__init__(name=name)
        self.backbone = backbone
        for setting, value in self._settings.items():
            setattr(self, setting, value)

    # What a method writes ------------------------------------------------------------------------------------

    def embed(self, views: Views, training: bool) -> Embeddings:
        """Returns everything the networks compute, a dict of `(batch, ...)` tensors."""
        raise TypeError(f"{type(self).__name__} does not define embed(views, training).")

    def loss(self, embeddings: Embeddings, views: Views) -> tuple[tf.Tensor, Aux]:
        """Returns the scalar loss and `aux`: scalars to report, tensors for the upkeep of state. Assigns nothing."""
        raise TypeError(f"{type(self).__name__} does not define loss(embeddings, views).")

    def on_bind(self, run: RunInfo) -> None:
        """Makes what depends on the size of the data: queues, banks, schedules. Nothing by default."""

    @property
    def ema_pairs(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """(teacher, student) networks of the same architecture; the teacher is their running average."""
        return []

    @property
    def parameter_groups(self) -> list[ParameterGroup]:
        """Variables with their own learning rate, decay or frozen start, for the optimizers of this library."""
        return []

    @property
    def embedding_dim(self) -> int:
        """Size of the embeddings whose spread is reported as `embedding_std`."""
        return self.backbone.feature_dim

    def teacher_momentum_at(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the teacher momentum m at this step, in [0, 1]."""
        raise TypeError(
            f"{type(self).__name__} has a teacher but does not define teacher_momentum_at(step)."
        )

    def trivial_loss(self) -> dict[str, float]:
        """Returns the values of the loss that mean nothing is learned, by name, for the doctor."""
        return {}

    def collapsed_loss(self) -> dict[str, float]:
        """Returns the values of the loss that constant embeddings give, by name, for the doctor."""
        return {}

    # The verbs of a training step ----------------------------------------------------------------------------

    def features(
        self,
        images: tf.Tensor,
        keys: tf.Tensor,
        *,
        network: keras.Model | None = None,
        training: bool,
    ) -> tf.Tensor:
        """Returns the backbone features of a group of views.

        Args:
            images: `(views, batch, height, width, 3)` in [0, 1].
            keys: uint32 `(batch, 2)`. Drive drop-path.
            network: Backbone. Defaults to the student's.
            training: bool.

        Returns:
            `(views * batch, feature_dim)`, view-major.
        """
        network = network or self.backbone
        count = images.shape[0]
        flat = tf.reshape(images, tf.concat([[-1], tf.shape(images)[2:]], 0))
        keys = tf.concat([random.fold_in(keys, view) for view in range(count)], 0)
        return network(flat, training=training, keys=keys)["features"]

    def gradient_step(
        self,
        views: Views,
        loss: Callable[[Embeddings, Views], tuple[tf.Tensor, Aux]] | None = None,
        variables: list[keras.Variable] | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> Aux:
        """Takes one optimizer step on the loss over the global batch.

        The gradient is summed over the replicas first; clipping and the check for overflow act on the sum. With
        `micro_batch` the networks see that many images at a time: embeddings in pieces, loss once on all of them,
        gradients back in pieces. Then batch-norm is over each micro-batch, and its running statistics follow the mean
        over the micro-batches.

        Args:
            views: dict from `make_views`.
            loss: callable `(embeddings, views) -> (scalar, aux)`. Defaults to `self.loss`.
            variables: list of variables to train. Defaults to all trainable ones.
            optimizer: Keras optimizer. Defaults to the compiled one.

        Returns:
            dict. `aux` of the loss plus the scalars `"loss"`, `"gradient_norm"`, `"skipped"` (1.0 where loss or
            gradient was not finite; optimizers of this library then change nothing) and in float16 `"loss_scale"`.
        """
        loss = loss or self.loss
        optimizer = optimizer or self.optimizer
        variables = self.trainable_variables if variables is None else variables
        value, aux, gradients = loss_and_gradients(self, self.in_pieces(views), loss, variables)
        gradients = [global_sum(gradient) for gradient in gradients]
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscale(gradients)
        gradients, norm, finite = clip_gradients(gradients, self.clip_norm, self.clip_mode)
        finite = tf.logical_and(finite, tf.math.is_finite(global_sum(value)))
        self._apply(optimizer, gradients, variables, finite)
        if self.loss_scale is not None:
            self.loss_scale.update(finite)
            aux = {**aux, "loss_scale": self.loss_scale.value}
        skipped = 1.0 - tf.cast(finite, "float32")
        return {**aux, "loss": value, "gradient_norm": norm, "skipped": skipped}

    def update_teacher(self) -> None:
        """Moves each teacher towards its student: teacher <- m teacher + (1 - m) student."""
        momentum = self.teacher_momentum_at(self.step)
        for teacher, student in self.ema_pairs:
            update_ema(teacher, student, momentum)

    def report(self, aux: Aux) -> dict[str, tf.Tensor]:
        """Counts the step and returns the scalars of `aux` as logs."""
        self.step.assign_add(1)
        return {name: promote(value) for name, value in aux.items() if value.shape.rank == 0}

    # Binding and compiling -----------------------------------------------------------------------------------

    def bind(self, run: RunInfo) -> None:
        """Tells the method about its run; once, under the strategy's scope, before the first step."""
        if self.micro_batch is not None:
            check_divides(self.micro_batch, run.global_batch // run.replicas)
        self.run = run
        self.on_bind(run)
        if self.compiled:
            if isinstance(self.optimizer, SSLOptimizer):
                self.optimizer.set_parameter_groups(self.parameter_groups)
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        if int(tf.convert_to_tensor(self.step)) == 0:
            for teacher, student in self.ema_pairs:
                copy_weights(teacher, student)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns the loss of a batch in inference mode; changes nothing."""
        views = self.make_views(data)
        value, aux = self.loss(embed(self, self.in_pieces(views), training=False), views)
        scalars = {**aux, "loss": value}.items()
        return {name: promote(scalar) for name, scalar in scalars if scalar.shape.rank == 0}

    # What leaves the method ----------------------------------------------------------------------------------

    def encoders(self) -> dict[str, keras.Model]:
        """Returns the networks to publish, by kind of input."""
        return {"image": self.backbone}

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features of images `(batch, height, width, 3)` in [0, 1] by the exported encoder."""
        return self.encoders()["image"](inputs, training=training)["features"]

    def get_config(self) -> dict[str, Any]:
        backbone = keras.saving.serialize_keras_object(self.backbone)
        config = {"backbone": backbone, "name": self.name, **self._settings}
        if self.run is not None:
            config["run"] = dataclasses.asdict(self.run)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SSLModel:
        config = dict(config)
        run = config.pop("run", None)
        config["backbone"] = keras.saving.deserialize_keras_object(config["backbone"])
        model = cls(**config)
        if run is not None:
            model.bind(RunInfo(**run))
        return model

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list[tf.Tensor],
        variables: list[keras.Variable],
        finite: tf.Tensor,
    ) -> None:
        if isinstance(optimizer, SSLOptimizer):
            optimizer.apply_if(finite, gradients, variables, reduced=True)
            return
        share = [tf.where(finite, g, tf.zeros_like(g)) / num_replicas() for g in gradients]
        optimizer.apply(share, variables)  # Keras sums over the replicas once more


def multi_crop_groups(views: Views) -> Views:
    """Returns the groups of views by size: `global`, then `local`, `local_2` and so on, as there are."""
    local = sorted(name for name in views if name.split("_")[0] == "local")
    return {name: views[name] for name in ("global", *local)}


def batch_first(x: tf.Tensor, views: int) -> tf.Tensor:
    """Turns view-major rows `(views * batch, d)` into `(batch, views, d)`."""
    return tf.transpose(tf.reshape(x, [views, -1, x.shape[-1]]), [1, 0, 2])


def embedding_std(z: tf.Tensor) -> tf.Tensor:
    """Returns the standard deviation of unit embeddings over the batch, mean over dimensions.

    About 1/sqrt(d) when they spread evenly, 0 when they have collapsed; of this replica's rows.

    Args:
        z: `(batch, d)`.
    """
    return tf.reduce_mean(tf.math.reduce_std(l2_normalize(tf.stop_gradient(z)), axis=0))


def mean_entropy(p: tf.Tensor) -> tf.Tensor:
    """Returns the entropy in nats of the rows of probabilities `p`, mean over the rows."""
    return -tf.reduce_mean(tf.reduce_sum(p * tf.math.log(p + 1e-12), -1))
