"""DINOv2's vision transformers; tables of positions for 518 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources.common import FACEBOOK, one_file

# name, registers, k-NN, linear, payload in bytes, SHA-256
_ROWS = (
    (
        "vits14",
        0,
        79.0,
        81.1,
        88_226_304,
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    (
        "vits14",
        4,
        79.1,
        80.9,
        88_232_448,
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    ),
    (
        "vitb14",
        0,
        82.1,
        84.5,
        346_321_920,
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    (
        "vitb14",
        4,
        82.0,
        84.6,
        346_334_208,
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    ),
    (
        "vitl14",
        0,
        83.5,
        86.3,
        1_217_474_560,
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    (
        "vitl14",
        4,
        83.8,
        86.7,
        1_217_490_944,
        "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    ),
    (
        "vitg14",
        0,
        83.5,
        86.5,
        4_545_923_072,
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    ),
    (
        "vitg14",
        4,
        83.7,
        87.1,
        4_545_947_648,
        "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
    ),
)
_BACKBONES = {"s": "vit_small", "b": "vit_base", "l": "vit_large", "g": "vit_giant"}


def entries() -> Iterator[Published]:
    """Yields the entries of this family."""
    for model, registers, knn, linear, payload, sha256 in _ROWS:
        tail = "_reg" if registers else ""
        file = f"dinov2_{model}{'_reg4' if registers else ''}_pretrain.pth"
        exact = 88_283_115 if (model, registers) == ("vits14", 0) else None
        settings: dict[str, Any] = {"patch_size": 14, "position_size": 518, "layer_scale": 1.0}
        settings |= (
            {"num_registers": 4, "position_antialias": True}
            if registers
            else {"position_offset": 0.1}
        )
        yield Published(
            f"dinov2_{model}{tail}",
            "dinov2",
            "dinov2",
            _BACKBONES[model[3]],
            "dinov2",
            "apache-2.0",
            one_file(
                f"{FACEBOOK}dinov2/dinov2_{model}/{file}",
                size=exact,
                sha256=sha256,
                hash_source="third party",
            ),
            settings=settings,
            data="LVD-142M",
            preprocessing="dinov2",
            metrics={"linear": linear, "knn": knn},
            payload=payload,
            notes=(
                "Linear: class token and mean of the patch tokens, one after the other; k-NN: class token.",
                *(["Distilled from the giant one."] if model != "vitg14" else []),
            ),
            unverified=("SHA-256" + (" and size" if exact else "") + ": an independent pin",),
        )
