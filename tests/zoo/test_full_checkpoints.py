"""Full checkpoints: encoder and head out of what training code saves, against PyTorch's numbers.

The files are written by `torch.save` as the authors' code does it: both networks of a pair, an optimizer with a
function in it, arguments, a center. Sizes are small, names and places the entries' own.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keras_ssl import zoo
from keras_ssl.conversion import HEADS
from keras_ssl.zoo import cache, loading, published, verify
from tests.conversion import fixtures, head_rows

torch = pytest.importorskip("torch", reason="torch is not installed; it writes the files")

from tests.zoo import full_checkpoints as made  # noqa: E402 (it needs torch)

TABLE = published.published()
RESNET = {"blocks": made.BLOCKS, "filters": made.FILTERS}
XCIT = {"width": made.WIDTH, "depth": 1, "num_heads": 3}
VIT = {"width": made.WIDTH, "depth": 2, "num_heads": 3, "patch_size": 4}
SIDES = {"torchvision_resnet": 112, "timm_vit": 16, "xcit": 32}
TOLERANCE = 1e-4  # of the largest number; measured: at most 9.2e-7


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setattr(head_rows, "DIM", made.WIDTH)


ROWS = [
    ("dino_vits16_full", VIT, made.vit, "dino", made.dino),
    ("dino_rn50_full", RESNET, made.resnet, made.two_layer_head, made.with_module),
    ("dino_xcit_s12_p16_full", XCIT, made.xcit, made.head_with_norms, made.with_module),
    ("ibot_vits16_full", VIT, made.vit, "dino", made.ibot),
    ("ibot_vitb16_in22k_full", VIT, made.vit, "dino", lambda *t: made.ibot(*t, key="student")),
    ("barlowtwins_rn50_full", RESNET, made.resnet, "barlow_twins", "with norm"),
    ("vicreg_rn50_full", RESNET, made.resnet, "vicreg", "without"),
]


def small(name, settings, monkeypatch):
    entry = TABLE[name]
    settings = {**entry.settings, **settings}
    entry = dataclasses.replace(entry, settings=settings, image_size=SIDES[entry.layout])
    monkeypatch.setattr(published, "published", lambda: {name: entry})
    return entry


def written(row, path, monkeypatch):
    """Writes the file of a row; returns the entry and what PyTorch says about images."""
    name, settings, make_encoder, head, tree = row
    (encoder, features), kind = make_encoder(), head
    tensors, expected = head() if callable(head) else head_rows.checkpoint(kind)
    whole = (
        made.projected(encoder, tensors, monkeypatch, tree == "with norm")
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
    for converted, part in ((certificate, network.encoder), (certificate["head"], network.head)):
        assert converted["conversion"]["tensors_used"] == len(part.variables)
    left_out = certificate["conversion"]["left_out"]
    assert {key.rpartition(".")[2] for key in left_out} <= {"num_batches_tracked", "masked_embed"}


def test_a_full_checkpoint_is_verified_with_its_head(tmp_path, monkeypatch):
    path = tmp_path / "file"
    entry, _, whole = written(ROWS[-1], path, monkeypatch)
    checks = {check.what: check for check in verify.verify_published(entry, path)}
    assert [check for check in checks.values() if check.ok is False] == []
    assert checks["head, converted again"].ok
    outside = sum(not key.startswith("module.backbone.") for key in whole["model"])
    assert checks["tensors outside the encoder"].found == str(outside + 1)  # the momentum too


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
    assert zoo.load(entry.name, path).feature_dim == made.WIDTH
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
