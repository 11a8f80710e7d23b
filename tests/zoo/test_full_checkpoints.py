"""Full checkpoints: encoder and head out of what training code saves, against PyTorch's numbers.

The files are written by `torch.save` as the authors' code does it: both networks of a pair, an optimizer with a
function in it, arguments, a center. Sizes are small, names and places the entries' own.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import numpy as np
import pytest

from keras_ssl import zoo
from keras_ssl.conversion import HEADS
from keras_ssl.zoo import cache, loading, published
from tests.conversion import fixtures, head_rows, vit_rows

torch = pytest.importorskip("torch", reason="torch is not installed; it writes the files")

TABLE = published.published()
FULL = {name: entry for name, entry in TABLE.items() if name.endswith(published.FULL)}
BLOCKS, FILTERS, WIDTH = (1, 1), (4, 6), 24  # features of either small encoder have length 24
RESNET = {"blocks": BLOCKS, "filters": FILTERS}
VIT = {"width": WIDTH, "depth": 2, "num_heads": 3, "patch_size": 4}
TOLERANCE = 1e-4  # of the largest number; measured: at most 9.2e-7


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(head_rows, "DIM", WIDTH)


def resnet():
    """Returns random tensors of a small ResNet and its features in PyTorch."""
    from tests.conversion import torch_resnets

    tensors = fixtures.random_tensors(fixtures.torchvision_shapes(BLOCKS, FILTERS))
    model = torch_resnets.filled(torch_resnets.TorchResNet(BLOCKS, FILTERS), tensors)
    return tensors, lambda images: torch_resnets.features(model, images)["features"]


def vit():
    from tests.conversion.vit_reference import tensors_of

    reference, _ = vit_rows.pair("dino")

    @torch.no_grad()
    def features(images):
        return reference(torch.tensor(images).permute(0, 3, 1, 2))["features"].numpy()

    return tensors_of(reference), features


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


def ibot(encoder, head, key="teacher"):
    """The last layer stands there once more for the patches, tied in the teacher and apart in the student."""
    tied = under("head.", {k.replace("r.", "r2."): v for k, v in head.items() if "last" in k})
    other = "student" if key == "teacher" else "teacher"
    networks = {
        key: both("", encoder, head) | tied,
        other: both("", *map(changed, (encoder, head))),
    }
    networks["student"] = {f"module.{name}": value for name, value in networks["student"].items()}
    networks["student"]["module.backbone.masked_embed"] = torch.zeros(1, WIDTH)
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


ROWS = [
    ("dino_vits16_full", VIT, vit, "dino", dino),
    ("dino_rn50_full", RESNET, resnet, two_layer_head, lambda *t: dino(*t, teacher="module.")),
    ("ibot_vits16_full", VIT, vit, "dino", ibot),
    ("ibot_vitb16_in22k_full", VIT, vit, "dino", lambda *t: ibot(*t, key="student")),
    ("barlowtwins_rn50_full", RESNET, resnet, "barlow_twins", "with norm"),
    ("vicreg_rn50_full", RESNET, resnet, "vicreg", "without"),
]


def small(name, settings, monkeypatch):
    entry = TABLE[name]
    settings = {**entry.settings, **settings}
    entry = dataclasses.replace(
        entry, settings=settings, image_size=16 if "width" in settings else 112
    )
    monkeypatch.setattr(published, "published", lambda: {name: entry})
    return entry


def written(row, path, monkeypatch):
    """Writes the file of a row; returns the entry and what PyTorch says about images."""
    name, settings, make_encoder, head, tree = row
    (encoder, features), kind = make_encoder(), head
    tensors, expected = head() if callable(head) else head_rows.checkpoint(kind)
    whole = (
        projected(encoder, tensors, monkeypatch, tree == "with norm")
        if isinstance(tree, str)
        else tree(encoder, tensors)
    )
    torch.save(whole, path)

    def outputs(images):
        given = features(images)
        return {"features": given, **expected(given)}

    return small(name, settings, monkeypatch), outputs, whole


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_encoder_and_head_give_pytorchs_numbers(row, tmp_path, monkeypatch):
    entry, expected, _ = written(row, tmp_path / "file", monkeypatch)
    network = zoo.load(entry.name, tmp_path / "file", include="head")
    images = fixtures.pictures(entry.image_size, batch=3)
    got, wanted = network(images), expected(images)
    assert set(wanted) <= set(got) and ("scores" in got) == bool(HEADS[entry.head].prototypes)
    for key, value in wanted.items():
        largest = np.abs(np.asarray(got[key]) - value).max() / np.abs(value).max()
        assert np.ptp(value) > 0 and largest < TOLERANCE, (key, largest)
    certificate = cache.read_json(next((tmp_path / "home").rglob(loading.CERTIFICATE)))
    used = certificate["head"]["conversion"]["tensors_used"]
    assert used == len(network.head.variables)
    assert set(certificate["conversion"]["left_out"]) <= {"masked_embed"} | {
        key for key in certificate["conversion"]["left_out"] if "num_batches" in key
    }


def saved(path, whole, change):
    """Writes a file once more with the names of one tree changed."""
    torch.save({key: change(key, value) for key, value in whole.items()}, path)


def renamed(part, old, new):
    def change(key, value):
        return {k.replace(old, new): v for k, v in value.items()} if key == part else value

    return change


def test_names_that_are_not_the_entrys_are_noticed(tmp_path, monkeypatch):
    path = tmp_path / "file"
    entry, _, whole = written(ROWS[-1], path, monkeypatch)
    saved(path, whole, renamed("model", "module.projector.", "module.expander."))
    with pytest.raises(ValueError, match="head in the file of vicreg_rn50_full; .* none there"):
        zoo.load(entry.name, path, include="head")
    assert zoo.load(entry.name, path).feature_dim == WIDTH
    saved(path, whole, renamed("model", "module.backbone.", "module.encoder."))
    with pytest.raises(ValueError, match="Expected names that start with .backbone\\.. under"):
        zoo.load(entry.name, path)
    saved(path, whole, renamed("model", "projector.6", "projector.7"))
    with pytest.raises(ValueError, match="head in the file of .*without 1 of them: 'projector.6"):
        zoo.load(entry.name, path, include="head")


def test_the_students_head_is_never_taken_for_the_teachers(tmp_path, monkeypatch):
    path = tmp_path / "file"
    entry, _, whole = written(ROWS[1], path, monkeypatch)
    saved(path, whole, renamed("teacher", "module.head.", "module.other."))
    with pytest.raises(ValueError, match="head in the file of dino_rn50_full; .*'head.' under"):
        zoo.load(entry.name, path, include="head")
    saved(path, whole, lambda key, value: {} if key == "teacher" else value)
    with pytest.raises(ValueError, match="Expected names that start with .backbone\\.. under"):
        zoo.load(entry.name, path)


def test_every_full_entry_has_the_network_of_the_one_without_head():
    assert len(FULL) == 9 + 1 + 3 + 7
    for name, entry in FULL.items():
        plain = TABLE[name.removesuffix(published.FULL)]
        assert not plain.head and entry.head in HEADS and entry.head_prefixes
        for field in ("backbone", "layout", "settings", "image_size", "preprocessing", "licence"):
            assert getattr(entry, field) == getattr(plain, field), name
        assert entry.files != plain.files and entry.unverified and entry.notes
        assert len(entry.top_keys) == 1 and entry.prefixes == ("backbone.",)
    student = {name for name, entry in FULL.items() if entry.top_keys == ("student",)}
    assert student == {"ibot_vitb16_in22k_full", "ibot_vitl16_in22k_full"}


def test_the_entry_without_head_names_the_one_with_it():
    match = "dino_vits16, whose file has no head, that of 'dino_vits16_full' has"
    with pytest.raises(ValueError, match=match):
        zoo.load("dino_vits16", include="head")
    assert '`dino`, with `include="head"`; `head.` removed' in zoo.card("dino_vits16_full")
