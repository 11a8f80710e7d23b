"""Tile sheets and tar files become what `open_source` reads, on a small copy of their layout."""

import importlib.util
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_ssl.data import open_source

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "shared_data.py"
if not SCRIPT.exists():
    pytest.skip("benchmarks/ is not part of this copy", allow_module_level=True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("shared_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sheet(path, images, columns):
    """Writes images row by row onto one PNG."""
    rows = [np.concatenate(images[i : i + columns], 1) for i in range(0, len(images), columns)]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


@pytest.fixture
def shared(tmp_path):
    root = tmp_path / "shared"
    rng = np.random.default_rng(0)
    (root / "cifar10").mkdir(parents=True)
    images = rng.integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    for i in range(2):
        sheet(root / "cifar10" / f"train_{i + 1}.png", images[6 * i : 6 * i + 6], 3)
    sheet(root / "cifar10" / "test.png", images[12:], 2)
    labels = {"y_train": np.arange(12) % 10, "y_test": np.arange(6)}
    np.savez(root / "cifar10" / "labels.npz", **labels)
    (root / "hymenoptera").mkdir()
    for name in ("ants", "bees"):
        file = tmp_path / "files" / "train" / name / "1.jpg"
        file.parent.mkdir(parents=True)
        Image.fromarray(images[0]).save(file)
    with tarfile.open(root / "hymenoptera" / "hymenoptera.tar", "w") as tar:
        tar.add(tmp_path / "files" / "train", "train")
    return root, images


def test_sheets_become_npz_in_order(script, shared, tmp_path):
    root, images = shared
    script.main(["--shared", str(root), "--to", str(tmp_path / "out"), "--sets", "cifar10"])
    train = open_source(tmp_path / "out" / "cifar10.npz")
    test = open_source(f"{tmp_path}/out/cifar10.npz:test")
    np.testing.assert_array_equal(train.images, images[:12])
    np.testing.assert_array_equal(test.images, images[12:])
    np.testing.assert_array_equal(train.labels, np.arange(12) % 10)
    assert test.class_names[:2] == ("airplane", "automobile")


def test_tars_become_folders_and_are_kept(script, shared, tmp_path):
    command = ["--shared", str(shared[0]), "--to", str(tmp_path / "out"), "--sets", "hymenoptera"]
    script.main(command)
    source = open_source(tmp_path / "out" / "hymenoptera" / "train")
    assert source.class_names == ("ants", "bees") and source.num_samples == 2
    (tmp_path / "out" / "hymenoptera" / "mark").write_text("kept")
    script.main(command)
    assert (tmp_path / "out" / "hymenoptera" / "mark").exists()
    assert not list((tmp_path / "out").glob(".*"))
