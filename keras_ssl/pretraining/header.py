"""The first lines of a run: what is really on."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

import keras_ssl
from keras_ssl import views
from keras_ssl.pretraining.build import build_views, parameter_count

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run


def lines(run: Run, restored: dict[str, Any] | None) -> list[str]:
    """Returns the lines that a run begins with.

    Args:
        run: Run. Set up, not yet started.
        restored: dict. Manifest of the checkpoint that the run goes on from, or None.
    """
    recipe, stream, model = run.recipe, run.stream, run.model
    devices = [device.device_type for device in tf.config.list_logical_devices()]
    counts = ", ".join(f"{devices.count(kind)} {kind}" for kind in sorted(set(devices)))
    where = "the input pipeline" if run.views_on_host else "the step"
    text = [
        f"keras_ssl {keras_ssl.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}",
        f"devices   {counts}; {type(run.strategy).__name__} with {run.replicas} replica(s)",
        f"compute   {recipe.precision}; XLA {'on, in each replica' if run.jit else 'off'}; "
        f"{run.options.steps_per_execution} step(s) in a call",
        f"data      {stream.source.describe()}",
        f"views     {views.describe(build_views(recipe))}; made in {where}",
        f"method    {type(model).__name__} on {recipe.backbone}: "
        f"{parameter_count(model):,} trained parameters, {parameter_count(model.backbone):,} in the backbone",
        f"schedule  {recipe.epochs} epochs of {stream.steps_per_epoch} steps, batch {recipe.batch_size}, "
        f"{recipe.optimizer}, peak learning rate {_peak(run):.4g}, seed {recipe.seed}",
        f"folder    {run.workdir or 'none: a dry run'}",
    ]
    if not getattr(model.backbone, "replica_exact", True) and run.replicas > 1:
        text.append(
            "note      this backbone brings its own dropout or batch-norm: not replica-exact"
        )
    for damaged in restored.get("damaged", ()) if restored else ():
        text.append(f"damaged   {damaged}; set aside, the checkpoint before it is used")
    if restored is not None:
        text.append(f"resumes   after step {restored['step']} of {run.total_steps}")
        if run.extended_from not in (None, recipe.epochs):
            text.append(
                f"extends   the run from {run.extended_from} to {recipe.epochs} epochs; schedules follow the new length"
            )
    return text


def _peak(run: Run) -> float:
    rate = run.model.optimizer._learning_rate
    return float(getattr(rate, "peak", 0.0))
