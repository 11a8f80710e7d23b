"""Which part of a checkpoint is the encoder: top keys, prefixes, and what parallel training adds to names."""

import subprocess
import sys

import numpy as np
import pytest

from keras_ssl import cli
from keras_ssl.checkpoints import CheckpointError, describe, flatten, select_tensors, write_torch

ONE = np.ones(1)


def tree_of(*names):
    return {name: np.full(1, i) for i, name in enumerate(names)}


def test_flatten_names_arrays_by_their_place():
    tree = {"a": {"b": ONE, 3: [ONE, {"c": ONE}], "n": 5, "t": "x"}, "d.e": ONE}
    assert list(flatten(tree)) == ["a.b", "a.3.0", "a.3.1.c", "d.e"]
    with pytest.raises(CheckpointError, match="two of 'a.b'"):
        flatten({"a": {"b": ONE}, "a.b": ONE})


@pytest.mark.parametrize(
    "names, prefixes, expected",
    [
        # DINO, full file: wrapped by DistributedDataParallel, then the backbone beside the head
        (["module.backbone.cls_token", "module.head.mlp"], ["backbone."], {"cls_token": 0}),
        (["backbone.cls_token", "head.mlp"], ["module.backbone."], {"cls_token": 0}),
        # SwAV: wrapped; the layout itself leaves the head out
        (["module.conv1.weight", "module.projection_head.0"], (), {"conv1.weight": 0, "projection_head.0": 1}),
        (["module.conv1.weight"], ["module."], {"conv1.weight": 0}),
        # MoCo: two encoders and a queue
        (["module.encoder_q.conv1", "module.encoder_k.conv1", "module.queue"], ["encoder_q."], {"conv1": 0}),
        # DeepCluster: only the features were parallel
        (["features.module.0.weight", "classifier.1.weight"], "", {"features.0.weight": 0, "classifier.1.weight": 1}),
        # DenseCL: with or without a prefix; the first that fits
        (["conv1"], ["backbone.", ""], {"conv1": 0}),
        (["backbone.conv1", "neck.0"], ["backbone.", ""], {"conv1": 0}),
        # torch.compile
        (["_orig_mod.conv1"], (), {"conv1": 0}),
        # SimCLR's TensorFlow names
        (["base_model/conv2d/kernel", "head/kernel"], ["base_model/"], {"conv2d/kernel": 0}),
    ],
)  # fmt: skip
def test_prefixes(names, prefixes, expected):
    found = select_tensors(tree_of(*names), prefixes=prefixes)
    assert {name: int(array[0]) for name, array in found.items()} == expected


def test_top_keys():
    trunk = {"_feature_blocks.conv1.weight": ONE}
    vissl = {
        "classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {"0.w": ONE}}}},
        "phase": 99,
    }
    found = select_tensors(vissl, "classy_state_dict.base_model.model.trunk", "_feature_blocks.")
    assert list(found) == ["conv1.weight"]
    assert list(select_tensors({"a.b": {"c": {"d": ONE}}}, "a.b.c")) == ["d"]
    assert list(select_tensors(trunk, ["state_dict", ""])) == list(trunk)
    assert list(select_tensors({"state_dict": trunk, "x": ONE}, ["state_dict", ""])) == list(trunk)


@pytest.mark.parametrize(
    "tree, top, prefixes, match",
    [
        ({"model": {"a": ONE}, "epoch": 1}, "state_dict", (), "'state_dict'.*top keys 'model', 'epoch'"),
        ({"model": 5}, "model", (), "with 'model'"),
        ({"model": {"a": ONE}}, "model.a.b", (), "with 'model.a.b'"),
        ({"m": {"fc.weight": ONE}}, "m", ["encoder_q."], "'encoder_q.'.*1 tensors: 'fc.weight'; top keys: 'm'"),
        ({"m": {"epoch": 1}}, "m", (), "Expected tensors under 'm'"),
        ({"module.a": ONE, "a": ONE}, "", (), "two of 'a'"),
    ],
)  # fmt: skip
def test_what_is_there_is_said(tree, top, prefixes, match):
    with pytest.raises(CheckpointError, match=match):
        select_tensors(tree, top, prefixes)


EXPECTED = """\
{path}: torch-zip, 2 tensors, 0.0 MB
top keys: epoch=3, args (1), state_dict (2)
  state_dict.conv1.weight  float32 (4, 3, 3, 3)
  state_dict.steps         int64 ()"""


@pytest.fixture
def example(tmp_path):
    tensors = {"conv1.weight": np.zeros((4, 3, 3, 3), np.float32), "steps": np.asarray(1)}
    write_torch(tmp_path / "x.pth", tensors, {"epoch": 3, "args": {"lr": 0.1}}, key="state_dict")
    return tmp_path / "x.pth"


def test_describe(example):
    assert describe(example) == EXPECTED.format(path=example)
    assert describe(example, limit=1).splitlines()[1:] == [
        "top keys: epoch=3 and 2 more",
        "  state_dict.conv1.weight  float32 (4, 3, 3, 3)",
        "  and 1 more",
    ]


def test_inspect_on_the_command_line(example, subprocess_env):
    code = (
        "import sys; from keras_ssl import cli\n"
        "code = cli.main(['zoo', 'inspect', sys.argv[1]])\n"
        "raise SystemExit(code or ('tensorflow' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(example)],
        env=subprocess_env,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, EXPECTED.format(path=example) + "\n"), done.stderr


def test_inspect_of_what_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(b"\x80\x02cos\nsystem\n(X\2\0\0\0lstR.")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["zoo", "inspect", str(tmp_path / "x.pth")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "'os.system', which could run code" in error and error.count("\n") == 1
