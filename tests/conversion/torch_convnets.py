"""The published networks in PyTorch, small, with the names that their files have; written from their description."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SOBEL = [[[[1, 0, -1], [2, 0, -2], [1, 0, -1]]], [[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]]]


def randomized(make, seed=0):
    """Gives every tensor a value that matters: statistics, factors and biases away from where they start.

    `make()` returns the module; its kernels are PyTorch's start values for the seed.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        module = make()
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    fixed = {id(p) for p in module.sobel.parameters()} if hasattr(module, "sobel") else set()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.ndim == 0 or id(value) in fixed:
                continue
            if name.endswith(("running_var", "temperature")):
                value.copy_(uniform(value, 0.5, 2.0))
            elif value.ndim == 1 and not name.endswith(("bias", "running_mean")):
                value.copy_(uniform(value, 0.5, 1.5))
            elif value.ndim == 1 or name == "cls_token":
                value.copy_(uniform(value, -0.2, 0.4))
    return module.eval()


class Outputs(dict):
    """features, map or tokens (channels last) and layers of a reference."""


def last(x):
    return x.permute(0, 2, 3, 1)


def pooled(x, maps):
    return Outputs(features=x.mean((2, 3)), map=last(x), layers=[last(y) for y in maps])


# RegNetY: ClassyVision's block under VISSL's names


def conv_norm(before, after, size, stride=1, groups=1):
    conv = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class Gate(nn.Module):
    def __init__(self, channels, hidden):
        super().__init__()
        down, up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.excitation = nn.Sequential(down, nn.ReLU(), up, nn.Sigmoid())

    def forward(self, x):
        return x * self.excitation(x.mean((2, 3), keepdim=True))


class RegNetBlock(nn.Module):
    def __init__(self, before, after, stride, group_width):
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

    def forward(self, x):
        return F.relu(self.f(x) + (self.bn(self.proj(x)) if hasattr(self, "proj") else x))


class RegNet(nn.Module):
    def __init__(self, blocks, filters, group_width, stem_filters=32):
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

    def forward(self, x):
        maps = []
        for block in self._feature_blocks.values():
            maps.append(x := block(x))
        return pooled(x, maps[1:])


# AlexNet and VGG


def sobel_layer(pad):
    layers = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=pad)
    with torch.no_grad():
        layers[0].weight.fill_(1 / 3)
        layers[1].weight.copy_(torch.tensor(SOBEL))
        for layer in layers:
            layer.bias.zero_()
    return nn.Sequential(*layers)


def row(channels, units):
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


def alexnet_units(f):
    first = [(f[0], 11, 4, 2), 3, (f[1], 5, 1, 2), 3]
    return [*first, *((filters, 3, 1, 1) for filters in f[2:]), 3]


def vgg_units(blocks, filters):
    return [
        unit
        for count, channels in zip(blocks, filters, strict=True)
        for unit in [*[(channels, 3, 1, 1)] * count, 2]
    ]


class Numbered(nn.Module):
    """Sobel or not, `features`, a classifier whose layers have the given numbers, one top layer or more."""

    def __init__(
        self, units, side, dense, numbers, *, sobel=None, parallel=False, tops=("top_layer",)
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

    def forward(self, x, upto=None):
        x = self.sobel(x) if hasattr(self, "sobel") else x
        maps = []
        for layer in getattr(self.features, "module", self.features):
            x = layer(x)
            maps += [x] if isinstance(layer, nn.ReLU) else []
        return Outputs(pooled(x, maps), features=self.classifier(x.flatten(1)))


class DeeperCluster(nn.Module):
    """The same in a body, with a border of zeros around the image; the Sobel filter does not pad."""

    def __init__(self, *args, sobel=False, **kwargs):
        super().__init__()
        self.body = Numbered(*args, sobel=0 if sobel else None, tops=(), **kwargs)
        self.pred_layer = nn.Linear(args[2][-1], 3)
        self.border = 1
        if sobel:
            self.sobel, self.border = self.body.sobel, 2
            del self.body.sobel

    def forward(self, x):
        x = F.pad(x, (self.border,) * 4)
        return self.body(self.sobel(x) if hasattr(self, "sobel") else x)


class Blocks(nn.Module):
    """VISSL's and RotNet's AlexNets: one feature block for each convolution, pool (with or without response norm)."""

    def __init__(self, f, *, channels=3, stride=4, pad=2, groups=False, norms=(1,) * 5, response=False,
                 dense=(), side=0, sobel=False):  # fmt: skip
        super().__init__()
        if sobel:
            self.sobel = sobel_layer(1)
        pool, response = [nn.MaxPool2d(3, 2)], [nn.LocalResponseNorm(5, 1e-4, 0.75)] * response
        between = [*pool, *response] if response else pool
        shapes = [(11, stride, pad), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        blocks = []
        for index, (size, step, border) in enumerate(shapes):
            split = 2 if groups and index in (1, 3, 4) else 1
            conv = nn.Conv2d(channels, f[index], size, step, border, groups=split)
            norm = [nn.BatchNorm2d(f[index])] * norms[index]
            blocks.append(nn.Sequential(conv, *norm, nn.ReLU()))
            channels = f[index]
            if index in (0, 1):
                blocks.append(nn.Sequential(*between))
        blocks.append(pool[0])
        if dense:
            first = nn.Linear(channels * side * side, dense[0], bias=False)
            second = nn.Linear(*dense, bias=False)
            norms = [nn.BatchNorm1d(width) for width in dense]
            fc = nn.Flatten(), first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU()
            blocks += [nn.Sequential(*fc), nn.Sequential(nn.Linear(dense[1], 4))]
        self._feature_blocks = nn.ModuleList(blocks)

    def forward(self, x):
        x, maps = self.sobel(x) if hasattr(self, "sobel") else x, []
        for index, block in enumerate(self._feature_blocks[:8]):
            x = block(x)
            maps += [x] if index in (0, 2, 4, 5, 6) else []
        out = pooled(x, maps)
        return (
            Outputs(out, features=self._feature_blocks[8](x))
            if len(self._feature_blocks) > 8
            else out
        )


def lightness(images):
    """L - 50 of (batch, height, width, 3) in [0, 1] as OpenCV documents it, `(batch, 1, height, width)`."""
    linear = np.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)
    y = linear @ np.array([0.212671, 0.715160, 0.072169])
    value = np.where(y > 0.008856, 116.0 * np.cbrt(y) - 16.0, 903.3 * y)
    return torch.tensor(value - 50.0, dtype=torch.float32)[:, None]
