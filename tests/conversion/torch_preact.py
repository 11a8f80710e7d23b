"""ResNet version 2 in PyTorch, from the description of TensorFlow's official models, with the names of TensorFlow 1."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

NORM = ("gamma", "beta", "moving_mean", "moving_variance")


class Names:
    """Hands out the names that `tf.layers` gives in one scope: conv2d, conv2d_1, ..."""

    def __init__(self):
        self.counts = {}

    def __call__(self, kind):
        number = self.counts[kind] = self.counts.get(kind, -1) + 1
        return f"{kind}_{number}" if number else kind


def shapes(blocks, filters, bottleneck=False, embedding=None):
    """Returns name -> shape without a scope, in the order in which the layers are made."""
    found = {}
    run(lambda name, shape: found.setdefault(name, shape), None, blocks, filters, bottleneck)
    if embedding:
        last = filters[-1] * (4 if bottleneck else 1)
        found |= {"dense/kernel": (last, embedding), "dense/bias": (embedding,)}
    return found


def forward(tensors, images, blocks, filters, bottleneck=False):
    """Returns map, features and the maps after each stage, channels last, of normalized images."""

    def get(name, shape):
        assert tensors[name].shape == shape
        return torch.tensor(tensors[name])

    x = torch.tensor(images).permute(0, 3, 1, 2)
    maps = run(get, x, blocks, filters, bottleneck)
    result = {"map": maps[-1], "features": maps[-1].mean((2, 3))}
    maps = [x.permute(0, 2, 3, 1).numpy() for x in maps]
    return {"map": maps[-1], "features": result["features"].numpy(), "layers": maps}


def run(get, x, blocks, filters, bottleneck):
    """Asks for each tensor by name and shape in order; computes on the way if there are images."""
    names, live = Names(), x is not None

    def conv(x, into, out, size, stride):
        kernel = get(f"{names('conv2d')}/kernel", (size, size, into, out))
        # with stride 1 "same" padding is this too
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), None, stride, size // 2) if live else None

    def norm(x, width):
        key = names("batch_normalization")
        gamma, beta, mean, variance = (get(f"{key}/{part}", (width,)) for part in NORM)
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-5).relu() if live else None

    x = conv(x, 3, filters[0], 7, 2)
    if live:  # "same": an even side gets one row of -inf, below; an odd one gets one on both sides
        odd = [side % 2 for side in x.shape[2:]]
        x = F.max_pool2d(F.pad(x, (odd[1], 1, odd[0], 1), value=-np.inf), 3, 2)
    into, maps = filters[0], []
    for stage, count in enumerate(blocks):
        inside, out = filters[stage], filters[stage] * (4 if bottleneck else 1)
        for index in range(count):
            stride = 2 if stage and not index else 1
            shortcut, y = x, norm(x, into)
            if index == 0:
                shortcut = conv(y, into, out, 1, stride)
            if bottleneck:
                y = norm(conv(y, into, inside, 1, 1), inside)
                y = norm(conv(y, inside, inside, 3, stride), inside)
                y = conv(y, inside, out, 1, 1)
            else:
                y = norm(conv(y, into, inside, 3, stride), inside)
                y = conv(y, inside, inside, 3, 1)
            x, into = y + shortcut if live else None, out
        maps.append(x)
    maps[-1] = norm(x, into)
    return maps
