"""An encoder's weights for PyTorch: torchvision's names for ResNets, their authors' or timm's for transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ssl
from keras_ssl.backbones import ResNet, Swin, ViT
from keras_ssl.checkpoints import write_safetensors, write_torch
from keras_ssl.conversion import LAYOUTS, extract

CONTAINERS = ("torch", "safetensors")
_NORM_LAST = ".running_var"


def layout_name(encoder: keras.Model) -> str:
    """Returns the key of `LAYOUTS` that an encoder is written in: the one of the PyTorch code that computes it.

    `"torchvision_resnet"` for a `ResNet`, `"swin"` for a `Swin`. For a `ViT`: `"dinov3"` with rotary positions,
    `"dinov2"` with registers or a gated perceptron, else `"timm_vit"`.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(encoder, ResNet):
        return "torchvision_resnet"
    if isinstance(encoder, Swin):
        return "swin"
    if isinstance(encoder, ViT):
        settings = encoder.settings
        if settings["positions"] == "rope":
            return "dinov3"
        return "dinov2" if settings["num_registers"] or settings["ffn"] != "mlp" else "timm_vit"
    raise ValueError(
        "Expected a ResNet, a ViT or a Swin of this library, whose PyTorch names are known. "
        f"Received: {type(encoder).__name__}"
        + (
            "; name the run folder or .keras file it was exported from."
            if hasattr(encoder, "directory")
            else "."
        )
    )


def torch_tensors(encoder: keras.Model) -> dict[str, np.ndarray]:
    """Returns an encoder's weights in float32 under PyTorch's names and with its axes.

    Batch-norms get their `num_batches_tracked`, 0, so that the names are those of a `state_dict` without the
    classifier; the indices of a `Swin` stay int64.

    Args:
        encoder: `ResNet`, `ViT` or `Swin`.
    """
    tensors: dict[str, np.ndarray] = {}
    for key, value in extract(encoder, LAYOUTS[layout_name(encoder)]).items():
        tensors[key] = value if value.dtype == np.int64 else np.asarray(value, np.float32)
        if key.endswith(_NORM_LAST):
            counter = key.removesuffix(_NORM_LAST) + ".num_batches_tracked"
            tensors[counter] = np.zeros((), np.int64)
    return tensors


def write_for_torch(
    encoder: keras.Model,
    path: str | Path,
    *,
    container: str = "torch",
    image_size: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an encoder's weights as a file that PyTorch reads; PyTorch is not needed to write it.

    `"torch"`: `torch.load(path, weights_only=True)` gives `{"state_dict": ..., "keras_ssl": ...}`. `"safetensors"`:
    the tensors, with the same facts as JSON in the header's `keras_ssl`. The facts name the layout, the network's
    settings, and `mean` and `std`: normalization is not in the file, images are normalized outside. Decoders, heads
    and classifiers are no part of an encoder, so a module to load it strictly has none:
    `torchvision.models.resnet50()` with `fc = torch.nn.Identity()`.

    Args:
        encoder: `ResNet`, `ViT` or `Swin`.
        path: path. The file; an older one is replaced.
        container: `"torch"` or `"safetensors"`. Defaults to `"torch"`.
        image_size: int. Named in the facts. None takes the encoder's own. Defaults to `None`.
        facts: dict of JSON values. Where the encoder is from. Defaults to `None`.

    Returns:
        Path. The file.

    Raises:
        ValueError: If the encoder is of another kind, or of a form that no such PyTorch code has.
    """
    if container not in CONTAINERS:
        raise ValueError(
            f"`container` must be one of {CONTAINERS}. Received: container={container!r}"
        )
    tensors, path = torch_tensors(encoder), Path(path)
    own = {
        "keras_ssl_version": keras_ssl.__version__,
        "layout": layout_name(encoder),
        "image_size": image_size or encoder.image_size,
        "input": "RGB in [0, 1], then (x - mean) / std",
        "mean": encoder.mean,
        "std": encoder.std,
        "settings": encoder.settings,
        "source": dict(facts or {}),
    }
    own = json.loads(json.dumps(own))
    path.parent.mkdir(parents=True, exist_ok=True)
    if container == "torch":
        write_torch(path, tensors, {"keras_ssl": own}, key="state_dict")
    else:
        write_safetensors(path, tensors, {"format": "pt", "keras_ssl": json.dumps(own)})
    return path


def write(
    encoder: keras.Model, to: Path, *, image_size: int, facts: Mapping[str, Any]
) -> list[str]:
    """Writes a PyTorch checkpoint and returns what the command prints."""
    write_for_torch(encoder, to, image_size=image_size, facts=facts)
    return _lines(encoder, to, f'torch.load({str(to)!r}, weights_only=True)["state_dict"]')


def write_as_safetensors(
    encoder: keras.Model, to: Path, *, image_size: int, facts: Mapping[str, Any]
) -> list[str]:
    """Writes a safetensors file and returns what the command prints."""
    write_for_torch(encoder, to, container="safetensors", image_size=image_size, facts=facts)
    return _lines(encoder, to, f"safetensors.torch.load_file({str(to)!r})")


def _lines(encoder: keras.Model, to: Path, how: str) -> list[str]:
    mean, std = (
        tuple(round(value, 6) for value in values) for values in (encoder.mean, encoder.std)
    )
    return [
        f"{to} holds the weights in the layout {layout_name(encoder)} ({to.stat().st_size / 1e6:,.1f} MB): `{how}`.",
        f"Normalize images in [0, 1] outside: mean {mean}, std {std}.",
    ]
