"""Lightly's benchmark checkpoints: one run of 100 epochs for each method, with linear and k-NN numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import one_file, resnet_payload, vit_payload

_BASE = "https://lightly-ssl-checkpoints.s3.amazonaws.com/imagenet_"
_TAIL = "/pretrain/version_0/checkpoints/epoch%3D99-step%3D{}.ckpt"
# method, linear, k-NN, folder, steps
_RESNETS = (
    ("barlow_twins", 62.9, 45.6, "resnet50_barlowtwins_2023-08-18_00-11-03", 500400),
    ("byol", 62.5, 46.0, "resnet50_byol_2024-02-14_16-10-09", 500400),
    ("dino", 68.2, 49.9, "resnet50_dino_2023-06-06_13-59-48", 1000900),
    ("moco_v2", 61.5, 41.8, "resnet50_mocov2_2024-02-18_10-29-14", 500400),
    ("simclr", 63.2, 44.8, "resnet50_simclr_2023-06-22_09-11-13", 500400),
    ("dcl", 65.1, 49.6, "resnet50_dcl_2023-07-04_16-51-40", 500400),
    ("dclw", 64.5, 48.5, "resnet50_dclw_2023-07-07_14-57-13", 500400),
    ("swav", 67.2, 49.5, "resnet50_swav_2023-05-25_08-29-14", 500400),
    ("tico", 49.7, 26.6, "resnet50_tico_2024-01-07_18-40-57", 250200),
    ("vicreg", 63.0, 46.3, "resnet50_vicreg_2023-09-11_10-53-08", 500400),
)
# name, method, backbone, linear, k-NN, path, settings, notes
_VITS = (
    (
        "vits16",
        "dino",
        "vit_small",
        73.3,
        67.5,
        "vits14_dino_2025-02-16_16-03-14" + _TAIL.format(1000900),
        {},
        "The folder says vits14, the table ViT-S/16.",
    ),
    (
        "vits16",
        "ibot",
        "vit_small",
        72.2,
        65.4,
        "vits16_ibot_2025-07-10_13-47-17" + _TAIL.format(1000900),
        {},
        "",
    ),
    (
        "vits16",
        "lejepa",
        "vit_small",
        64.0,
        47.1,
        "vits16_lejepa_2026-05-20_17-59-16/pretrain/version_0/checkpoints/"
        "epoch%3D099-val_online_cls_top1%3D0.5623.ckpt",
        {},
        "The project says that these numbers are from before a correction.",
    ),
    (
        "vitb16",
        "mae",
        "vit_base",
        46.0,
        11.2,
        "vitb16_mae_2024-02-25_19-57-30" + _TAIL.format(500400),
        {"positions": "sincos"},
        "",
    ),
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for method, linear, knn, folder, steps in _RESNETS:
        yield _entry(
            f"lightly_{method}_rn50",
            method,
            "resnet50",
            "torchvision_resnet",
            folder + _TAIL.format(steps),
            {"linear": linear, "knn": knn},
            prefixes=("backbone.",),
            payload=resnet_payload("resnet50"),
        )
    for size, method, backbone, linear, knn, path, settings, note in _VITS:
        yield _entry(
            f"lightly_{method}_{size}",
            method,
            backbone,
            "timm_vit",
            path,
            {"linear": linear, "knn": knn},
            settings=settings,
            prefixes=("backbone.vit.", "backbone."),
            payload=vit_payload(backbone),
            notes=(note,) if note else (),
            unverified=("the names of the tensors",),
        )


def _entry(
    name: str,
    method: str,
    backbone: str,
    layout: str,
    path: str,
    metrics: dict[str, float],
    **facts: Any,
) -> Published:
    return Published(
        name,
        method,
        "lightly",
        backbone,
        layout,
        "not-stated",
        one_file(_BASE + path),
        top_keys=("state_dict",),
        epochs=100,
        metrics=metrics,
        **facts,
    )
