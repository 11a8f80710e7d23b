"""Local Aggregation as rows of the table in `parity.py`."""

from __future__ import annotations

import functools

import numpy as np

from tests.conversion import fixtures

FILTERS = (4, 6, 10)
PLAN = {"blocks": (1, 2, 1), "filters": FILTERS}
EMBEDDING = 5


def rows():
    """Returns the rows for the table in `parity.py`."""
    from tests.conversion.parity import Row

    sizes, torch = ((32, 32), (47, 62), (33, 65)), ("torch",)
    return [
        Row(
            "bottleneck" if deep else "basic",
            "local_aggregation_tf1",
            "PyTorch, written afresh",
            functools.partial(_encoder, deep),
            sizes,
            torch,
        )
        for deep in (False, True)
    ]


def shapes(blocks, filters, bottleneck=False):
    """Returns name -> shape of the network in the order in which its layers are made, without a scope."""
    import torch

    from keras_ssl.conversion.references.torch_preact import PreActResNet

    with torch.device("meta"):
        state = PreActResNet(blocks, filters, bottleneck).state_dict()
    return {
        k.removeprefix("resnet_model.").replace(".", "/"): tuple(v.shape) for k, v in state.items()
    }


def checkpoint(scope="", bottleneck=False):
    """Returns random tensors of a whole file: network, embedding, momenta, memory bank, labels."""
    last = FILTERS[-1] * (4 if bottleneck else 1)
    dense = {"dense/kernel": (last, EMBEDDING), "dense/bias": (EMBEDDING,)}
    own = fixtures.random_tensors({**shapes(**PLAN, bottleneck=bottleneck), **dense})
    tensors = {f"{scope}resnet_model/{key}": value for key, value in own.items()}
    momenta = {
        f"{key}/Momentum": np.ones_like(value)
        for key, value in tensors.items()
        if "moving" not in key
    }
    more = {
        "instance/memory_bank": np.zeros((20, EMBEDDING), np.float32),
        "instance/all_labels": np.zeros(20, np.int64),
        "instance/cluster_labels": np.zeros((10, 20), np.int64),
        "global_step": np.array(1901710),
    }
    return own, {**tensors, **momenta, **more}


def network(bottleneck=False):
    """Returns a network of the same form that nothing has filled."""
    from keras_ssl.backbones import PreActResNet

    return PreActResNet(**PLAN, bottleneck=bottleneck, image_size=32)


def expected(own, bottleneck, images):
    """Returns what the reference says about images in [0, 1]."""
    import torch

    from keras_ssl.backbones import IMAGENET_MEAN, IMAGENET_STD
    from keras_ssl.conversion.references.running import load_strictly
    from keras_ssl.conversion.references.torch_preact import PreActResNet

    x = ((images - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)).astype(np.float32)
    state = {f"resnet_model/{key}".replace("/", "."): value for key, value in own.items()}
    module = load_strictly(PreActResNet(**PLAN, bottleneck=bottleneck), state, (r".*\.dense\..*",))
    found = module(torch.tensor(x).permute(0, 3, 1, 2))
    layers = [y.numpy() for y in found.pop("layers")]
    return {**{key: value.numpy() for key, value in found.items()}, "layers": layers}


def _encoder(bottleneck):
    own, tensors = checkpoint(bottleneck=bottleneck)

    def wanted(images):
        found = expected(own, bottleneck, images)
        return {key: found[key] for key in ("features", "map")}

    return tensors, network(bottleneck), wanted


def head():
    """Returns the checkpoint, a head that nothing has filled, and the reference of its outputs."""
    from keras_ssl.conversion import build_head

    own, tensors = checkpoint()

    def wanted(x):
        z = x.astype(np.float64) @ own["dense/kernel"] + own["dense/bias"]
        return {"projection": z / np.linalg.norm(z, axis=1, keepdims=True)}

    return tensors, build_head("local_aggregation", FILTERS[-1], widths=(EMBEDDING,)), wanted
