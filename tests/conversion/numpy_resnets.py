"""SimCLR's and BYOL's networks in NumPy, float64, from the authors' rules; padding is said in numbers everywhere."""

from __future__ import annotations

import numpy as np


def convolve(x, kernel, stride=1, before=0, after=0):
    """Cross-correlation with `before` zeros above and left, `after` below and right."""
    size, edges = kernel.shape[0], (before, after)
    x = np.pad(x, ((0, 0), edges, edges, (0, 0)))
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            cut = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            out += cut @ kernel[i, j].astype(np.float64)
    return out


def same_edges(length, size, stride):
    """TensorFlow's "SAME": ceil(length / stride) places, the odd zero after."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def same_convolve(x, kernel, stride=1):
    size = kernel.shape[0]
    rows, columns = (same_edges(length, size, stride) for length in x.shape[1:3])
    x = np.pad(x, ((0, 0), rows, columns, (0, 0)))
    return convolve(x, kernel, stride)


def same_max_pool(x):
    """3x3, stride 2, -inf where there is no map."""
    rows, columns = (same_edges(length, 3, 2) for length in x.shape[1:3])
    x = np.pad(x, ((0, 0), rows, columns, (0, 0)), constant_values=-np.inf)
    h, w = ((length - 3) // 2 + 1 for length in x.shape[1:3])
    cuts = [x[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)]
    return np.max(cuts, axis=0)


def relu(x):
    return np.maximum(x, 0)


def simclr(tensors, images, blocks, selective=False, training=False):
    """Returns {"map", "features"} of TF1 tensors without a scope; layers are taken in the order of creation.

    In training each batch-norm uses the mean and variance of its batch.
    """
    counts = {"conv2d": 0, "batch_normalization": 0}

    def take(kind):
        number, counts[kind] = counts[kind], counts[kind] + 1
        return f"{kind}_{number}" if number else kind

    def conv(x, stride=1):
        kernel = tensors[f"{take('conv2d')}/kernel"]
        half = (
            kernel.shape[0] - 1
        ) // 2  # odd kernels: "SAME" with stride 1 is the same on both sides
        return convolve(x, kernel, stride, half, half)

    def norm(x):
        key = take("batch_normalization")
        gamma, beta, mean, variance = (
            tensors[f"{key}/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        if training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def mean_pool(x, stride):
        if stride == 1:  # "SAME": the last row and column see fewer numbers
            total, seen = np.zeros_like(x), np.zeros(x.shape[1:3])
            for i in (0, 1):
                for j in (0, 1):
                    total[:, : x.shape[1] - i, : x.shape[2] - j] += x[:, i:, j:]
                    seen[: x.shape[1] - i, : x.shape[2] - j] += 1
            return total / seen[:, :, None]
        x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        h, w = ((length - 2) // 2 + 1 for length in x.shape[1:3])
        return sum(x[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in (0, 1) for j in (0, 1)) / 4

    def selective_kernel(x, stride):
        x = relu(norm(conv(x, stride)))
        streams = np.stack(np.split(x, 2, axis=-1))
        weights = conv(relu(norm(conv(streams.sum(0).mean((1, 2), keepdims=True)))))
        weights = np.stack(np.split(weights, 2, axis=-1))
        weights = np.exp(weights - weights.max(0))
        return (streams * weights / weights.sum(0)).sum(0)

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
            x = selective_kernel(x, stride) if selective else relu(norm(conv(x, stride)))
            x = relu(norm(conv(x)) + shortcut)
    if counts["conv2d"] != sum(key.startswith("conv2d") for key in tensors):
        raise AssertionError("not every convolution was used")
    return {"map": x, "features": x.mean((1, 2))}


def byol(params, state, images, blocks, root="res_net50"):
    """Returns {"map", "features"}; images are normalized already, padding is "SAME" everywhere."""

    def unit(x, conv, norm, stride=1):
        x = same_convolve(x, params[f"{root}/~/{conv}"]["w"], stride)
        mean, variance = (
            state[f"{root}/~/{norm}/~/{moment}"]["average"].astype(np.float64)
            for moment in ("mean_ema", "var_ema")
        )
        scale, offset = (params[f"{root}/~/{norm}"][part] for part in ("scale", "offset"))
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset

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
