"""The first lines of a run: what is really on."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

import keras_ssl
from keras_ssl import views
from keras_ssl.pretraining.build import build_views, parameter_count
from keras_ssl.pretraining.compute import padding_note
from keras_ssl.views import compiled

if TYPE_CHECKING:
    from keras_ssl.pretraining.run import Run


def lines(run: Run, restored: dict[str, Any] | None) -> list[str]:
    """Returns the lines that a run begins with.

    Args:
        run: Run. Set up, not yet started.
        restored: dict. Manifest of the checkpoint that the run goes on from, or None.
    """
    recipe, stream, model = run.recipe, run.stream, run.model
    on = compute(run)
    devices = [device.device_type for device in tf.config.list_logical_devices()]
    counts = ", ".join(f"{devices.count(kind)} {kind}" for kind in sorted(set(devices)))
    service = run.options.input_service
    readers = f"the input service at {service}, in order of arrival" if service else "this process"
    cut = "cut from whole pictures, " if recipe.crops == "exact" else ""
    text = [
        f"keras_ssl {keras_ssl.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}",
        f"devices   {counts}; {type(run.strategy).__name__} with {run.replicas} replica(s)",
        f"compute   {on['precision']}; XLA {on['xla']}; {on['steps_per_execution']} step(s) in a call",
        f"data      {stream.source.describe()}; read by {readers}",
        f"views     {views.describe(build_views(recipe))}; {cut}made in {on['views']}",
        f"method    {type(model).__name__} on {recipe.backbone}: "
        f"{parameter_count(model):,} trained parameters, {parameter_count(model.backbone):,} in the backbone",
        f"schedule  {recipe.epochs} epochs of {stream.steps_per_epoch} steps, batch {recipe.batch_size}, "
        f"{recipe.optimizer}, peak learning rate {_peak(run):.4g}, seed {recipe.seed}",
        f"folder    {run.workdir or 'none: a dry run'}",
    ]
    if run.options.micro_batch is not None:
        text.append(
            f"memory    micro-batches of {run.options.micro_batch} images; batch-norm, if any, is over each of them"
        )
    if not getattr(model.backbone, "replica_exact", True) and run.replicas > 1:
        text.append(
            "note      this backbone brings its own dropout or batch-norm: not replica-exact"
        )
    padding = padding_note(recipe.batch_size, run.replicas)
    if run.compute.device == "tpu" and padding:
        text.append(f"note      {padding}")
    for damaged in restored.get("damaged", ()) if restored else ():
        text.append(f"damaged   {damaged}; set aside, the checkpoint before it is used")
    if restored is not None:
        text.append(f"resumes   after step {restored['step']} of {run.total_steps}")
        if run.extended_from not in (None, recipe.epochs):
            text.append(
                f"extends   the run from {run.extended_from} to {recipe.epochs} epochs; schedules follow the new length"
            )
    return text


def compute(run: Run) -> dict[str, Any]:
    """Returns what the steps are really carried out with; the log's first event holds it too.

    Args:
        run: Run. Set up: what Keras made of the settings counts, not the settings.

    Returns:
        dict of plain values: `device`, `replicas`, `strategy`, `precision` of the backbone, `xla`,
        `steps_per_execution`, `views`, and the versions.
    """
    pipeline = "the input service" if run.options.input_service else "the input pipeline"
    xla = "on, in each replica" if run.model.jit_compile else "off"
    if run.compute.device == "tpu":
        xla = "on, the TPU compiles the whole step"
    groups = run.model.view_engine.recipe.groups.values()
    on_cpu = run.compute.views_on_host or run.compute.device == "cpu"
    if not run.model.jit_compile and on_cpu and any(map(compiled.applies, groups)):
        xla += f", but for views from {compiled.MIN_SIZE} pixels on"
    return {
        "device": run.compute.device,
        "replicas": run.replicas,
        "strategy": type(run.strategy).__name__,
        "precision": run.model.backbone.dtype_policy.name,
        "xla": xla,
        "steps_per_execution": run.model.steps_per_execution,
        "views": pipeline if run.compute.views_on_host else "the step",
        "keras_ssl": keras_ssl.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _peak(run: Run) -> float:
    rate = run.model.optimizer._learning_rate
    return float(getattr(rate, "peak", 0.0))
