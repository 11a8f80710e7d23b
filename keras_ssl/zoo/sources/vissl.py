"""The model zoo of VISSL: ResNets, RegNets (SEER too), AlexNets; its measurements are its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import FACEBOOK, one_file, resnet_payload, vit_payload
from keras_ssl.zoo.sources.vissl_more import (
    ALEXNET_SETTINGS,
    ALEXNETS,
    COLORIZATION,
    REGNETS,
    SEER,
    SEER_TUNED,
)
from keras_ssl.zoo.sources.vissl_rows import CAFFE2, RESNETS

_BASE = FACEBOOK + "vissl/model_zoo/"
TRUNK = "classy_state_dict.base_model.model.trunk"
_INFERRED = "the licence: the repository's is MIT, the files are not spoken of separately"
_ALEXNET_IMAGES = {"jigsaw": "imagenet", "colorization": "lightness", "deepcluster": "sobel"}
_BENCHMARK = "the licence of the 2019 benchmark, from whose files these were converted"


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for name, method, backbone, width, data, epochs, linear, path, *notes in RESNETS:
        yield _entry(
            name,
            method,
            backbone,
            "torchvision_resnet",
            path,
            settings={"width": width} if width != 1 else {},
            data=data,
            epochs=epochs,
            metrics={"linear": linear},
            payload=resnet_payload(backbone, width),
            notes=tuple(notes),
        )
    for name, method, backbone, data, epochs, linear, path in REGNETS:
        yield _entry(
            name,
            method,
            backbone,
            "vissl_regnet",
            path,
            data=data,
            epochs=epochs,
            metrics={"linear": linear},
        )
    yield from _seer()
    for name, method, layout, data, linear, path in ALEXNETS:
        yield _entry(
            name,
            method,
            "alexnet",
            layout,
            path,
            settings=ALEXNET_SETTINGS[method],
            data=data,
            metrics={"linear": linear},
            preprocessing=_ALEXNET_IMAGES[method],
        )
    yield from _colorization()
    yield from _transformers()


def _colorization() -> Iterator[Published]:
    two_channels = 4 * 7 * 7 * 2 * 64  # bytes that the stem of one channel has less
    for name, data, linear, path in COLORIZATION:
        yield _entry(
            name,
            "colorization",
            "resnet50",
            "vissl_resnet_colorization",
            path,
            settings={"last_stride": 1, "lightness": True},
            data=data,
            metrics={"linear": linear},
            preprocessing="lightness",
            payload=resnet_payload("resnet50") - two_channels,
            notes=(
                CAFFE2,
                "VISSL rounds L to 8 bits, as OpenCV does for images of 8 bits; here it is not rounded.",
            ),
        )


def _seer() -> Iterator[Published]:
    custom = "This is VISSL's own 256Gf (w_0 640, group width 373), not the one of ClassyVision."
    for name, backbone, linear, path in SEER:
        yield _entry(
            name,
            "seer",
            backbone,
            "vissl_regnet",
            path,
            licence="seer",
            data="IG-1B (public images, outside the EU)",
            metrics={"linear": linear},
            notes=(custom,) if "256" in name else (),
        )
    for name, backbone, path in SEER_TUNED:
        yield _entry(
            name,
            "seer",
            backbone,
            "vissl_regnet",
            path,
            licence="seer",
            image_size=384,
            data="IG-1B, fine-tuned on ImageNet-1K with labels",
            preprocessing="square",
            notes=(custom,) if "256" in name else (),
            unverified=("the resize before the crop of 384 pixels",),
        )


def _transformers() -> Iterator[Published]:
    yield _entry(
        "vissl_dino_vits16_300ep",
        "dino",
        "vit_small",
        "timm_vit",
        "dino_300ep_deitsmall16/model_final_checkpoint_phase299.torch",
        settings={"position_offset": 0.1},
        epochs=300,
        metrics={"knn": 73.4},
        payload=vit_payload("vit_small"),
        unverified=("the names of the tensors",),
    )
    yield _entry(
        "vissl_dino_xcit_s12_p16",
        "dino",
        "xcit_small_12",
        "xcit",
        "dino_300ep_xcitsmall16/model_phase250.torch",
        settings={"patch_size": 16},
        epochs=300,
        metrics={"knn": 74.8},
        unverified=("the names of the tensors", "that the small one has 12 blocks"),
    )


def _entry(
    name: str, method: str, backbone: str, layout: str, path: str, **facts: Any
) -> Published:
    unverified = facts.pop("unverified", ())
    licence = facts.pop("licence", "mit")
    if licence == "mit" and (path.startswith("converted_alexnet") or "_goyal19" in path):
        licence, unverified = "not-stated", (*unverified, _BENCHMARK)
    elif "npid_lemniscate" in path:  # keeps the terms of the authors' file, which has none
        licence = "not-stated"
    elif path.startswith("deepcluster_"):
        licence = "cc-by-nc-4.0"
    return Published(
        name,
        method,
        "vissl",
        backbone,
        layout,
        licence,
        one_file(_BASE + path),
        top_keys=(TRUNK, "model_state_dict", ""),
        prefixes=("_feature_blocks.", ""),
        metrics_by="VISSL",
        unverified=(*unverified, *([_INFERRED] if licence == "mit" else [])),
        **facts,
    )
