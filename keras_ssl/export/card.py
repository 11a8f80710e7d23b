"""The model card that lies beside an exported encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ASKED = ("method", "backbone", "data", "step", "network", "source", "license", "commercial_use")
_SIGNATURES = {
    "serving_default": "`images`, float32 `({shape}, 3)` in [0, 1] to `features`",
    "bytes": "`image_bytes`, strings `(batch,)` of JPEG, PNG or BMP files to `features`",
    "tokens": "`images` to `tokens`, one vector for each patch",
    "feature_map": "`images` to `feature_map`, one vector for each place",
    "train": "`images` to `features` with batch statistics, which move the running ones; to train on, not to serve",
}


def write_card(facts: Mapping[str, Any], weight_mb: float) -> str:
    """Returns the text of `model_card.md`.

    Args:
        facts: dict. What `assets.extra/keras_ssl.json` holds.
        weight_mb: float. Size of the weights, megabytes.

    Returns:
        str. Markdown. What is not known is said not to be.
    """
    source, size = facts["source"], facts["image_size"]
    preprocessing = facts["preprocessing"]
    names = [*_ASKED, *sorted(set(source) - {*_ASKED, "weight_decay"})]
    shape = "batch, height, width" if facts["any_image_size"] else f"batch, {size}, {size}"
    any_size = "; other sizes are accepted" if facts["any_image_size"] else "; no other size"
    decay = source.get("weight_decay")
    lines = [
        "# Image encoder",
        "",
        f"Images to {facts['feature_dim']} features. Written by keras_ssl {facts['keras_ssl_version']}.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {_cell(source.get(name))} |" for name in names),
        f"| image size | {size} x {size} pixels{any_size} |",
        "| input | RGB, float32 in [0, 1]; normalization is inside |",
        f"| preprocessing | central square of {preprocessing['crop_ratio']:g} times the shorter side, resized to "
        f"{size} with antialiased bilinear interpolation; EXIF orientation is not applied |",
        f"| output | `features`, float32 `(batch, {facts['feature_dim']})` |",
        f"| weights | {weight_mb:,.2f} MB in float32 |",
        "",
        "Signatures:",
        "",
        *(f"- `{name}`: {_SIGNATURES[name].format(shape=shape)}" for name in facts["signatures"]),
        "",
        "Weight decay: "
        + (f"trained with {decay:g}. " if decay is not None else "")
        + "Decay that an optimizer applies is no part of this file; give it to your optimizer when you fine-tune. "
        "Penalties of the layers themselves are in `regularization_losses`.",
        "",
        "Fingerprint: `assets.extra/keras_ssl.json` holds features of one fixed image, to check that a loaded copy "
        "computes what this one computed.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return "not stated" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
