"""What reference network a file needs: its form from the shapes and names of the tensors.

What no tensor shows comes from the settings of the entry: heads, pooling, how positions are resized. Each function gets
the tensors and the settings and returns a module of PyTorch that nothing has filled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_ssl.conversion.references.running import Tensors

Settings = Mapping[str, Any]


def counts(tensors: Tensors, pattern: str) -> list[int]:
    """Returns how many second numbers there are for each first number of a pattern with two groups.

    The pattern matches the beginning of names; with `layer(\\d+)\\.(\\d+)\\.` it counts the blocks of each layer.
    """
    found: dict[int, set[int]] = {}
    for match in filter(None, (re.match(pattern, key) for key in tensors)):
        found.setdefault(int(match[1]), set()).add(int(match[2]))
    return [len(found[number]) for number in sorted(found)]


def count(tensors: Tensors, pattern: str) -> int:
    """Returns how many values the group of a pattern has, which matches the beginning of names."""
    return len({match[1] for match in (re.match(pattern, key) for key in tensors) if match})


def resnet(tensors: Tensors, settings: Settings, last_stride: int = 2) -> Any:
    """Returns a ResNet under torchvision's names."""
    from keras_ssl.conversion.references import torch_resnets

    blocks = counts(tensors, r"layer(\d+)\.(\d+)\.")
    inside = [len(tensors[f"layer{stage + 1}.0.conv1.weight"]) for stage in range(len(blocks))]
    bottleneck = "layer1.0.conv3.weight" in tensors
    channels = tensors["conv1.weight"].shape[1]
    form = {"bottleneck": bottleneck, "channels": channels, "last_stride": last_stride}
    return torch_resnets.ResNet(blocks, inside, **form)


def regnet(tensors: Tensors, settings: Settings) -> Any:
    """Returns a RegNetY under VISSL's names."""
    from keras_ssl.conversion.references import torch_convnets

    blocks = counts(tensors, r"_feature_blocks\.res\d+\.block(\d+)-(\d+)\.")
    first = "_feature_blocks.res{}.block{}-0.f.{}.0.weight"
    filters = [len(tensors[first.format(n + 1, n, "a")]) for n in range(1, len(blocks) + 1)]
    group_width = tensors[first.format(2, 1, "b")].shape[1]
    stem = len(tensors["_feature_blocks.conv1.stem.0.weight"])
    return torch_convnets.RegNet(blocks, filters, group_width, stem)


def xcit(tensors: Tensors, settings: Settings) -> Any:
    """Returns an XCiT."""
    from keras_ssl.conversion.references import torch_attention

    return torch_attention.XCiT(
        tensors["cls_token"].shape[-1],
        count(tensors, r"blocks\.(\d+)\."),
        len(tensors["blocks.0.attn.temperature"]),
        2 ** count(tensors, r"patch_embed\.proj\.(\d+)\.0\."),
        count(tensors, r"cls_attn_blocks\.(\d+)\."),
    )


def convnext(tensors: Tensors, settings: Settings) -> Any:
    """Returns a ConvNeXt of DINOv3."""
    from keras_ssl.conversion.references import torch_attention

    blocks = counts(tensors, r"stages\.(\d+)\.(\d+)\.")
    filters = [len(tensors[f"stages.{stage}.0.gamma"]) for stage in range(len(blocks))]
    return torch_attention.ConvNeXt(blocks, filters)


