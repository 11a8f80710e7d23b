"""Small encoders and heads in PyTorch, and the trees that the authors' training code would save of them. Needs torch.

Every encoder and head is `(tensors, expected)`: NumPy arrays by name, and a function from images or features in NumPy
to what PyTorch makes of them.
"""

from __future__ import annotations

import argparse
import functools
import sys

import numpy as np
import torch

from keras_ssl.backbones import IMAGENET_MEAN, IMAGENET_STD
from keras_ssl.conversion.references import running, torch_attention, torch_resnets
from tests.conversion import fixtures, vit_random, vit_rows
from tests.conversion.torch_random import randomized

BLOCKS, FILTERS, WIDTH = (1, 1), (4, 6), 24  # features of every encoder have length 24


def resnet():
    """Returns random tensors of a small ResNet and its features in PyTorch."""
    tensors = fixtures.random_tensors(fixtures.torchvision_shapes(BLOCKS, FILTERS))
    model = running.load_strictly(torch_resnets.ResNet(BLOCKS, FILTERS), tensors)
    return tensors, features_of(model)


def features_of(model):
    """Returns the function from images in [0, 1] to the features of a module."""
    prepared = functools.partial(running.normalized, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    run = running.torch_run(model, prepared)
    return lambda images: run(images)["features"]


def vit():
    reference, _ = vit_rows.pair("dino")
    return vit_random.tensors_of(reference), features_of(reference)


def xcit():
    module = randomized(lambda: torch_attention.XCiT(WIDTH, 1, 3, 16))
    tensors = {key: value.numpy() for key, value in module.state_dict().items()}
    encoder = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    return encoder, features_of(module)  # the training code puts an identity in the head's place


def head_with_norms():
    """DINO's `use_bn_in_head`."""
    nn = torch.nn
    first = nn.Linear(WIDTH, 12), nn.BatchNorm1d(12), nn.GELU()
    second = nn.Linear(12, 12), nn.BatchNorm1d(12), nn.GELU()
    head = nn.Module()
    head.mlp = nn.Sequential(*first, *second, nn.Linear(12, 6))
    shapes = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    tensors = fixtures.random_tensors(shapes)
    head.load_state_dict({key: torch.tensor(value) for key, value in tensors.items()})
    head.eval()
    rng = np.random.default_rng(4)
    lengths = rng.uniform(0.5, 1.5, (20, 1)).astype(np.float32)
    rows = rng.normal(size=(20, 6)).astype(np.float32)

    @torch.no_grad()
    def expected(x):
        z = nn.functional.normalize(head.mlp(torch.tensor(x)), dim=-1).numpy()
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return {"projection": z, "scores": z @ (lengths * unit).T}

    last = {"last_layer.weight_g": lengths, "last_layer.weight_v": rows}
    return {**tensors, **last}, expected


def two_layer_head():
    """The ResNet-50's of DINO as users list it: one hidden layer, a last layer that is a plain matrix."""
    f = torch.nn.functional
    names = {"mlp.0.weight": (12, WIDTH), "mlp.0.bias": (12,), "mlp.2.weight": (6, 12)}
    names |= {"mlp.2.bias": (6,), "last_layer.weight": (20, 6)}
    tensors = fixtures.random_tensors(names)
    w = {key: torch.tensor(value) for key, value in tensors.items()}

    def expected(x):
        hidden = f.gelu(f.linear(torch.tensor(x), w["mlp.0.weight"], w["mlp.0.bias"]))
        z = f.normalize(f.linear(hidden, w["mlp.2.weight"], w["mlp.2.bias"]), dim=-1)
        return {"projection": z.numpy(), "scores": f.linear(z, w["last_layer.weight"]).numpy()}

    return tensors, expected


def under(prefix, tensors):
    return {prefix + key: torch.tensor(np.asarray(value)) for key, value in tensors.items()}


def both(prefix, encoder, head):
    return under(f"{prefix}backbone.", encoder) | under(f"{prefix}head.", head)


def changed(tensors):
    return {key: value + 1 for key, value in tensors.items()}


def optimizer_state():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def pair_of(student, teacher, loss, **more):
    """What `main_dino.py` and `main_ibot.py` save."""
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": optimizer_state(),
        "epoch": 800,
        "args": argparse.Namespace(arch="vit_small", out_dim=20, lr=0.0005),
        loss: {"center": torch.zeros(1, 20)},
        "fp16_scaler": {"scale": 65536.0},
        **more,
    }


def dino(encoder, head, teacher=""):
    student = both("module.", changed(encoder), changed(head))
    return pair_of(student, both(teacher, encoder, head), "dino_loss")


def with_module(encoder, head):
    """With batch-norms in the encoder the teacher is wrapped too."""
    return dino(encoder, head, teacher="module.")


def ibot(encoder, head, key="teacher"):
    """The last layer stands there once more for the patches: the same tensor under a second name."""
    evaluated = both("", encoder, head)
    last = {name: value for name, value in evaluated.items() if "last_layer." in name}
    evaluated |= {name.replace("layer.", "layer2."): value for name, value in last.items()}
    networks = {"teacher": both("", changed(encoder), changed(head))}
    networks["student"] = networks["teacher"] | {"backbone.masked_embed": torch.zeros(1, WIDTH)}
    networks[key] = networks[key] | evaluated
    networks["student"] = {f"module.{name}": value for name, value in networks["student"].items()}
    return pair_of(**networks, loss="ibot_loss")


def projected(encoder, head, monkeypatch, norm=False):
    """What the training codes of Barlow Twins and VICReg save: LARS keeps a function of the script."""

    def exclude_bias_and_norm(p):
        return p.ndim == 1

    exclude_bias_and_norm.__module__ = "__main__"
    exclude_bias_and_norm.__qualname__ = "exclude_bias_and_norm"
    name = "exclude_bias_and_norm"
    monkeypatch.setattr(sys.modules["__main__"], name, exclude_bias_and_norm, raising=False)
    optimizer = optimizer_state()
    optimizer["param_groups"][0]["weight_decay_filter"] = exclude_bias_and_norm
    model = under("module.backbone.", encoder) | under("module.", head)
    if norm:
        model |= {
            "module.bn.running_mean": torch.zeros(16),
            "module.bn.running_var": torch.ones(16),
        }
    return {"epoch": 1000, "model": model, "optimizer": optimizer}
