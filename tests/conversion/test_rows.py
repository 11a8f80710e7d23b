"""The table of parity rows is complete, and the record of it is never replaced by a part of it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from keras_ssl.conversion import LAYOUTS
from tests.conversion import parity

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "parity.py"


def test_every_layout_has_a_row():
    pytest.importorskip("torch", reason="torch is not installed; it makes rows of some families")
    rows = [row for family in parity.FAMILIES for row in parity.rows(family)]
    assert {row.layout for row in rows} == set(LAYOUTS)


def test_rows_hand_out_networks_that_nothing_has_filled():
    """Else a layout that forgets a variable would be measured on one that another test has filled."""
    pytest.importorskip("torch", reason="torch is not installed; it makes the reference")
    for family, layout in (("vit_rows", "timm_vit"), ("convnet_rows", "xcit")):
        row = next(row for row in parity.rows(family) if row.layout == layout)
        parity.measure(row)
        networks = [row.make()[1] for _ in range(2)]
        assert networks[0] is not networks[1]
        kernel = [v.numpy() for v in networks[0].variables if v.path.endswith("norm/gamma")][-1]
        assert np.all(kernel == 1.0)


def test_references_are_the_same_every_time():
    pytest.importorskip("torch", reason="torch is not installed; it makes the reference")
    row = next(row for row in parity.rows("convnet_rows") if row.layout == "vissl_regnet")
    one, two = (row.make()[0] for _ in range(2))
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key])


def test_the_record_is_written_only_if_every_row_was_measured(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("parity_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    rows = [
        parity.Row("here", "xcit", "by hand", None, ()),
        parity.Row("away", "xcit", "by hand", None, (), needs=("no_such_package",)),
    ]
    numbers = {"tensors": 1, "left_out": 0, "absolute": 0.0, "relative": 0.0}
    numbers |= {"layout": "xcit", "name": "here", "reference": "by hand"}
    monkeypatch.setattr(parity, "FAMILIES", ("family",))
    monkeypatch.setattr(parity, "measure", lambda row: numbers)
    record = tmp_path / "parity.json"
    record.write_text("older")
    monkeypatch.setattr(parity, "rows", lambda family: rows)
    assert script.main(["--json", str(record)]) == 0
    assert record.read_text() == "older"
    assert f"{record} stays as it was: 1 row was not measured" in capsys.readouterr().out
    monkeypatch.setattr(parity, "rows", lambda family: rows[:1])
    assert script.main(["--json", str(record)]) == 0
    assert json.loads(record.read_text())["rows"] == [numbers]
