"""Files that we write: real torch and safetensors read them, and a failure leaves the old file."""

import ml_dtypes
import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, read, write_safetensors, write_torch
from keras_ssl.checkpoints.files import written
from tests.checkpoints import makers

KINDS = "float16 float32 float64 int8 int16 int32 int64 uint8 bool complex64"


def tensors():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 4, 5)) * 9
    kinds = {kind: values.astype(kind) for kind in KINDS.split()}
    return {
        **makers.arrays(),
        **kinds,
        "bfloat16": values.astype(ml_dtypes.bfloat16),
        "transposed": values.transpose(2, 0, 1),
        "strided": values[::2, 1:3],
        "big": np.arange(4, dtype=">f4"),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.asarray(2.5),
    }


EXTRA = {
    "epoch": 100,
    "args": {"lr": 0.1, "arch": "vit_small", "crops": [2, 6], "none": None, "flags": (True, False)},
    "negative": [-1, -128, 127, 128, 2**40, -(2**70)],
    "text": "é\n",
    "accuracy": np.float32(0.5),
}


@pytest.mark.parametrize("key", ["", "state_dict", "classy_state_dict.base_model.model.trunk"])
def test_torch_reads_what_we_write(tmp_path, key):
    torch = pytest.importorskip("torch", reason="lets the real torch read the file")
    path = tmp_path / "x.pth"
    write_torch(path, tensors(), EXTRA, key=key)
    for options in ({}, {"mmap": True}):
        tree = torch.load(path, weights_only=True, **options)
        assert {name: tree[name] for name in EXTRA} == EXTRA
        for name in key.split(".") if key else []:
            tree = tree[name]
        for name, array in tensors().items():
            assert tuple(tree[name].shape) == array.shape
            if name == "bfloat16":
                np.testing.assert_array_equal(tree[name].float().numpy(), array.astype(np.float32))
            else:
                np.testing.assert_array_equal(tree[name].numpy(), array)
    network = torch.nn.Linear(3, 2)
    weights = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
    write_torch(path, weights)
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)


def test_we_read_what_we_write(tmp_path):
    write_torch(tmp_path / "x.pth", tensors(), EXTRA, key="a.b")
    checkpoint = read(tmp_path / "x.pth", key="a.b")
    assert checkpoint.container == "torch-zip"
    write_safetensors(tmp_path / "x.st", tensors(), {"format": "np"})
    for tree in (checkpoint.tree, read(tmp_path / "x.st").tree):
        for name, array in tensors().items():
            assert tree[name].dtype.name == array.dtype.name
            np.testing.assert_array_equal(tree[name], array)
    assert read(tmp_path / "x.pth").tree["args"] == EXTRA["args"]
    with pytest.raises(CheckpointError, match="key 'c'.*'epoch'"):
        read(tmp_path / "x.pth", key="c")


def test_safetensors_reads_what_we_write(tmp_path):
    package = pytest.importorskip("safetensors", reason="lets the real package read the file")
    numpy = pytest.importorskip("safetensors.numpy", reason="lets the real package read the file")
    write_safetensors(tmp_path / "x", tensors(), {"format": "pt", "ü": "é"})
    theirs = numpy.load_file(tmp_path / "x")
    assert theirs.keys() == tensors().keys()
    for name, array in tensors().items():
        np.testing.assert_array_equal(theirs[name], array)
    with package.safe_open(tmp_path / "x", framework="np") as file:
        assert file.metadata() == {"format": "pt", "ü": "é"}


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    for write in (write_torch, write_safetensors):
        write(tmp_path / "a", makers.arrays())
        first = (tmp_path / "a").read_bytes()
        write(tmp_path / "a", makers.arrays())
        assert (tmp_path / "a").read_bytes() == first


def test_contents_start_at_multiples_of_64(tmp_path):
    write_torch(tmp_path / "x.pth", tensors())
    content = (tmp_path / "x.pth").read_bytes()
    for name, array in read(tmp_path / "x.pth").tree.items():
        if array.size > 16:
            assert (
                content.find(np.ascontiguousarray(tensors()[name]).astype(array.dtype).tobytes())
                % 64
                == 0
            )


@pytest.mark.parametrize(
    "write, given",
    [
        (write_torch, ({"x": np.asarray(["text"])},)),
        (write_torch, ({"x": np.zeros(2)}, {"x": 1})),
        (write_torch, ({}, {"f": print})),
        (write_torch, ({}, {"n": 2**3000})),
        (write_safetensors, ({"x": np.asarray(["text"])},)),
        (write_safetensors, ({"__metadata__": np.zeros(2)},)),
        (write_safetensors, ({}, {"a": 1})),
    ],
)
def test_what_cannot_be_written(tmp_path, write, given):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(CheckpointError, match="Expected.*Received"):
        write(tmp_path / "x", *given)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"old")]


def test_a_failure_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), written(tmp_path / "x") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"old")]
    with written(tmp_path / "x") as file:
        file.write(b"new")
        assert (tmp_path / "x").read_bytes() == b"old"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("x", b"new")]


@pytest.mark.slow
def test_a_member_above_two_gigabytes(tmp_path):
    """Such members need the wide form of a zip's sizes."""
    torch = pytest.importorskip("torch", reason="lets the real torch read the file")
    array = np.zeros(1 << 31, np.uint8)
    array[-1] = 7
    write_torch(tmp_path / "x.pth", {"a": array, "b": np.ones(3)})
    tree = torch.load(tmp_path / "x.pth", weights_only=True, mmap=True)
    assert (tree["a"][-1], tree["b"][-1]) == (7, 1)
    assert read(tmp_path / "x.pth").tree["a"][-1] == 7
