"""Files that are cut off or changed: one kind of error, and no more memory than the tensors that are used."""

import subprocess
import sys

import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, flatten, read, write_safetensors, write_torch
from tests.checkpoints import makers

STORAGE = np.arange(24, dtype=np.float32)


def stream(path):
    code = (
        makers.DICT + makers.entry("x", makers.tensor("7", 24, (3, 2), (1, 4), view="none")) + b"."
    )
    return makers.write_stream(path, code, {"7": STORAGE})


def tar(path):
    code = makers.DICT + makers.entry("a", b"K\1Q") + b"."
    return makers.write_tar(
        path, makers.torch_tar_members(STORAGE, {1: (10, (2, 3), (3, 1), 4)}, code)
    )


def npz(path):
    np.savez(path, **makers.arrays())
    return path


def npz_compressed(path):
    np.savez_compressed(path, **makers.arrays())
    return path


def bytes_to(path, content):
    path.write_bytes(content)
    return path


def byol(path):
    params = {"res_net50/~/initial_conv": {"w": np.arange(24, dtype=np.float32)}}
    return bytes_to(path, makers.byol_pickle(params, {}))


MAKERS = {
    "torch-zip": lambda path: write_torch(path, makers.arrays(), {"epoch": 1}) or path,
    "torch-stream": stream,
    "torch-tar": tar,
    "safetensors": lambda path: write_safetensors(path, makers.arrays()) or path,
    "npz": npz,
    "npz compressed": npz_compressed,
    "byol-pickle": byol,
    "caffe2-pickle": lambda path: bytes_to(path, makers.python2_pickle({"w": STORAGE})),
    "caffemodel": lambda path: makers.write_caffemodel(
        path, {"conv1": [STORAGE], "conv2": [STORAGE]}
    ),
}


@pytest.fixture(params=sorted(MAKERS))
def example(request, tmp_path):
    path = MAKERS[request.param](tmp_path / "x.npz")
    assert read(path).container == request.param.split()[0]
    return path


def test_files_that_are_cut_off(example):
    content = example.read_bytes()
    end = (
        len(content.rstrip(b"\0")) if content[257:262] == b"ustar" else len(content)
    )  # tar ends in zeros
    for sixteenths in range(16):
        example.write_bytes(content[: end * sixteenths // 16])
        with pytest.raises(CheckpointError) as raised:
            read(example)
        assert "\n" not in str(raised.value)


def test_files_with_changed_bytes(example):
    """Each of 100 changes gives a tree or a `CheckpointError`, nothing else."""
    content = np.frombuffer(example.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(100):
        changed = content.copy()
        places = rng.integers(len(content), size=rng.integers(1, 8))
        changed[places] = rng.integers(256, size=len(places))
        example.write_bytes(changed.tobytes())
        try:
            tensors = flatten(read(example).tree)
            assert sum(array.nbytes for array in tensors.values()) < 1 << 23
        except CheckpointError as error:
            failed += 1
            assert "\n" not in str(error)
    assert failed > 0


PEAK = """
import resource, sys
import numpy as np
from keras_ssl import checkpoints
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = peak()
tree = checkpoints.read(sys.argv[1]).tree
opened = peak()
total = sum(float(a[:16].sum()) for a in checkpoints.flatten(tree).values())
print(opened - start, peak() - start, "tensorflow" in sys.modules)
"""


@pytest.mark.parametrize("write", [write_torch, write_safetensors])
def test_reading_takes_no_memory_for_what_is_not_used(tmp_path, subprocess_env, write):
    """64 MiB in sixteen tensors: MiB of memory after reading, and after a look at the start of each."""
    array = np.ones((1 << 20,), np.float32)
    write(tmp_path / "x", {f"t{i}": array for i in range(16)})
    command = [sys.executable, "-c", PEAK, str(tmp_path / "x")]
    done = subprocess.run(command, env=subprocess_env, capture_output=True, text=True, check=True)
    opened, touched, tensorflow = done.stdout.split()
    assert float(opened) < 16 and float(touched) < 16
    assert tensorflow == "False"
