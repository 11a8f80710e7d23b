"""Files that would fill memory, hang, or overflow the C stack: each is refused with one sentence, or harmless."""

import pickle
import resource
import time
import zipfile

import numpy as np
import pytest

from keras_ssl.checkpoints import read
from keras_ssl.checkpoints.errors import shown
from tests.checkpoints import makers
from tests.checkpoints.makers import refused


def laughs(levels):
    """A list of two of a list of two of ...: 2^levels values in 10 bytes each."""
    code = b"]q\0"
    for level in range(levels):
        code += b"0](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    return code


DEEP = 60_000
BOMBS = {
    "deep key": (b")" + b"\x85" * DEEP + b"K\1s", "plain keys"),
    "deep tuple": (makers.entry("a", b")" + b"\x85" * DEEP), "nested at most"),
    "deep list": (makers.entry("a", b"(" + b"(" * DEEP + b"l" * DEEP + b"l"), "nested at most"),
    "deep objects": (makers.entry("a", b"ctorch\nA\n(" * DEEP + b"tR" * DEEP), ""),
    "laughs": (makers.entry("a", laughs(60)), "at most 20000000 values"),
    "laughs at a device": (
        makers.entry("a", b"ctorch\ndevice\n" + laughs(60) + b"\x85R"),
        "damaged",
    ),
    "laughs at a size": (
        makers.entry(
            "a",
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + b"("
            + makers.text("storage")
            + b"ctorch\nFloatStorage\n"
            + makers.text("0")
            + b"N"
            + laughs(60)
            + b"tQ"
            + b"K\0))tR",
        ),
        "Expected a count. Received: a list",
    ),
    "itself": (b"q\0" + makers.entry("a", b"h\0"), "contains itself"),
    "memo": (b"r\xff\xff\xff\xff0}", ""),
    "long number": (makers.entry("a", b"\x8b\xff\xff\xff\x7f1"), "2147483647 bytes"),
    "wide number": (makers.entry("a", b"\x8b\xff\xff\0\0" + b"1" * 65535), "65535 bytes"),
    "digits": (makers.entry("a", b"I" + b"9" * 100_000 + b"\n"), "damaged"),
    "bytes": (makers.entry("a", b"\x8e" + b"\xff" * 8), "not all there"),
    "bytearray": (makers.entry("a", b"\x96" + b"\xff" * 7 + b"\x0f"), "not all there"),
    "text": (makers.entry("a", b"\x8d" + b"\xff" * 7 + b"\x0f"), "not all there"),
    "copies": (
        b"(" + b"K\1" * 300_000 + b"lq\0cbuiltins\nset\nq\1" + b"h\1h\0\x85R" * 5_000,
        "grows without end",
    ),
    "array": (
        makers.entry(
            "a",
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R(K\1J\0\0\0\x40\x85"
            b"cnumpy\ndtype\nX\2\0\0\0f8K\0K\1\x87R\x89C\1xtb",
        ),
        "1 bytes of them",
    ),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_bombs_give_a_sentence_or_nothing(tmp_path, name):
    """Neither memory nor time nor the C stack runs out; two of them are harmless once nothing is allocated."""
    code, match = BOMBS[name]
    path = tmp_path / "x.pth"
    makers.write_zip(path, makers.DICT + code + b".", compression=zipfile.ZIP_STORED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    if match:
        refused(path, match)
    else:
        read(path)
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_messages_do_not_spell_out_what_never_ends(tmp_path):
    """The list of storages is such a list, then the whole state of BYOL is one."""
    path = makers.write_stream(tmp_path / "x.pth", makers.DICT + b".", {})
    path.write_bytes(
        path.read_bytes()[: -len(pickle.dumps([], 2))] + b"\x80\x02]" + laughs(60) + b"a."
    )
    refused(path, "list of all storages")
    (tmp_path / "x.pkl").write_bytes(
        makers.DICT + makers.entry("experiment_state", laughs(60)) + b"."
    )
    refused(tmp_path / "x.pkl", "of 5 fields. Received: a list")
    assert shown(("a", 1, None)) == "('a', 1, None)" and shown("a" * 200) == "'" + "a" * 96 + "..."


def test_zip_bombs(tmp_path):
    zeros = bytes(64 << 20)
    code = makers.DICT + makers.entry("x", makers.tensor("0", 1 << 24, (1 << 24,), (1,))) + b"."
    path = makers.write_zip(
        tmp_path / "x.pth", code, {"0": zeros}, compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 100_000
    refused(path, "would unpack to 67")
    path = makers.write_zip(
        tmp_path / "y.pth", code, {"0": zeros, "1": np.random.default_rng(0).bytes(1 << 20)}, 8
    )
    refused(path, "claim to unpack to 67")


def test_a_compressed_storage_is_unpacked_once_however_often_it_is_named(tmp_path):
    values = np.random.default_rng(0).standard_normal(1 << 10).astype(np.float32)
    tensor = makers.tensor("0", 1 << 10, (1 << 10,), (1,))
    code = makers.DICT + makers.entry("x", tensor) + makers.entry("y", tensor) + b"."
    path = makers.write_zip(
        tmp_path / "x.pth", code, {"0": values.tobytes()}, compression=zipfile.ZIP_DEFLATED
    )
    tree = read(path).tree
    np.testing.assert_array_equal(tree["x"], values)
    assert np.shares_memory(tree["x"], tree["y"])
