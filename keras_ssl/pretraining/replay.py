"""`keras-ssl replay`: a batch again, step by step in sight, to see where NaN or infinity begins."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ssl.data import SampleStream
from keras_ssl.methods import SSLModel
from keras_ssl.pretraining import build
from keras_ssl.pretraining.bad_batches import FOLDER, batch_of_step
from keras_ssl.pretraining.recipe import Recipe, SettingError, load_recipe
from keras_ssl.pretraining.saved import SavedRun, load_saved

Batches = dict[int, dict[str, np.ndarray]]


def replay(run: str, batch: str) -> int:
    """Prints loss, gradient norm and the first tensor that is not finite, for a batch of a run.

    Args:
        run: str. Run folder.
        batch: str. Number of a step as in `log.jsonl`, or a file of `bad_batches/`. A batch that was not kept is read
            again from the data of the run.

    Returns:
        The exit code 0.

    Raises:
        SettingError: If there is no such run or batch.
    """
    folder = Path(run)
    stored = load_recipe(folder)
    if stored is None:
        raise SettingError(f"Expected a run folder. Received: {run}, which has no recipe.json.")
    recipe = Recipe(**stored["recipe"])
    batches, origin = read_batches(folder, recipe, batch)
    first = min(batches)
    saved = load_saved(folder, near=first - 1)
    print(f"weights   {_which(saved, first - 1)}")
    stream = _open(folder, recipe) if recipe.crops == "exact" else None
    for step, arrays in batches.items():
        images = arrays["images"]
        print(
            f"batch     step {step}: {len(images)} images {images.shape[1]}x{images.shape[2]}, values "
            f"{images.min()} to {images.max()}, seed {recipe.seed}, {origin}"
        )
        if stream is not None:
            where = arrays["position"]
            which = stream.records(tf.constant(where)).numpy()
            arrays["views"] = build.views_of(stream.source, saved.model, which, where, "exact")
        with build.precision_scope(recipe.precision):
            for line in trace(saved.model, arrays):
                print(line)
    return 0


def read_batches(folder: Path, recipe: Recipe, batch: str) -> tuple[Batches, str]:
    """Returns step -> arrays as `batch_of_step` gives them, and where they are from in words."""
    file = folder / FOLDER / f"step-{int(batch):012d}.json" if batch.isdecimal() else Path(batch)
    if file.is_file():
        content = json.loads(file.read_text())
        if content["images"]:
            with np.load(file.with_name(content["images"])) as arrays:
                names = ("images", "aspect", "sample_id", "position")
                kept = {
                    step: {name: arrays[f"{name}_{step}"] for name in names}
                    for step in content["steps"]
                }
            return kept, f"from {file.with_name(content['images'])}"
        steps = content["steps"]
    elif batch.isdecimal() and int(batch) > 0:
        steps = [int(batch)]
    else:
        raise SettingError(
            f"Expected the number of a step, from 1 on, or a file of {folder / FOLDER}. Received: {batch!r}."
        )
    if recipe.data == "array":
        raise SettingError(
            f"Expected a batch that was kept: the run was made from arrays in memory. Received: {batch!r}, whose "
            f"images are not in {folder / FOLDER}."
        )
    stream = _open(folder, recipe)
    return {step: batch_of_step(stream, step) for step in steps}, "read again from the data"


def _open(folder: Path, recipe: Recipe) -> SampleStream:
    stream = build.open_stream(recipe)
    source = stream.source
    if (stored := load_recipe(folder)) and stored["data"] != source.fingerprint():
        raise SettingError(
            f"Expected the images that the run in {folder} was made from. Received: others ({source.describe()}); "
            f"put the former back, or name a file of {folder / FOLDER} that holds the images themselves."
        )
    return stream


def trace(model: SSLModel, arrays: dict[str, np.ndarray]) -> list[str]:
    """Takes the method's own step without its update; returns what was seen, one line each.

    Args:
        model: SSLModel. Compiled and bound. Its state moves, its trained weights do not.
        arrays: dict as `batch_of_step` gives it; with `views` if they are not made of the images.
    """
    batch = {
        "inputs": {"image": tf.constant(arrays["images"])},
        **{name: tf.constant(arrays[name]) for name in ("aspect", "position", "sample_id")},
        **{name: arrays[name] for name in ("views",) if name in arrays},
    }
    weights = [v for v in model.variables if not _finite(v)]
    views = {name: view for name, view in model.make_views(batch).items() if name != "keys"}
    text = [
        f"views     {name} {tuple(view.shape)}, values {float(tf.reduce_min(view)):.4g} to "
        f"{float(tf.reduce_max(view)):.4g}"
        for name, view in views.items()
    ]
    if weights:
        text.append(f"before    {len(weights)} weights are not finite, first {weights[0].path}")
    with _watched(model) as (seen, gradients):
        logs = model.guarded_step(batch)  # a bad step leaves the next ones as they were
    text.append(f"loss      {float(logs['loss']):.6g}")
    broken = [path for path, gradient in gradients if not _finite(gradient)]
    text.append(
        f"gradient  norm {float(logs['gradient_norm']):.6g}; {len(broken)} of {len(gradients)} tensors not finite"
        + (f", from the input on the first is {broken[0]}, the last {broken[-1]}" if broken else "")
    )
    if seen:
        text.append(f"first     {seen[0]}")
    else:
        text.append(f"first     none: every layer's output is finite{_verdict(logs, broken)}")
    return text


def _verdict(logs: dict[str, Any], broken: list[str]) -> str:
    if broken:
        return "; it begins in the gradient"
    return "" if _finite(logs["loss"]) else "; it begins in the loss"


@contextlib.contextmanager
def _watched(model: SSLModel) -> Iterator[tuple[list[str], list[tuple[str, tf.Tensor]]]]:
    """Notes the first layer's output that is not finite, innermost first, and catches the gradients."""
    seen: list[str] = []
    gradients: list[tuple[str, tf.Tensor]] = []

    def catch(optimizer: Any, found: list, variables: list, finite: tf.Tensor) -> None:
        gradients.extend((v.path, g) for v, g in zip(variables, found, strict=True))

    layers = list(model._flatten_layers(include_self=False))
    clip_norm, model.clip_norm = model.clip_norm, None  # it would spread one NaN over all
    object.__setattr__(model, "_apply", catch)
    for layer in layers:
        object.__setattr__(layer, "call", _noting(layer, seen))
    try:
        yield seen, gradients
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")
        object.__delattr__(model, "_apply")
        model.clip_norm = clip_norm


