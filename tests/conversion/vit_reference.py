"""The published vision transformers in PyTorch, small, with the names and the order of the official files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class QKV(nn.Linear):
    """DINOv3's: a bias with a stored mask that is 0 for the keys."""

    def __init__(self, width: int):
        super().__init__(width, 3 * width)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(width))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: str):
        super().__init__()
        self.heads = heads
        self.qkv = QKV(width) if bias == "masked" else nn.Linear(width, 3 * width, bias == "full")
        self.proj = nn.Linear(width, width)

    def forward(self, x, rotation):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = turn(q, *rotation), turn(k, *rotation)
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.proj(heads.transpose(1, 2).reshape(b, n, d))


def turn(x, cosine, sine):
    """Rotates pairs (c, c + d / 2) of the last tokens: the complex number x_c + i x_(c + d/2) times e^(i angle)."""
    first, half = x.shape[2] - len(cosine), x.shape[-1] // 2
    complex_tokens = torch.complex(x[:, :, first:, :half], x[:, :, first:, half:])
    turned = complex_tokens * torch.complex(cosine, sine)
    return torch.cat([x[:, :, :first], torch.cat([turned.real, turned.imag], -1)], 2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class FusedGate(nn.Module):
    """DINOv2 g."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x):
        first, second = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(first) * second)


class SplitGate(nn.Module):
    """DINOv3's plus networks and 7B."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, s: dict[str, Any]):
        super().__init__()
        width = s["width"]
        self.norm1 = nn.LayerNorm(width, s["epsilon"])
        self.attn = Attention(width, s["heads"], s["bias"])
        self.ls1 = Scale(width) if s["scale"] else nn.Identity()
        self.norm2 = nn.LayerNorm(width, s["epsilon"])
        self.mlp = {"mlp": Mlp, "fused": FusedGate, "split": SplitGate}[s["ffn"]](
            width, s["hidden"]
        )
        self.ls2 = Scale(width) if s["scale"] else nn.Identity()

    def forward(self, x, rotation):
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class Rope(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        k = torch.arange(size // 4, dtype=torch.float64)
        self.register_buffer("periods", (100.0 ** (2 * k / (size / 2))).float())

    def forward(self, height: int, width: int):
        angles = []
        for i in range(height):
            for j in range(width):
                y, x = 2 * (i + 0.5) / height - 1, 2 * (j + 0.5) / width - 1
                angles.append(
                    torch.cat([2 * math.pi * y / self.periods, 2 * math.pi * x / self.periods])
                )
        angles = torch.stack(angles)
        return torch.cos(angles), torch.sin(angles)


DEFAULTS = {
    "width": 24,
    "depth": 2,
    "heads": 3,
    "patch": 4,
    "grid": 4,
    "hidden": 96,
    "epsilon": 1e-6,
    "token": True,
    "registers": "",  # name of the parameter
    "mask": "",  # name of the parameter
    "bias": "full",  # "full", "masked" or "none"
    "scale": False,
    "ffn": "mlp",
    "positions": "scale",  # "scale" (n + 0.1 over M), "size", "antialias" or "rope"
    "pooling": "token",  # "token", "mean" or "fc_norm"
    "local_norm": False,
}


class Reference(nn.Module):
    """One published network; `settings` change `DEFAULTS`."""

    def __init__(self, **settings: Any):
        super().__init__()
        self.s = s = {**DEFAULTS, **settings}
        width = s["width"]
        if s["token"]:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if s["positions"] != "rope":
            self.pos_embed = nn.Parameter(torch.zeros(1, s["token"] + s["grid"] ** 2, width))
        if s["registers"]:
            setattr(self, s["registers"], nn.Parameter(torch.zeros(1, 4, width)))
        if s["mask"]:
            setattr(self, s["mask"], nn.Parameter(torch.zeros(1, width)))
        self.patch_embed = Patches(width, s["patch"])
        if s["positions"] == "rope":
            self.rope_embed = Rope(width // s["heads"])
        self.blocks = nn.ModuleList(Block(s) for _ in range(s["depth"]))
        final = nn.LayerNorm(width, s["epsilon"])
        setattr(self, "fc_norm" if s["pooling"] == "fc_norm" else "norm", final)
        if s["local_norm"]:
            self.local_cls_norm = nn.LayerNorm(width, s["epsilon"])
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in self.named_parameters():
                noise = torch.randn(value.shape, generator=generator)
                if "norm" in name and name.endswith("weight") or name.endswith("gamma"):
                    value.copy_(1 + 0.3 * noise)
                else:
                    value.copy_(0.25 * noise)

    def resized(self, height: int, width: int):
        """The table for a grid, without the row of the class token."""
        s = self.s
        table, grid = self.pos_embed[:, int(s["token"]) :], s["grid"]
        if (height, width) == (grid, grid):
            return table
        image = table.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        if s["positions"] == "scale":
            scale = (height + 0.1) / grid, (width + 0.1) / grid
            image = F.interpolate(image, scale_factor=scale, mode="bicubic")
        else:
            antialias = s["positions"] == "antialias"
            image = F.interpolate(image, (height, width), mode="bicubic", antialias=antialias)
        return image.permute(0, 2, 3, 1).reshape(1, height * width, -1)

    def forward(self, images, mask=None):
        s = self.s
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
        x = self.patch_embed.proj((images - mean) / std)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        if mask is not None:
            x = torch.where(mask[..., None], getattr(self, s["mask"]), x)
        front, rotation = [], None
        if s["token"]:
            front.append(self.cls_token)
        if s["positions"] == "rope":
            rotation = self.rope_embed(height, width)
        else:
            x = x + self.resized(height, width)
            front = [token + self.pos_embed[:, :1] for token in front]
        if s["registers"]:
            front.append(getattr(self, s["registers"]))
        first = sum(token.shape[1] for token in front)
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in front), x], 1)
        layers = []
        for block in self.blocks:
            x = block(x, rotation)
            layers.append(x)
        if s["pooling"] == "fc_norm":
            features = self.fc_norm(x[:, first:].mean(1))
        else:
            layers = [self.norm(layer) for layer in layers]
            x = layers[-1]
            features = x[:, 0] if s["pooling"] == "token" else x[:, first:].mean(1)
        return {"features": features, "tokens": x[:, first:], "layers": layers}


def pictures(height: int, width: int, count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(size=(count, height, width, 3)).astype("float32")


def tensors_of(reference: Reference) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in reference.state_dict().items()}


def difference(reference: Reference, network, images, **arguments: Any) -> tuple[float, float]:
    """Largest absolute and relative difference of features, tokens and the output of each block.

    Relative to the largest value of the output in question.
    """
    with torch.no_grad():
        masks = {name: torch.tensor(value) for name, value in arguments.items()}
        expected = reference(torch.tensor(images).permute(0, 3, 1, 2), **masks)
    got = network(images, output="layers", **arguments)
    pairs = [(got[name], expected[name]) for name in ("features", "tokens")]
    pairs += list(zip(got["layers"], expected["layers"], strict=True))
    absolute = [np.abs(ours.numpy() - theirs.numpy()).max() for ours, theirs in pairs]
    sizes = [np.abs(theirs.numpy()).max() for _, theirs in pairs]
    relative = [error / size for error, size in zip(absolute, sizes, strict=True)]
    return float(max(absolute)), float(max(relative))
