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


def pins_of(name):
    """Returns name -> version of a file of pins, which must be sorted."""
    text = (REPOSITORY / "requirements" / name).read_text()
    pins = [line for line in text.splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    names = [pin.partition("==")[0] for pin in pins]
    assert names == sorted(set(names))
    return dict(pin.split("==") for pin in pins)


def test_the_oldest_pins_are_the_lower_bounds():
    pins = pins_of("oldest.txt")
    wanted = lines("options", "install_requires") + lines("options.extras_require", "test")
    assert {re.split("[<>=]", line)[0] for line in wanted} <= set(pins)
    for line in wanted:
        name, _, bound = re.split("[,<]", line)[0].partition(">=")
        if name in ("tensorflow", "keras"):
            assert pins[name].startswith(f"{bound}.0"), (name, pins[name])


def test_tpu_pins_bring_all_but_tensorflow_itself():
    """There TensorFlow is called tensorflow-tpu; both together would overwrite each other's files."""
    pins = pins_of("tpu.txt")
    wanted = {re.split("[<>=]", line)[0] for line in lines("options", "install_requires")}
    assert wanted - set(pins) == {"tensorflow"}
    assert pins["tensorflow-tpu"].split(".")[:2] == pins["tensorboard"].split(".")[:2]
    assert (2, 19) <= tuple(map(int, pins["tensorflow-tpu"].split(".")[:2])) < (2, 22)


def test_one_version_everywhere():
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert f"\nversion: {keras_ssl.__version__}\n" in citation
