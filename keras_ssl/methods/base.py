"""The training contract that every method keeps: the verbs its `train_step` is written in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl.distribution import global_sum, num_replicas, replica_id
from keras_ssl.layers import clone_frozen, copy_weights, update_ema
from keras_ssl.methods.scaling import LossScale, clip_gradients
from keras_ssl.optimizers import ParameterGroup, SSLOptimizer
from keras_ssl.views import ViewEngine, ViewRecipe, check_recipe, get_recipe

Views = dict[str, tf.Tensor]
Embeddings = dict[str, tf.Tensor]
Aux = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a method learns about the run when it is bound to it.

    Attributes:
        num_samples: int. Images in the source.
        steps_per_epoch: int. Steps of one epoch.
        total_steps: int. Steps of the whole run; schedules end there.
        global_batch: int. Images in one step over all replicas.
        replicas: int. Replicas in sync.
    """

    num_samples: int
    steps_per_epoch: int
    total_steps: int
    global_batch: int
    replicas: int = 1


class SSLModel(keras.Model):
    """Base class of the methods: a `keras.Model` whose `train_step` learns from images alone.

    A subclass declares `view_spec`, `recipes` and `exported`, builds its heads in `__init__`, writes `embed` and
    `loss`, and overrides `train_step` with the order of its paper.

    Batches: a dict of `"inputs"` {"image": uint8 or float `(batch, height, width, 3)`}, `"position"` int64
    `(batch,)`, `"sample_id"`, or the same with ready-made `"views"`; a tensor of images; or a tuple whose first
    entry is one. Labels are never read.

    Args:
        backbone: Backbone. Maps RGB in [0, 1] to {"features": `(batch, feature_dim)`, ...}.
        name: str. Defaults to the class name.
    """

    view_spec: Mapping[str, int | None] = {}
    recipes: Mapping[str, str] = {}  # default view recipe: {"small": ..., "large": ...}
    needs_sample_id = False
    exported = "student"

    def __init__(self, *, backbone: keras.Model, name: str | None = None):
        super().__init__(name=name)
        del (
            self.loss
        )  # Keras sets an attribute of this name; here `loss` is the method's mathematics
        self.backbone = backbone
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="step"
        )
        self.run: RunInfo | None = None
        self.view_engine: Callable[..., Views] | None = None
        self.seed = 0
        self.loss_scale: LossScale | None = None

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

    def teacher_momentum_at(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the teacher momentum m at this step, in [0, 1]."""
        raise TypeError(
            f"{type(self).__name__} has a teacher but does not define teacher_momentum_at(step)."
        )

    def trivial_loss(self) -> dict[str, float]:
        """Returns the values of the loss that mean nothing is learned, by name, for the doctor."""
        return {}

    # The verbs of a training step ----------------------------------------------------------------------------

    def make_views(self, data: Any) -> Views:
        """Returns the groups of views of a batch, plus `keys` uint32 `(batch, 2)`."""
        batch = self._as_batch(data)
        if "views" in batch:
            return batch["views"]
        keys = random.sample_keys(self.seed, batch["position"])
        return self.view_engine(batch["inputs"]["image"], keys, batch.get("aspect"))

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

        The gradient is summed over the replicas first; clipping and the check for overflow act on the sum.

        Args:
            views: dict from `make_views`.
            loss: callable `(embeddings, views) -> (scalar, aux)`. Defaults to `self.loss`.
            variables: list of variables to train. Defaults to all trainable ones.
            optimizer: Keras optimizer. Defaults to the compiled one.

        Returns:
            dict. `aux` of the loss plus `"loss"` and `"gradient_norm"` (and `"loss_scale"` in float16), scalars.
        """
        loss = loss or self.loss
        optimizer = optimizer or self.optimizer
        variables = self.trainable_variables if variables is None else variables
        with tf.GradientTape() as tape:
            value, aux = loss(self.embed(views, training=True), views)
            total = value + sum(tf.cast(term, value.dtype) for term in self.losses)
            objective = total / num_replicas()
            if self.loss_scale is not None:
                objective = self.loss_scale.scale(objective)
        gradients = [
            tf.zeros_like(variable.value) if gradient is None else tf.convert_to_tensor(gradient)
            for gradient, variable in zip(
                tape.gradient(objective, [variable.value for variable in variables]),
                variables,
                strict=True,
            )
        ]
        gradients = [global_sum(gradient) for gradient in gradients]
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscale(gradients)
        gradients, norm, finite = clip_gradients(gradients, self.clip_norm, self.clip_mode)
        self._apply(optimizer, gradients, variables, finite)
        if self.loss_scale is not None:
            self.loss_scale.update(finite)
            aux = {**aux, "loss_scale": self.loss_scale.value}
        return {**aux, "loss": value, "gradient_norm": norm}

    def update_teacher(self) -> None:
        """Moves each teacher towards its student: teacher <- m teacher + (1 - m) student."""
        momentum = self.teacher_momentum_at(self.step)
        for teacher, student in self.ema_pairs:
            update_ema(teacher, student, momentum)

    def report(self, aux: Aux) -> dict[str, tf.Tensor]:
        """Counts the step and returns the scalars of `aux` as logs."""
        self.step.assign_add(1)
        return {
            name: tf.cast(value, "float32") for name, value in aux.items() if value.shape.rank == 0
        }

    # Binding and compiling -----------------------------------------------------------------------------------

    def bind(self, run: RunInfo) -> None:
        """Tells the method about its run; once, under the strategy's scope, before the first step."""
        self.run = run
        self.on_bind(run)
        if isinstance(self.optimizer, SSLOptimizer):
            self.optimizer.set_parameter_groups(self.parameter_groups)
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        if int(self.step) == 0:
            for teacher, student in self.ema_pairs:
                copy_weights(teacher, student)

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        *,
        views: str | ViewRecipe | Callable[..., Views] | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
        clip_mode: str = "global",
        jit_compile: bool = False,
        steps_per_execution: int = 1,
    ) -> SSLModel:
        """Sets how to train.

        Args:
            optimizer: Keras optimizer or its name. Those of `keras_ssl.optimizers` also honor the method's parameter groups.
                Defaults to `"adam"`.
            views: str, ViewRecipe or callable `(images, keys, aspect) -> views`. What the networks are shown. Defaults to the
                method's recipe for small images up to 64 pixels, else to the authors' ImageNet recipe.
            seed: int. Seed of all randomness of the views. Defaults to `0`.
            clip_norm: float. Largest norm of the summed gradient, or None. Defaults to `None`.
            clip_mode: str. `"global"` norm of all gradients or `"tensor"`, each alone. Defaults to `"global"`.
            jit_compile: bool. XLA around the step of each replica. Defaults to `False`.
            steps_per_execution: int. Steps in one call of the train function; must divide the steps of an epoch. Defaults to `1`.

        Returns:
            The model itself, so that `SimCLR(...).compile(...).fit(...)` reads.

        Raises:
            ValueError: If the views do not fit the method, or XLA is asked on several CPU replicas.
        """
        if clip_mode not in ("global", "tensor"):
            raise ValueError(
                f"Expected clip_mode to be 'global' or 'tensor'. Received: clip_mode={clip_mode!r}"
            )
        strategy = self.distribute_strategy
        if (
            jit_compile
            and strategy.num_replicas_in_sync > 1
            and not tf.config.list_physical_devices("GPU")
        ):
            raise ValueError(
                "Expected jit_compile=False with several CPU replicas: XLA cannot compile their collectives."
            )
        with strategy.scope():
            if views is None:
                views = self.recipes["small" if max(self.backbone.image_size) <= 64 else "large"]
            if isinstance(views, str):
                views = get_recipe(views)
            if isinstance(views, ViewRecipe):
                check_recipe(views, self.view_spec)
                views = ViewEngine(views)
            self.view_engine, self.seed = views, seed
            self.clip_norm, self.clip_mode = clip_norm, clip_mode
            if self.dtype_policy.name == "mixed_float16" and self.loss_scale is None:
                self.loss_scale = LossScale()
            super().compile(
                optimizer=optimizer,
                jit_compile=jit_compile,
                steps_per_execution=steps_per_execution,
                auto_scale_loss=False,
            )
        return self

    def fit(
        self,
        x: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 256,
        steps_per_epoch: int | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains on images, as `keras.Model.fit` does.

        Args:
            x: `tf.data.Dataset` of batches of images, `(images, labels)` or the library's own batches; or an array of images
                `(samples, height, width, 3)`, uint8 or float in [0, 1]. Labels are not read.
            epochs: int. Defaults to `1`.
            batch_size: int. Images in a step, for arrays only. Defaults to `256`.
            steps_per_epoch: int. Needed when the dataset does not know its length. Defaults to `None`.
            **kwargs: As for `keras.Model.fit`.

        Returns:
            The Keras history.

        Raises:
            ValueError: If the batches do not fit the method, or the length is unknown.
        """
        dataset, batch, steps = _as_dataset(x, batch_size, steps_per_epoch, self.seed)
        if self.run is None:
            with self.distribute_strategy.scope():
                replicas = self.distribute_strategy.num_replicas_in_sync
                self.bind(RunInfo(steps * batch, steps, steps * epochs, batch, replicas))
        return super().fit(dataset, epochs=epochs, steps_per_epoch=steps_per_epoch, **kwargs)

    def make_train_function(self, force: bool = False) -> Callable:
        """Returns the function of one execution: XLA inside each replica, logs averaged over them."""
        if self.train_function is not None and not force:
            return self.train_function
        strategy, executions = self.distribute_strategy, self.steps_per_execution
        step = (
            tf.function(self.train_step, jit_compile=True) if self.jit_compile else self.train_step
        )

        def one(batch: Any) -> dict[str, tf.Tensor]:
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        @tf.function(reduce_retracing=True)
        def train(iterator: Any) -> dict[str, tf.Tensor]:
            logs = one(next(iterator))
            for _ in tf.range(executions - 1):
                logs = one(next(iterator))
            return logs

        self.train_function = train
        return train

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Returns the loss of a batch in inference mode; changes nothing."""
        views = self.make_views(data)
        value, aux = self.loss(self.embed(views, training=False), views)
        return {
            name: tf.cast(scalar, "float32")
            for name, scalar in {**aux, "loss": value}.items()
            if scalar.shape.rank == 0
        }

    # What leaves the method ----------------------------------------------------------------------------------

    def encoders(self) -> dict[str, keras.Model]:
        """Returns the networks to publish, by kind of input."""
        return {"image": self.backbone}

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features of images `(batch, height, width, 3)` in [0, 1] by the exported encoder."""
        return self.encoders()["image"](inputs, training=training)["features"]

    def get_config(self) -> dict[str, Any]:
        config = {"backbone": keras.saving.serialize_keras_object(self.backbone), "name": self.name}
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

    # Internals -----------------------------------------------------------------------------------------------

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing to build: all weights exist after `__init__` and `bind`."""

    def _as_batch(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping):
            return dict(data)
        images = data[0] if isinstance(data, tuple | list) else data
        if self.needs_sample_id:
            raise ValueError(
                f"Expected batches with `sample_id` for {type(self).__name__}: it keeps one record for each image. "
                "Received: images alone; use keras_ssl.pretrain or keras_ssl.data.SampleStream."
            )
        rows = tf.range(tf.shape(images)[0], dtype=tf.int32)
        first = replica_id() * tf.shape(images)[0]
        position = self.step.value * self.run.global_batch + tf.cast(first + rows, tf.int64)
        return {"inputs": {"image": images}, "position": position}

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: list[tf.Tensor],
        variables: list[keras.Variable],
        finite: tf.Tensor,
    ) -> None:
        share = [gradient / num_replicas() for gradient in gradients]  # Keras sums them again
        if isinstance(optimizer, SSLOptimizer):
            optimizer.apply_if(finite, share, variables)
        else:
            optimizer.apply([tf.where(finite, g, tf.zeros_like(g)) for g in share], variables)


