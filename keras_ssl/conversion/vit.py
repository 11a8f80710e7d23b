"""Vision transformers: timm's names (DINO, iBOT, MoCo v3, MAE, I-JEPA), DINOv2's and DINOv3's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ssl.backbones import ViT
from keras_ssl.conversion.engine import DENSE, Layout, Port, Turn, check_form, shaped

Array = np.ndarray
Tensors = dict[str, Array]

# Beside the encoder, prefixes removed: classifiers, heads of pre-training and MAE's decoder.
HEADS = (
    r"(head|heads|head_dist|predictor|projector|dino_head|ibot_head)\..*",
    r"(decoder_|pre_logits\.).*",
)


def patch_kernel(patch_size: int) -> Turn:
    """Returns the turn of a convolution over patches, (out, 3, size, size) to (size * size * 3, out)."""

    def to_keras(kernel: Array) -> Array:
        return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))

    def to_source(kernel: Array) -> Array:
        return kernel.reshape(patch_size, patch_size, 3, -1).transpose(3, 2, 0, 1)

    return Turn(to_keras, to_source)


def _without_key(bias: Array) -> Array:
    query, _, value = bias.reshape(3, -1)
    return np.concatenate([query, value])


def _with_key(bias: Array) -> Array:
    query, value = bias.reshape(2, -1)
    return np.concatenate([query, np.zeros_like(query), value])


WITHOUT_KEY = Turn(_without_key, _with_key)


def affine_ports(layer: keras.layers.Layer, key: str) -> list[Port]:
    """Returns the ports of a dense layer or a layer-norm."""
    if isinstance(layer, keras.layers.LayerNormalization):
        return [Port(f"{key}.weight", layer.gamma), Port(f"{key}.bias", layer.beta)]
    ports = [Port(f"{key}.weight", layer.kernel, DENSE)]
    return [*ports, Port(f"{key}.bias", layer.bias)] if layer.use_bias else ports


def block_ports(block: keras.layers.Layer, key: str) -> list[Port]:
    """Returns the ports of one block in the order of timm and DINOv2; a gated perceptron has w12 and w3."""
    ports = affine_ports(block.norm1, f"{key}.norm1") + affine_ports(block.qkv, f"{key}.attn.qkv")
    if block.query_value_bias is not None:
        ports.append(Port(f"{key}.attn.qkv.bias", block.query_value_bias, WITHOUT_KEY))
    ports += affine_ports(block.projection, f"{key}.attn.proj")
    scaled = block.scale1 is not None
    ports += [Port(f"{key}.ls1.gamma", block.scale1)] if scaled else []
    ports += affine_ports(block.norm2, f"{key}.norm2")
    first, second = ("fc1", "fc2") if block.ffn == "mlp" else ("w12", "w3")
    ports += affine_ports(block.hidden, f"{key}.mlp.{first}")
    ports += affine_ports(block.output_dense, f"{key}.mlp.{second}")
    return ports + ([Port(f"{key}.ls2.gamma", block.scale2)] if scaled else [])


def _ports(
    layout: str, mask_key: str, register_key: str, **form: Any
) -> Callable[[keras.Model], list[Port]]:
    """Returns the function that lists the ports of a ViT of a given form, with the names of two tokens."""

    def ports(network: keras.Model) -> list[Port]:
        check_form(network, ViT, layout, form)
        width = network.feature_dim
        found = [Port("cls_token", network.class_token)] if network.class_token is not None else []
        if network.position_table is not None:
            found.append(Port("pos_embed", network.position_table))
        if network.registers is not None:
            found.append(Port(register_key, network.registers))
        if network.mask_token is not None:
            found.append(Port(mask_key, network.mask_token, shaped((1, width), (1, 1, width))))
        patches = network.patch_embedding
        found += [
            Port("patch_embed.proj.weight", patches.kernel, patch_kernel(network.patch_size)),
            Port("patch_embed.proj.bias", patches.bias),
        ]
        if network.rope_periods is not None:
            found.append(Port("rope_embed.periods", network.rope_periods))
        for index, block in enumerate(network.blocks):
            found += block_ports(block, f"blocks.{index}")
        norm_last = network.settings["pooling"] == "mean_then_norm"
        return found + affine_ports(network.norm, "fc_norm" if norm_last else "norm")

    return ports


def _without_chunks(tensors: Tensors) -> Tensors:
    """Drops the number of the chunk that training checkpoints of DINOv2 have before that of the block."""
    return {
        re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", key): value for key, value in tensors.items()
    }


def _prepare_dinov3(tensors: Tensors) -> Tensors:
    """Joins w1 and w2 of the gated perceptrons and applies the masks of the biases of query, key and value."""
    prepared = {}
    for key, value in tensors.items():
        if match := re.fullmatch(r"(.*\.mlp\.)w([12])\.(weight|bias)", key):
            stem, number, kind = match.groups()
            pair = [tensors.get(f"{stem}w{n}.{kind}") for n in (1, 2)]
            if all(part is not None for part in pair):
                if number == "1":
                    prepared[f"{stem}w12.{kind}"] = np.concatenate(pair)
                continue
        if key.endswith(".attn.qkv.bias"):
            value = _masked(key, value, tensors.get(f"{key}_mask"))
        prepared[key] = value
    return prepared


def _masked(key: str, bias: Array, mask: Array | None) -> Array:
    """Returns the bias that the network really adds; refuses one whose key part is not 0."""
    bias = np.asarray(bias) if mask is None else bias * np.asarray(mask, np.asarray(bias).dtype)
    if np.any(np.isnan(bias)) or (len(bias) % 3 == 0 and np.any(bias.reshape(3, -1)[1])):
        raise ValueError(
            f"Expected {key!r} to be 0 for the keys once its mask is applied. Received: other numbers; "
            "is it a checkpoint of DINOv3?"
        )
    return bias


def _restore_dinov3(tensors: Tensors) -> Tensors:
    """Splits the gated perceptrons into w1 and w2 and adds the masks, in the order of the module."""
    restored: Tensors = {}
    for key, value in tensors.items():
        if ".mlp.w12.weight" in key:
            halves = [np.split(tensors[name], 2) for name in (key, key[:-6] + "bias")]
            for index, name in enumerate(("w1", "w2")):
                for kind, half in zip(("weight", "bias"), halves, strict=True):
                    restored[key.replace("w12.weight", f"{name}.{kind}")] = half[index]
        elif ".mlp.w12.bias" not in key:
            restored[key] = value
        if key.endswith(".attn.qkv.bias"):
            ones = np.ones(len(value) // 3, value.dtype)
            restored[f"{key}_mask"] = np.concatenate([ones, 0 * ones, ones])
    return restored


# DINO, iBOT, MoCo v3, MAE, I-JEPA. `mask_token` is that of MAE's decoder, `masked_embed` iBOT's.
TIMM_VIT = Layout(
    "timm_vit",
    _ports("timm_vit", "masked_embed", "reg_token", layer_norm_epsilon=1e-6),
    left_out=(*HEADS, "mask_token", "masked_embed"),
)
# facebookresearch/dinov2 `models/vision_transformer.py`. A mask token is taken if the network has one.
DINOV2 = Layout(
    "dinov2",
    _ports("dinov2", "mask_token", "register_tokens", layer_norm_epsilon=1e-6),
    left_out=(*HEADS, "mask_token"),
    prepare=_without_chunks,
)
# facebookresearch/dinov3 `models/vision_transformer.py`. The periods come from the file. The public report on the
# released files (facebookresearch/dinov3 issue 195, not checked here) is that masks and biases of qkv are all 0.
DINOV3 = Layout(
    "dinov3",
    _ports("dinov3", "mask_token", "storage_tokens", positions="rope", layer_norm_epsilon=1e-5),
    left_out=(*HEADS, "mask_token", r".*\.bias_mask", r"local_cls_norm\..*"),
    prepare=_prepare_dinov3,
    restore=_restore_dinov3,
)