def vit(tensors: Tensors, settings: Settings, **form: Any) -> Any:
    """Returns a vision transformer; `form` says what is the same for all files of a layout."""
    from keras_ssl.conversion.references import torch_vits

    patches = tensors["patch_embed.proj.weight"]
    token = "cls_token" in tensors
    kinds = {"fc1": "mlp", "w12": "fused", "w1": "split"}
    found = [name for name in kinds if f"blocks.0.mlp.{name}.weight" in tensors]
    name = found[0] if found else "fc1"
    ffn, hidden = kinds[name], len(tensors[f"blocks.0.mlp.{name}.weight"])
    positions = "scale" if settings["position_offset"] else "size"
    table = np.shape(tensors["pos_embed"])[1] - token if "pos_embed" in tensors else 0
    shape = {
        "width": len(patches),
        "depth": count(tensors, r"blocks\.(\d+)\."),
        "heads": settings["num_heads"],
        "hidden": hidden // 2 if ffn == "fused" else hidden,
        "patch": patches.shape[-1],
        "grid": round(table**0.5),
        "token": token,
        "scale": "blocks.0.ls1.gamma" in tensors,
        "ffn": ffn,
        "bias": "full" if "blocks.0.attn.qkv.bias" in tensors else "none",
        "positions": "antialias" if settings["position_antialias"] else positions,
        "pooling": settings["pooling"].replace("mean_then_norm", "fc_norm"),
    }
    return torch_vits.ViT(torch_vits.Form(**{**shape, **form}))


def dinov2(tensors: Tensors, settings: Settings) -> Any:
    """Returns a network of DINOv2."""
    registers = "register_tokens" if "register_tokens" in tensors else ""
    return vit(tensors, settings, registers=registers)


def dinov3(tensors: Tensors, settings: Settings) -> Any:
    """Returns a network of DINOv3."""
    masked = "blocks.0.attn.qkv.bias_mask" in tensors
    form = {"registers": "storage_tokens", "positions": "rope", "epsilon": 1e-5}
    return vit(tensors, settings, **form, **({"bias": "masked"} if masked else {}))


def alexnet(tensors: Tensors, settings: Settings, **more: Any) -> Any:
    """Returns SeLa's AlexNet, or with `more` arguments of `torch_convnets.Numbered` DeepCluster's."""
    from keras_ssl.conversion.references import torch_convnets

    root = "features.module" if more.get("parallel") else "features"
    units = torch_convnets.alexnet_units(list(_filters(tensors, root).values()))
    return torch_convnets.Numbered(
        units, *_dense(tensors, settings, "classifier", 1, 4, units), **more
    )


def vgg(tensors: Tensors, settings: Settings) -> Any:
    """Returns DeepCluster's VGG-16."""
    from keras_ssl.conversion.references import torch_convnets

    units = _vgg_units(_filters(tensors, "features.module"))
    dense = _dense(tensors, settings, "classifier", 0, 3, units)
    return torch_convnets.Numbered(units, *dense, sobel=1, parallel=True)


def vgg_in_a_body(tensors: Tensors, settings: Settings) -> Any:
    """Returns DeeperCluster's VGG-16, of clusters with a Sobel layer and of rotations without one."""
    from keras_ssl.conversion.references import torch_convnets

    units = _vgg_units(_filters(tensors, "body.features"))
    dense = _dense(tensors, settings, "body.classifier", 0, 3, units)
    return torch_convnets.DeeperCluster(units, *dense, sobel=bool(settings["sobel"]))


def blocks(tensors: Tensors, settings: Settings, **more: Any) -> Any:
    """Returns an AlexNet in feature blocks; `more`: what no tensor shows, see `torch_convnets.Blocks`."""
    from keras_ssl.conversion.references import torch_convnets

    keys = [f"_feature_blocks.{place}" for place in (0, 2, 4, 5, 6)]
    f = [len(tensors[f"{key}.0.weight"]) for key in keys]
    norms = [int(f"{key}.1.running_mean" in tensors) for key in keys]
    channels = tensors[f"{keys[0]}.0.weight"].shape[1]
    groups = tensors[f"{keys[1]}.0.weight"].shape[1] < f[0]
    if settings["dense"]:
        first = np.shape(tensors["_feature_blocks.8.1.weight"])
        second = np.shape(tensors["_feature_blocks.8.4.weight"])
        more |= {"dense": (first[0], second[0]), "side": round((first[1] / f[-1]) ** 0.5)}
    return torch_convnets.Blocks(f, channels=channels, groups=groups, norms=norms, **more)


