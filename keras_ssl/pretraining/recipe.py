"""What a run is: the typed settings that decide its result, and the options that do not."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

from keras_ssl.methods import METHODS
from keras_ssl.pretraining.recipes import RECIPES

PREFIXES = ("views", "optimizer", "backbone")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
TPU_PRECISIONS = ("float32", "mixed_bfloat16")
NOTHING = object()  # given for an optional number of a recipe, it switches that number off


class SettingError(ValueError):
    """A setting that does not exist or cannot be: one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings that decide the result of a run; a checkpoint belongs to one recipe.

    Attributes:
        method: str. What is learned from; see `keras_ssl.methods.METHODS`.
        backbone: str. Network whose features are kept; see `keras_ssl.backbones.names()`.
        data: str. Images: `digits`, a folder, an `.npz` file, `tfds:<name>[:split]`, or files by
            `tfrecord:<pattern>`, `tar:<pattern>` or `parquet:<pattern>`.
        data_dir: str. Where TFDS keeps its prepared data sets.
        image_size: int. Side of the images that the encoder is made for, pixels.
        canvas: int. Side of the square that large pictures are decoded to, pixels; chosen from the data if not given.
        crops: str. Views are cut from the `canvas`, or `exact` from each whole picture: all its detail, at the cost
            of decoding it at full size.
        views: str. Named recipe of views.
        epochs: int. Passes over the data.
        batch_size: int. Images in one step, over all replicas.
        optimizer: str. `sgd`, `lars`, `adamw` or `lamb`.
        learning_rate: float. Peak, for a batch of 256 images under the rule `linear`.
        learning_rate_rule: str. How the peak grows with the batch: `linear`, `sqrt` or `none`.
        end_learning_rate: float. Last value as a share of the peak.
        start_learning_rate: float. First value of the warm-up as a share of the peak.
        warmup_epochs: float. Epochs of linear warm-up.
        milestones: tuple of ints. Epochs after which the rate is multiplied by `decay`; replaces the cosine.
        decay: float. Factor at each milestone.
        weight_decay: float. Weight decay of the optimizer.
        end_weight_decay: float. Last value of a cosine ramp of the weight decay; constant if not given.
        clip_norm: float. Largest norm of the summed gradient; none if not given.
        clip_mode: str. `global` norm, or each `tensor` alone.
        precision: str. `float32`, `mixed_bfloat16`, `mixed_float16` or `float64`; with the strategy `tpu`
            `mixed_bfloat16` if not given.
        seed: int. Seed of weights, order and views.
        init: str. Zoo entry, run folder, checkpoint or `.keras` file whose weights the backbone starts from.
        method_settings: dict. Settings of the method itself.
        views_settings: dict. Changes to the recipe of views.
        optimizer_settings: dict. Settings of the optimizer itself.
        backbone_settings: dict. Settings of the backbone itself.
    """

    method: str
    data: str
    backbone: str = "resnet50"
    data_dir: str | None = None
    image_size: int = 224
    canvas: int | None = None
    crops: str = "canvas"
    views: str = "simclr"
    epochs: int = 100
    batch_size: int = 256
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    learning_rate_rule: str = "linear"
    end_learning_rate: float = 0.0
    start_learning_rate: float = 0.0
    warmup_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    weight_decay: float = 0.0
    end_weight_decay: float | None = None
    clip_norm: float | None = None
    clip_mode: str = "global"
    precision: str = "float32"
    seed: int = 0
    init: str | None = None
    method_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    views_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    backbone_settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def identity(self) -> str:
        """Returns a short hash of all settings that decide the result so far: the number of epochs may be extended."""
        settings = {**decisive(self.to_dict()), "epochs": None}
        if self.crops == "canvas":
            settings.pop("crops")  # runs that began before this setting existed go on
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The options that may change when a run is resumed: where and on what it happens, what is shown of it.

    Attributes:
        workdir: str. Folder of the run; the same command on the same folder resumes.
        strategy: str. `auto`, `cpu`, `gpu`, `mirrored`, `multiworker` or `tpu`.
        replicas: int. Devices for `mirrored`; on a machine without GPU the CPU is split into as many.
        jit: str. XLA around the step: `auto` (on for GPUs; a TPU compiles all by itself), `on`, `off`.
        views_on: str. Where the views are made: `auto`, `host` (input pipeline) or `device` (inside the step).
        input_service: str. Dispatcher HOST:PORT of input hosts that read the images; see `keras-ssl input-service`.
            Order and exactly-once are then not promised.
        steps_per_execution: int. Steps in one call of the train function; one if not given, on a TPU up to 32.
        micro_batch: int. Images of a replica that the networks see at a time, to need less memory; batch-norm is
            then over each micro-batch, the one option here that changes numbers. All at once if not given.
        probe_data: str. Other data for the monitor, in any form that `data` takes; the training data if not given.
        probe_limit: int. Images that the monitor looks at.
        monitor_every: int. Epochs between looks of the monitor; about ten looks in a run if not given; 0 for never.
        save_every: int. Steps between checkpoints; one epoch if not given.
        log_every: int. Steps between lines in `log.jsonl`; twenty lines an epoch if not given.
        dry_run: bool. Twenty steps without writing anything, then what the whole would take.
        quiet: bool. Only errors and the last line.
    """

    workdir: str | None = None
    strategy: str = "auto"
    replicas: int | None = None
    jit: str = "auto"
    views_on: str = "auto"
    input_service: str | None = None
    steps_per_execution: int | None = None
    micro_batch: int | None = None
    probe_data: str | None = None
    probe_limit: int = 2000
    monitor_every: int | None = None
    save_every: int | None = None
    log_every: int | None = None
    dry_run: bool = False
    quiet: bool = False


