"""RegNetY trunks of VISSL: SwAV's and SEER's."""

from __future__ import annotations

import numpy as np

from keras_ssl.backbones.regnet import RegNet, RegNetBlock
from keras_ssl.conversion.engine import (
    CONVOLUTION,
    SAME,
    Layout,
    Port,
    Turn,
    batch_norm_ports,
)

ROOT = "_feature_blocks."

# A 1x1 convolution (out, in, 1, 1) that acts on one vector of channels -> a dense kernel (in, out).
POINTWISE = Turn(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])


def rooted(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a trunk's tensors with `_feature_blocks.` in front of every name, whether it was cut off or not."""
    return {ROOT + key.removeprefix(ROOT): value for key, value in tensors.items()}


def _block_ports(block: RegNetBlock, key: str) -> list[Port]:
    ports = []
    if block.shortcut_conv is not None:
        ports.append(Port(f"{key}.proj.weight", block.shortcut_conv.kernel, CONVOLUTION))
        ports += batch_norm_ports(block.shortcut_norm, f"{key}.bn")
    for name, conv, norm in (("a", block.conv1, block.norm1), ("b", block.conv2, block.norm2)):
        ports.append(Port(f"{key}.f.{name}.0.weight", conv.kernel, CONVOLUTION))
        ports += batch_norm_ports(norm, f"{key}.f.{name}.1")
    for index, dense in ((0, block.squeeze), (2, block.excite)):
        gate = f"{key}.f.se.excitation.{index}"
        ports.append(Port(f"{gate}.weight", dense.kernel, POINTWISE))
        ports.append(Port(f"{gate}.bias", dense.bias, SAME))
    ports.append(Port(f"{key}.f.c.weight", block.conv3.kernel, CONVOLUTION))
    return ports + batch_norm_ports(block.norm3, f"{key}.f.final_bn")


def _ports(network: RegNet) -> list[Port]:
    ports = [Port(f"{ROOT}conv1.stem.0.weight", network.stem_conv.kernel, CONVOLUTION)]
    ports += batch_norm_ports(network.stem_norm, f"{ROOT}conv1.stem.1")
    for stage, blocks in enumerate(network.stages, start=1):
        for index, block in enumerate(blocks):
            ports += _block_ports(block, f"{ROOT}res{stage + 1}.block{stage}-{index}")
    return ports


# facebookresearch/vissl, `vissl/models/trunks/regnet.py`, over facebookresearch/ClassyVision,
# `classy_vision/models/anynet.py`. For `RegNet`. The names inside the 10-billion file are not known.
VISSL_REGNET = Layout(
    "vissl_regnet", _ports, left_out=(r".*\.num_batches_tracked",), prepare=rooted
)
