"""The networks of Zhang, Isola and Efros in PyTorch, under the names of their files; they see CIE Lab as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from keras_ssl.conversion.references.torch_convnets import Outputs, pooled

# Kernel, stride, pad and groups of each convolution of the AlexNet; dilation of each stage of the other network.
ALEXNET_SHAPES = ((11, 4, 0, 1), (5, 1, 2, 2), (3, 1, 1, 1), (3, 1, 1, 2), (3, 1, 1, 2))
DILATIONS = (1, 1, 1, 1, 2, 2, 1)


class CaffeAlexNet(nn.Module):
    """Takes Lab or L alone of it; pools round the size of the map up.

    The first layer, `data_lab` or `data_l`, has a factor and an offset for each channel.

    Args:
        f: five ints. Channels of the convolutions.
        channels: int. `3` for Lab or `1` for L. Defaults to `3`.
    """

    def __init__(self, f: Sequence[int], channels: int = 3):
        super().__init__()
        self.first = "data_lab" if channels == 3 else "data_l"
        self.add_module(self.first, nn.Conv2d(channels, channels, 1, groups=channels))
        before = channels
        for number, (size, stride, pad, groups) in enumerate(ALEXNET_SHAPES, start=1):
            conv = nn.Conv2d(before, f[number - 1], size, stride, pad, groups=groups)
            self.add_module(f"conv{number}", conv)
            before = f[number - 1]

    def forward(self, lab: torch.Tensor) -> Outputs:
        center = getattr(self, self.first)
        x, maps = center(lab[:, : center.in_channels]), []
        for number in range(1, 6):
            maps.append(x := F.relu(getattr(self, f"conv{number}")(x)))
            if number in (1, 2, 5):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return pooled(x, maps)


class Colorization(nn.Module):
    """Stages of 3x3 convolutions with ReLU and one batch-norm at the end, the first three with stride 2 at the end.

    The authors' Caffe network subtracts 50 from L, and its batch-norms have no factor and no offset; their PyTorch
    network divides by 100 too.

    Args:
        blocks: ints. Convolutions of each stage.
        filters: ints. Channels of each stage.
        caffe: bool. Whether it is the network of Caffe, and has the names of its layers.
    """

    def __init__(self, blocks: Sequence[int], filters: Sequence[int], caffe: bool):
        super().__init__()
        self.scale = 1.0 if caffe else 100.0
        before, self.stages = 1, []
        for number, (count, after) in enumerate(zip(blocks, filters, strict=True), start=1):
            layers = [
                *_stage(number, count, before, after),
                nn.BatchNorm2d(after, affine=not caffe),
            ]
            names = _caffe_names(number, count) if caffe else _torch_names(number, count)
            for name, layer in zip(names, layers, strict=True):
                _add(self, name, layer)
            self.stages.append(layers)
            before = after

    def forward(self, lab: torch.Tensor) -> Outputs:
        x, maps = (lab[:, :1] - 50.0) / self.scale, []
        for *convs, norm in self.stages:
            for conv in convs:
                maps.append(x := F.relu(conv(x)))
            maps[-1] = x = norm(x)
        return pooled(x, maps)


def _stage(number: int, count: int, before: int, after: int) -> Iterator[nn.Module]:
    """Yields the convolutions of a stage."""
    rate = DILATIONS[number - 1]
    for index in range(count):
        stride = 2 if number <= 3 and index == count - 1 else 1
        yield nn.Conv2d(before, after, 3, stride, rate, rate)
        before = after


def _caffe_names(number: int, count: int) -> Iterator[str]:
    for index in range(1, count + 1):
        yield f"{'bw_' if number == index == 1 else ''}conv{number}_{index}"
    yield f"conv{number}_{count}norm"


def _torch_names(number: int, count: int) -> Iterator[str]:
    """Yields places in a row where a ReLU follows each convolution."""
    for place in range(count + 1):
        yield f"model{number}.{2 * place}"


def _add(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Gives a module a layer whose name may have one dot."""
    root, _, place = name.partition(".")
    if place and not hasattr(module, root):
        module.add_module(root, nn.Module())
    (getattr(module, root) if place else module).add_module(place or root, layer)
