"""Names and shapes of official files, written from their authors' rules, and random tensors to fill them."""

from __future__ import annotations

import numpy as np

RESNET50 = (3, 4, 6, 3)
FILTERS = (64, 128, 256, 512)
NORM = ("weight", "bias", "running_mean", "running_var")


def torchvision_shapes(
    blocks=RESNET50, filters=FILTERS, width=1, bottleneck=True, counters=True, fc=None, channels=3
):
    """Returns name -> shape of a torchvision-style state dict, in file order."""
    shapes = {}

    def unit(conv, norm, out, into, size):
        shapes[f"{conv}.weight"] = (out, into, size, size)
        shapes.update({f"{norm}.{name}": (out,) for name in NORM})
        if counters:
            shapes[f"{norm}.num_batches_tracked"] = ()

    into = filters[0] * width
    unit("conv1", "bn1", into, channels, 7)
    for stage, count in enumerate(blocks):
        inside = filters[stage] * width
        out = inside * (4 if bottleneck else 1)
        for index in range(count):
            key = f"layer{stage + 1}.{index}"
            plan = [(inside, 1), (inside, 3), (out, 1)] if bottleneck else [(out, 3), (out, 3)]
            channels = into
            for number, (width_out, size) in enumerate(plan, start=1):
                unit(f"{key}.conv{number}", f"{key}.bn{number}", width_out, channels, size)
                channels = width_out
            if index == 0 and (into != out or stage > 0):
                unit(f"{key}.downsample.0", f"{key}.downsample.1", out, into, 1)
            into = out
    if fc:
        shapes.update({"fc.weight": (fc, into), "fc.bias": (fc,)})
    return shapes


def simclr_shapes(blocks=RESNET50, filters=FILTERS, width=1, selective=False):
    """Returns name -> shape of a TF1 SimCLR encoder, in the order of creation, without a scope."""
    shapes, counts = {}, {"conv2d": 0, "batch_normalization": 0}

    def name(kind):
        number, counts[kind] = counts[kind], counts[kind] + 1
        return f"{kind}_{number}" if number else kind

    def unit(out, into, size, norm=True):
        shapes[f"{name('conv2d')}/kernel"] = (size, size, into, out)
        if norm:
            key = name("batch_normalization")
            for part in ("gamma", "beta", "moving_mean", "moving_variance"):
                shapes[f"{key}/{part}"] = (out,)

    into = filters[0] * width
    if selective:
        unit(into // 2, 3, 3)
        unit(into // 2, into // 2, 3)
        unit(into, into // 2, 3)
    else:
        unit(into, 3, 7)
    for stage, count in enumerate(blocks):
        inside = filters[stage] * width
        for index in range(count):
            if index == 0:
                unit(4 * inside, into, 1)
            unit(inside, into, 1)
            if selective:
                middle = max(int(inside * 0.0625), 32)
                unit(2 * inside, inside, 3)
                unit(middle, inside, 1)
                unit(2 * inside, middle, 1, norm=False)
            else:
                unit(inside, inside, 3)
            unit(4 * inside, inside, 1)
            into = 4 * inside
    return shapes


def byol_shapes(blocks=RESNET50, filters=FILTERS, width=1, root="res_net50"):
    """Returns the shapes of BYOL's encoder as two nested dicts: parameters and state."""
    params, state = {}, {}

    def unit(conv, norm, out, into, size):
        params[f"{root}/~/{conv}"] = {"w": (size, size, into, out)}
        params[f"{root}/~/{norm}"] = {"scale": (1, 1, 1, out), "offset": (1, 1, 1, out)}
        for moment in ("mean_ema", "var_ema"):
            average = {"hidden": (1, 1, 1, out), "average": (1, 1, 1, out), "counter": ()}
            state[f"{root}/~/{norm}/~/{moment}"] = average

    into = filters[0] * width
    unit("initial_conv", "initial_batchnorm", into, 3, 7)
    for stage, count in enumerate(blocks):
        inside = filters[stage] * width
        for index in range(count):
            path = f"block_group_{stage}/~/block_{index}/~"
            if index == 0:
                unit(f"{path}/shortcut_conv", f"{path}/shortcut_batchnorm", 4 * inside, into, 1)
            unit(f"{path}/conv_0", f"{path}/batchnorm_0", inside, into, 1)
            unit(f"{path}/conv_1", f"{path}/batchnorm_1", inside, inside, 3)
            unit(f"{path}/conv_2", f"{path}/batchnorm_2", 4 * inside, inside, 1)
            into = 4 * inside
    return params, state


def random_tensors(shapes, seed=0):
    """Returns name -> array; variances and scales are far from 1, kernels keep the size of what passes through."""
    rng, tensors = np.random.default_rng(seed), {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            value = np.array(1000 + len(tensors), np.int64)
        elif key.endswith(("running_var", "moving_variance", "var_ema/average", "hidden")):
            value = rng.uniform(0.3, 3.0, shape)
        elif len(shape) == 4 and max(shape[:3]) > 1 or len(shape) == 2:
            value = rng.normal(size=shape) * np.sqrt(2.0 * max(shape) / np.prod(shape))
        elif key.endswith(("gamma", "scale", "weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0.0, 0.3, shape)
        tensors[key] = np.asarray(value, np.int64 if value.dtype == np.int64 else np.float32)
    return tensors


def nested(tensors):
    """Returns {"path": {"leaf": array}} for {"path/leaf": array}."""
    found = {}
    for key, value in tensors.items():
        path, _, leaf = key.rpartition("/")
        found.setdefault(path, {})[leaf] = value
    return found


def flat(tree):
    """Returns {"path/leaf": value} for {"path": {"leaf": value}}."""
    return {f"{path}/{leaf}": value for path, part in tree.items() for leaf, value in part.items()}


def pictures(size, batch=2, seed=1):
    """Returns float32 images in [0, 1]; `size` is the side or (height, width)."""
    height, width = size if isinstance(size, tuple) else (size, size)
    shape = (batch, height, width, 3)
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
