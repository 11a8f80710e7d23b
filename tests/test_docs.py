"""The tables of docs/ agree with the recipes and the methods."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from keras_ssl import views
from keras_ssl.methods import METHODS, get_method
from keras_ssl.pretraining.build import build_views
from keras_ssl.pretraining.recipe import resolve
from keras_ssl.pretraining.recipes import RECIPES

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHODS_PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")
OPTIMIZERS = {"sgd": "SGD", "lars": "LARS", "adamw": "AdamW", "lamb": "LAMB"}
ROWS = re.findall(r"^\| `(\w+)` \| (.*) \|$", METHODS_PAGE, re.M)


def test_every_recipe_is_named():
    assert {name for name in RECIPES if f"`{name}`" not in METHODS_PAGE} == set()
    assert {name for name in RECIPES if not name.endswith("_laptop")} == {name for name, _ in ROWS}


@pytest.mark.parametrize("name, row", ROWS)
def test_defaults_are_those_of_the_recipe(name, row):
    backbone, shown, epochs, batch, optimizer, rate = row.split(" | ")
    recipe, _ = resolve(recipe=name, data="digits")
    groups = build_views(recipe).groups.values()
    assert shown == " + ".join(f"{len(group)} x {group[0].size}" for group in groups)
    assert (backbone, int(epochs), int(batch)) == (
        recipe.backbone,
        recipe.epochs,
        recipe.batch_size,
    )
    assert optimizer.split(" ")[0] == OPTIMIZERS[recipe.optimizer]
    assert float(rate.split(",")[0]) == recipe.learning_rate
    assert ("flat" in rate) == (recipe.learning_rate_rule == "none")


@pytest.mark.parametrize("number, name", list(enumerate(METHODS, start=2)))
def test_methods_are_as_they_say(number, name):
    method = get_method(name)
    rows = {
        cells[1].strip(): cells[number].strip()
        for line in METHODS_PAGE.splitlines()
        if len(cells := line.split("|")) == len(METHODS) + 3
    }
    assert rows[""] == method.__name__
    assert rows["exported network"] == method.exported
    (count,) = [size for group, size in method.view_spec.items() if group != "local"]
    assert str(count) in rows["views"]
    assert ("local" in rows["views"]) == ("local" in method.view_spec)
    assert ("teacher" in rows["state beside the weights"]) == (
        "teacher_momentum" in inspect.signature(method).parameters
    )
    for size in method.recipes.values():
        views.check(size, method.view_spec)


def test_differences_are_those_of_the_docstrings():
    """Every listed difference is on the page, but for the labels that no method reads."""
    page = " ".join(METHODS_PAGE.split()).lower()
    for name in METHODS:
        text = get_method(name).__doc__.split("Differs from the reference:")[1]
        for item in re.split(r"\n\s+- ", text)[1:]:
            start = " ".join(item.split())[:25].lower()
            assert start in page or start.startswith("no linear classifier"), f"{name}: {start}"


def test_decisions_are_numbered_and_whole():
    files = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(path.name[:3]) for path in files] == list(range(1, len(files) + 1))
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert re.match(rf"# {path.name[:3]}: ", text)
        for part in ("**Context.**", "**Choice.**", "**Cost.**"):
            assert text.count(part) == 1, path.name
        for named in re.findall(r"`((?:keras_ssl|tests|benchmarks)/[\w./]+\.py)`", text):
            assert (DOCS.parent / named).is_file(), f"{path.name}: {named}"
