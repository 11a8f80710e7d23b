"""The Keras side of the contract: compile, fit, the train function, and batches of many forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_ssl import random
from keras_ssl import views as view_recipes
from keras_ssl.distribution import replica_id
from keras_ssl.methods.inputs import RunInfo, as_dataset
from keras_ssl.methods.micro_batch import PiecewiseViews, check_model
from keras_ssl.methods.scaling import LossScale

Views = Mapping[str, tf.Tensor]


class Trainer(keras.Model):
    """A `keras.Model` that trains on views of images under every strategy.

    Keras's own train function puts XLA around all replicas at once and fails with steps_per_execution under a
    strategy; this one compiles inside each replica. Nothing here knows a method.
    """

    view_spec: Mapping[str, int | None] = {}
    recipes: Mapping[str, str] = {}  # default view recipe: {"small": ..., "large": ...}
    needs_sample_id = False

    def __init__(self, *, name: str | None = None):
        # without autocast: images stay exact until the backbone normalizes them
        super().__init__(name=name or type(self).__name__.lower(), autocast=False)
        del (
            self.loss
        )  # Keras sets an attribute of this name; here `loss` is the method's mathematics
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="step"
        )
        self.run: RunInfo | None = None
        self.view_engine: Callable[..., Views] | None = None
        self.seed = 0
        self.loss_scale: LossScale | None = None
        self.clip_norm, self.clip_mode = None, "global"
        self.micro_batch: int | None = None
        self.built = True  # a method makes all its weights in `__init__` and `bind`

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        *,
        views: str | view_recipes.ViewRecipe | Callable[..., Views] | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
        clip_mode: str = "global",
        jit_compile: bool = False,
        steps_per_execution: int = 1,
        micro_batch: int | None = None,
    ) -> Trainer:
        """Sets how to train.

        Args:
            optimizer: Keras optimizer or its name. Those of `keras_ssl.optimizers` also honor the method's
                parameter groups. Defaults to `"adam"`.
            views: str, ViewRecipe or callable `(images, keys, aspect) -> views`. What the networks are shown.
                Defaults to the method's recipe for small images if the backbone is built for up to 64 pixels, else
                to the authors' ImageNet recipe, in the backbone's size.
            seed: int. Seed of all randomness of the views. Defaults to `0`.
            clip_norm: float. Largest norm of the summed gradient, or None. Defaults to `None`.
            clip_mode: str. `"global"` norm of all gradients or `"tensor"`, each alone. Defaults to `"global"`.
            jit_compile: bool. XLA around the step of each replica. Defaults to `False`.
            steps_per_execution: int. Steps in one call of the train function; must divide the steps of an epoch.
                Defaults to `1`.
            micro_batch: int. Images of a replica that the networks see at a time; must divide the replica's batch.
                Less memory, more time, the same loss over the whole batch; batch-norm is over each micro-batch.
                None: all at once. Defaults to `None`.

        Returns:
            The model itself, so that `SimCLR(...).compile(...).fit(...)` reads.

        Raises:
            ValueError: If the views do not fit the method, XLA is asked on several CPU replicas, or `micro_batch`
                does not fit the model.
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
        if micro_batch is not None:
            check_model(self, micro_batch)
        self.micro_batch = micro_batch
        with strategy.scope():
            if views is None:
                size = self.backbone.image_size
                views = self.recipes["small" if size <= 64 else "large"]
                views = view_recipes.customize(views, image_size=size)
            if isinstance(views, str):
                views = view_recipes.get(views)
            if isinstance(views, view_recipes.ViewRecipe):
                view_recipes.check(views, self.view_spec)
                views = view_recipes.ViewEngine(views)
            self.view_engine, self.seed = views, seed
            self.clip_norm, self.clip_mode = clip_norm, clip_mode
            if self.backbone.compute_dtype == "float16" and self.loss_scale is None:
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
            x: `tf.data.Dataset` of batches of images, `(images, labels)` or the library's own batches; or an array
                of images `(samples, height, width, 3)`, uint8 or float in [0, 1]. Labels are not read.
            epochs: int. Defaults to `1`.
            batch_size: int. Images in a step, for arrays only. Defaults to `256`.
            steps_per_epoch: int. Needed when the dataset does not know its length. Defaults to `None`.
            **kwargs: As for `keras.Model.fit`.

        Returns:
            The Keras history.

        Raises:
            ValueError: If the batches do not fit the method, or the length is unknown.
        """
        dataset, batch, steps = as_dataset(x, batch_size, steps_per_epoch, self.seed)
        if self.run is None:
            with self.distribute_strategy.scope():
                replicas = self.distribute_strategy.num_replicas_in_sync
                self.bind(RunInfo(steps * batch, steps, steps * epochs, batch, replicas))
        kwargs.setdefault("shuffle", False)  # Keras would warn; arrays are shuffled above
        return super().fit(dataset, epochs=epochs, steps_per_epoch=steps_per_epoch, **kwargs)

    def make_train_function(self, force: bool = False) -> Callable:
        """Returns the function of one execution: XLA inside each replica, logs averaged over them."""
        if self.train_function is not None and not force:
            return self.train_function
        strategy, executions = self.distribute_strategy, self.steps_per_execution
        step = (
            tf.function(self.guarded_step, jit_compile=True)
            if self.jit_compile
            else self.guarded_step
        )

        def one(batch: Any) -> dict[str, tf.Tensor]:
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

        @tf.function(reduce_retracing=True)
        def train(iterator: Any) -> dict[str, tf.Tensor]:
            logs = one(next(iterator))
            for _ in tf.range(executions - 1):
                skipped, loss = logs["skipped"], logs["loss"]
                logs = one(next(iterator))
                logs["skipped"] += skipped
                # A loss that was not finite stays in sight; float16's search for its scale has finite ones.
                logs["loss"] = tf.where(tf.math.is_finite(loss), logs["loss"], loss)
            return logs

        self.train_function = train
        return train

    def guarded_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Takes `train_step`, and leaves no trace of a skipped one but in the counters.

        The optimizers of this library refuse a gradient that is not finite; one of Keras gets zeros in its place. What
        the networks and the method write besides (batch statistics, teacher, queue, center) is put back here, for every
        method alike.

        Args:
            data: a batch.

        Returns:
            The logs, with `"skipped"`: 1.0 if loss or gradient was not finite, else 0.0.
        """
        counters = [self.step, *(self.loss_scale.variables if self.loss_scale is not None else [])]
        counted = {id(variable) for variable in counters}
        state = [v for v in self.non_trainable_variables if id(v) not in counted]
        before = [tf.convert_to_tensor(variable) for variable in state]
        logs = self.train_step(data)
        logs.setdefault("skipped", tf.zeros(()))
        good = tf.equal(logs["skipped"], 0.0)
        for variable, old in zip(state, before, strict=True):
            variable.assign(tf.where(good, tf.convert_to_tensor(variable), old))
        return logs

    def make_views(self, data: Any) -> Views:
        """Returns the groups of views of a batch, plus `keys` uint32 `(batch, 2)`.

        With `micro_batch` nothing is made yet: `gradient_step` makes the views of one micro-batch at a time, and
        reading them here makes those of the whole batch.
        """
        batch = self._as_batch(data)
        if "views" in batch:
            return batch["views"]
        sources = {
            "keys": random.sample_keys(self.seed, batch["position"]),
            "image": batch["inputs"]["image"],
        }
        if batch.get("aspect") is not None:
            sources["aspect"] = batch["aspect"]

        def make(sources: dict[str, tf.Tensor]) -> Views:
            return self.view_engine(sources["image"], sources["keys"], sources.get("aspect"))

        if self.micro_batch is None:
            return make(sources)
        return PiecewiseViews(sources, make, self.micro_batch)

    def in_pieces(self, views: Views) -> Views:
        """Returns views that can be had by micro-batches, where the model was compiled with those."""
        if self.micro_batch is None or isinstance(views, PiecewiseViews):
            return views
        groups = tuple(name for name in views if name != "keys")  # local_2, local_3 among them
        return PiecewiseViews(dict(views), dict, self.micro_batch, view_major=groups)

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
