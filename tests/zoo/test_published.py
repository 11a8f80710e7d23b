"""The entries of this repository are what they say, and the README's table is theirs."""

from __future__ import annotations

import shutil

import pytest

from keras_ssl import zoo
from keras_ssl.zoo import catalog, publish
from keras_ssl.zoo.table import BEGIN, update_readme
from keras_ssl.zoo.weights import sha256

REPOSITORY = catalog._CHECKOUT.parent
ENTRIES = zoo.list(source="keras_ssl")


def test_the_checkout_is_where_entries_are_found():
    assert catalog.entries_folder() == REPOSITORY / "zoo"
    assert (REPOSITORY / "setup.cfg").is_file()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_published_files_are_those_that_were_measured(entry):
    assert sorted(entry.files) == [
        "card.md",
        "encoder.npz",
        "log.jsonl",
        "recipe.json",
        "results.json",
    ]
    for name, expected in entry.files.items():
        data = (entry.folder / name).read_bytes()
        assert sha256(data) == expected, name
        assert name != "encoder.npz" or len(data) <= publish.LARGEST_FILE
    assert (entry.folder / "card.md").read_text(encoding="utf-8") == zoo.card(entry.name)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_published_encoders_load(entry):
    encoder = zoo.load(entry.name)
    assert encoder.count_params() > 0


def test_readme_table_is_up_to_date(tmp_path):
    readme = REPOSITORY / "README.md"
    if not readme.is_file() or BEGIN not in readme.read_text(encoding="utf-8"):
        pytest.skip("README.md has no zoo table yet")
    copy = REPOSITORY / ".README.check.md"  # beside the original: the links are relative to it
    try:
        shutil.copy(readme, copy)
        assert not update_readme(copy), "run: python -m keras_ssl.zoo.table README.md"
    finally:
        copy.unlink(missing_ok=True)
