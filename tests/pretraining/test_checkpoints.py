"""Checkpoints: whole or not there, bit-equal, and refused where they do not belong."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_ssl.pretraining.checkpoints import Checkpoints
from keras_ssl.pretraining.recipe import SettingError

VALUES = {
    "kernel": np.array([[1.0, -0.0], [1e-42, np.pi]], np.float32),  # a subnormal number too
    "step": np.array(2**40 + 1, np.int64),
    "keys": np.array([7, 2**32 - 1], np.uint32),
    "half": np.array([0.1, 3.0], np.float16),
}


def variables(values=VALUES, scale=1):
    return [
        keras.Variable(value * value.dtype.type(scale), dtype=str(value.dtype), name=name)
        for name, value in values.items()
    ]


def bits(some):
    return [np.asarray(v.value).tobytes() for v in some]


def test_what_is_restored_is_bit_equal(tmp_path):
    mine = variables()
    Checkpoints(tmp_path / "c", mine, "me").save(12, {"position": 96})
    other = variables(scale=0)
    assert bits(other) != bits(mine)
    content = Checkpoints(tmp_path / "c", other, "me").restore()
    assert bits(other) == bits(mine)
    assert content["step"] == 12 and content["facts"] == {"position": 96}


def test_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "none", variables(), "me").restore() is None
    assert not (tmp_path / "none").exists()


def test_a_variable_that_is_named_twice_is_kept_once(tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, [*mine, mine[0]], "me")
    assert len(checkpoints.manifest()) == len(mine)
    checkpoints.save(1, {})
    assert Checkpoints(tmp_path, mine, "me").restore()["step"] == 1


def test_the_newest_two_are_kept(tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    for step in (3, 20, 100):
        mine[1].assign(step)
        checkpoints.save(step, {})
    assert checkpoints.steps() == [20, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000000020",
        "step-000000000100",
    ]
    mine[1].assign(0)
    assert checkpoints.restore()["step"] == 100
    assert int(mine[1].value) == 100


def test_a_step_that_is_saved_is_not_written_again(tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    checkpoints.save(5, {"first": True})
    mine[1].assign(0)
    checkpoints.save(5, {"first": False})
    assert checkpoints.restore()["facts"] == {"first": True}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["rename", "write_text"])
def test_killed_while_it_writes(moment, tmp_path, monkeypatch):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    checkpoints.save(1, {})
    kept = bits(mine)

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, moment, kill)
        mine[1].assign(2)
        with pytest.raises(Killed):
            checkpoints.save(2, {})
    assert (tmp_path / ".writing-000000000002").is_dir()
    again = variables(scale=0)
    checkpoints = Checkpoints(tmp_path, again, "me")
    assert checkpoints.steps() == [1]
    assert checkpoints.restore()["step"] == 1
    assert bits(again) == kept
    checkpoints.save(2, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000000001",
        "step-000000000002",
    ]


def test_only_the_writer_writes(tmp_path):
    Checkpoints(tmp_path / "c", variables(), "me", writer=False).save(1, {})
    assert not (tmp_path / "c").exists()


def test_that_of_another_recipe_is_refused(tmp_path):
    Checkpoints(tmp_path, variables(), "other").save(1, {})
    mine = variables(scale=0)
    before = bits(mine)
    with pytest.raises(SettingError, match="checkpoint of this recipe.*another --workdir"):
        Checkpoints(tmp_path, mine, "me").restore()
    assert bits(mine) == before


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({**VALUES, "kernel": np.zeros((2, 3), np.float32)}, r"\[2, 3\], 'float32'\]. Received: "),
        ({**VALUES, "kernel": np.zeros((2, 2), np.float16)}, "'float16'.*Received: .*'float32'"),
        ({"kernel": VALUES["kernel"]}, r"to hold \[1\]. Received: \[4\]"),
    ],
)
def test_that_of_other_variables_is_refused(values, sentence, tmp_path):
    Checkpoints(tmp_path, variables(), "me").save(1, {})
    mine = variables(values)
    before = bits(mine)
    with pytest.raises(SettingError, match=sentence):
        Checkpoints(tmp_path, mine, "me").restore()
    assert bits(mine) == before


def test_the_manifest_says_what_is_in_it(tmp_path):
    Checkpoints(tmp_path, variables(), "me").save(4, {"position": 8})
    content = json.loads((tmp_path / "step-000000000004" / "manifest.json").read_text())
    assert content["identity"] == "me"
    assert [entry[1:] for entry in content["variables"]] == [
        [[2, 2], "float32"],
        [[], "int64"],
        [[2], "uint32"],
        [[2], "float16"],
    ]
