"""DINOv3's vision transformers and ConvNeXts; the publisher wants a form first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ssl.zoo.published import File, Published

_HOW = (
    "Fill in the form on the publisher's DINOv3 download page; the addresses come by e-mail. Give the file "
    "or its address as `weights=`."
)
_SHARED = {
    "patch_size": 16,
    "positions": "rope",
    "num_registers": 4,
    "layer_scale": 1.0,
    "layer_norm_epsilon": 1e-5,
    "qkv_bias": "query_value",
}
_WEB, _SATELLITE = "lvd1689m", "sat493m"
# name, backbone, data, first digits of the SHA-256, settings beside the shared ones
_VITS = (
    ("vits16", "vit_small", _WEB, "08c60483", {}),
    ("vits16plus", "vit_small_plus", _WEB, "4057cbaa", {}),
    ("vitb16", "vit_base", _WEB, "73cec8be", {}),
    ("vitl16", "vit_large", _WEB, "8aa4cbdd", {}),
    ("vitl16", "vit_large", _SATELLITE, "eadcf0ff", {}),
    ("vitl16plus", "vit_large_plus", _WEB, "46503df0", {}),
    ("vith16plus", "vit_huge_plus", _WEB, "7c1da9a5", {}),
    ("vit7b16", "vit_7b", _WEB, "a955f4ea", {"qkv_bias": False}),
    ("vit7b16", "vit_7b", _SATELLITE, "a6675841", {"qkv_bias": False}),
)
_CONVNEXTS = (
    ("tiny", "21b726bb"),
    ("small", "296db49d"),
    ("base", "801f2ba9"),
    ("large", "61fa432d"),
)


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for model, backbone, data, digits, settings in _VITS:
        yield _entry(
            f"dinov3_{model}{'_sat' if data == _SATELLITE else ''}",
            f"dinov3_{model}_pretrain_{data}-{digits}.pth",
            digits,
            backbone,
            "dinov3",
            {**_SHARED, **settings},
            data,
            ("the whole of the file's name" if model == "vitl16plus" else "",),
        )
    for size, digits in _CONVNEXTS:
        yield _entry(
            f"dinov3_convnext_{size}",
            f"dinov3_convnext_{size}_pretrain_{_WEB}-{digits}.pth",
            digits,
            f"convnext_{size}",
            "dinov3_convnext",
            {},
            _WEB,
            ("",),
        )


def _entry(
    name: str,
    file: str,
    digits: str,
    backbone: str,
    layout: str,
    settings: dict[str, Any],
    data: str,
    unverified: tuple[str, ...],
) -> Published:
    satellite = data == _SATELLITE
    return Published(
        name,
        "dinov3",
        "dinov3",
        backbone,
        layout,
        "dinov3",
        (File(file, sha256=digits, hash_source="official"),),
        settings=settings,
        image_size=256,
        data="SAT-493M" if satellite else "LVD-1689M",
        access="gated",
        how=_HOW,
        preprocessing="dinov3_satellite" if satellite else "dinov3",
        notes=("The model card reports other measures than ImageNet top-1.",),
        unverified=tuple(text for text in unverified if text),
    )
