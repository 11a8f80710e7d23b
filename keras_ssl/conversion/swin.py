"""Swin Transformers of iBOT, with the names of microsoft/Swin-Transformer."""

from __future__ import annotations

import math

import numpy as np

from keras_ssl.backbones.swin import Swin
from keras_ssl.conversion.engine import CONVOLUTION, DENSE, Layout, Port, check_form
from keras_ssl.conversion.vit import affine_ports, block_ports
from keras_ssl.layers import WindowBlock, relative_positions, shift_mask

Tensors = dict[str, np.ndarray]
_TABLE, _INDEX = "relative_position_bias_table", "relative_position_index"


def _window_ports(block: WindowBlock, key: str) -> list[Port]:
    ports = block_ports(block, key)
    return [*ports[:2], Port(f"{key}.attn.{_TABLE}", block.bias_table), *ports[2:]]


def _ports(network: Swin) -> list[Port]:
    check_form(network, Swin, "swin", {})
    patches = network.patch_embedding
    ports = [
        Port("patch_embed.proj.weight", patches.kernel, CONVOLUTION),
        Port("patch_embed.proj.bias", patches.bias),
        *affine_ports(network.patch_norm, "patch_embed.norm"),
    ]
    for stage, blocks in enumerate(network.stages):
        for index, block in enumerate(blocks):
            ports += _window_ports(block, f"layers.{stage}.blocks.{index}")
        if stage < len(network.merging):
            merging, key = network.merging[stage], f"layers.{stage}.downsample"
            ports.append(Port(f"{key}.reduction.weight", merging.reduction.kernel, DENSE))
            ports += affine_ports(merging.norm, f"{key}.norm")
    return ports + affine_ports(network.norm, "norm")


def _computed(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns what an index or, not in iBOT's files, a mask of a square map shifted by half a window must be."""
    window = math.isqrt(shape[-1])
    if key.endswith(f".{_INDEX}"):
        return relative_positions(window)
    side = window * math.isqrt(shape[0])
    return shift_mask((side, side), window, window // 2)


def _check_computed(tensors: Tensors) -> Tensors:
    """Refuses a file whose indices or masks are others than the ones that our network computes."""
    for key, value in tensors.items():
        if key.endswith((f".{_INDEX}", ".attn_mask")):
            shape = np.shape(value)
            if len(shape) < 2 or not np.array_equal(value, _computed(key, shape)):
                raise ValueError(
                    f"Expected {key!r} as microsoft/Swin-Transformer computes it for its shape. Received: other "
                    f"numbers, shape={shape}; is it the checkpoint of another network?"
                )
    return tensors


def _with_index(tensors: Tensors) -> Tensors:
    """Returns the tensors with the index of each table behind it, where the module has it."""
    restored: Tensors = {}
    for key, value in tensors.items():
        restored[key] = value
        if key.endswith(f".{_TABLE}"):
            window = (math.isqrt(len(value)) + 1) // 2
            restored[key.removesuffix(_TABLE) + _INDEX] = relative_positions(window)
    return restored


# bytedance/ibot `models/swin_transformer.py`, which keeps the names of microsoft/Swin-Transformer and computes its
# masks at each call. For `Swin`. Nothing in a file tells epsilon, windows beyond a table's size or the shift.
SWIN = Layout(
    "swin",
    _ports,
    left_out=(r"head\..*", rf".*\.{_INDEX}", r".*\.attn_mask", "masked_embed"),
    prepare=_check_computed,
    restore=_with_index,
)
