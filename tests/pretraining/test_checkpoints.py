"""Checkpoints: whole or not there, bit-equal, and refused where they do not belong."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import pytest

from keras_ssl.pretraining.checkpoints import Checkpoints
from keras_ssl.pretraining.errors import TrainingError
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


DAMAGE = {
    "truncated": ("state.data-00000-of-00001", lambda old: old[: len(old) // 2], r"\([\d,]+ of [\d,]+ bytes\)"),
    "flipped": ("state.data-00000-of-00001", lambda old: bytes([old[0] ^ 1]) + old[1:], "as it was written"),
    "empty index": ("state.index", lambda old: b"", "state.index is not as it was written .0 of"),
    "torn manifest": ("manifest.json", lambda old: old[:-20], "manifest.json cannot be read"),
    "another manifest": ("manifest.json", lambda old: old.replace(b'"step": ', b'"step": 9'), "not that of"),
    "gone": ("state.index", None, "no of"),
}  # fmt: skip


def damage(folder, name, change):
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(change((folder / name).read_bytes()))


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_newest_falls_back_to_the_one_before(case, tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    for step in (1, 2):
        mine[1].assign(step)
        checkpoints.save(step, {})
    name, change, sentence = DAMAGE[case]
    damage(checkpoints.path(2), name, change)
    again = variables(scale=0)
    reader = Checkpoints(tmp_path, again, "me", writer=False)
    assert reader.restore()["step"] == 1 and reader.steps() == [1, 2]
    checkpoints = Checkpoints(tmp_path, again, "me")
    content = checkpoints.restore()
    assert content["step"] == 1 and int(again[1].value) == 1
    (said,) = content["damaged"]
    assert re.search(sentence, said), said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged-step-000000000002",
        "step-000000000001",
    ]
    checkpoints.save(2, {})
    assert checkpoints.restore()["step"] == 2
    for step in (1, 2):
        damage(checkpoints.path(step), name, change)
    with pytest.raises(
        TrainingError, match="whole checkpoint.*step-0+2: .*; step-0+1: .*another --workdir"
    ):
        checkpoints.restore()


def test_a_manifest_without_sums_is_read_and_damage_is_found_by_tensorflow(tmp_path):
    mine = variables()
    checkpoints = Checkpoints(tmp_path, mine, "me")
    checkpoints.save(1, {})
    checkpoints.save(2, {})
    for step in (1, 2):
        path = checkpoints.path(step) / "manifest.json"
        content = json.loads(path.read_text())
        path.write_text(
            json.dumps({key: content[key] for key in content if key not in ("files", "recipe")})
        )
    assert checkpoints.restore()["step"] == 2
    damage(checkpoints.path(2), "state.data-00000-of-00001", lambda old: old[: len(old) // 2])
    content = checkpoints.restore()
    assert content["step"] == 1 and "state cannot be read" in content["damaged"][0]


def test_only_the_writer_writes(tmp_path):
    Checkpoints(tmp_path / "c", variables(), "me", writer=False).save(1, {})
    assert not (tmp_path / "c").exists()


def test_that_of_another_recipe_is_refused_by_the_setting(tmp_path):
    old = {"method": "simclr", "epochs": 3, "method_settings": {"temperature": 0.2}, "seed": 0}
    new = {"method": "simclr", "epochs": 9, "method_settings": {"temperature": 0.5}, "seed": 0}
    Checkpoints(tmp_path, variables(), "other", recipe=old).save(1, {})
    with pytest.raises(
        SettingError, match=r"another recipe \(temperature 0.2 -> 0.5\); use another"
    ):
        Checkpoints(tmp_path, variables(), "me", recipe=new).restore()


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
