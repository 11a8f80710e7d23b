"""ResNets under torchvision's names: SwAV, DINO, MoCo, SimSiam, Barlow Twins, VICReg, VISSL and many others."""

from __future__ import annotations

import functools

import keras

from keras_ssl.backbones import ResNet
from keras_ssl.conversion.engine import CONVOLUTION, Layout, Port, batch_norm_ports

# Beside the encoder, prefixes removed: counters, classifiers and heads, queues, and the other network of a pair.
LEFT_OUT = (
    r"(.*\.)?num_batches_tracked",
    r"(module\.)?(fc|head|heads|projection_head|projector|predictor|prototypes|classifier)\..*",
    r"(module\.)?queue(_ptr)?",
    r"(.*\.)?(encoder_k|momentum_encoder)\..*",
)


def checked_resnet(
    network: keras.Model, padding: str, selective: bool = False, colorization: bool = False
) -> ResNet:
    """Returns the network if its form is the one that a family of checkpoints was trained with.

    Another padding or another kind of block may have variables of the same shapes, and then gives other numbers.

    Args:
        network: keras.Model.
        padding: str. What its `padding` must be.
        selective: bool. Whether the family has selective kernels, and only bottleneck blocks. Defaults to `False`.
        colorization: bool. Whether the family sees lightness and has a last stage without stride. Defaults to `False`.

    Raises:
        ValueError: if it is no `ResNet` of this form.
    """
    if not isinstance(network, ResNet):
        raise ValueError(f"Expected a `ResNet`. Received: {type(network).__name__}")
    settings = network.settings
    last_stride = 1 if colorization else 2
    form = {"padding": padding, "lightness": colorization, "last_stride": last_stride}
    for key, wanted in form.items():
        if settings[key] != wanted:
            raise ValueError(
                f"Expected a `ResNet` with {key}={wanted!r}, as these checkpoints were trained with. "
                f"Received: {key}={settings[key]!r}"
            )
    if settings["selective_kernels"] and not selective:
        raise ValueError("Expected a `ResNet` without selective kernels, which only SimCLR has.")
    if padding != "torch" and not settings["bottleneck"]:
        raise ValueError("Expected a `ResNet` of bottleneck blocks. Received: bottleneck=False")
    return network


def ports(network: keras.Model, colorization: bool = False) -> list[Port]:
    """Returns the ports of a `ResNet` of any depth and width, in torchvision's order."""
    network = checked_resnet(network, "torch", colorization=colorization)
    found = _unit(network.stem_conv, network.stem_norm, "conv1", "bn1")
    for stage, blocks in enumerate(network.stages, start=1):
        for index, block in enumerate(blocks):
            key = f"layer{stage}.{index}"
            for number, pair in enumerate(zip(block.convs, block.norms, strict=True), start=1):
                found += _unit(*pair, f"{key}.conv{number}", f"{key}.bn{number}")
            if block.shortcut_conv is not None:
                keys = f"{key}.downsample.0", f"{key}.downsample.1"
                found += _unit(block.shortcut_conv, block.shortcut_norm, *keys)
    return found


def _unit(
    conv: keras.layers.Layer, norm: keras.layers.Layer, conv_key: str, norm_key: str
) -> list[Port]:
    return [Port(f"{conv_key}.weight", conv.kernel, CONVOLUTION), *batch_norm_ports(norm, norm_key)]


TORCHVISION_RESNET = Layout("torchvision_resnet", ports, left_out=LEFT_OUT)
# facebookresearch/vissl `vissl/models/trunks/resnext.py` with the settings of `configs/config/benchmark/
# linear_image_classification/imagenet1k/models/resnet50_colorization.yaml`: the same names, another network.
VISSL_RESNET_COLORIZATION = Layout(
    "vissl_resnet_colorization",
    functools.partial(ports, colorization=True),
    left_out=LEFT_OUT,
)
