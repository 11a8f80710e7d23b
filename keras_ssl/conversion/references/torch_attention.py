"""XCiT and ConvNeXt in PyTorch with the names that their files have, written from their description."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from keras_ssl.conversion.references.torch_convnets import Outputs, last


def perceptron(width: int, ratio: int = 4) -> nn.Module:
    """Returns fc1 and fc2, without a way forward."""
    mlp = nn.Module()
    mlp.fc1, mlp.fc2 = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)
    return mlp


def norm(width: int) -> nn.LayerNorm:
    """Returns a layer-norm with the epsilon of all of them."""
    return nn.LayerNorm(width, eps=1e-6)


def factors(module: nn.Module, width: int, count: int) -> None:
    """Gives a module its factors of channels, gamma1 and so on."""
    for index in range(1, count + 1):
        setattr(module, f"gamma{index}", nn.Parameter(torch.ones(width)))


def split_heads(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Returns (batch, tokens, 3 width) as three (batch, heads, tokens, size)."""
    batch, tokens, width = qkv.shape
    return qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)


class Channels(nn.Module):
    """Attention between channels."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = split_heads(self.qkv(x), self.heads)
        q, k = F.normalize(q, dim=2), F.normalize(k, dim=2)
        weights = torch.einsum("bhnc,bhnd->bhcd", q, k) * self.temperature
        mixed = torch.einsum("bhcd,bhnd->bnhc", weights.softmax(-1), v)
        return self.proj(mixed.flatten(2))


class Local(nn.Module):
    """Two depthwise convolutions over the grid of tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.bn = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        x = self.conv2(self.bn(F.gelu(self.conv1(x.transpose(1, 2).unflatten(2, grid)))))
        return x.flatten(2).transpose(1, 2)


class XCABlock(nn.Module):
    """Attention between channels, local convolutions, perceptron."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = norm(width), norm(width), norm(width)
        self.attn, self.mlp, self.local_mp = Channels(width, heads), perceptron(width), Local(width)
        factors(self, width, 3)

    def forward(self, x: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        x = x + self.gamma1 * self.attn(self.norm1(x))
        x = x + self.gamma3 * self.local_mp(self.norm3(x), grid)
        return x + self.gamma2 * self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class ClassBlock(nn.Module):
    """The class token reads all tokens; patches are doubled on the way, as the authors do it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.mlp = norm(width), norm(width), perceptron(width)
        self.attn = nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        factors(self, width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm1(x)
        q, k, v = split_heads(self.attn.qkv(n), self.heads)
        read = F.scaled_dot_product_attention(q[:, :, :1], k, v).transpose(1, 2).flatten(2)
        n = torch.cat([self.attn.proj(read), n[:, 1:]], 1)
        x = self.norm2(x + self.gamma1 * n)
        token = x[:, :1] + self.gamma2 * self.mlp.fc2(F.gelu(self.mlp.fc1(x[:, :1])))
        return torch.cat([token, x[:, 1:] + x[:, 1:]], 1)


def place_code(rows: int, columns: int, count: int = 32) -> torch.Tensor:
    """Returns (2 count, rows, columns): y first, sines and cosines in turn."""
    code = torch.zeros(2 * count, rows, columns, dtype=torch.float64)
    for axis, size in enumerate((rows, columns)):
        angle = torch.arange(1, size + 1, dtype=torch.float64) / (size + 1e-6) * 2 * math.pi
        angle = angle.view((-1, 1) if axis == 0 else (1, -1)).expand(rows, columns)
        for i in range(count):
            value = angle / 10000 ** (2 * (i // 2) / count)
            code[axis * count + i] = value.cos() if i % 2 else value.sin()
    return code.float()


class XCiT(nn.Module):
    """Patches by strided convolutions, blocks, class blocks, norm.

    Args:
        width: int. Of the tokens.
        depth: int. Blocks.
        heads: int. Divides the width.
        patch: int. A power of 2.
        class_depth: int. Class blocks. Defaults to `2`.
        classes: int. Width of a classifier, which gives no output. Defaults to `0` (none).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        class_depth: int = 2,
        classes: int = 0,
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        steps = int(math.log2(patch))
        layers, before = [], 3
        for index in range(1, steps + 1):
            after = width // 2 ** (steps - index)
            conv = nn.Conv2d(before, after, 3, 2, 1, bias=False)
            layers += [nn.Sequential(conv, nn.BatchNorm2d(after)), nn.GELU()]
            before = after
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Sequential(*layers[:-1])
        self.blocks = nn.ModuleList(XCABlock(width, heads) for _ in range(depth))
        self.cls_attn_blocks = nn.ModuleList(ClassBlock(width, heads) for _ in range(class_depth))
        self.norm = norm(width)
        self.pos_embeder = nn.Module()
        self.pos_embeder.token_projection = nn.Conv2d(64, width, 1)
        if classes:
            self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> Outputs:
        x = self.patch_embed.proj(x)
        grid, layers = tuple(x.shape[2:]), []
        x = x + self.pos_embeder.token_projection(place_code(*grid)[None])
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            layers.append(x := block(x, grid))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.cls_attn_blocks:
            x = block(x)
        x = self.norm(x)
        return Outputs(features=x[:, 0], tokens=x[:, 1:], layers=layers)


class ImageNorm(nn.LayerNorm):
    """Layer-norm over the channels of (batch, channels, height, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(last(x)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer-norm, perceptron, factor."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = norm(width)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(last(self.dwconv(x)))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Stages of blocks; one norm for the mean and for each place of the last map.

    Args:
        blocks: ints. Blocks of each stage.
        filters: ints. Channels of each stage.
    """

    def __init__(self, blocks: Sequence[int], filters: Sequence[int]):
        super().__init__()
        stem = nn.Conv2d(3, filters[0], 4, 4), ImageNorm(filters[0], eps=1e-6)
        self.downsample_layers = nn.ModuleList([nn.Sequential(*stem)])
        for before, after in zip(filters[:-1], filters[1:], strict=True):
            parts = ImageNorm(before, eps=1e-6), nn.Conv2d(before, after, 2, 2)
            self.downsample_layers.append(nn.Sequential(*parts))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(count)))
            for count, width in zip(blocks, filters, strict=True)
        )
        self.norm = norm(filters[-1])
        # The file names the final norm once more, as the last of four.
        self.norms = nn.ModuleList([nn.Identity() for _ in range(3)] + [self.norm])

    def forward(self, x: torch.Tensor) -> Outputs:
        maps = []
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            maps.append(x := stage(down(x)))
        tokens = torch.cat([x.mean((2, 3))[:, None], x.flatten(2).transpose(1, 2)], 1)
        tokens = self.norm(tokens)
        grid = tokens[:, 1:].unflatten(1, tuple(x.shape[2:]))
        return Outputs(features=tokens[:, 0], map=grid, layers=[last(y) for y in maps])
