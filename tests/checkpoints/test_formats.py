"""The formats besides PyTorch's: safetensors, NumPy, TensorFlow, BYOL's pickles, Caffe, Caffe2."""

import pickle
import re

import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, describe, flatten, read, select_tensors
from tests.checkpoints import makers


def assert_equal(ours, expected):
    assert list(ours) == list(expected)
    for name, array in expected.items():
        assert (ours[name].shape, ours[name].dtype) == (array.shape, array.dtype), name
        assert ours[name].tobytes() == array.tobytes(), name


def test_safetensors_of_the_reference_implementation(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="compares with the real package")
    safetensors.save_file(makers.arrays(), tmp_path / "x.pth", metadata={"format": "pt"})
    checkpoint = read(tmp_path / "x.pth")
    assert checkpoint.container == "safetensors"
    assert checkpoint.tree.pop("__metadata__") == {"format": "pt"}
    assert_equal(dict(sorted(checkpoint.tree.items())), dict(sorted(makers.arrays().items())))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = {
        **makers.arrays(),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
    }
    with open(tmp_path / "x.ckpt", "wb") as file:
        save(file, **arrays)
    checkpoint = read(tmp_path / "x.ckpt")
    assert checkpoint.container == "npz"
    assert_equal(checkpoint.tree, arrays)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint with the names of SimCLR's, written by TensorFlow."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("tf")
    values = {
        "base_model/conv2d/kernel": np.arange(12, dtype=np.float32).reshape(2, 2, 1, 3),
        "base_model/batch_normalization/gamma": np.ones(3, np.float32),
        "head/kernel": np.zeros((3, 2), np.float32),
        "global_step": np.asarray(250228, np.int64),
        "name": np.asarray(b"text"),
    }
    tensors = [tf.constant(value) for value in values.values()]
    prefix = str(folder / "model.ckpt-250228")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=tensors,
    )
    return folder, prefix, {name: value for name, value in sorted(values.items()) if name != "name"}


def test_tensorflow_by_prefix_index_and_folder(saved, tmp_path):
    folder, prefix, values = saved
    for path in (prefix, f"{prefix}.index", folder):
        checkpoint = read(path)
        assert checkpoint.container == "tensorflow"
        assert_equal(checkpoint.tree, values)
    chosen = read(prefix, key="base_model").tree
    assert list(chosen) == ["batch_normalization/gamma", "conv2d/kernel"]
    assert list(select_tensors(checkpoint.tree, prefixes="base_model/")) == list(chosen)
    assert "base_model/conv2d/kernel              float32 (2, 2, 1, 3)" in describe(prefix)
    with pytest.raises(CheckpointError, match="below 'ema_model'.*'base_model/"):
        read(prefix, key="ema_model")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("saved_model", [False, True])
def test_tensorflow_2_by_the_names_of_its_variables(tmp_path, shared, saved_model):
    """By the paths of attributes if two variables have the same name."""
    import tensorflow as tf

    module = tf.Module()
    module.stem = tf.Variable([1.0, 2.0], name="base_model/conv2d/kernel")
    module.block = [
        tf.Variable(3, name="base_model/conv2d/kernel" if shared else "base_model/steps")
    ]
    if saved_model:
        tf.saved_model.save(module, str(tmp_path))
    else:
        tf.train.Checkpoint(model=module).write(str(tmp_path / "ckpt"))
    tree = read(tmp_path).tree
    found = {
        name: array.tolist() for name, array in tree.items() if not name.startswith("save_counter")
    }
    if shared:
        prefix, end = "" if saved_model else "model/", "/.ATTRIBUTES/VARIABLE_VALUE"
        assert found == {f"{prefix}block/0{end}": 3, f"{prefix}stem{end}": [1, 2]}
    else:
        assert found == {"base_model/conv2d/kernel": [1, 2], "base_model/steps": 3}


def test_tensorflow_folders(saved, tmp_path):
    folder, prefix, values = saved
    for step in (1, 2):
        for file in folder.iterdir():
            (tmp_path / re.sub("250228", str(step), file.name)).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match="2 .index files.*name one"):
        read(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-2"\n')
    with pytest.raises(CheckpointError, match="2 .index files"):
        read(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    assert_equal(read(tmp_path).tree, values)


def test_tensorflow_that_is_cut_off(saved, tmp_path):
    folder, prefix, values = saved
    for file in folder.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="whole TensorFlow checkpoint"):
        read(tmp_path)
    for file in folder.iterdir():
        keep = len(file.read_bytes()) if file.suffix == ".index" else 40
        (tmp_path / file.name).write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="elements of|whole TensorFlow"):
        read(tmp_path)


