"""Entries of the own zoo are listed, described, replaced and refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from keras_ssl import zoo
from keras_ssl.zoo import publish, weights
from keras_ssl.zoo.table import BEGIN, END, table, update_readme
from tests.zoo.own_entries import RECIPE, RESULTS

pytestmark = pytest.mark.usefixtures("own_zoo")


def test_unknown_name_suggests_a_published_one(encoder):
    with pytest.raises(ValueError, match="name='x'. Published: none"):
        zoo.load("x")
    zoo.pack_entry(encoder, "simclr_tiny", RECIPE, RESULTS)
    with pytest.raises(ValueError, match="name='simclr_tny'. Did you mean 'simclr_tiny'?"):
        zoo.card("simclr_tny")
    with pytest.raises(ValueError, match="name='swav'. Published: simclr_tiny"):
        zoo.load("swav")


def test_list_filters_by_method_and_backbone(encoder):
    zoo.pack_entry(encoder, "b", RECIPE, RESULTS)
    zoo.pack_entry(encoder, "a", {**RECIPE, "method": "byol"}, RESULTS)
    assert [entry.name for entry in zoo.list()] == ["a", "b"]
    assert [entry.name for entry in zoo.list(method="simclr")] == ["b"]
    assert [entry.name for entry in zoo.list(backbone="tiny")] == ["a", "b"]
    assert zoo.list(method="byol", backbone="resnet50") == []
    assert repr(zoo.list()[0]) == f"<Entry {zoo.list()[0].line()}>"
    assert (
        zoo.list()[0].line()
        == "a: byol, tiny, squares, 32 px, 3 epochs; k-NN 81.2 %, linear not run"
    )


def test_card_says_what_was_measured_and_how(encoder, tmp_path):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, {**RESULTS, "knn": np.float32(0.8125)})
    card = zoo.card("tiny_squares")
    assert card == (tmp_path / "zoo/tiny_squares/card.md").read_text()
    for row in (
        "| knn | 81.2 % |",
        "| linear | not run |",
        "| knn_random_encoder | 25.0 % |",
        "| rankme | 12.35 |",
        "| epochs | 3 |",
        "| command | keras-ssl pretrain --method simclr --data squares |",
    ):
        assert row in card


def test_entry_holds_hashes_of_all_its_files_and_the_log(encoder, tmp_path):
    entry = zoo.pack_entry(
        encoder, "tiny_squares", RECIPE, RESULTS, log=[{"step": 1}, '{"step": 2}\n']
    )
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted(
        [*entry.files, "entry.json"]
    )
    for name, expected in entry.files.items():
        assert weights.sha256((entry.folder / name).read_bytes()) == expected
    log = (entry.folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["tiny_squares"]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"name": "Tiny Squares"}, "name='Tiny Squares'"),
        (
            {"recipe": {key: RECIPE[key] for key in RECIPE if key != "command"}},
            "Received: no command",
        ),
        ({"results": {"knn": 81.2}}, "knn=81.2"),
        ({"results": {"loss": float("nan")}}, "finite JSON values"),
        ({"results": {"plot": object()}}, "not JSON: object"),
    ],
)
def test_wrong_entries_are_refused_before_anything_is_written(encoder, tmp_path, change, match):
    arguments = {"name": "tiny_squares", "recipe": RECIPE, "results": RESULTS, **change}
    with pytest.raises(ValueError, match=match):
        zoo.pack_entry(encoder, **arguments)
    assert not (tmp_path / "zoo").exists()


def test_weights_too_large_for_the_wheel_are_refused(encoder, monkeypatch):
    monkeypatch.setattr(publish, "LARGEST_FILE", 500)
    with pytest.raises(ValueError, match="at most 500 bytes"):
        zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)


def test_an_entry_is_replaced_only_on_request_and_never_half(encoder, tmp_path, monkeypatch):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    with pytest.raises(ValueError, match="overwrite=True"):
        zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    zoo.pack_entry(encoder, "tiny_squares", {**RECIPE, "epochs": 4}, RESULTS, overwrite=True)
    assert zoo.list()[0].recipe["epochs"] == 4

    def full_disk(*args):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(publish.Path, "write_bytes", full_disk)
        zoo.pack_entry(encoder, "tiny_squares", {**RECIPE, "epochs": 5}, RESULTS, overwrite=True)
    assert zoo.list()[0].recipe["epochs"] == 4
    assert [path.name for path in (tmp_path / "zoo").iterdir()] == ["tiny_squares"]


def test_a_broken_entry_is_named(encoder, tmp_path):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    (tmp_path / "zoo/tiny_squares/results.json").write_text("{")
    with pytest.raises(ValueError, match="Expected a complete zoo entry. Received: .*tiny_squares"):
        zoo.list()


def test_readme_table_is_generated_between_its_markers(encoder, tmp_path):
    zoo.pack_entry(
        encoder, "tiny_squares", {**RECIPE, "paper": "91.8 (CIFAR-10, figure 6)"}, RESULTS
    )
    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n{BEGIN}\nold\n{END}\nmore\n")
    assert update_readme(readme)
    assert not update_readme(readme)
    text = readme.read_text()
    assert text.startswith(f"# x\n{BEGIN}\n| method |") and text.endswith(f"\n{END}\nmore\n")
    row = table(zoo.list(), tmp_path).splitlines()[2]
    assert row in text and "old" not in text
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "simclr",
        "tiny",
        "squares, 32 px",
        "3",
        "81.2 %",
        "not run",
        "91.8 (CIFAR-10, figure 6)",
        "[tiny_squares](zoo/tiny_squares/card.md)",
        "[0.0 MB](zoo/tiny_squares/encoder.npz)",
    ]
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="once each"):
        update_readme(readme)


def test_list_and_card_need_no_tensorflow_and_little_time(encoder, tmp_path, subprocess_env):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    code = (
        "import pathlib, sys, time, keras_ssl\n"
        "from keras_ssl.zoo import catalog\n"
        f"catalog.entries_folder = lambda: pathlib.Path({str(tmp_path / 'zoo')!r})\n"
        "names = [entry.name for entry in keras_ssl.zoo.list(source='keras_ssl')]\n"
        "card = keras_ssl.zoo.card('tiny_squares')\n"
        "assert names == ['tiny_squares'] and card.startswith('# tiny_squares')\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib'} & sys.modules.keys()\n"
        "print(sorted(heavy), time.process_time() < 0.5)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_env, capture_output=True, text=True
    )
    assert shown.stdout == "[] True\n", shown.stdout + shown.stderr
