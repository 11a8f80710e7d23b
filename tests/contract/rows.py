"""One row for each method: how to build it small, and what should improve on one repeated batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

SIZE, BATCH = 16, 8


@dataclasses.dataclass(frozen=True)
class Row:
    """A method of the contract tests.

    Attributes:
        backbone: "resnet" or "vit".
        settings: arguments of the method.
        views: name of a recipe; made smaller by `view_changes`.
        while_learning: other arguments of the method for that; DINO's loss falls if its targets stand still.
        falls: name of the reported scalar that falls on one repeated batch.
        learning_rate: of AdamW, for that.
    """

    backbone: str
    views: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    view_changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    backbone_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    falls: str = "loss"
    while_learning: dict[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: float = 3e-3


_LOCAL = {"local_size": 8, "num_local": 2}
ROWS: dict[str, Row] = {
    "simclr": Row("resnet", "simclr_cifar", {"temperature": 0.5, "projection_dim": 8}),
    "swav": Row(
        "resnet",
        "swav_cifar",
        {
            "hidden_dim": 16,
            "projection_dim": 8,
            "num_prototypes": 12,
            "freeze_prototypes_epochs": 0.5,
            "queue_size": 2 * BATCH,
            "queue_start_epoch": 0.25,
        },
        _LOCAL,
    ),
    "byol": Row(
        "resnet",
        "byol_cifar",
        {"hidden_dim": 16, "projection_dim": 8, "teacher_momentum": 0.9},
    ),
    "dino": Row(
        "vit",
        "dino_cifar_local",
        {
            "num_prototypes": 24,
            "hidden_dim": 16,
            "bottleneck_dim": 8,
            "head_stddev": 0.0,
            "teacher_momentum": 0.9,
            "norm_last_layer": False,
            "freeze_last_layer_epochs": 0.5,
            "warmup_teacher_temperature_epochs": 1.0,
            "teacher_temperature": 0.07,
        },
        _LOCAL,
        {"drop_path": 0.2},
        while_learning={
            "teacher_momentum": 1.0,
            "center_momentum": 1.0,
            "warmup_teacher_temperature": 0.07,
        },
    ),
    "mae": Row(
        "vit",
        "mae_cifar",
        {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        backbone_settings={"positions": "sincos", "initialization": "xavier"},
    ),
    "rotnet": Row("resnet", "rotnet_cifar"),
}


def images(count: int, seed: int = 0) -> np.ndarray:
    """Returns smooth random images, uint8 (count, 16, 16, 3), each with its own colors and direction."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE)), -1)
    direction = rng.normal(size=(count, 1, 1, 2)) * 3
    phase, color = rng.uniform(0, 6, (count, 1, 1, 3)), rng.uniform(0.2, 1, (count, 1, 1, 3))
    wave = np.sin((grid[None] * direction).sum(-1, keepdims=True) + phase)
    return np.round((wave * 0.5 + 0.5) * color * 255).astype(np.uint8)


def build(
    name: str,
    *,
    optimizer: Any = None,
    seed: int = 0,
    learning: bool = False,
    **compile_settings: Any,
) -> Any:
    """Returns a small compiled method, not bound."""
    import keras

    from keras_ssl import backbones, optimizers, views
    from keras_ssl.methods import get_method

    row = ROWS[name]
    keras.utils.set_random_seed(seed)
    if row.backbone == "resnet":
        backbone = backbones.ResNet(
            blocks=(1, 1),
            bottleneck=False,
            filters=(6, 12),
            stem="cifar",
            image_size=SIZE,
            **row.backbone_settings,
        )
    else:
        backbone = backbones.ViT(
            width=12, depth=2, num_heads=2, patch_size=4, image_size=SIZE, **row.backbone_settings
        )
    changes = row.while_learning if learning else {}
    model = get_method(name)(backbone, **{**row.settings, **changes})
    recipe = views.customize(views.get(row.views), image_size=SIZE, **row.view_changes)
    optimizer = optimizer or optimizers.AdamW(row.learning_rate, weight_decay=0.0)
    model.compile(optimizer, views=recipe, seed=seed, **compile_settings)
    return model


def bind(model: Any, *, replicas: int = 1, steps_per_epoch: int = 4, epochs: int = 5) -> Any:
    """Binds a method to a run of 20 steps of one small batch."""
    from keras_ssl.methods import RunInfo

    steps = steps_per_epoch * epochs
    model.bind(RunInfo(steps_per_epoch * BATCH, steps_per_epoch, steps, BATCH, replicas))
    return model
