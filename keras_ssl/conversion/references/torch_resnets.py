"""ResNets in PyTorch with torchvision's names, written from the description of the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from keras_ssl.conversion.references.torch_convnets import Outputs, pooled


def unit(
    into: int, out: int, size: int, stride: int = 1, padding: int | None = None
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Returns a convolution and its batch-norm; `padding` defaults to half the kernel."""
    padding = size // 2 if padding is None else padding
    return nn.Conv2d(into, out, size, stride, padding, bias=False), nn.BatchNorm2d(out)


class Block(nn.Module):
    """Bottleneck with the stride on its 3x3, or a basic block."""

    def __init__(self, into: int, inside: int, stride: int, bottleneck: bool):
        super().__init__()
        out = inside * (4 if bottleneck else 1)
        if bottleneck:
            self.conv1, self.bn1 = unit(into, inside, 1)
            self.conv2, self.bn2 = unit(inside, inside, 3, stride)
            self.conv3, self.bn3 = unit(inside, out, 1)
        else:
            self.conv1, self.bn1 = unit(into, inside, 3, stride)
            self.conv2, self.bn2 = unit(inside, inside, 3)
        self.last = 3 if bottleneck else 2
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(*unit(into, out, 1, stride))
        else:
            self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.last + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            x = norm(conv(x))
            if number < self.last:
                x = torch.relu(x)
        return torch.relu(x + shortcut)


class ResNet(nn.Module):
    """Stem, stages of blocks, mean; no classifier.

    Args:
        blocks: ints. Blocks of each stage.
        filters: ints. Inner channels of each stage, for a width of 1. Defaults to those of ResNet-50.
        width: int. Multiplies all channels. Defaults to `1`.
        bottleneck: bool. Whether blocks are bottlenecks. Defaults to `True`.
        swav: bool. Whether one zero is put around the image first and two in the stem, as SwAV's authors write it;
            the same numbers as three at once. Defaults to `False`.
        channels: int. Of the images. Defaults to `3`.
        last_stride: int. Of the first block of the last stage. Defaults to `2`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        filters: Sequence[int] = (64, 128, 256, 512),
        width: int = 1,
        bottleneck: bool = True,
        swav: bool = False,
        channels: int = 3,
        last_stride: int = 2,
    ):
        super().__init__()
        into = filters[0] * width
        self.padding = nn.ConstantPad2d(1, 0.0) if swav else nn.Identity()
        self.conv1, self.bn1 = unit(channels, into, 7, 2, padding=2 if swav else 3)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(blocks)
        for stage, count in enumerate(blocks):
            inside, parts = filters[stage] * width, []
            first = last_stride if stage == len(blocks) - 1 else 2
            for index in range(count):
                stride = first if stage and not index else 1
                parts.append(Block(into, inside, stride, bottleneck))
                into = inside * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))

    def forward(self, x: torch.Tensor) -> Outputs:
        x, maps = self.maxpool(torch.relu(self.bn1(self.conv1(self.padding(x))))), []
        for stage in range(1, self.stages + 1):
            maps.append(x := getattr(self, f"layer{stage}")(x))
        return pooled(x, maps)
