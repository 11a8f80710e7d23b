"""ResNet version 2 in PyTorch, from the description of TensorFlow's official models, with its variables' names."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from keras_ssl.conversion.references.torch_convnets import Outputs, pooled


class Convolution(nn.Module):
    """Without bias, `size // 2` zeros around whatever the stride; kernel (size, size, before, after).

    Args:
        before: int. Channels of what comes in.
        after: int. Channels of what goes out.
        size: int. Side of the kernel.
        stride: int. Defaults to `1`.
    """

    def __init__(self, before: int, after: int, size: int, stride: int = 1):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(size, size, before, after))
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel = self.kernel.permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, None, self.stride, len(self.kernel) // 2)


class Norm(nn.Module):
    """Batch-norm of inference, then ReLU.

    Args:
        width: int. Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            self.register_parameter(name, nn.Parameter(torch.ones(width)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        statistics = self.moving_mean, self.moving_variance
        return F.batch_norm(x, *statistics, self.gamma, self.beta, eps=1e-5).relu()


class PreActResNet(nn.Module):
    """Its layers are numbered by kind in the order in which they are made, a shortcut first in its block.

    Args:
        blocks: ints. Blocks of each stage.
        filters: ints. Channels of the 3x3 convolutions of each stage; the stem has the first.
        bottleneck: bool. Defaults to `False`.
    """

    def __init__(self, blocks: Sequence[int], filters: Sequence[int], bottleneck: bool = False):
        super().__init__()
        self.resnet_model, self._made = nn.Module(), collections.Counter()
        # What is made is in `resnet_model` by name; here it stands in tuples, so that it has no second name.
        self._stem = (self._add("conv2d", Convolution(3, filters[0], 7, 2)),)
        before, self._stages = filters[0], []
        for stage, (count, inside) in enumerate(zip(blocks, filters, strict=True)):
            made = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                made.append(self._block(before, inside, stride, bottleneck, first=not index))
                before = inside * (4 if bottleneck else 1)
            self._stages.append(tuple(made))
        self._last = (self._add("batch_normalization", Norm(before)),)

    def _add(self, kind: str, layer: nn.Module) -> nn.Module:
        """Gives a layer the name that `tf.layers` would: conv2d, conv2d_1, ..."""
        number, self._made[kind] = self._made[kind], self._made[kind] + 1
        self.resnet_model.add_module(f"{kind}_{number}" if number else kind, layer)
        return layer

    def _block(
        self, before: int, inside: int, stride: int, bottleneck: bool, first: bool
    ) -> tuple[nn.Module | None, list[nn.Module]]:
        """Returns the shortcut, of a first block only, and the norms and convolutions in turn."""
        out = inside * (4 if bottleneck else 1)
        deep = [(inside, 1, 1), (inside, 3, stride), (out, 1, 1)]
        plan = deep if bottleneck else [(inside, 3, stride), (inside, 3, 1)]
        norm = self._add("batch_normalization", Norm(before))
        shortcut = self._add("conv2d", Convolution(before, out, 1, stride)) if first else None
        layers: list[nn.Module] = [norm]
        for index, (after, size, step) in enumerate(plan):
            if index:
                layers.append(self._add("batch_normalization", Norm(before)))
            layers.append(self._add("conv2d", Convolution(before, after, size, step)))
            before = after
        return shortcut, layers

    def forward(self, x: torch.Tensor) -> Outputs:
        x = self._stem[0](x)
        # "same": an even side gets one row of -inf, below; an odd one gets one on both sides
        odd = [side % 2 for side in x.shape[2:]]
        x, maps = F.max_pool2d(F.pad(x, (odd[1], 1, odd[0], 1), value=-np.inf), 3, 2), []
        for stage in self._stages:
            for shortcut, (norm, *layers) in stage:
                y = norm(x)
                x = x if shortcut is None else shortcut(y)
                for layer in layers:
                    y = layer(y)
                x = x + y
            maps.append(x)
        maps[-1] = self._last[0](x)
        return pooled(maps[-1], maps)
