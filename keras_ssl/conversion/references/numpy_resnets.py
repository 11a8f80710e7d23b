"""SimCLR's and BYOL's networks in NumPy, float64, from the authors' rules; padding is said in numbers everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

Array = np.ndarray
Tensors = Mapping[str, Array]
EPSILON = 1e-5  # of the batch-norms


def convolve(x: Array, kernel: Array, stride: int = 1, before: int = 0, after: int = 0) -> Array:
    """Returns the cross-correlation with `before` zeros above and left, `after` below and right."""
    size, edges = kernel.shape[0], (before, after)
    x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            cut = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            out += cut @ kernel[i, j].astype(np.float64)
    return out


def same_edges(length: int, size: int, stride: int) -> tuple[int, int]:
    """Returns the zeros of TensorFlow's "SAME": ceil(length / stride) places, the odd zero after."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def same_convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns the cross-correlation with "SAME" padding."""
    size = kernel.shape[0]
    rows, columns = (same_edges(length, size, stride) for length in x.shape[1:3])
    return convolve(np.pad(x, ((0, 0), rows, columns, (0, 0))), kernel, stride)


def same_max_pool(x: Array) -> Array:
    """Returns the largest of 3x3, stride 2, -inf where there is no map."""
    rows, columns = (same_edges(length, 3, 2) for length in x.shape[1:3])
    x = np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=-np.inf)
    h, w = ((length - 3) // 2 + 1 for length in x.shape[1:3])
    cuts = [x[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)]
    return np.max(cuts, axis=0)


def mean_pool(x: Array, stride: int) -> Array:
    """Returns the mean of 2x2 as SimCLR's selective kernels have it before a shortcut.

    Stride 1 is "SAME": the last row and column see fewer numbers. Stride 2 pads a row and a column of zeros first.
    """
    if stride == 1:
        total, seen = np.zeros_like(x), np.zeros(x.shape[1:3])
        for i in (0, 1):
            for j in (0, 1):
                total[:, : x.shape[1] - i, : x.shape[2] - j] += x[:, i:, j:]
                seen[: x.shape[1] - i, : x.shape[2] - j] += 1
        return total / seen[:, :, None]
    x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    h, w = ((length - 2) // 2 + 1 for length in x.shape[1:3])
    return sum(x[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in (0, 1) for j in (0, 1)) / 4


def relu(x: Array) -> Array:
    """Returns what is positive of x."""
    return np.maximum(x, 0)


class Layers:
    """The layers of a TF1 checkpoint, taken in the order of their creation.

    Args:
        tensors: mapping from name without a scope to array.
        training: bool. Whether each batch-norm uses the mean and variance of its batch.
    """

    def __init__(self, tensors: Tensors, training: bool = False) -> None:
        self.tensors, self.training = tensors, training
        self.counts = {"conv2d": 0, "batch_normalization": 0}

    def _take(self, kind: str) -> str:
        number, self.counts[kind] = self.counts[kind], self.counts[kind] + 1
        return f"{kind}_{number}" if number else kind

    def conv(self, x: Array, stride: int = 1) -> Array:
        """Returns the next convolution of x; of odd kernels "SAME" with stride 1 is the same on both sides."""
        kernel = self.tensors[f"{self._take('conv2d')}/kernel"]
        half = (kernel.shape[0] - 1) // 2
        return convolve(x, kernel, stride, half, half)

    def norm(self, x: Array) -> Array:
        """Returns the next batch-norm of x."""
        key = self._take("batch_normalization")
        gamma, beta, mean, variance = (
            self.tensors[f"{key}/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        if self.training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta

    def selective_kernel(self, x: Array, stride: int) -> Array:
        """Returns the mix of two streams with weights from the mean of their sum."""
        streams = np.stack(np.split(relu(self.norm(self.conv(x, stride))), 2, axis=-1))
        mean = streams.sum(0).mean((1, 2), keepdims=True)
        scores = self.conv(relu(self.norm(self.conv(mean))))
        scores = np.stack(np.split(scores, 2, axis=-1))
        weights = np.exp(scores - scores.max(0))
        return (streams * weights / weights.sum(0)).sum(0)


def simclr(
    tensors: Tensors,
    images: Array,
    blocks: Sequence[int],
    selective: bool = False,
    training: bool = False,
) -> dict[str, Array]:
    """Returns {"map", "features"} of TF1 tensors without a scope.

    Args:
        tensors: mapping from `conv2d_3/kernel` and so on to array.
        images: float `(batch, height, width, 3)` in [0, 1].
        blocks: ints. Blocks of each stage.
        selective: bool. Whether blocks have selective kernels. Defaults to `False`.
        training: bool. Whether batch-norms use their batch. Defaults to `False`.
    """
    layers = Layers(tensors, training)
    conv, norm = layers.conv, layers.norm
    x = images.astype(np.float64)
    for stride in (2, 1, 1) if selective else (2,):
        x = relu(norm(conv(x, stride)))
    x = same_max_pool(x)
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride, shortcut = (2 if stage and not index else 1), x
            if index == 0 and selective:
                shortcut = norm(conv(mean_pool(x, stride)))
            elif index == 0:
                shortcut = norm(conv(x, stride))
            x = relu(norm(conv(x)))
            x = layers.selective_kernel(x, stride) if selective else relu(norm(conv(x, stride)))
            x = relu(norm(conv(x)) + shortcut)
    kernels = [key for key in tensors if re.fullmatch(r"conv2d(_\d+)?/kernel", key)]
    if len(kernels) != layers.counts["conv2d"]:
        raise ValueError(
            f"Expected {layers.counts['conv2d']} convolutions, as many as the network has. "
            f"Received: {len(kernels)}"
        )
    return {"map": x, "features": x.mean((1, 2))}


def created(tensors: Tensors) -> dict[str, Array]:
    """Returns tensors of TF2 SimCLR, by their path in the authors' objects, under the names of TF1.

    The authors create a stem, then block by block the shortcut before the rest, and in a selective kernel the
    streams before the mixing; numbers in a path count.
    """
    ranks = (r"initial_", r"projection_layers", r"conv2d_fixed_padding|batch_norm_relu(?!_)")

    def place(path: str) -> list[tuple[int, int, str]]:
        parts = path.split("/")[:-1]
        first = [not any(re.match(rank, part) for rank in ranks) for part in parts]
        return [
            (int(later), int(part) if part.isdigit() else 0, part)
            for later, part in zip(first, parts, strict=True)
        ]

    renamed = dict(tensors)
    for kind, end in (("conv2d", "/kernel"), ("batch_normalization", "/gamma")):
        found = sorted(
            (key for key in tensors if _of_encoder(key) and key.endswith(end)), key=place
        )
        for number, key in enumerate(found):
            layer, new = key.removesuffix(end), f"{kind}_{number}" if number else kind
            for part in [key for key in tensors if key.rpartition("/")[0] == layer]:
                renamed[new + part.removeprefix(layer)] = renamed.pop(part)
    return renamed


def _of_encoder(key: str) -> bool:
    return key.startswith(("initial_conv_relu_max_pool/", "block_groups/"))


def byol(tensors: Tensors, images: Array, blocks: Sequence[int]) -> dict[str, Array]:
    """Returns {"map", "features"} of the online network; padding is "SAME" everywhere.

    Args:
        tensors: mapping from `block_group_0/~/block_0/~/conv_0/w` and so on to array, parameters and state.
        images: float `(batch, height, width, 3)`, normalized already.
        blocks: ints. Blocks of each group.
    """

    def unit(x: Array, conv: str, norm: str, stride: int = 1) -> Array:
        x = same_convolve(x, tensors[f"{conv}/w"], stride)
        mean, variance = (
            tensors[f"{norm}/~/{moment}/average"].astype(np.float64)
            for moment in ("mean_ema", "var_ema")
        )
        scale, offset = (tensors[f"{norm}/{part}"] for part in ("scale", "offset"))
        return (x - mean) / np.sqrt(variance + EPSILON) * scale + offset

    x = same_max_pool(relu(unit(images.astype(np.float64), "initial_conv", "initial_batchnorm", 2)))
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride, shortcut = (2 if stage and not index else 1), x
            path = f"block_group_{stage}/~/block_{index}/~"
            if index == 0:
                shortcut = unit(x, f"{path}/shortcut_conv", f"{path}/shortcut_batchnorm", stride)
            x = relu(unit(x, f"{path}/conv_0", f"{path}/batchnorm_0"))
            x = relu(unit(x, f"{path}/conv_1", f"{path}/batchnorm_1", stride))
            x = relu(unit(x, f"{path}/conv_2", f"{path}/batchnorm_2") + shortcut)
    return {"map": x, "features": x.mean((1, 2))}