def choose_recipe(recipe: str | None, method: str | None) -> dict[str, Any]:
    """Returns the named recipe, or the default one of the method.

    Raises:
        SettingError: If the name is unknown, or recipe and method disagree.
    """
    if method is not None and method not in METHODS:
        raise SettingError(
            f"Expected --method to be one of {', '.join(METHODS)}. "
            f"Received: {method!r}.{suggest(method, METHODS)}"
        )
    if recipe is None and method is None:
        raise SettingError(
            "Expected --method or --recipe. Received: neither; see --help for names."
        )
    name = recipe or method
    if name not in RECIPES:
        raise SettingError(
            f"Expected --recipe to be one of {', '.join(RECIPES)}. "
            f"Received: {name!r}.{suggest(name, RECIPES)}"
        )
    if method is not None and RECIPES[name]["method"] != method:
        raise SettingError(
            f"Expected a recipe of method {method}. Received: recipe {name!r} of method "
            f"{RECIPES[name]['method']}."
        )
    return dict(RECIPES[name])


def start_from(recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the named recipe without the settings of an optimizer, backbone or views that is not used."""
    replaced = [
        prefix for prefix in PREFIXES if given.get(prefix, recipe.get(prefix)) != recipe.get(prefix)
    ]
    return {
        name: value
        for name, value in recipe.items()
        if not any(name.startswith(f"{prefix}_") for prefix in replaced)
    }


def suggest(name: str, known: Any) -> str:
    """Returns " Did you mean 'x'?" or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def resolve(**settings: Any) -> tuple[Recipe, RunOptions]:
    """Turns flat settings into a recipe and options.

    Args:
        **settings: Fields of `Recipe` and `RunOptions`; `recipe` to start from; settings of the method by their own
            names; those of views, optimizer and backbone with the prefixes `views_`, `optimizer_`, `backbone_`.
            None leaves what the recipe says; `NOTHING` puts None in its place.

    Returns:
        `(recipe, options)`.

    Raises:
        SettingError: If a name or a value is wrong.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    named = start_from(choose_recipe(given.pop("recipe", None), given.get("method")), given)
    # a flag's 1.0 is the recipe's 1: one spelling, so that the run's checkpoints know it again
    same = {name: named[name] for name, value in given.items() if named.get(name) == value}
    flat = named | given | same
    flat = {name: None if value is NOTHING else value for name, value in flat.items()}
    if "data" not in flat:
        raise SettingError(
            "Expected --data: digits, a folder, an .npz file, tfds:<name> or tar:<pattern>. Received: nothing."
        )
    recipe_names = {field.name for field in dataclasses.fields(Recipe)}
    option_names = {field.name for field in dataclasses.fields(RunOptions)}
    own = {name: flat.pop(name) for name in list(flat) if name in recipe_names}
    options = {name: flat.pop(name) for name in list(flat) if name in option_names}
    for prefix in PREFIXES:
        group = {
            name[len(prefix) + 1 :]: flat.pop(name)
            for name in list(flat)
            if name.startswith(f"{prefix}_")
        }
        own[f"{prefix}_settings"] = own.get(f"{prefix}_settings", {}) | group
    own["method_settings"] = own.get("method_settings", {}) | flat
    if "milestones" in own:
        own["milestones"] = tuple(own["milestones"])
    if options.get("strategy") == "tpu":
        own.setdefault("precision", "mixed_bfloat16")  # what a TPU multiplies in
    recipe = Recipe(**own)
    check(recipe, RunOptions(**options))
    return recipe, RunOptions(**options)


def check(recipe: Recipe, options: RunOptions) -> None:
    """Checks the values that need no TensorFlow.

    Raises:
        SettingError: With one sentence.
    """
    positive = ("image_size", "epochs", "batch_size", "learning_rate", "clip_norm")
    values = {name: getattr(recipe, name) for name in positive}
    values |= {name: getattr(options, name) for name in ("steps_per_execution", "micro_batch")}
    for name, value in values.items():
        if value is not None and not value > 0:
            raise SettingError(f"Expected {name} above 0. Received: {name}={value}.")
    if recipe.milestones and (recipe.warmup_epochs or recipe.end_learning_rate):
        raise SettingError(
            "Expected no warmup_epochs and no end_learning_rate with milestones, which replace them. Received: "
            f"warmup_epochs={recipe.warmup_epochs}, end_learning_rate={recipe.end_learning_rate}."
        )
    if options.input_service is not None and recipe.data == "array":
        raise SettingError(
            "Expected data in files with input_service: other hosts cannot read arrays of this process. Received: "
            f"arrays and input_service={options.input_service!r}; save them as .npz, or leave the service out."
        )
    choices = {
        "precision": (recipe.precision, PRECISIONS),
        "learning_rate_rule": (recipe.learning_rate_rule, ("linear", "sqrt", "none")),
        "clip_mode": (recipe.clip_mode, ("global", "tensor")),
        "crops": (recipe.crops, ("canvas", "exact")),
        "jit": (options.jit, ("auto", "on", "off")),
        "views_on": (options.views_on, ("auto", "host", "device")),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise SettingError(
                f"Expected {name} to be one of {', '.join(allowed)}. Received: {value!r}."
            )
    if options.strategy == "tpu" and recipe.precision not in TPU_PRECISIONS:
        raise SettingError(
            f"Expected --precision {' or '.join(TPU_PRECISIONS)} with --strategy tpu. "
            f"Received: {recipe.precision}."
        )
    if options.strategy == "tpu" and options.jit != "auto":
        raise SettingError(
            "Expected no --jit with --strategy tpu, where the TPU compiles the whole step itself. "
            f"Received: {options.jit}."
        )


def decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a stored recipe without `backbone_recompute`, which trades time for memory and changes no number."""
    own = {k: v for k, v in settings.get("backbone_settings", {}).items() if k != "recompute"}
    # Recipes that were written before there were exact crops do not name them.
    return {"crops": "canvas", **settings, "backbone_settings": own}


def load_recipe(workdir: Path) -> dict[str, Any] | None:
    """Returns the recipe stored in a run folder, or None."""
    path = Path(workdir) / "recipe.json"
    return json.loads(path.read_text()) if path.is_file() else None
