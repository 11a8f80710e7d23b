"""What `zoo verify` says where it cannot compare with a reference network, or where that takes long."""

from __future__ import annotations

import dataclasses
import sys

from keras_ssl import checkpoints, cli
from keras_ssl.conversion import LAYOUTS, extract
from keras_ssl.conversion.references import REFERENCES, numpy_resnets
from keras_ssl.zoo import comparison, converting, published, verify
from tests.zoo.families import RESNET, small
from tests.zoo.reference_files import (
    FIRST,
    compared,
    failed,
    reference_check,
    written,
)


def test_without_pytorch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    entry, network = small("dino_rn50", RESNET, monkeypatch)
    checkpoints.write_torch(tmp_path / "file", extract(network, LAYOUTS[entry.layout]))
    checks = verify.verify_published(entry, tmp_path / "file", accept_licence=True)
    check = reference_check(checks)
    assert check.ok is None and failed(checks) == []
    assert "pip install 'keras_ssl[verify]'" in check.expected
    assert check.found == "no torch installed"
    entry, path = written(FIRST["byol_haiku"], tmp_path)  # NumPy is always there
    assert compared(entry, path)[0].ok is True


def test_a_layout_without_a_reference_says_so(tmp_path, monkeypatch):
    entry, path = written(FIRST["simclr_tf1"], tmp_path)
    monkeypatch.delitem(REFERENCES, "simclr_tf1")
    check, _ = compared(entry, path)
    assert check.ok is None and check.expected == "there is none for the layout simclr_tf1"
    check = comparison.compare_with_reference(
        dataclasses.replace(entry, layout="byol_haiku"), None, None, print
    )
    assert (check.ok, check.found) == (None, "not kept in the cache")


def test_large_networks_get_one_image_and_a_warning(tmp_path, monkeypatch):
    entry, path = written(FIRST["simclr_tf1"], tmp_path)
    monkeypatch.setattr(comparison, "LARGE", 1)
    source, said = converting.Source((path,), ("",), ""), []
    network, _, _ = converting.convert_source(entry, source)
    check = comparison.compare_with_reference(entry, source, network, said.append)
    assert check.ok is True and "(1 random image, 32x32)" in check.expected
    tensors = converting.read_tensors(entry, path)[1]
    size = 4 * sum(value.size for value in tensors.values())
    assert published.format_bytes(size) in said[0] and "--no-reference" in said[0]


def test_the_command_prints_the_row(tmp_path, monkeypatch, capsys):
    entry, path = written(FIRST["byol_haiku"], tmp_path)
    monkeypatch.setattr(published, "published", lambda: {"tiny": entry})
    command = ["zoo", "verify", "tiny", "--weights", str(path)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "ok      reference network: expected largest difference below 0.0001" in printed
    assert cli.main([*command, "--no-reference"]) == 0
    printed = capsys.readouterr().out
    assert "-       reference network: expected was not asked for" in printed
    monkeypatch.setattr(numpy_resnets, "EPSILON", 1e-1)
    assert cli.main(command) == 1
    printed = capsys.readouterr().out
    assert "DIFFERS reference network: " in printed
    assert printed.splitlines()[-1].startswith("tiny: 1 of ")
