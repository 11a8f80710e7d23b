"""Swin in PyTorch, with the names that its files have; written from its description, window by window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from keras_ssl.conversion.references.torch_attention import norm, perceptron, split_heads
from keras_ssl.conversion.references.torch_convnets import Outputs


def distances(window: int) -> torch.Tensor:
    """Returns the row of the table for each pair of places, between them rows first, counted from -(window - 1)."""
    places = [divmod(place, window) for place in range(window**2)]
    rows = [
        [
            (below - row + window - 1) * (2 * window - 1) + (beside - column + window - 1)
            for row, column in places
        ]
        for below, beside in places
    ]
    return torch.tensor(rows)


class WindowAttention(nn.Module):
    """Attention in one window, with a bias for each distance."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", distances(window))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
        """Returns as much as x (batch, window^2, width); apart: bool, pairs that do not see each other."""
        q, k, v = split_heads(self.qkv(x), self.heads)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        bias = bias - 100.0 * apart.float()
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(x), -1, -1, -1))
        return self.proj(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention in windows, perceptron."""

    def __init__(self, width: int, heads: int, window: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.attn = norm(width), WindowAttention(width, heads, window)
        self.norm2, self.mlp = norm(width), perceptron(width)

    def windowed(self, x: torch.Tensor) -> torch.Tensor:
        """Returns attention in each window of the map that starts `shift` rows and columns further on, edges joined."""
        rows, columns = x.shape[1:3]
        w, s = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -columns % w, 0, -rows % w))
        tall, wide = x.shape[1:3]
        result = torch.zeros_like(x)
        for top in range(s, tall + s, w):
            for left in range(s, wide + s, w):
                lines = torch.arange(top, top + w)
                posts = torch.arange(left, left + w)
                over = (lines >= tall)[:, None].long() * 2 + (posts >= wide)[None, :].long()
                apart = over.flatten()[:, None] != over.flatten()[None, :]
                lines, posts = (lines % tall)[:, None], (posts % wide)[None, :]
                y = self.attn(x[:, lines, posts].flatten(1, 2), apart)
                result[:, lines, posts] = y.unflatten(1, (w, w))
        return result[:, :rows, :columns]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.windowed(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Merging(nn.Module):
    """Four neighbours become one, twice as wide."""

    def __init__(self, width: int):
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = norm(4 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        four = [x[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, -1)))


class Stage(nn.Module):
    """Blocks, every second one shifted unless the map is no larger than a window; merging, if one follows."""

    def __init__(self, width: int, blocks: int, heads: int, side: int, window: int, merge: bool):
        super().__init__()
        shift = window // 2 if side > window else 0
        window = min(side, window)
        self.blocks = nn.ModuleList(
            Block(width, heads, window, shift if index % 2 else 0) for index in range(blocks)
        )
        self.downsample = Merging(width) if merge else None


class Swin(nn.Module):
    """Swin; its features are the mean of the last map after the norm.

    Args:
        width: int. Channels of the first stage.
        blocks: ints. Blocks of each stage.
        heads: ints. Heads of each stage.
        window: int. Side of the windows.
        size: int. Side of the images that it is built for, by which windows shrink. Defaults to `224`.
        patch: int. Side of a patch in pixels. Defaults to `4`.
    """

    def __init__(
        self,
        width: int,
        blocks: Sequence[int],
        heads: Sequence[int],
        window: int,
        size: int = 224,
        patch: int = 4,
    ):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.patch_embed.norm = norm(width)
        last = len(blocks) - 1
        self.layers = nn.ModuleList(
            Stage(width << i, blocks[i], heads[i], (size // patch) >> i, window, i < last)
            for i in range(last + 1)
        )
        self.norm = norm(width << last)

    def forward(self, x: torch.Tensor) -> Outputs:
        x = self.patch_embed.norm(self.patch_embed.proj(x).permute(0, 2, 3, 1))
        layers = []
        for stage in self.layers:
            for block in stage.blocks:
                layers.append(x := block(x))
            x = stage.downsample(x) if stage.downsample is not None else self.norm(x)
        count = len(self.layers[-1].blocks)
        layers = layers[:-count] + [self.norm(y) for y in layers[-count:]]
        return Outputs(features=x.mean((1, 2)), map=x, layers=layers)
