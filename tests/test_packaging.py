"""What setup.cfg and the pins say agrees with the folders and with each other."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import keras_ssl

REPOSITORY = Path(__file__).resolve().parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")
PINS = [
    line
    for line in (REPOSITORY / "requirements/constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def lines(section, key):
    return [line for line in SETUP[section][key].split("\n") if line]


def test_every_package_is_installed():
    found = {
        ".".join(path.parent.relative_to(REPOSITORY).parts)
        for path in (REPOSITORY / "keras_ssl").rglob("__init__.py")
    }
    assert sorted(found | {"keras_ssl.zoo.entries"}) == lines("options", "packages")


def test_zoo_files_are_installed():
    """Every file of an entry, as pack_entry writes it, is matched by a pattern of package_data."""
    patterns = lines("options.package_data", "keras_ssl.zoo.entries")
    names = ("entry.json", "recipe.json", "results.json", "log.jsonl", "card.md", "encoder.npz")
    zoo = REPOSITORY / "zoo"
    files = [zoo / "x" / name for name in names] + [
        path for path in zoo.rglob("*") if path.is_file()
    ]
    left_out = [
        file for file in files if not any(file.match(str(zoo / pattern)) for pattern in patterns)
    ]
    assert left_out == []


def test_every_requirement_has_one_pin():
    names = [line.partition("==")[0] for line in PINS]
    assert names == sorted(set(names))
    wanted = lines("options", "install_requires") + lines("options.extras_require", "test")
    assert {re.split("[<>=]", line)[0] for line in wanted} <= set(names)


def test_pins_are_plain_versions():
    assert [line for line in PINS if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []


def test_one_version_everywhere():
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {keras_ssl.__version__}\n" in citation
