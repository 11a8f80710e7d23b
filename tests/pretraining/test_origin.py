"""What is known of an encoder's origin and terms reaches the card and the metadata of what is exported from it."""

import json

import pytest

from keras_ssl import cli, export
from keras_ssl.export.card import write_card
from keras_ssl.export.formats import check_target
from keras_ssl.pretraining.origin import facts_of, last_part
from keras_ssl.zoo.catalog import find_all


def test_a_published_entry_keeps_its_license():
    entry = next(entry for entry in find_all(licence="cc-by-nc-4.0"))
    facts = facts_of(entry.name)
    assert facts["source"] == f"zoo entry {entry.name}, published by {entry.source}"
    assert (facts["method"], facts["backbone"]) == (entry.method, entry.backbone)
    assert facts["license"] == "CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/)"
    assert facts["commercial_use"] == "not allowed" and facts["data"] == entry.data
    other = {
        "keras_ssl_version": "1",
        "feature_dim": 8,
        "image_size": 8,
        "any_image_size": True,
        "preprocessing": {"crop_ratio": 1.0},
        "signatures": [],
    }
    assert "| commercial use | not allowed |" in write_card({**other, "source": facts}, 1.0)
    json.dumps([facts_of(entry.name) for entry in find_all()])  # every entry has facts


def test_an_own_entry_and_what_is_exported_from_its_export(tmp_path, capsys):
    name = "simclr_rnmini_cifar10"
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["export", name, "--to", str(first)]) == 0
    assert cli.main(["export", str(first), "--to", str(second)]) == 0
    stored = export.read_metadata(first)["source"]
    assert stored["method"] == "simclr" and stored["data"] == "CIFAR-10"
    assert stored["license"].startswith("Apache-2.0") and stored["commercial_use"] == "allowed"
    assert export.read_metadata(second)["source"] == {**stored, "exported_from": "first"}
    for folder in (first, second):
        lines = (folder / "model_card.md").read_text().splitlines()
        assert f"| source | zoo entry {name}, published by keras_ssl |" in lines
        assert "| commercial use | allowed |" in lines
        assert any(line.startswith("| license | Apache-2.0") for line in lines)


def test_a_run_says_what_it_was_trained_on_but_not_where(tmp_path):
    recipe = {"method": "dino", "backbone": "vit_mini", "data": "/home/me/photos/"}
    stored = {"recipe": {**recipe, "weight_decay": 0.1, "epochs": 3}}
    checkpoint = tmp_path / "run" / "checkpoints" / "step-7"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(stored))
    (tmp_path / "run" / "encoder.keras").write_text("")
    (checkpoint / "manifest.json").write_text("{}")
    known = {"method": "dino", "backbone": "vit_mini", "data": "photos", "weight_decay": 0.1}
    run = tmp_path / "run"
    for path, name in (
        (run, "run"),
        (run / "encoder.keras", "encoder.keras"),
        (checkpoint, "step-7"),
    ):
        assert facts_of(path) == {"source": name, **known}


def write_run(folder, **settings):
    recipe = {"method": "dino", "backbone": "vit_mini", "data": "photos", "weight_decay": 0.1}
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"recipe": {**recipe, **settings}}))


def test_the_license_of_the_weights_that_a_run_began_with_is_kept(tmp_path):
    entry = next(entry for entry in find_all(licence="cc-by-nc-4.0"))
    write_run(tmp_path / "one", init=entry.name)
    write_run(tmp_path / "two", init=str(tmp_path / "one"))
    write_run(tmp_path / "three", init=str(tmp_path / "two"))
    of_entry = facts_of(entry.name)
    terms = {
        "license_of_initial_weights": of_entry["license"],
        "commercial_use_of_initial_weights": "not allowed",
    }
    for name, begun_with in (("one", of_entry["source"]), ("two", "one"), ("three", "two")):
        facts = facts_of(tmp_path / name)
        assert facts["source"] == name and facts["initial_weights"] == begun_with
        assert {key: facts[key] for key in terms} == terms
        assert "license" not in facts  # that of the new weights is their owner's to state
    write_run(tmp_path / "own", init=str(tmp_path / "gone.keras"))
    assert facts_of(tmp_path / "own")["initial_weights"] == "gone.keras"


def test_runs_that_name_each_other_have_an_end(tmp_path):
    write_run(tmp_path / "one", init=str(tmp_path / "two"))
    write_run(tmp_path / "two", init=str(tmp_path / "one"))
    assert facts_of(tmp_path / "one")["initial_weights"] == "two"


@pytest.mark.parametrize(
    "name, last",
    [
        ("gs://bucket/shards-*.tar", "shards-*.tar"),
        ("C:\\photos\\", "photos"),
        ("tfds:a/b", "tfds:a/b"),
        ("array", "array"),
        ("/", "/"),
    ],
)
def test_the_last_part_of_a_name(name, last):
    assert last_part(name) == last


@pytest.mark.parametrize(
    "to, flags, sentence",
    [
        ("x.tflite", [], "Expected --format litert for x.tflite."),
        ("d/x.ONNX", [], "Expected --format onnx for d/x.ONNX."),
        ("x.pth", [], "Expected --format torch for x.pth."),
        ("x.pt", ["--format", "preset"], "Expected --format torch for x.pt."),
        ("x.safetensors", [], "Expected --format safetensors for x.safetensors."),
        ("torch", [], "Expected --format torch with a path in --to"),
        ("{folder}", ["--format", "litert"], "Expected a file in --to for --format litert."),
        ("{folder}", ["--format", "safetensors"], "Received: {folder}, a folder."),
    ],
)
def test_a_target_of_another_format_is_refused(to, flags, sentence, tmp_path, capsys):
    """Before the encoder is looked for."""
    arguments = ["export", "no such encoder", "--to", to.format(folder=tmp_path), *flags]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert sentence.format(folder=tmp_path) in capsys.readouterr().err
    check_target("saved_model", "./torch")
