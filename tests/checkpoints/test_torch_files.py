"""PyTorch's three formats: what torch wrote, we read; what we read is what torch reads."""

import argparse
import collections
import pathlib
import pickle

import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, Opaque, read
from tests.checkpoints import makers

NEEDS = "compares with files that the real torch wrote"


def as_numpy(tensor):
    """Returns a tensor's elements, those of types that NumPy does not have as their bits."""
    import torch

    tensor = tensor.detach().contiguous()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view({1: torch.uint8, 2: torch.int16}[tensor.element_size()]).numpy()


def assert_same(ours, theirs):
    """Compares two trees, arrays bit by bit."""
    import torch

    if isinstance(theirs, torch.Tensor):
        expected = as_numpy(theirs)
        assert ours.shape == expected.shape
        assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
        assert ours.tobytes() == expected.tobytes()
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is (list if isinstance(theirs, list) else tuple) and len(ours) == len(
            theirs
        )
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert type(ours) is type(theirs) and np.array_equal(ours, theirs)


def contents(zipped):
    """What checkpoints hold: views, shared storages, every element type, optimizers, plain values."""
    import torch

    torch.manual_seed(0)
    base = torch.randn(10, 12)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 3)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network[2](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kinds = "float16 bfloat16 float64 int64 int32 int16 int8 uint8 bool complex64 complex128 float8_e4m3fn uint16"
    return {
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "base": base,
        "transposed": base[2:5, 1:9:2].t(),
        "row": base[3],
        "parameter": torch.nn.Parameter(base),
        "expanded": torch.ones(1, 3).expand(4, 3),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        # Types newer than the stream are written into it by torch, but not read back by it.
        "kinds": [
            (base * 9).abs().to(getattr(torch, kind))
            for kind in kinds.split()[: None if zipped else 11]
        ],
        "epoch": 3,
        "best": 0.75,
        "name": "ü",
        "none": None,
        "shape": (1, 2, (3,)),
        "large": 2**80,
        "negative": -5,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_reads(tmp_path, zipped):
    torch = pytest.importorskip("torch", reason=NEEDS)
    path = tmp_path / "any.name"
    torch.save(contents(zipped), path, _use_new_zipfile_serialization=zipped)
    checkpoint = read(path)
    assert checkpoint.container == ("torch-zip" if zipped else "torch-stream")
    assert_same(checkpoint.tree, torch.load(path, weights_only=True))
    assert not checkpoint.tree["base"].flags.writeable
    assert np.shares_memory(checkpoint.tree["base"], checkpoint.tree["transposed"])


@pytest.mark.parametrize(
    "zipped, protocol", [(False, 2), (True, 2), (True, 3), (True, 4), (True, 5)]
)
def test_objects_beside_the_tensors_become_plain_or_inert(tmp_path, zipped, protocol):
    """`argparse.Namespace` as in DINO's full files, a module as in NPID's, NumPy's scalars, torch's small types."""
    torch = pytest.importorskip("torch", reason=NEEDS)
    path = tmp_path / "full.pth"
    tree = {
        "args": argparse.Namespace(
            lr=0.1, arch="vit_small", crops=[2, 6], folder=pathlib.Path("/data")
        ),
        "lemniscate": torch.nn.Linear(2, 3),
        "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1),
        "counts": collections.Counter("aab"),
        "lists": collections.defaultdict(list, a=[1]),
        "ordered": collections.OrderedDict(b=1, a=2),
        "set": {1, 2},
        "accuracy": np.float64(71.5),
        "labels": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "weight": torch.arange(4.0),
    }
    torch.save(tree, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    ours = read(path).tree
    assert isinstance(ours["args"].pop("folder"), Opaque)
    assert dict(ours["args"]) == {"lr": 0.1, "arch": "vit_small", "crops": [2, 6]}
    assert isinstance(ours["lemniscate"], Opaque) and ours["lemniscate"].name.endswith(
        "linear.Linear"
    )
    weight = ours["lemniscate"].state["_parameters"]["weight"]
    np.testing.assert_array_equal(weight, tree["lemniscate"].weight.detach())
    assert isinstance(ours["optimizer"], Opaque)
    assert ours["counts"] == {"a": 2, "b": 1} and ours["lists"] == {"a": [1]}
    assert list(ours["ordered"].items()) == [("b", 1), ("a", 2)]
    assert ours["set"] == {1, 2} and ours["accuracy"] == 71.5
    np.testing.assert_array_equal(ours["labels"], tree["labels"])
    assert (ours["size"], ours["device"]) == ((2, 3), "cpu")
    np.testing.assert_array_equal(ours["weight"], np.arange(4.0))


STORAGE = np.arange(24, dtype=np.float32)


@pytest.mark.parametrize("view", [None, "none", ("5", 6, 12)])
def test_views_of_the_old_stream(tmp_path, view):
    """Tensor [i, j] = storage[start + 1 + i + 4 j]; `start` is 6 where the storage is itself a view from there."""
    count = 24
    code = (
        makers.DICT
        + makers.entry("x", makers.tensor("7", count, (3, 2), (1, 4), 1, view=view))
        + b"."
    )
    path = makers.write_stream(tmp_path / "old.pth.tar", code, {"7": STORAGE})
    start = 6 if isinstance(view, tuple) else 0
    expected = [[start + 1 + i + 4 * j for j in range(2)] for i in range(3)]
    np.testing.assert_array_equal(read(path).tree["x"], expected)
    if view is not None:
        torch = pytest.importorskip("torch", reason=NEEDS)
        np.testing.assert_array_equal(torch.load(path, weights_only=True)["x"], expected)


def test_modules_of_the_first_years(tmp_path):
    """Python 2, torch below 0.4: the class is a persistent id with its source beside it, the object has no protocol."""
    module = b"(" + makers.text("module") + b"clib.LinearAverage\nLinearAverage\n"
    module += makers.text("lib/LinearAverage.py") + makers.text("import os\n") + b"tQ"
    made = b"ccopy_reg\n_reconstructor\n(" + module + b"c__builtin__\nobject\nNtR"
    backend = b"ctorch.nn.backends.thnn\n_get_thnn_function_backend\n)R"
    memory = makers.tensor("7", 24, (4, 6), (6, 1), view="none")
    state = b"}" + makers.entry("_backend", backend) + makers.entry("memory", memory)
    code = makers.DICT + makers.entry("lemniscate", made + state + b"b") + b"."
    bank = read(makers.write_stream(tmp_path / "x.pth", code, {"7": STORAGE})).tree["lemniscate"]
    assert (type(bank), bank.name) == (Opaque, "lib.LinearAverage.LinearAverage")
    np.testing.assert_array_equal(bank.state["memory"], STORAGE.reshape(4, 6))


def test_the_tar_archive(tmp_path):
    """Two tensors, the second in a storage that is the second half of the first."""
    tensors = {1: (10, (2, 3), (3, 1), 4), 2: (11, (3, 2), (1, 3), 2)}
    code = (
        makers.DICT
        + makers.entry("a", b"\x8a\x01\x01Q")
        + makers.entry("b", makers.text("2") + b"Q")
        + b"."
    )
    path = makers.write_tar(tmp_path / "x.tar", makers.torch_tar_members(STORAGE, tensors, code))
    checkpoint = read(path)
    assert checkpoint.container == "torch-tar"
    np.testing.assert_array_equal(checkpoint.tree["a"], [[4, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(checkpoint.tree["b"], [[14, 17], [15, 18], [16, 19]])
    torch = pytest.importorskip("torch", reason=NEEDS)
    theirs = torch.load(path, weights_only=False)
    for name in ("a", "b"):
        np.testing.assert_array_equal(checkpoint.tree[name], theirs[name])


@pytest.mark.parametrize("order, sign", [("little", "<"), ("big", ">")])
@pytest.mark.parametrize(
    "kind, dtype", [("FloatStorage", "f4"), ("LongStorage", "i8"), ("ComplexFloatStorage", "c8")]
)
def test_byte_orders(tmp_path, order, sign, kind, dtype):
    values = np.arange(6).astype(sign + dtype)
    code = makers.DICT + makers.entry("x", makers.tensor("0", 6, (6,), (1,), kind=kind)) + b"."
    path = makers.write_zip(tmp_path / "x.pth", code, {"0": values.tobytes()}, byteorder=order)
    np.testing.assert_array_equal(read(path).tree["x"], np.arange(6))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    bits = np.asarray([0x3F80, 0xC040, 0x0000], np.uint16)  # 1, -3, 0
    code = (
        makers.DICT
        + makers.entry("x", makers.tensor("0", 3, (3,), (1,), kind="BFloat16Storage"))
        + b"."
    )
    values = read(makers.write_zip(tmp_path / "x.pth", code, {"0": bits.tobytes()})).tree["x"]
    assert values.dtype.name == "bfloat16"
    np.testing.assert_array_equal(values.astype(np.float32), [1, -3, 0])


def test_compressed_archives_are_read_too(tmp_path):
    code = makers.DICT + makers.entry("x", makers.tensor("0", 24, (24,), (1,))) + b"."
    path = makers.write_zip(tmp_path / "x.pth", code, {"0": STORAGE.tobytes()}, compression=8)
    np.testing.assert_array_equal(read(path).tree["x"], STORAGE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 25},
        {"count": 10**12},
        {"size": (5, 5)},
        {"size": (2**40, 2**40), "stride": (0, 0)},
        {"offset": 1},
        {"offset": -1},
        {"size": (-1, 24)},
        {"stride": (-6, 1)},
        {"stride": (1,)},
        {"stride": (2**61, 2**61)},
        {"kind": "StringStorage"},
        {"key": "9"},
        {"key": "../../data.pkl"},
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, wrong):
    fine = {"key": "0", "count": 24, "size": (4, 6), "stride": (6, 1)}
    good = makers.DICT + makers.entry("x", makers.tensor(**fine)) + b"."
    assert read(makers.write_zip(tmp_path / "a.pth", good, {"0": STORAGE.tobytes()})).tree[
        "x"
    ].shape == (4, 6)
    code = makers.DICT + makers.entry("x", makers.tensor(**{**fine, **wrong})) + b"."
    with pytest.raises(CheckpointError, match="^[^\n]*Expected[^\n]*Received[^\n]*$"):
        read(makers.write_zip(tmp_path / "x.pth", code, {"0": STORAGE.tobytes()}))
    with pytest.raises(CheckpointError, match="Expected"):
        read(makers.write_stream(tmp_path / "y.pth", code, {"0": STORAGE}))


def test_whole_networks_and_other_objects_are_named(tmp_path):
    code = b"\x80\x02cmodels.resnet\nResNet\n)\x81}b."
    with pytest.raises(CheckpointError, match=r"models.resnet.ResNet.*state_dict"):
        read(makers.write_zip(tmp_path / "x.pth", code))
    with pytest.raises(CheckpointError, match="Received: a list"):
        read(makers.write_zip(tmp_path / "y.pth", pickle.dumps([1], 2)))
    with pytest.raises(CheckpointError, match="TorchScript"):
        read(makers.write_zip(tmp_path / "z.pth", makers.DICT + b".", **{"code/__torch__.py": "x"}))
