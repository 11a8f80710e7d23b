"""Layer-wise learning-rate decay: early layers of a pre-trained network move less in fine-tuning."""

from __future__ import annotations

import re

import keras

from keras_ssl.optimizers.groups import ParameterGroup, variable_path

# What comes before the first block, by the name of the layer or weight under the network's own name.
_FIRST = re.compile(
    r"patch_(embedding|norm|(conv|norm)\d+)|class_token|registers|mask_token|position_(table|projection)"
    r"|stem_(conv|norm)\d*|downsample0_(conv|norm)"
)
_DOWNSAMPLE = re.compile(r"downsample(\d+)(?:_conv|_norm)?")
_BLOCK = re.compile(r"(?:block|stage)\d+(?:_block\d+)?")


def layer_ids(network: keras.Model) -> dict[str, int]:
    """Returns the layer number of each trainable variable of a backbone made of blocks, by path.

    Args:
        network: keras.Model. One of the library's backbones.

    Returns:
        dict from `variable.path` to int: 0 for patch embedding, tokens and positions or the stem; 1 to L for what
        belongs to the L blocks (a ViT's, or those of a ResNet, RegNet, ConvNeXt or Swin through all stages), in their
        order, where the downsampling of a ConvNeXt or Swin belongs to the block after it; L + 1 for what follows them,
        such as the last normalization or XCiT's blocks of class attention.

    Raises:
        ValueError: If the network has no blocks named `block0` or `stage1_block0`, as those of other libraries.
    """
    paths = [variable_path(variable) for variable in network.trainable_variables]
    parts = {path: _part(path, network.name) for path in paths}
    blocks = [part for part in dict.fromkeys(parts.values()) if _BLOCK.fullmatch(part)]
    if not blocks:
        raise ValueError(
            "Expected a ViT or ResNet of keras_ssl.backbones, with weights under block0 or stage1_block0. "
            f"Received: {network.name} with weights such as {paths[:3]}"
        )
    blocks.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    number = {name: i for i, name in enumerate(blocks, start=1)}
    return {path: _number(part, number) for path, part in parts.items()}


def layer_decay(network: keras.Model, decay: float) -> list[ParameterGroup]:
    """Returns parameter groups that scale the learning rate by decay ** (L + 1 - layer number).

    What is not the network's, such as a new classifier, is in no group and keeps the whole rate. For fine-tuning:

        optimizer = AdamW(WarmupCosine(peak=1e-3, total_steps=steps), betas=(0.9, 0.999))
        optimizer.set_parameter_groups(layer_decay(backbone, 0.65))
        optimizer.build(model.trainable_variables)

    Args:
        network: keras.Model. A ViT or ResNet of `keras_ssl.backbones`, part of the model that is trained. No other
            network in that model may have its name.
        decay: float in (0, 1]. MAE uses 0.65 for ViT-B and 0.75 for ViT-L; 1 changes nothing.

    Returns:
        list of ParameterGroup, one for each layer number, the first layers first.

    Raises:
        ValueError: If decay is out of range, or the network is another one; see `layer_ids`.

    Reference: Clark et al., 2020, https://arxiv.org/abs/2003.10555; Bao et al., 2022, https://arxiv.org/abs/2106.08254,
    fine-tuning. He et al., 2022, https://arxiv.org/abs/2111.06377, table 9.
    Reference code: facebookresearch/mae `util/lr_decay.py`.
    Differs from the reference: nothing known for ViTs; for ResNets there is none, and each residual block is a layer.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"Expected decay to be in (0, 1]. Received: decay={decay}")
    members: dict[int, list[str]] = {}
    for path, number in layer_ids(network).items():
        members.setdefault(number, []).append(path)
    last = max(members)
    return [
        ParameterGroup(
            pattern=r"(?:^|/)(?:" + "|".join(re.escape(path) for path in members[number]) + ")$",
            learning_rate_scale=decay ** (last - number),
        )
        for number in sorted(members)
    ]


def _number(part: str, blocks: dict[str, int]) -> int:
    """Returns the layer number of what has the name `part` under the network; `blocks` numbers the blocks."""
    if _FIRST.fullmatch(part):
        return 0
    if match := _DOWNSAMPLE.fullmatch(part):
        part = f"stage{match[1]}_block0"
    return blocks.get(part, len(blocks) + 1)


def _part(path: str, name: str) -> str:
    """Returns the first name under the network's own: `vit/block0/norm1/gamma` gives `block0`."""
    inside = path.rpartition(f"{name}/")[2] if f"{name}/" in path else path
    return inside.partition("/")[0]
