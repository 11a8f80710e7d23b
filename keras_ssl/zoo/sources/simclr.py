"""SimCLR's ResNets, versions 1 and 2, as TensorFlow 1 checkpoints and as SavedModels of TensorFlow 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ssl.zoo.published import File, Published

_V2 = "https://storage.googleapis.com/simclr-checkpoints/simclrv2/"
_TF2 = "https://storage.googleapis.com/simclr-checkpoints-tf2/"
_DATA = ".data-00000-of-00001"
# Steps in the names of the checkpoints.
_CATEGORIES = {
    "pretrained": 250228,
    "finetuned_1pct": 751,
    "finetuned_10pct": 3754,
    "finetuned_100pct": 37535,
}
# depth, width, selective kernels, millions of parameters, top-1: linear, fine-tuned on 1 %, 10 %, 100 %
_MODELS = (
    (50, 1, 0, 24, 71.7, 57.9, 68.4, 76.3),
    (50, 1, 1, 35, 74.6, 64.5, 72.1, 78.7),
    (50, 2, 0, 94, 75.6, 66.3, 73.9, 79.1),
    (50, 2, 1, 140, 77.7, 70.6, 77.0, 81.3),
    (101, 1, 0, 43, 73.6, 62.1, 71.4, 78.2),
    (101, 1, 1, 65, 76.3, 68.3, 75.1, 80.6),
    (101, 2, 0, 170, 77.0, 69.1, 75.8, 80.7),
    (101, 2, 1, 257, 79.0, 73.2, 78.8, 82.4),
    (152, 1, 0, 58, 74.5, 64.0, 73.0, 79.3),
    (152, 1, 1, 89, 77.2, 70.0, 76.5, 81.3),
    (152, 2, 0, 233, 77.4, 70.2, 76.6, 81.1),
    (152, 2, 1, 354, 79.4, 74.2, 79.4, 82.9),
    (152, 3, 1, 795, 79.8, 74.9, 80.1, 83.1),
)
_LICENCE = "that the repository's licence, Apache-2.0, covers the weights"


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for depth, width, sk, millions, *accuracies in _MODELS:
        model = f"r{depth}_{width}x_sk{sk}"
        name = f"simclr_v2_rn{depth}{f'w{width}' if width > 1 else ''}{'_sk' if sk else ''}"
        settings = _settings(width, sk)
        for (category, step), accuracy in zip(_CATEGORIES.items(), accuracies, strict=True):
            tuned = category != "pretrained"
            yield _entry(
                f"{name}_{category}" if tuned else name,
                "simclr_v2",
                f"resnet{depth}",
                settings,
                _tf1(f"{_V2}{category}/{model}/model.ckpt-{step}"),
                millions,
                {f"top1_{category}" if tuned else "linear": accuracy},
                unverified=(_LICENCE, "the addresses: the buckets are official, this form is not"),
                head="" if tuned else "simclr",
                notes=("Fine-tuned with labels.",) if tuned else (),
            )
        yield _entry(
            f"{name}_tf2",
            "simclr_v2",
            f"resnet{depth}",
            settings,
            _saved_model(f"{_TF2}simclrv2/pretrained/{model}/saved_model/"),
            millions,
            {"linear": accuracies[0]},
            layout="simclr_tf2",
            unverified=(_LICENCE, "the addresses: the buckets are official, this form is not"),
        )
    yield from _version_1()


def _version_1() -> Iterator[Published]:
    for width, millions, linear in ((1, 24, 69.1), (2, 94, 74.2), (4, 375, 76.6)):
        name = f"simclr_v1_rn50{f'w{width}' if width > 1 else ''}"
        archive = f"https://storage.googleapis.com/simclr-gcs/checkpoints/ResNet50_{width}x.zip"
        yield _entry(
            name,
            "simclr",
            "resnet50",
            _settings(width, 0),
            (File("model.ckpt.index"),),
            millions,
            {"linear": linear},
            access="manual",
            how=f"Take the checkpoint out of <{archive}> and give its `.index` file as `weights=`.",
            notes=("There is no projection head inside.",),
            unverified=(
                _LICENCE,
                "that the archive can be had without a signed-in browser, and what it holds",
            ),
        )
        yield _entry(
            f"{name}_tf2",
            "simclr",
            "resnet50",
            _settings(width, 0),
            _saved_model(f"{_TF2}simclrv1/pretrain/{width}x/saved_model/"),
            millions,
            {"linear": linear},
            layout="simclr_tf2",
            unverified=(_LICENCE, "the inner folder `saved_model/` and this form of the addresses"),
        )


def _settings(width: int, sk: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"padding": "simclr"}
    settings |= {"width": width} if width > 1 else {}
    return settings | ({"selective_kernels": True} if sk else {})


def _tf1(address: str) -> tuple[File, ...]:
    prefix = address.rpartition("/")[2]
    return tuple(File(prefix + tail, (address + tail,)) for tail in (".index", _DATA))


def _saved_model(address: str) -> tuple[File, ...]:
    names = ("saved_model.pb", "variables/variables.index", "variables/variables" + _DATA)
    return tuple(File(name, (address + name,)) for name in names)


def _entry(
    name: str,
    method: str,
    backbone: str,
    settings: dict[str, Any],
    files: tuple[File, ...],
    millions: int,
    metrics: dict[str, float],
    layout: str = "simclr_tf1",
    **facts: Any,
) -> Published:
    return Published(
        name,
        method,
        "simclr",
        backbone,
        layout,
        "apache-2.0",
        files,
        settings=settings,
        container="saved model" if layout == "simclr_tf2" else "tensorflow",
        preprocessing="simclr",
        metrics=metrics,
        approximate_size=f"at least {4 * millions} MB ({millions} million parameters)",
        **facts,
    )
