"""Files that would run code, or lie about sizes: each is refused with one sentence, and nothing happens."""

import io
import json
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from keras_ssl.checkpoints import CheckpointError, read
from keras_ssl.checkpoints.names import find
from tests.checkpoints import makers
from tests.checkpoints.makers import refused


class Raw:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def codes(marker):
    """Returns pickles, by the way in which they would make the file `marker`, and what the refusal names."""
    touch = f"open({str(marker)!r}, 'w').close()".encode()
    text = makers.text(touch.decode())
    shell = makers.text(f"touch {marker}")
    return {
        "reduce": (b"\x80\x02cbuiltins\nexec\n" + text + b"\x85R.", "builtins.exec"),
        "python 2": (b"c__builtin__\nexec\n(" + text + b"tR.", "builtins.exec"),
        "system": (b"cos\nsystem\n(" + shell + b"tR.", "os.system"),
        "posix": (b"cposix\nsystem\n(" + shell + b"tR.", "posix.system"),
        "inst": (b"(" + text + b"ibuiltins\nexec\n.", "builtins.exec"),
        "obj": (b"(cbuiltins\nexec\n" + text + b"o.", "builtins.exec"),
        "stack global": (
            b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93" + text + b"\x85R.",
            "builtins.exec",
        ),
        "attribute": (
            b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93cpathlib\nPath\n"
            + makers.text(str(marker)) + b"\x85R\x85R.",
            "Path.touch",
        ),
        "getattr": (
            b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nX\2\0\0\0os\x85R"
            b"X\6\0\0\0system\x86R" + shell + b"\x85R.",
            "builtins.getattr",
        ),
        "numpy": (
            b"\x80\x02cnumpy.testing._private.utils\nrunstring\n" + text + b"}\x86R.",
            "runstring",
        ),
        "codecs": (b"\x80\x02ccodecs\nopen\n" + makers.text(str(marker)) + makers.text("w") + b"\x86R.", "codecs.open"),
        "eval": (b"\x80\x02cbuiltins\neval\n" + text + b"\x85R.", "builtins.eval"),
    }  # fmt: skip


@pytest.mark.parametrize("way", sorted(codes("x")))
@pytest.mark.parametrize("container", ["plain", "zip", "stream", "headers", "tar"])
def test_code_in_pickles_does_not_run(tmp_path, way, container):
    marker = tmp_path / "marker"
    code, named = codes(marker)[way]
    try:  # the file is dangerous: Python's own unpickler runs it
        pickle.loads(code, encoding="latin1")
    except Exception:
        assert way == "eval"  # eval of a call returns None; all others succeed
    assert marker.exists(), "the example does nothing"
    marker.unlink()
    path = tmp_path / "x.pth"
    if container == "plain":
        path.write_bytes(b"\x80\x02" + code.removeprefix(b"\x80\x02").removeprefix(b"\x80\x04"))
    elif container == "zip":
        makers.write_zip(path, code)
    elif container == "stream":
        makers.write_stream(path, code, {})
    elif container == "headers":
        path.write_bytes(pickle.dumps(makers.STREAM_MAGIC, 2) + pickle.dumps(1001, 2) + code)
    else:
        makers.write_tar(path, {"sys_info": b"", "pickle": code, "storages": code, "tensors": b""})
    assert named in refused(path)
    assert not marker.exists()


def test_arrays_of_objects_in_npz_do_not_run(tmp_path):
    marker = tmp_path / "marker"
    evil = np.asarray([Raw(exec, f"open({str(marker)!r}, 'w').close()"), None], object)
    np.savez(tmp_path / "x.npz", evil=evil)
    refused(tmp_path / "x.npz", "only pickle can read")
    assert not marker.exists()
    np.load(tmp_path / "x.npz", allow_pickle=True)["evil"]
    assert marker.exists()


def test_states_reach_no_class_and_no_setstate(tmp_path):
    """A state for a class would change it for everybody; one for an object of ours is only kept."""
    code = b"\x80\x02ccollections\nOrderedDict\n}" + makers.entry("keys", b"N") + b"b."
    refused(
        makers.write_zip(tmp_path / "x.pth", code), "change of the class 'collections.OrderedDict'"
    )
    code = (
        makers.DICT
        + makers.entry("a", b"clib.Bank\nBank\n)\x81}" + makers.entry("__class__", b"K\1") + b"b")
        + b"."
    )
    bank = read(makers.write_zip(tmp_path / "y.pth", code)).tree["a"]
    assert type(bank).__name__ == "Opaque" and bank.state == {"__class__": 1}


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02X\1\0\0\0a)R.",  # a call of a text
        b"\x80\x02(K\1K\2o.",
        b"\x80\x02K\1)\x81.",
        b"\x80\x02}X\1\0\0\0a}R.",  # arguments that are no tuple
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nTensor\nctorch\nTensor\n)}tR.",
        b"\x80\x02\x82\1.",  # registered extensions
        b"\x80\x05\x97.",  # buffers from outside
        b"\x80\x02K\1Q.",  # a persistent id that is no storage
        b"\x80\x02Px\n.",
    ],
)
def test_calls_of_what_is_no_name_are_refused(tmp_path, code):
    refused(makers.write_zip(tmp_path / "x.pth", code))
    (tmp_path / "x.pkl").write_bytes(code)
    refused(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "module, name",
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.jit._script", "ScriptModule.__init__"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("dill._dill", "_create_function"),
        ("dill._dill", "_import_module"),
        ("importlib", "import_module"),
        ("pickle", "loads"),
        ("torchx", "Tensor"),
        ("my.package", "Thing"),
        ("__main__", "exclude_bias"),
    ],
)
def test_names_off_the_list_are_refused_without_an_import(module, name):
    before = set(sys.modules)
    with pytest.raises(CheckpointError, match=f"{name}.*refused"):
        find(module, name)
    assert set(sys.modules) == before