def test_tensorflow_variables_that_claim_more_than_the_data_together(saved, tmp_path):
    folder, prefix, values = saved
    largest = max(value.nbytes for value in values.values())
    assert largest < sum(value.nbytes for value in values.values())
    for file in folder.iterdir():
        keep = len(file.read_bytes()) if file.suffix == ".index" else largest
        (tmp_path / file.name).write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"take together. Received: data of {largest} bytes"):
        read(tmp_path)


PARAMS = {
    "res_net50/~/initial_conv": {"w": np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2)},
    "res_net50/~/block_group_0/~/block_0/~/batchnorm_0": {
        "scale": np.ones((1, 1, 1, 2), np.float32)
    },
    "projector/linear": {"w": np.zeros((2, 2), np.float32)},
}
STATE = {
    "res_net50/~/initial_batchnorm/~/mean_ema": {"average": np.full((1, 1, 1, 2), 0.5, np.float32)}
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_byol(tmp_path, protocol):
    (tmp_path / "x.pkl").write_bytes(makers.byol_pickle(PARAMS, STATE, protocol))
    checkpoint = read(tmp_path / "x.pkl")
    assert checkpoint.container == "byol-pickle" and checkpoint.tree["step"] == 1000
    assert list(checkpoint.tree["rng"]) == [0, 42]
    params = select_tensors(checkpoint.tree, "experiment_state.online_params", "res_net50/~/")
    assert_equal(
        params,
        {
            "initial_conv.w": PARAMS["res_net50/~/initial_conv"]["w"],
            "block_group_0/~/block_0/~/batchnorm_0.scale": np.ones((1, 1, 1, 2), np.float32),
        },
    )
    state = select_tensors(checkpoint.tree, "experiment_state.online_state", "res_net50/~/")
    assert_equal(
        state, {"initial_batchnorm/~/mean_ema.average": np.full((1, 1, 1, 2), 0.5, np.float32)}
    )


def test_byol_whose_class_dill_wrote_into_the_file(tmp_path):
    """dill writes a named tuple of the main program as a call with its fields' names."""
    fields = b"(" + b"".join(makers.text(name) for name in ("online_params", "online_state")) + b"t"
    code = b"\x80\x02}" + makers.text("experiment_state")
    code += (
        b"cdill._dill\n_create_namedtuple\n("
        + makers.text("State")
        + fields
        + makers.text("__main__")
    )
    code += b"NtRK\1K\2\x86\x81s."
    (tmp_path / "x.pkl").write_bytes(code)
    assert read(tmp_path / "x.pkl").tree == {
        "experiment_state": {"online_params": 1, "online_state": 2}
    }


LAYERS = {
    "conv1": [np.arange(54, dtype=np.float32).reshape(3, 2, 3, 3), np.arange(3, dtype=np.float32)],
    "fc6": [np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5)],
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_caffemodel(tmp_path, legacy, packed):
    path = makers.write_caffemodel(tmp_path / "x.caffemodel", LAYERS, legacy, packed)
    checkpoint = read(path)
    assert checkpoint.container == "caffemodel" and list(checkpoint.tree) == list(LAYERS)
    for name, blobs in LAYERS.items():
        assert len(checkpoint.tree[name]) == len(blobs)
        for ours, blob in zip(checkpoint.tree[name], blobs, strict=True):
            shape = (1,) * (4 - blob.ndim) + blob.shape if legacy else blob.shape
            assert ours.shape == shape and ours.dtype == np.float32
            np.testing.assert_array_equal(ours.reshape(blob.shape), blob)
    assert list(flatten(checkpoint.tree)) == ["conv1.0", "conv1.1", "fc6.0"]


def test_caffe2(tmp_path):
    """The example is what Python 2 would write; Python's own unpickler reads the same from it."""
    blobs = {
        "conv1_w": np.arange(2400, dtype=np.float32).reshape(4, 3, 10, 20),
        "res_b": np.arange(3.0),
    }
    code = makers.python2_pickle(blobs)
    (tmp_path / "x.pkl").write_bytes(code)
    checkpoint = read(tmp_path / "x.pkl")
    assert checkpoint.container == "caffe2-pickle"
    assert_equal(checkpoint.tree["blobs"], blobs)
    assert_equal(pickle.loads(code, encoding="latin1")["blobs"], blobs)


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "an empty file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(600), "unpack it"),
        (b"\n<!DOCTYPE html><html>", "a page of a web site"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"hello", "starts with b'hello'"),
        (pickle.dumps({"model": {}}), "Received: the keys 'model'"),
        (pickle.dumps([1]), "a list"),
    ],
)
def test_other_files_are_named(tmp_path, content, match):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as raised:
        read(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(raised.value)


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="no file of that name"):
        read(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="0 .index files"):
        read(tmp_path)