def swin(tensors: Tensors, settings: Settings) -> Any:
    """Returns a Swin. That the windows of a stage are shifted is seen by the image size, which no tensor shows."""
    from keras_ssl.conversion.references import torch_swin

    patches = tensors["patch_embed.proj.weight"]
    blocks = counts(tensors, r"layers\.(\d+)\.blocks\.(\d+)\.")
    key = "layers.{}.blocks.0.attn.relative_position_bias_table"
    tables = [np.shape(tensors[key.format(stage)]) for stage in range(len(blocks))]
    window = max((round(rows**0.5) + 1) // 2 for rows, _ in tables)
    sizes = settings["image_size"], patches.shape[-1]
    return torch_swin.Swin(len(patches), blocks, [heads for _, heads in tables], window, *sizes)


def caffe_alexnet(tensors: Tensors, settings: Settings) -> Any:
    """Returns the AlexNet of split-brain autoencoders and colorization."""
    from keras_ssl.conversion.references import torch_color

    kernels = [tensors[f"conv{number}.weight"] for number in range(1, 6)]
    return torch_color.CaffeAlexNet([len(kernel) for kernel in kernels], kernels[0].shape[1])


def colorization(tensors: Tensors, settings: Settings, caffe: bool) -> Any:
    """Returns the network that colorizes, of Caffe or of PyTorch."""
    from keras_ssl.conversion.references import torch_color

    place = r"(?:bw_)?conv(\d)_(\d+)" if caffe else r"model([1-7])\.(\d+)"
    kernels: dict[int, list[Any]] = {}
    for key, value in tensors.items():
        match = re.fullmatch(rf"{place}\.weight", key)
        if match and "1" <= match[1] <= "7" and np.ndim(value) == 4:
            kernels.setdefault(int(match[1]), []).append(value)
    stages = [kernels[number] for number in range(1, 8)]
    shape = [len(stage) for stage in stages], [len(stage[0]) for stage in stages]
    return torch_color.Colorization(*shape, caffe)


def preact(tensors: Tensors, settings: Settings) -> Any:
    """Returns a ResNet version 2, from the sizes of its kernels in their order: each stage begins with a shortcut."""
    from keras_ssl.conversion.references import torch_preact

    number = count(tensors, r"resnet_model\.(conv2d(?:_\d+)?)\.")
    names = ["conv2d", *(f"conv2d_{index}" for index in range(1, number))]
    kernels = [tensors[f"resnet_model.{name}.kernel"] for name in names]
    sizes = "".join(str(len(kernel)) for kernel in kernels[1:])
    bottleneck = sizes.startswith("11")
    block = "131" if bottleneck else "33"
    blocks = [len(stage) // len(block) for stage in re.findall(f"1((?:{block})+)", sizes)]
    inside = [kernel.shape[3] for kernel in kernels if len(kernel) == 3][:: block.count("3")]
    filters = [inside[sum(blocks[:stage])] for stage in range(len(blocks))]
    return torch_preact.PreActResNet(blocks, filters, bottleneck)


def _filters(tensors: Tensors, root: str) -> dict[int, int]:
    """Returns the channels of each convolution by its place in a row."""
    found = (re.fullmatch(rf"{re.escape(root)}\.(\d+)\.weight", key) for key in tensors)
    places = {int(match[1]): match[0] for match in found if match}
    return {n: len(tensors[places[n]]) for n in sorted(places) if tensors[places[n]].ndim == 4}


def _vgg_units(filters: Mapping[int, int]) -> list[int | tuple[int, ...]]:
    """Returns the units of a VGG: a pool where the places of two convolutions are four apart, and at the end."""
    units: list[int | tuple[int, ...]] = []
    for place, channels in filters.items():
        units.append((channels, 3, 1, 1))
        if place + 3 not in filters:
            units.append(2)
    return units


def _dense(
    tensors: Tensors,
    settings: Settings,
    root: str,
    first: int,
    second: int,
    units: Sequence[int | tuple[int, ...]],
) -> tuple[Any, ...]:
    """Returns side, widths and places of the dense layers, or nothing if the encoder ends before them."""
    if not settings["dense"]:
        return ()
    shapes = [np.shape(tensors[f"{root}.{number}.weight"]) for number in (first, second)]
    last = [unit[0] for unit in units if not isinstance(unit, int)][-1]
    side = round((shapes[0][1] / last) ** 0.5)
    return side, [shape[0] for shape in shapes], (first, second)