def test_the_function_in_full_checkpoints_may_be_named_and_does_not_run(tmp_path, monkeypatch):
    """Barlow Twins and VICReg keep it in their optimizer; a pickle that calls it gets an inert object."""
    ran, name = [], "exclude_bias_and_norm"
    monkeypatch.setattr(sys.modules["__main__"], name, ran.append, raising=False)
    called = f"c__main__\n{name}\n".encode() + makers.text("x") + b"\x85R"
    path = makers.write_zip(tmp_path / "x.pth", makers.DICT + makers.entry("a", called) + b".")
    kept = read(path).tree["a"]
    assert (type(kept).__name__, kept.name, kept.args) == ("Opaque", f"__main__.{name}", ("x",))
    assert ran == []


def test_a_name_twice_in_an_archive(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "x.pth", "w") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("a/data.pkl", makers.DICT + b".")
        archive.writestr("a/data.pkl", makers.DICT + b".")
    refused(tmp_path / "x.pth", "a name twice")


def header(**entries):
    return json.dumps(entries).encode()


def write_safetensors(path, text, body=b"", length=None):
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "text, body, length, match",
    [
        (header(x=F32), bytes(8), 100_000_000_000, "claims 100000000000"),
        (header(x=F32), bytes(8), 200, "claims 200"),
        (header(x=F32), bytes(4), None, "cut off"),
        (header(x=F32), bytes(9), None, "8 bytes of tensors"),
        (header(x=F32, y=F32), bytes(8), None, "holes or overlap"),
        (header(x={**F32, "data_offsets": [4, 12]}), bytes(12), None, "holes or overlap"),
        (header(x={**F32, "data_offsets": [8, 0]}), bytes(8), None, "offsets"),
        (header(x={**F32, "data_offsets": [-8, 0]}), bytes(8), None, "count"),
        (header(x={**F32, "shape": [2**61, 2**61]}), bytes(8), None, "bytes of 'x'"),
        (header(x={**F32, "shape": [-1, -2]}), bytes(8), None, "count"),
        (header(x={**F32, "shape": [2.0]}), bytes(8), None, "count"),
        (header(x={**F32, "dtype": "F4"}), bytes(8), None, "known dtype"),
        (header(x={**F32, "dtype": ["F32"]}), bytes(8), None, "known dtype"),
        (header(x=[1]), bytes(8), None, "data_offsets"),
        (header(__metadata__={"a": 1}), b"", None, "texts"),
        (b'{"x": %s, "x": %s}' % (header(**F32), header(**F32)), bytes(8), None, "twice"),
        (b'{"x": ' + b"[" * 100_000, b"", None, "JSON"),
        (b'{"x": \xff}', b"", None, "JSON"),
    ],
)
def test_safetensors_that_lie(tmp_path, text, body, length, match):
    assert read(write_safetensors(tmp_path / "good", header(x=F32), bytes(8))).tree["x"].shape == (
        2,
    )
    refused(write_safetensors(tmp_path / "x", text, body, length), match)


@pytest.mark.parametrize(
    "name, kind, link",
    [
        ("../../escape", tarfile.REGTYPE, ""),
        ("/tmp/escape", tarfile.REGTYPE, ""),
        ("pickle", tarfile.SYMTYPE, "/etc/passwd"),
        ("pickle", tarfile.LNKTYPE, "/etc/passwd"),
        ("pickle", tarfile.CHRTYPE, ""),
        ("pickle", tarfile.DIRTYPE, ""),
        ("model.ckpt", tarfile.REGTYPE, ""),
    ],
)
def test_tar_archives_with_anything_else(tmp_path, name, kind, link):
    path = makers.write_tar(tmp_path / "x.tar", {name: b"abc"}, kind, link)
    refused(path, "tar archive of")
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar"]


def test_tar_sizes_are_held_against_the_file(tmp_path):
    info = tarfile.TarInfo("storages")
    info.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refused(tmp_path / "x.tar")
    info.size = 1 << 30
    (tmp_path / "y.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    refused(tmp_path / "y.tar", "cut off")


def test_npz_headers_are_held_against_the_file(tmp_path):
    start = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        start, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", start.getvalue() + bytes(8))
    refused(tmp_path / "x.npz", "8 bytes")
