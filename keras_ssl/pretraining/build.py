"""From a recipe to objects: precision, optimizer, model, batches."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_ssl import backbones, optimizers, random, views
from keras_ssl.data import EncodedSource, SampleStream, Source, open_source, service
from keras_ssl.methods import RunInfo, SSLModel, get_method
from keras_ssl.pretraining.recipe import Recipe, SettingError, suggest

OPTIMIZERS = {
    "sgd": optimizers.SGD,
    "lars": optimizers.LARS,
    "adamw": optimizers.AdamW,
    "lamb": optimizers.LAMB,
}


@contextlib.contextmanager
def precision_scope(precision: str) -> Iterator[None]:
    """Sets Keras's precision for the time of a run.

    Args:
        precision: str. `"float32"`, `"float64"`, `"mixed_bfloat16"` or `"mixed_float16"`.
    """
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    try:
        if precision == "float64":
            keras.config.set_floatx("float64")
        keras.config.set_dtype_policy(precision)
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def settings_of(target: Callable, *, without: tuple[str, ...]) -> dict[str, inspect.Parameter]:
    """Returns the keyword settings that a class or function takes, by name."""
    function = target.__init__ if inspect.isclass(target) else target
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        name: parameter
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items()
        if parameter.kind in kinds and name not in ("self", *without)
    }


def method_settings(name: str) -> dict[str, inspect.Parameter]:
    """Returns the settings of a method, read off its own signature."""
    return settings_of(get_method(name), without=("backbone", "name"))


def view_settings() -> dict[str, inspect.Parameter]:
    """Returns the changes that one can make to a recipe of views."""
    return settings_of(views.customize, without=("recipe", "image_size"))


def optimizer_settings(name: str) -> dict[str, inspect.Parameter]:
    """Returns the settings of an optimizer, read off its own signature."""
    if name not in OPTIMIZERS:
        raise SettingError(
            f"Expected --optimizer to be one of {', '.join(OPTIMIZERS)}. Received: {name!r}."
            f"{suggest(name, OPTIMIZERS)}"
        )
    return settings_of(OPTIMIZERS[name], without=("learning_rate", "weight_decay", "name"))


def backbone_class(name: str) -> type:
    """Returns the class of a backbone; its docstring explains the settings."""
    if ":" in name:
        return backbones.AdaptedBackbone
    if name not in backbones.BACKBONES:
        raise SettingError(
            f"Expected --backbone to be one of {', '.join(backbones.names())}, or keras_applications:NAME, "
            f"keras_hub:NAME, keras_cv:NAME. Received: {name!r}.{suggest(name, backbones.names())}"
        )
    return backbones.BACKBONES[name][0]


def backbone_settings(name: str) -> dict[str, inspect.Parameter]:
    """Returns the settings of a backbone, read off its class; those that its name fixes are left out."""
    _, fixed = backbones.BACKBONES.get(name, (None, {}))
    return settings_of(
        backbone_class(name), without=("image_size", "name", "source", "settings", *fixed)
    )


def check_settings(recipe: Recipe) -> None:
    """Checks the settings of method, views, optimizer and backbone against their signatures.

    Raises:
        SettingError: With one sentence that names the wrong setting.
    """
    groups = {
        "method": (method_settings(recipe.method), recipe.method_settings, ""),
        "views": (view_settings(), recipe.views_settings, "views_"),
        "optimizer": (
            optimizer_settings(recipe.optimizer),
            recipe.optimizer_settings,
            "optimizer_",
        ),
        "backbone": (backbone_settings(recipe.backbone), recipe.backbone_settings, "backbone_"),
    }
    for group, (known, given, prefix) in groups.items():
        for name in given:
            if name not in known:
                own = getattr(recipe, group)
                raise SettingError(
                    f"Expected a setting of {group} {own!r}: "
                    f"{', '.join(prefix + key for key in known) or 'it has none'}. "
                    f"Received: {prefix}{name}.{suggest(name, known)}"
                )


def build_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Returns the optimizer with its schedules over the whole run."""
    total = recipe.epochs * steps_per_epoch
    peak = optimizers.scale_learning_rate(
        recipe.learning_rate, recipe.batch_size, rule=recipe.learning_rate_rule
    )
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if recipe.milestones:
        rate = optimizers.StepDecay(
            peak,
            [epoch * steps_per_epoch for epoch in recipe.milestones],
            factor=recipe.decay,
        )
    else:
        rate = optimizers.WarmupCosine(
            peak,
            total,
            warmup_steps=min(warmup, max(total - 1, 0)),
            end=peak * recipe.end_learning_rate,
            start=peak * recipe.start_learning_rate,
        )
    decay: Any = recipe.weight_decay
    if recipe.end_weight_decay is not None:
        decay = optimizers.CosineRamp(recipe.weight_decay, recipe.end_weight_decay, total)
    return OPTIMIZERS[recipe.optimizer](
        learning_rate=rate, weight_decay=decay, **recipe.optimizer_settings
    )


