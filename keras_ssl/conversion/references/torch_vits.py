"""The published vision transformers in PyTorch with the names and the order of the official files."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class QKV(nn.Linear):
    """DINOv3's: a bias with a stored mask that is 0 for the keys."""

    def __init__(self, width: int):
        super().__init__(width, 3 * width)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Attention between tokens; patches may be turned before it."""

    def __init__(self, width: int, heads: int, bias: str):
        super().__init__()
        self.heads = heads
        self.qkv = QKV(width) if bias == "masked" else nn.Linear(width, 3 * width, bias == "full")
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = turn(q, *rotation), turn(k, *rotation)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj(heads.transpose(1, 2).reshape(b, n, d))


def turn(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates pairs (c, c + d / 2) of the last tokens: the complex number x_c + i x_(c + d/2) times e^(i angle)."""
    first, half = x.shape[2] - len(cosine), x.shape[-1] // 2
    complex_tokens = torch.complex(x[:, :, first:, :half], x[:, :, first:, half:])
    turned = complex_tokens * torch.complex(cosine, sine)
    return torch.cat([x[:, :, :first], torch.cat([turned.real, turned.imag], -1)], 2)


class Mlp(nn.Module):
    """Two layers and a GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class FusedGate(nn.Module):
    """DINOv2 g."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(first) * second)


class SplitGate(nn.Module):
    """DINOv3's plus networks and 7B."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class Scale(nn.Module):
    """One factor for each channel."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and perceptron, each after a norm."""

    def __init__(self, form: Form):
        super().__init__()
        width = form.width
        self.norm1 = nn.LayerNorm(width, form.epsilon)
        self.attn = Attention(width, form.heads, form.bias)
        self.ls1 = Scale(width) if form.scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, form.epsilon)
        self.mlp = {"mlp": Mlp, "fused": FusedGate, "split": SplitGate}[form.ffn](
            width, form.hidden
        )
        self.ls2 = Scale(width) if form.scale else nn.Identity()

    def forward(
        self, x: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    """The convolution over patches."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class Rope(nn.Module):
    """Angles of places, from the periods in the file."""

    def __init__(self, size: int):
        super().__init__()
        k = torch.arange(size // 4, dtype=torch.float64)
        self.register_buffer("periods", (100.0 ** (2 * k / (size / 2))).float())

    def forward(self, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        angles = []
        for i in range(height):
            for j in range(width):
                y, x = 2 * (i + 0.5) / height - 1, 2 * (j + 0.5) / width - 1
                angles.append(
                    torch.cat([2 * math.pi * y / self.periods, 2 * math.pi * x / self.periods])
                )
        angles = torch.stack(angles)
        return torch.cos(angles), torch.sin(angles)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a network is made of.

    Args:
        width: int. Of the tokens.
        depth: int. Blocks.
        heads: int. Divides the width.
        hidden: int. Width inside the perceptrons.
        patch: int. Side of a patch in pixels.
        grid: int. Side of the grid that the table of positions is for.
        epsilon: float. Of the layer-norms.
        token: bool. Whether there is a class token.
        registers: str. Name of their parameter, and
        mask: str. Name of the mask token's; `""`: there is none.
        bias: str. Of query, key and value: `"full"`, `"masked"` (DINOv3) or `"none"`.
        scale: bool. Whether branches have factors.
        ffn: str. `"mlp"`, `"fused"` (DINOv2 g) or `"split"` (DINOv3).
        positions: str. How the table is resized: `"scale"` (n + 0.1 over its side), `"size"`, `"antialias"`; or
            `"rope"`: there is none.
        pooling: str. `"token"`, `"mean"` or `"fc_norm"` (the norm of the mean).
        local_norm: bool. Whether there is one more norm, which nothing here uses (DINOv3 7B).
    """

    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    grid: int = 0
    epsilon: float = 1e-6
    token: bool = True
    registers: str = ""
    mask: str = ""
    bias: str = "full"
    scale: bool = False
    ffn: str = "mlp"
    positions: str = "scale"
    pooling: str = "token"
    local_norm: bool = False


class ViT(nn.Module):
    """One published network.

    Args:
        form: Form.
    """

    def __init__(self, form: Form):
        super().__init__()
        self.form, width = form, form.width
        if form.token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if form.positions != "rope":
            self.pos_embed = nn.Parameter(torch.zeros(1, form.token + form.grid**2, width))
        if form.registers:
            self.register_parameter(form.registers, nn.Parameter(torch.zeros(1, 4, width)))
        if form.mask:
            self.register_parameter(form.mask, nn.Parameter(torch.zeros(1, width)))
        self.patch_embed = Patches(width, form.patch)
        if form.positions == "rope":
            self.rope_embed = Rope(width // form.heads)
        self.blocks = nn.ModuleList(Block(form) for _ in range(form.depth))
        final = nn.LayerNorm(width, form.epsilon)
        self.add_module("fc_norm" if form.pooling == "fc_norm" else "norm", final)
        if form.local_norm:
            self.local_cls_norm = nn.LayerNorm(width, form.epsilon)

    def resized(self, height: int, width: int) -> torch.Tensor:
        """Returns the table for a grid, without the row of the class token."""
        form = self.form
        table, grid = self.pos_embed[:, int(form.token) :], form.grid
        if (height, width) == (grid, grid):
            return table
        image = table.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        if form.positions == "scale":
            scale = (height + 0.1) / grid, (width + 0.1) / grid
            image = F.interpolate(image, scale_factor=scale, mode="bicubic")
        else:
            antialias = form.positions == "antialias"
            image = F.interpolate(image, (height, width), mode="bicubic", antialias=antialias)
        return image.permute(0, 2, 3, 1).reshape(1, height * width, -1)

    def embedded(
        self, images: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, int, tuple[torch.Tensor, torch.Tensor] | None]:
        """Returns what the first block gets, how many tokens come before the patches, and the rotation."""
        form = self.form
        x = self.patch_embed.proj(images)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        if mask is not None:
            x = torch.where(mask[..., None], getattr(self, form.mask), x)
        front, rotation = [self.cls_token] if form.token else [], None
        if form.positions == "rope":
            rotation = self.rope_embed(height, width)
        else:
            x = x + self.resized(height, width)
            front = [token + self.pos_embed[:, :1] for token in front]
        if form.registers:
            front.append(getattr(self, form.registers))
        first = sum(token.shape[1] for token in front)
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in front), x], 1)
        return x, first, rotation

    def forward(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, Any]:
        """Returns features, tokens and layers of normalized images.

        Args:
            images: float32 `(batch, 3, height, width)`.
            mask: bool `(batch, patches)`. True: the mask token takes the place of the patch. Defaults to `None`.
        """
        pooling, layers = self.form.pooling, []
        x, first, rotation = self.embedded(images, mask)
        for block in self.blocks:
            x = block(x, rotation)
            layers.append(x)
        if pooling == "fc_norm":
            features = self.fc_norm(x[:, first:].mean(1))
        else:
            layers = [self.norm(layer) for layer in layers]
            x = layers[-1]
            features = x[:, 0] if pooling == "token" else x[:, first:].mean(1)
        return {"features": features, "tokens": x[:, first:], "layers": layers}