def _noting(layer: Any, seen: list[str]) -> Callable:
    call = layer.call

    def noting(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if seen:
            return outputs
        for output in _tensors(outputs):
            if not _finite(output):
                bad = int(tf.math.count_nonzero(~tf.math.is_finite(output)))
                given = _tensors((args, kwargs))
                size = max((float(tf.reduce_max(tf.abs(x))) for x in given), default=0.0)
                came = "finite" if all(map(_finite, given)) else "not finite either"
                seen.append(
                    f"{layer.path} ({type(layer).__name__}): output {tuple(output.shape)} has {bad:,} NaN or infinite "
                    f"values of {output.shape.num_elements():,}; its input was {came}, largest {size:.4g}"
                )
                break
        return outputs

    return noting


def _tensors(values: Any) -> list[tf.Tensor]:
    return [x for x in tf.nest.flatten(values) if tf.is_tensor(x) and x.dtype.is_floating]


def _finite(value: Any) -> bool:
    value = tf.convert_to_tensor(value)
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))


def _which(saved: SavedRun, wanted: int) -> str:
    if saved.unchanged_since <= wanted <= saved.step:
        return f"those of the step, from the checkpoint of step {saved.step}"
    gap = wanted - saved.step if wanted > saved.step else saved.unchanged_since - wanted
    side = "before" if wanted > saved.step else "after"
    return f"of the nearest checkpoint, step {saved.step}: {gap} step(s) {side} those of the step"