def build_views(recipe: Recipe) -> views.ViewRecipe:
    """Returns the recipe of views with the run's changes."""
    chosen, settings = views.get(recipe.views), dict(recipe.views_settings)
    own = recipe.image_size == views.main_size(chosen)
    if settings.get("crops") is not None:  # they have counts of their own, and the size must agree
        settings["num_local"], own = settings.get("num_local") or None, False  # a recipe's 0 may go
    return views.customize(chosen, image_size=None if own else recipe.image_size, **settings)


def build_model(
    recipe: Recipe,
    stream: SampleStream,
    *,
    jit: bool,
    steps_per_execution: int,
    micro_batch: int | None = None,
) -> SSLModel:
    """Returns the method, compiled and bound to the run. Call it in the strategy's scope."""
    backbone = backbones.build(
        recipe.backbone, image_size=recipe.image_size, **recipe.backbone_settings
    )
    model = get_method(recipe.method)(backbone=backbone, **recipe.method_settings)
    model.compile(
        build_optimizer(recipe, stream.steps_per_epoch),
        views=build_views(recipe),
        seed=recipe.seed,
        clip_norm=recipe.clip_norm,
        clip_mode=recipe.clip_mode,
        jit_compile=jit,
        steps_per_execution=steps_per_execution,
        micro_batch=micro_batch,
    )
    model.bind(
        RunInfo(
            num_samples=stream.source.num_samples,
            steps_per_epoch=stream.steps_per_epoch,
            total_steps=recipe.epochs * stream.steps_per_epoch,
            global_batch=recipe.batch_size,
            replicas=model.distribute_strategy.num_replicas_in_sync,
        )
    )
    return model


def open_stream(
    recipe: Recipe, *, arrays: Any = None, quarantine: Path | None = None
) -> SampleStream:
    """Returns the numbered samples of a run.

    Args:
        recipe: Recipe.
        arrays: images or (images, labels), when the data are arrays and not a name. Defaults to `None`.
        quarantine: Path. Where broken images are listed. Defaults to `None`.

    Raises:
        SettingError: If crops are to be exact and the data are no encoded pictures.
    """
    source = open_source(
        recipe.data if arrays is None else arrays,
        data_dir=recipe.data_dir,
        canvas=recipe.canvas or "auto",
        view_size=recipe.image_size,
        quarantine=quarantine,
    )
    if recipe.crops == "exact" and not isinstance(source, EncodedSource):
        raise SettingError(
            f"Expected encoded pictures with --crops exact. Received: {source.describe()}; leave it out."
        )
    return SampleStream(source, recipe.batch_size, seed=recipe.seed)


def build_batches(
    stream: SampleStream,
    model: SSLModel,
    strategy: tf.distribute.Strategy,
    *,
    start_step: int,
    views_on_host: bool,
    input_service: str | None = None,
    crops: str = "canvas",
) -> Iterator[Any]:
    """Returns the iterator of distributed batches from a step on, read here or by an input service."""
    engine = views.ViewEngine(model.view_engine.recipe, kernel="host")
    cut = views.ExactCrops(engine.recipe, model.seed) if crops == "exact" else None

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        dataset = stream.dataset(
            start_step=start_step,
            per_replica_batch=context.get_per_replica_batch_size(stream.global_batch_size),
            num_workers=context.num_input_pipelines,
            worker_index=context.input_pipeline_id,
            remote=input_service is not None,
            crops=cut,
        )
        if views_on_host:
            dataset = dataset.map(
                lambda batch: on_host(batch, engine, model.seed), num_parallel_calls=2
            )
        if input_service is not None:
            dataset = service.through_service(dataset, input_service)
        return dataset.prefetch(2)

    return iter(strategy.distribute_datasets_from_function(make))


def on_host(batch: dict[str, Any], engine: views.ViewEngine, seed: int) -> dict[str, Any]:
    """Returns the batch with its views in place of its images or crops."""
    keys = random.sample_keys(seed, batch["position"])
    if "crops" in batch:
        made = engine.finish(batch["crops"], keys)
    else:
        made = engine(batch["inputs"]["image"], keys, batch["aspect"])
    used = ("inputs", "aspect", "crops")
    return {**{name: value for name, value in batch.items() if name not in used}, "views": made}


def views_of(
    source: Source, model: SSLModel, records: np.ndarray, positions: np.ndarray, crops: str
) -> dict[str, tf.Tensor]:
    """Returns the views that records have at positions, as `build_batches` has them made.

    Args:
        source: Source.
        model: SSLModel.
        records: int64 `(batch,)`.
        positions: int64 `(batch,)`.
        crops: str. `"canvas"` or `"exact"`.
    """
    keys = random.sample_keys(model.seed, tf.constant(positions, tf.int64))
    if crops == "exact":
        cut = views.ExactCrops(model.view_engine.recipe, model.seed)
        draws = [drawn.numpy() for drawn in cut.draws(tf.constant(positions, tf.int64))]
        made, _ = source.read_crops(cut, draws, records, positions)
        return model.view_engine.finish(dict(zip(cut.groups, made, strict=True)), keys)
    images, aspect, _ = source.read_batch(records, positions)
    return model.view_engine(tf.constant(images), keys, tf.constant(aspect))


def parameter_count(model: keras.Model) -> int:
    """Returns the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)
