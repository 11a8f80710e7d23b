"""RegNetY, AlexNet and VGG in PyTorch with the names that their files have, written from their description."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

# The two kernels of the Sobel layer, (2, 1, 3, 3).
SOBEL = [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]]]


class Outputs(dict):
    """features, map or tokens (channels last) and layers of a reference, all tensors."""


def last(x: torch.Tensor) -> torch.Tensor:
    """Returns (batch, channels, height, width) with the channels last."""
    return x.permute(0, 2, 3, 1)


def pooled(x: torch.Tensor, maps: Sequence[torch.Tensor]) -> Outputs:
    """Returns the outputs of a network whose features are the mean of its last map."""
    return Outputs(features=x.mean((2, 3)), map=last(x), layers=[last(y) for y in maps])


# RegNetY: ClassyVision's block under VISSL's names


def conv_norm(
    before: int, after: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Returns convolution, batch-norm and ReLU."""
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        down, up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.excitation = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.excitation(x.mean((2, 3), keepdim=True))


class RegNetBlock(nn.Module):
    """Bottleneck with groups and a gate; its hidden width is a quarter of what comes in."""

    def __init__(self, before: int, after: int, stride: int, group_width: int):
        super().__init__()
        if before != after or stride != 1:
            self.proj = nn.Conv2d(before, after, 1, stride, bias=False)
            self.bn = nn.BatchNorm2d(after)
        self.f = nn.Sequential(
            OrderedDict(
                a=conv_norm(before, after, 1),
                b=conv_norm(after, after, 3, stride, after // group_width),
                se=Gate(after, round(before / 4)),
                c=nn.Conv2d(after, after, 1, bias=False),
                final_bn=nn.BatchNorm2d(after),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.f(x) + (self.bn(self.proj(x)) if hasattr(self, "proj") else x))


class RegNet(nn.Module):
    """Stem, four stages or any other number, mean.

    Args:
        blocks: ints. Blocks of each stage.
        filters: ints. Channels of each stage.
        group_width: int. Channels of a group.
        stem_filters: int. Defaults to `32`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        filters: Sequence[int],
        group_width: int,
        stem_filters: int = 32,
    ):
        super().__init__()
        stem = OrderedDict(stem=conv_norm(3, stem_filters, 3, 2))
        self._feature_blocks = nn.ModuleDict({"conv1": nn.Sequential(stem)})
        before = stem_filters
        for stage, (count, after) in enumerate(zip(blocks, filters, strict=True), start=1):
            parts = OrderedDict()
            for i in range(count):
                block = RegNetBlock(before, after, 2 if i == 0 else 1, group_width)
                parts[f"block{stage}-{i}"], before = block, after
            self._feature_blocks[f"res{stage + 1}"] = nn.Sequential(parts)

    def forward(self, x: torch.Tensor) -> Outputs:
        maps = []
        for block in self._feature_blocks.values():
            maps.append(x := block(x))
        return pooled(x, maps[1:])


# AlexNet and VGG


def sobel_layer(pad: int) -> nn.Sequential:
    """Returns the mean of the colors and the edges of it; `pad` zeros around."""
    layers = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=pad)
    with torch.no_grad():
        layers[0].weight.fill_(1 / 3)
        layers[1].weight.copy_(torch.tensor(SOBEL))
        for layer in layers:
            layer.bias.zero_()
    return nn.Sequential(*layers)


def row(channels: int, units: Sequence[int | tuple[int, ...]]) -> nn.Sequential:
    """Convolution (filters, kernel, stride, pad), batch-norm and ReLU in a row; a number is a pool of that size."""
    layers = []
    for unit in units:
        if isinstance(unit, int):
            layers.append(nn.MaxPool2d(unit, 2))
            continue
        filters, size, stride, pad = unit
        conv = nn.Conv2d(channels, filters, size, stride, pad)
        layers += [conv, nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers)


def alexnet_units(f: Sequence[int]) -> list[int | tuple[int, ...]]:
    """Returns what `row` needs for an AlexNet with the given channels."""
    first = [(f[0], 11, 4, 2), 3, (f[1], 5, 1, 2), 3]
    return [*first, *((filters, 3, 1, 1) for filters in f[2:]), 3]


def vgg_units(blocks: Sequence[int], filters: Sequence[int]) -> list[int | tuple[int, ...]]:
    """Returns what `row` needs for a VGG: its 3x3 convolutions, a pool after each stage."""
    return [
        unit
        for count, channels in zip(blocks, filters, strict=True)
        for unit in [*[(channels, 3, 1, 1)] * count, 2]
    ]


class Numbered(nn.Module):
    """Sobel or not, `features`, a classifier whose layers have the given numbers, top layers.

    Without dense layers the features are the mean of the last map.

    Args:
        units: see `row`.
        side: int. Of the map that the first dense layer reads.
        dense: ints. Widths of the dense layers.
        numbers: ints. Their places in the classifier.
        sobel: int or None. Zeros around the Sobel filter; None: there is no filter. Defaults to `None`.
        parallel: bool. Whether `features` is wrapped as `torch.nn.DataParallel` does it. Defaults to `False`.
        tops: strs. Names of linear layers beside it, which give no output. Defaults to none.
    """

    def __init__(
        self,
        units: Sequence[int | tuple[int, ...]],
        side: int = 0,
        dense: Sequence[int] = (),
        numbers: Sequence[int] = (),
        *,
        sobel: int | None = None,
        parallel: bool = False,
        tops: Sequence[str] = (),
    ):
        super().__init__()
        features = row(3 if sobel is None else 2, units)
        self.features = nn.Sequential(OrderedDict(module=features)) if parallel else features
        filters = [unit[0] for unit in units if not isinstance(unit, int)][-1]
        widths = [filters * side * side, *dense]
        layers = OrderedDict()
        for number, before, after in zip(numbers, widths, dense, strict=False):
            layers[str(number)] = nn.Linear(before, after)
            layers[f"relu{number}"] = nn.ReLU()
        self.classifier = nn.Sequential(layers)
        for name in tops:
            self.add_module(name, nn.Linear(dense[-1], 3))
        if sobel is not None:
            self.sobel = sobel_layer(sobel)

    def forward(self, x: torch.Tensor) -> Outputs:
        x = self.sobel(x) if hasattr(self, "sobel") else x
        maps = []
        for layer in getattr(self.features, "module", self.features):
            x = layer(x)
            maps += [x] if isinstance(layer, nn.ReLU) else []
        out = pooled(x, maps)
        return Outputs(out, features=self.classifier(x.flatten(1))) if self.classifier else out


class DeeperCluster(nn.Module):
    """`Numbered` in a body, with a border of zeros around the image; the Sobel filter does not pad.

    Args:
        *args, **kwargs: of `Numbered`.
        sobel: bool. Defaults to `False`.
        top: int. Width of a linear layer beside it, which gives no output; 0: none. Defaults to `0`.
    """

    def __init__(self, *args, sobel: bool = False, top: int = 0, **kwargs):
        super().__init__()
        self.body = Numbered(*args, sobel=0 if sobel else None, **kwargs)
        if top:
            self.pred_layer = nn.Linear(args[2][-1], top)
        self.border = 1
        if sobel:
            self.sobel, self.border = self.body.sobel, 2
            del self.body.sobel

    def forward(self, x: torch.Tensor) -> Outputs:
        x = F.pad(x, (self.border,) * 4)
        return self.body(self.sobel(x) if hasattr(self, "sobel") else x)


class Blocks(nn.Module):
    """VISSL's and RotNet's AlexNets: one feature block for each convolution, pool (with or without response norm).

    Args:
        f: five ints. Channels of the convolutions.
        channels: int. Of the images. Defaults to `3`.
        stride: int. Of the first convolution, and
        pad: int. Zeros around its input. Default to `4` and `2`.
        groups: bool. Whether the second, fourth and fifth have two groups. Defaults to `False`.
        norms: five ints. 1: the convolution has a batch-norm. Defaults to all.
        response: bool. Whether a response norm follows the first two pools. Defaults to `False`.
        dense: two ints or none. Widths of dense layers with batch-norms. Defaults to none.
        side: int. Of the map that they read.
        sobel: bool. Whether a Sobel layer comes first. Defaults to `False`.
        top: int. Width of a linear layer after the dense ones, which gives no output. Defaults to `0` (none).
    """

    def __init__(self, f: Sequence[int], *, channels: int = 3, stride: int = 4, pad: int = 2,
                 groups: bool = False, norms: Sequence[int] = (1,) * 5, response: bool = False,
                 dense: Sequence[int] = (), side: int = 0, sobel: bool = False, top: int = 0):  # fmt: skip
        super().__init__()
        if sobel:
            self.sobel, channels = sobel_layer(1), 2
        pool, response = [nn.MaxPool2d(3, 2)], [nn.LocalResponseNorm(5, 1e-4, 0.75)] * response
        shapes = [(11, stride, pad), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        blocks = []
        for index, (size, step, border) in enumerate(shapes):
            split = 2 if groups and index in (1, 3, 4) else 1
            conv = nn.Conv2d(channels, f[index], size, step, border, groups=split)
            norm = [nn.BatchNorm2d(f[index])] * norms[index]
            blocks.append(nn.Sequential(conv, *norm, nn.ReLU()))
            channels = f[index]
            if index in (0, 1):
                blocks.append(nn.Sequential(*pool, *response))
        blocks += [*pool, *_dense_blocks(channels * side * side, dense)]
        if top:
            blocks.append(nn.Sequential(nn.Linear(dense[1], top)))
        self._feature_blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> Outputs:
        x, maps = self.sobel(x) if hasattr(self, "sobel") else x, []
        for index, block in enumerate(self._feature_blocks[:8]):
            x = block(x)
            maps += [x] if index in (0, 2, 4, 5, 6) else []
        out = pooled(x, maps)
        if len(self._feature_blocks) > 8:
            return Outputs(out, features=self._feature_blocks[8](x))
        return out


def _dense_blocks(width: int, dense: Sequence[int]) -> list[nn.Module]:
    """Returns the block of the dense layers, if there are any."""
    if not dense:
        return []
    first, second = nn.Linear(width, dense[0], bias=False), nn.Linear(*dense, bias=False)
    norms = [nn.BatchNorm1d(width) for width in dense]
    return [nn.Sequential(nn.Flatten(), first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU())]
