"""BYOL's ResNets of DeepMind; TensorFlow's padding everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import one_file, resnet_payload

_BASE = "https://storage.googleapis.com/deepmind-byol/checkpoints/"
_ABLATIONS = (
    "baseline",
    "batchsize_2048",
    "batchsize_1024",
    "batchsize_512",
    "batchsize_256",
    "batchsize_128",
    "batchsize_64",
    "no_grayscale",
    "no_color",
    "crop_and_blur_only",
    "crop_only",
    "crop_and_color_only",
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    yield _entry(
        "byol_rn50", "pretrain_res50x1.pkl", 1000, {"linear": 74.4}, "about 570 MB", "resnet50", 1
    )
    yield _entry(
        "byol_rn200x2",
        "pretrain_res200x2.pkl",
        1000,
        {"linear": 79.6},
        "about 4.6 GB",
        "resnet200",
        2,
    )
    for ablation in _ABLATIONS:
        yield _entry(
            f"byol_rn50_300ep_{ablation}",
            f"ablations/res50x1_{ablation}.pkl",
            300,
            {},
            "about 640 MB",
            "resnet50",
            1,
            notes=(f"Ablation of the paper: {ablation.replace('_', ' ')}.",),
        )


def _entry(
    name: str,
    file: str,
    epochs: int,
    metrics: dict[str, float],
    size: str,
    backbone: str,
    width: int,
    notes: tuple[str, ...] = (),
) -> Published:
    return Published(
        name,
        "byol",
        "byol",
        backbone,
        "byol_haiku",
        "cc-by-nc-4.0",
        one_file(_BASE + file),
        settings={"padding": "same", **({"width": width} if width != 1 else {})},
        top_keys=("experiment_state", ""),
        container="byol pickle",
        epochs=epochs,
        preprocessing="byol",
        metrics=metrics,
        payload=resnet_payload(backbone, width),
        approximate_size=size,
        notes=(
            "The code is Apache-2.0, the weights are not. The online network is taken.",
            *(["Published numbers are rounded."] if metrics else []),
            *notes,
        ),
        unverified=("the exact beginning of the names in the file",),
    )
