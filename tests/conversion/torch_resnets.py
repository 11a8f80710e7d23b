"""ResNets in PyTorch with torchvision's names: plain, and as SwAV and VICReg define theirs. Needs torch."""

from __future__ import annotations

import torch
from torch import nn

from tests.conversion.torch_convnets import lightness


def unit(into, out, size, stride=1, padding=None):
    padding = size // 2 if padding is None else padding
    return nn.Conv2d(into, out, size, stride, padding, bias=False), nn.BatchNorm2d(out)


class Block(nn.Module):
    """Bottleneck with the stride on its 3x3, or a basic block."""

    def __init__(self, into, inside, stride, bottleneck):
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

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.last + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            x = norm(conv(x))
            if number < self.last:
                x = torch.relu(x)
        return torch.relu(x + shortcut)


class TorchResNet(nn.Module):
    """`swav=True`: one zero around the image first, and two in the stem, as the authors write it.

    `colorization=True`: one channel goes in, and the last stage keeps the size of the map.
    """

    def __init__(
        self,
        blocks,
        filters=(64, 128, 256, 512),
        width=1,
        bottleneck=True,
        swav=False,
        colorization=False,
    ):
        super().__init__()
        into = filters[0] * width
        self.padding = nn.ConstantPad2d(1, 0.0) if swav else nn.Identity()
        self.conv1, self.bn1 = unit(1 if colorization else 3, into, 7, 2, padding=2 if swav else 3)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(blocks)
        for stage, count in enumerate(blocks):
            inside, parts = filters[stage] * width, []
            for index in range(count):
                halved = stage and not (colorization and stage == len(blocks) - 1)
                stride = 2 if halved and not index else 1
                parts.append(Block(into, inside, stride, bottleneck))
                into = inside * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(self.padding(x)))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x


def features(model, images, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """Returns {"map", "features"} in our axes, from images in [0, 1]."""
    if model.conv1.in_channels == 1:
        x = lightness(images)
    else:
        x = torch.tensor(images).permute(0, 3, 1, 2)
        x = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with torch.no_grad():
        x = model.eval()(x)
    return {"map": x.permute(0, 2, 3, 1).numpy(), "features": x.mean((2, 3)).numpy()}


def filled(model, tensors):
    """Returns the model with NumPy tensors loaded strictly."""
    model.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()}, strict=True)
    return model
