"""XCiT networks of DINO and of XCiT's own repository."""

from __future__ import annotations

from typing import Any

from keras_ssl.backbones.xcit import XCiT
from keras_ssl.conversion.engine import (
    CONVOLUTION,
    DENSE,
    DEPTHWISE,
    SAME,
    Layout,
    Port,
    batch_norm_ports,
)
from keras_ssl.conversion.regnet import POINTWISE


def _affine(layer: Any, key: str) -> list[Port]:
    """Returns the ports of a layer-norm or of a dense layer."""
    if hasattr(layer, "gamma"):
        return [Port(f"{key}.weight", layer.gamma, SAME), Port(f"{key}.bias", layer.beta, SAME)]
    return [Port(f"{key}.weight", layer.kernel, DENSE), Port(f"{key}.bias", layer.bias, SAME)]


def _mlp(block: Any, key: str) -> list[Port]:
    return _affine(block.hidden, f"{key}.mlp.fc1") + _affine(block.output_dense, f"{key}.mlp.fc2")


def _attention(block: Any, key: str) -> list[Port]:
    return _affine(block.qkv, f"{key}.attn.qkv") + _affine(block.projection, f"{key}.attn.proj")


def _block_ports(block: Any, key: str) -> list[Port]:
    ports = [Port(f"{key}.gamma{index}", getattr(block, f"scale{index}")) for index in (1, 2, 3)]
    ports += _affine(block.norm1, f"{key}.norm1")
    ports.append(Port(f"{key}.attn.temperature", block.temperature))
    ports += _attention(block, key) + _affine(block.norm2, f"{key}.norm2") + _mlp(block, key)
    ports += _affine(block.norm3, f"{key}.norm3")
    for name, conv in (("conv1", block.local1), ("conv2", block.local2)):
        ports.append(Port(f"{key}.local_mp.{name}.weight", conv.kernel, DEPTHWISE))
        ports.append(Port(f"{key}.local_mp.{name}.bias", conv.bias))
        if name == "conv1":
            ports += batch_norm_ports(block.local_norm, f"{key}.local_mp.bn")
    return ports


def _class_ports(block: Any, key: str) -> list[Port]:
    ports = [Port(f"{key}.gamma{index}", getattr(block, f"scale{index}")) for index in (1, 2)]
    ports += _affine(block.norm1, f"{key}.norm1") + _attention(block, key)
    return ports + _affine(block.norm2, f"{key}.norm2") + _mlp(block, key)


def _ports(network: XCiT) -> list[Port]:
    ports = [Port("cls_token", network.class_token)]
    pairs = zip(network.patch_convs, network.patch_norms, strict=True)
    for index, (conv, norm) in enumerate(pairs):  # every second place is a GELU
        ports.append(Port(f"patch_embed.proj.{2 * index}.0.weight", conv.kernel, CONVOLUTION))
        ports += batch_norm_ports(norm, f"patch_embed.proj.{2 * index}.1")
    for index, block in enumerate(network.blocks):
        ports += _block_ports(block, f"blocks.{index}")
    for index, block in enumerate(network.class_blocks):
        ports += _class_ports(block, f"cls_attn_blocks.{index}")
    ports += _affine(network.norm, "norm")
    key, projection = "pos_embeder.token_projection", network.position_projection
    ports.append(Port(f"{key}.weight", projection.kernel, POINTWISE))
    return [*ports, Port(f"{key}.bias", projection.bias)]


# facebookresearch/xcit `xcit.py`, which facebookresearch/dino loads too. For `XCiT`.
XCIT = Layout("xcit", _ports, left_out=(r"head\..*", r".*\.num_batches_tracked"))