def make_teacher(student: keras.layers.Layer) -> keras.layers.Layer:
    """Returns an exact copy of the student that no optimizer touches; its batch-norm still follows `training`."""
    return clone_frozen(student)


def _as_dataset(
    x: Any, batch_size: int, steps_per_epoch: int | None, seed: int
) -> tuple[tf.data.Dataset, int, int]:
    """Returns the dataset, its batch size and the steps of an epoch."""
    if not isinstance(x, tf.data.Dataset):
        if getattr(x, "ndim", 0) != 4 or len(x) < batch_size:
            raise ValueError(
                f"Expected images (samples, height, width, 3) with at least batch_size={batch_size} samples. "
                f"Received: {type(x).__name__} of shape {getattr(x, 'shape', None)}"
            )
        dataset = (
            tf.data.Dataset.from_tensor_slices(x)
            .shuffle(len(x), seed=seed)
            .batch(batch_size, drop_remainder=True)
        )
        return dataset.prefetch(2), batch_size, steps_per_epoch or len(x) // batch_size
    element = next(iter(x.take(1)), None)
    if element is None:
        raise ValueError("Expected a dataset with at least one batch. Received: an empty one.")
    image = tf.nest.flatten(
        element["inputs"] if isinstance(element, Mapping) and "inputs" in element else element
    )[0]
    if image.shape.rank != 4:
        raise ValueError(
            f"Expected batches of images (batch, height, width, 3). Received: shape {tuple(image.shape)}"
        )
    steps = steps_per_epoch or int(x.cardinality())
    if steps < 1:
        raise ValueError(
            f"Expected steps_per_epoch for a dataset of unknown length. Received: steps_per_epoch={steps_per_epoch}"
        )
    return x, int(image.shape[0]), steps
