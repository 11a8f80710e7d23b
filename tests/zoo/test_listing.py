"""What is said of published encoders: lists, cards, the page and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from keras_ssl import cli, zoo
from keras_ssl.zoo import published
from keras_ssl.zoo.table import update_readme

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = published.published()
ENTRIES = list(TABLE.values())


def test_filters():
    assert {e.name for e in zoo.list(method="swav", source="keras_ssl")} == {"swav_rnmini_cifar10"}
    free = zoo.list(commercial=True)
    assert {"dino_vits16", "swav_rnmini_cifar10"} <= {entry.name for entry in free}
    assert {e.licence for e in free} == {"apache-2.0", "mit", "gpl-3.0"}
    assert {e.licence for e in zoo.list(commercial=False)} == {"cc-by-nc-4.0", "seer"}
    assert {e.source for e in zoo.list(access="gated")} == {"dinov3"}
    assert {e.backbone for e in zoo.list(backbone="resnet200")} == {"resnet200"}
    assert zoo.list(source="nobody") == []
    for key in ("licence", "access"):
        with pytest.raises(ValueError, match=f"Expected {key} to be one of .*{key}='x'"):
            zoo.list(**{key: "x"})
    own = [entry.source == "keras_ssl" for entry in zoo.list()]
    assert own == sorted(own, reverse=True)  # ours first


def test_every_card_says_licence_hash_and_what_is_unverified():
    for entry in ENTRIES:
        card = zoo.card(entry.name)
        assert entry.terms.text() in card
        assert "this library has not opened the real file" in " ".join(card.split())
        for file in entry.files:
            assert file.known_hash() in card
        for fact in (*entry.notes, *entry.unverified):
            assert f"- {fact}" in card
        assert ("accept_licence=True" in card) == entry.terms.consent


def test_who_says_which_hash():
    (file,) = TABLE["mae_vitb16"].files
    assert f"SHA-256 {file.sha256} (third party); MD5 begins with 8cad7c (official)" in zoo.card(
        "mae_vitb16"
    )


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'swav_rn50'"):
        zoo.load("swav_rn5")
    with pytest.raises(ValueError, match="`keras-ssl zoo list` shows all"):
        zoo.card("qqqqqqqqqqqqqqqq")


def test_the_command_lists_as_text_and_json(capsys):
    assert cli.main(["zoo", "list", "--source", "mae"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "mae_vitb16: mae, vit_base, ImageNet-1K, 1600 epochs; published k-NN not stated, "
        "linear 67.8 %; CC BY-NC 4.0"
    )
    assert cli.main(["zoo", "list", "--source", "moco", "--method", "moco_v1", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["published"] == {"linear": 60.6} and facts["commercial"] is False
    assert facts["files"][0]["hash"] == "MD5 begins with b251726a (official)"
    assert cli.main(["zoo", "list", "--commercial", "--source", "mae"]) == 0
    assert capsys.readouterr().out == "No published encoder fits.\n"
    assert cli.main(["zoo", "list", "--method", "swaw", "--backbone", "resnet51"]) == 0
    assert capsys.readouterr().out == (
        "No published encoder fits. Did you mean 'swav'? Did you mean 'resnet50'?\n"
    )
    with pytest.raises(SystemExit) as end:
        cli.main(["zoo", "list", "--licence", "free"])
    assert end.value.code == 2


def test_listing_all_is_quick_and_needs_no_tensorflow(subprocess_env):
    code = (
        "import sys, time, keras_ssl\n"
        "entries = keras_ssl.zoo.list()\n"
        "cards = [keras_ssl.zoo.card(entry.name) for entry in entries]\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'rich'} & sys.modules.keys()\n"
        "print(len(entries) > 200, sorted(heavy), time.process_time() < 0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_env, capture_output=True, text=True
    )
    assert done.stdout == "True [] True\n", done.stdout + done.stderr


def test_the_page_is_up_to_date(tmp_path):
    copy = tmp_path / "zoo.md"
    shutil.copy(REPOSITORY / "docs" / "zoo.md", copy)
    assert not update_readme(copy, published=True), (
        "run: python -m keras_ssl.zoo.table --published docs/zoo.md"
    )
    text = copy.read_text(encoding="utf-8")
    assert f"{len(ENTRIES)} entries." in text
    assert text.count("\n| `") == len(ENTRIES)
    assert "None of the real files was opened" in text
