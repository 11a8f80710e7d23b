"""Parity rows of the heads: PyTorch modules as the authors define them, small; SimCLR's in NumPy."""

from __future__ import annotations

import functools

import numpy as np

from keras_ssl.conversion import build_head
from tests.conversion import fixtures, preact_rows
from tests.conversion.parity import Row

DIM, BATCH = 10, (7,)
# What `build_head` is told; the rest is the method's own.
SIZES = {
    "swav": {"widths": (12, 6), "prototypes": (9,)},
    "deepclusterv2": {"widths": (12, 6), "prototypes": (9, 5, 9)},
    "selav2": {"widths": (12, 6), "prototypes": (4, 4)},
    "dino": {"widths": (12, 12, 6), "prototypes": (20,)},
    "moco_v1": {"widths": (6,)},
    "moco_v2": {"widths": (12, 6)},
    "moco_v3": {"widths": (12, 6)},
    "simsiam": {"widths": (10, 10, 10)},
    "barlow_twins": {"widths": (16, 16, 16)},
    "vicreg": {"widths": (16, 16, 16)},
}


def vectors(count):
    return np.random.default_rng(5).normal(size=(count, DIM)).astype(np.float32)


def module(kind):
    """Returns the module of a head and its forward function to (projection, list of scores)."""
    import torch
    from torch import nn

    f = nn.functional
    linear, norm, relu = nn.Linear, nn.BatchNorm1d, nn.ReLU
    head = nn.Module()
    if kind in ("swav", "deepclusterv2", "selav2"):
        head.projection_head = nn.Sequential(linear(DIM, 12), norm(12), relu(), linear(12, 6))
        counts = SIZES[kind]["prototypes"]
        if len(counts) == 1:
            head.prototypes = linear(6, counts[0], bias=False)
            layers = [head.prototypes]
        else:
            head.prototypes = nn.Module()
            layers = [linear(6, count, bias=False) for count in counts]
            for index, layer in enumerate(layers):
                head.prototypes.add_module(f"prototypes{index}", layer)

        def forward(x):
            z = f.normalize(head.projection_head(x), dim=1)
            return z, [layer(z) for layer in layers]
    elif kind == "dino":
        mlp = [linear(DIM, 12), nn.GELU(), linear(12, 12), nn.GELU(), linear(12, 6)]
        head.mlp = nn.Sequential(*mlp)
        head.last_layer = nn.utils.weight_norm(linear(6, 20, bias=False))

        def forward(x):
            z = f.normalize(head.mlp(x), dim=-1, p=2)
            return z, [head.last_layer(z)]
    elif kind == "moco_v1":
        head.fc = linear(DIM, 6)
        forward = lambda x: (f.normalize(head.fc(x), dim=1), [])  # noqa: E731
    elif kind == "moco_v2":
        head.fc = nn.Sequential(linear(DIM, 12), relu(), linear(12, 6))
        forward = lambda x: (f.normalize(head.fc(x), dim=1), [])  # noqa: E731
    elif kind == "moco_v3":
        first = linear(DIM, 12, bias=False), norm(12), relu()
        head.fc = nn.Sequential(*first, linear(12, 6, bias=False), norm(6, affine=False))
        forward = lambda x: (f.normalize(head.fc(x), dim=1), [])  # noqa: E731
    elif kind == "simsiam":
        hidden = [
            layer for _ in (0, 1) for layer in (linear(DIM, DIM, bias=False), norm(DIM), relu())
        ]
        head.fc = nn.Sequential(*hidden, linear(DIM, DIM), norm(DIM, affine=False))
        forward = lambda x: (head.fc(x), [])  # noqa: E731
    else:
        bias = kind == "vicreg"
        first = linear(DIM, 16, bias=bias), norm(16), relu()
        second = linear(16, 16, bias=bias), norm(16), relu()
        head.projector = nn.Sequential(*first, *second, linear(16, 16, bias=False))
        forward = lambda x: (head.projector(x), [])  # noqa: E731
    return head, forward, torch


def checkpoint(kind):
    """Returns random tensors of a head as the file has them, and its forward function on NumPy arrays."""
    head, forward, torch = module(kind)
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    tensors = fixtures.random_tensors(shapes)
    tensors |= {k: np.abs(v) + 0.2 for k, v in tensors.items() if k.endswith("weight_g")}
    head.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()})
    head.eval()

    def expected(x):
        with torch.no_grad():
            z, scores = forward(torch.tensor(x))
        result = {"projection": z.numpy()}
        return result | ({"scores": torch.cat(scores, -1).numpy()} if scores else {})

    return tensors, expected


def make(kind):
    tensors, expected = checkpoint(kind)
    encoder = fixtures.random_tensors({"conv1.weight": (4, 3, 7, 7), "bn1.bias": (4,)})
    return {**encoder, **tensors}, build_head(kind, DIM, **SIZES[kind]), expected


def simclr_checkpoint(widths=(10, 10, 6)):
    shapes, into = {}, DIM
    for index, width in enumerate(widths):
        key = f"head_contrastive/nl_{index}"
        shapes[f"{key}/dense/kernel"] = (into, width)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            if part != "beta" or index < len(widths) - 1:
                shapes[f"{key}/batch_normalization/{part}"] = (width,)
        into = width
    tensors = fixtures.random_tensors(shapes)

    def expected(x):
        for index in range(len(widths)):
            part = {k.rpartition("/")[2]: v for k, v in tensors.items() if f"/nl_{index}/" in k}
            x = x @ part["kernel"].astype(np.float64)
            x = (x - part["moving_mean"]) / np.sqrt(part["moving_variance"] + 1e-5) * part["gamma"]
            if index < len(widths) - 1:
                x = np.maximum(x + part["beta"], 0)
        return {"projection": x}

    return tensors, expected


def make_simclr():
    tensors, expected = simclr_checkpoint()
    slots = {"head_contrastive/nl_0/dense/kernel/Momentum": np.zeros((10, 10), np.float32)}
    return {**tensors, **slots}, build_head("simclr", DIM, widths=(10, 10, 6)), expected


def rows() -> list[Row]:
    torch = {"reference": "PyTorch modules", "needs": ("torch",)}
    numpy = {"reference": "NumPy, float64"}
    plan = [(kind, functools.partial(make, kind), torch) for kind in SIZES]
    plan.append(("local_aggregation", preact_rows.head, {**numpy, "needs": ("torch",)}))
    return [
        Row("head", f"{kind}_head", make=made, sizes=BATCH, inputs=vectors, **how)
        for kind, made, how in [*plan, ("simclr", make_simclr, numpy)]
    ]
