"""ConvNeXt networks of DINOv3."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_ssl.backbones.convnext import ConvNeXt
from keras_ssl.conversion.engine import CONVOLUTION, DENSE, DEPTHWISE, SAME, Layout, Port


def _norm_ports(layer: Any, key: str) -> list[Port]:
    return [Port(f"{key}.weight", layer.gamma, SAME), Port(f"{key}.bias", layer.beta, SAME)]


def _ports(network: ConvNeXt) -> list[Port]:
    ports = []
    for stage, norm in enumerate(network.downsample_norms):
        conv, place = network.downsample_convs[stage], int(stage > 0)  # the norm comes first there
        key = f"downsample_layers.{stage}"
        ports.append(Port(f"{key}.{place}.weight", conv.kernel, CONVOLUTION))
        ports.append(Port(f"{key}.{place}.bias", conv.bias))
        ports += _norm_ports(norm, f"{key}.{1 - place}")
    for stage, blocks in enumerate(network.stages):
        for index, block in enumerate(blocks):
            key = f"stages.{stage}.{index}"
            ports.append(Port(f"{key}.gamma", block.scale))
            ports.append(Port(f"{key}.dwconv.weight", block.depthwise.kernel, DEPTHWISE))
            ports.append(Port(f"{key}.dwconv.bias", block.depthwise.bias))
            ports += _norm_ports(block.norm, f"{key}.norm")
            for name, dense in (("pwconv1", block.hidden), ("pwconv2", block.output_dense)):
                ports.append(Port(f"{key}.{name}.weight", dense.kernel, DENSE))
                ports.append(Port(f"{key}.{name}.bias", dense.bias))
    return ports + _norm_ports(network.norm, "norm")


def _one_final_norm(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors with `norm`; the files hold it twice, as `norms.3` too."""
    tensors = dict(tensors)
    for name in ("weight", "bias"):
        key, alias = f"norm.{name}", f"norms.3.{name}"
        if alias in tensors and not np.array_equal(
            tensors.setdefault(key, tensors[alias]), tensors[alias]
        ):
            raise ValueError(
                f"Expected {key!r} and {alias!r} to be the same tensor. Received: two different ones"
            )
    return tensors


# facebookresearch/dinov3 `dinov3/models/convnext.py`. For `ConvNeXt`.
DINOV3_CONVNEXT = Layout(
    "dinov3_convnext", _ports, left_out=(r"norms\.3\..*",), prepare=_one_final_norm
)
