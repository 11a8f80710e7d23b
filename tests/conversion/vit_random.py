"""Small vision transformers in PyTorch with random values, and how far a network of ours is from one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from keras_ssl.conversion.references.running import normalized
from keras_ssl.conversion.references.torch_vits import Form, ViT

SMALL = {"width": 24, "depth": 2, "heads": 3, "hidden": 96, "patch": 4, "grid": 4}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference(**settings: Any) -> ViT:
    """Returns a network whose form differs from `SMALL` in `settings`, filled."""
    network = ViT(Form(**{**SMALL, **settings}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name and name.endswith("weight") or name.endswith("gamma"):
                value.copy_(1 + 0.3 * noise)
            else:
                value.copy_(0.25 * noise)
    return network


def outputs(network: ViT, images: np.ndarray, **masks: Any) -> dict[str, Any]:
    """Returns what a network says about images in [0, 1]."""
    masks = {name: torch.tensor(value) for name, value in masks.items()}
    with torch.no_grad():
        return network(torch.tensor(normalized(images, MEAN, STD).transpose(0, 3, 1, 2)), **masks)


def pictures(height: int, width: int, count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(size=(count, height, width, 3)).astype("float32")


def tensors_of(reference: ViT) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in reference.state_dict().items()}


def difference(reference: ViT, network, images, **arguments: Any) -> tuple[float, float]:
    """Largest absolute and relative difference of features, tokens and the output of each block.

    Relative to the largest value of the output in question.
    """
    expected = outputs(reference, images, **arguments)
    got = network(images, output="layers", **arguments)
    pairs = [(got[name], expected[name]) for name in ("features", "tokens")]
    pairs += list(zip(got["layers"], expected["layers"], strict=True))
    absolute = [np.abs(ours.numpy() - theirs.numpy()).max() for ours, theirs in pairs]
    sizes = [np.abs(theirs.numpy()).max() for _, theirs in pairs]
    relative = [error / size for error, size in zip(absolute, sizes, strict=True)]
    return float(max(absolute)), float(max(relative))
