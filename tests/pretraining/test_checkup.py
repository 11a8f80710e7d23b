"""`keras-ssl doctor`: what is broken is said, the rest is tried all the same, and it fits a screen."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pytest

from keras_ssl.pretraining import checkup
from keras_ssl.pretraining.checkup import Check, doctor, examine, judge_version

LOOKS = ("_packages", "_tensorflow", "_devices", "_precisions", "_xla", "_self_test")


def quick(monkeypatch, **looks):
    """Replaces the looks that take long."""
    for name in LOOKS:
        found = looks.get(name, [Check(name.strip("_"), "ok", "fine")])

        def look(found=found):
            if isinstance(found, Exception):
                raise found
            yield from found

        monkeypatch.setattr(checkup, name, look)


def test_this_machine_is_usable(capsys):
    """The real thing, a few steps of training included."""
    assert doctor() == 0
    text = capsys.readouterr().out.splitlines()
    assert len(text) <= 24 and max(map(len, text)) <= 150
    first, *checks, last = text
    assert first.startswith("keras_ssl ") and last.startswith("Runs can be started here.")
    assert all(line.split()[0] in ("ok", "note") for line in checks)
    names = {line[8:19].strip() for line in checks}
    assert {"Python", "TensorFlow", "Keras", "devices", "precision", "XLA", "self-test"} <= names
    assert any("4 steps of SimCLR on digits" in line for line in checks)
    assert any("float32 1.0x, mixed_bfloat16" in line for line in checks)


def test_a_check_that_raises_is_broken_and_the_others_go_on(monkeypatch, capsys):
    quick(monkeypatch, _self_test=RuntimeError("no kernel\nsecond line"))
    assert doctor(as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    status = {check["name"]: check["status"] for check in found["checks"]}
    assert status["self-test"] == "broken" and status["disk"] in ("ok", "note")
    (text,) = (check["text"] for check in found["checks"] if check["name"] == "self-test")
    assert text == "RuntimeError: no kernel"


def test_without_tensorflow_nothing_is_tried_with_it(monkeypatch, capsys):
    quick(monkeypatch, _tensorflow=ImportError("no module"))
    assert doctor() == 1
    text = capsys.readouterr().out
    assert "broken  TensorFlow ImportError: no module" in text and "self-test" not in text
    assert "Broken: TensorFlow." in text


def test_a_precision_that_fails_is_a_note_but_for_float32(monkeypatch):
    def seconds(name, *, jit=False):
        if name == "mixed_float16":
            raise RuntimeError("no half here")
        return {"float32": 1.0, "mixed_bfloat16": 1.6, "float64": 2.0}[name]

    monkeypatch.setattr(checkup, "_time_step", seconds)
    found = list(checkup._precisions())
    assert [check.status for check in found] == ["ok", "note", "note"]
    assert found[1].text == "slower than float32 here: mixed_bfloat16"
    assert "mixed_float16 does not work here: no half here" in found[2].text
    monkeypatch.setattr(checkup, "_time_step", lambda name, **_: 1 / 0)
    assert [check.status for check in checkup._precisions()] == ["broken"]


@pytest.mark.parametrize(
    "name, version, status",
    [
        ("Python", "3.10.14", "broken"),
        ("Python", "3.14.0", "note"),
        ("TensorFlow", "2.18.1", "broken"),
        ("TensorFlow", "2.21.0", "ok"),
        ("TensorFlow", "2.22.0rc1", "note"),
        ("Keras", "2.15.0", "broken"),
        ("Keras", "3.15.1", "ok"),
    ],
)
def test_versions(name, version, status):
    assert judge_version(name, version).status == status


def test_the_versions_are_those_that_are_required():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    required = setup["options"]["install_requires"]
    dotted = {
        name: [checkup._dotted(v) for v in span if v] for name, span in checkup.SUPPORTED.items()
    }
    assert f"keras>={dotted['Keras'][0]}\n" in required
    assert (
        f"tensorflow>={dotted['TensorFlow'][0]},<2.{checkup.SUPPORTED['TensorFlow'][1][1] + 1}\n"
        in required
    )
    above = f"3.{checkup.SUPPORTED['Python'][1][1] + 1}"
    assert setup["options"]["python_requires"] == f">={dotted['Python'][0]},<{above}"


def test_packages_that_harm_or_lack(monkeypatch):
    real = checkup.importlib.util.find_spec
    monkeypatch.setattr(
        checkup.importlib.util, "find_spec", lambda name: name == "tensorflow_addons" or real(name)
    )
    notes = [check.text for check in checkup._packages() if check.status == "note"]
    assert any("tensorflow_addons is installed: it cannot be imported" in note for note in notes)

    def version(name):
        raise checkup.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checkup.importlib.metadata, "version", version)
    assert next(checkup._packages()).status == "broken"


def test_little_room_is_a_note(monkeypatch):
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e8}))
    (check,) = checkup._disk()
    assert (
        check.status == "note" and check.text.startswith("0.1 GB free") and "little" in check.text
    )
    (check,) = checkup._memory()
    assert check.status in ("ok", "note") and "GB free" in check.text


def test_examine_lists_every_look_once(monkeypatch):
    quick(monkeypatch)
    names = [check.name for check in examine()]
    assert len(names) == len(set(names)) == 9
