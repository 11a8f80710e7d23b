"""`zoo verify` and the other commands on a published encoder that was fetched."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from keras_ssl import cli, zoo
from keras_ssl.conversion import weights_digest
from keras_ssl.zoo import (
    cache,
    fingerprint,
    verify,
)
from tests.zoo.tiny_moco import random_network, register, write_file

pytestmark = pytest.mark.usefixtures("entry")


def failed(checks):
    return [check.what for check in checks if check.ok is False]


def test_verify_counts_converts_and_compares_again(entry, network, tmp_path, monkeypatch):
    checks = verify.verify_published(entry)
    assert failed(checks) == []
    table = {check.what: check for check in checks}
    count = str(len(network.variables))
    assert table["tensors used"].found == table["variables filled"].found == count
    assert table["weights, converted again"].found == weights_digest(network)
    assert table["features, real file"].ok is None
    assert "no fingerprint of the real file is known" in table["features, real file"].expected
    torch = importlib.util.find_spec("torch") is not None
    assert table["reference network"].ok is (True if torch else None)
    assert table["tensors outside the encoder"].found == str(len(network.variables) + 1)
    features = fingerprint.features_of_fixed_image(network, entry)
    known = register(monkeypatch, dataclasses.replace(entry, fingerprint=tuple(features[:4])))
    assert failed(verify.verify_published(known)) == []
    features[2] *= 1.01
    wrong = dataclasses.replace(entry, fingerprint=tuple(features[:4]))
    assert failed(verify.verify_published(wrong)) == ["features, real file"]


def test_verify_finds_what_was_changed_in_the_cache(entry, network, tmp_path):
    zoo.load("tiny_moco")
    slot = tmp_path / "home/zoo/encoders/tiny_moco/published"
    certificate = json.loads((slot / "certificate.json").read_text())
    certificate["conversion"]["tensors_used"] -= 1
    certificate["features"][0] += abs(max(certificate["features"], key=abs))
    (slot / "certificate.json").write_text(json.dumps(certificate))
    assert failed(verify.verify_published(entry)) == ["tensors used", "features, as converted"]
    other = random_network(entry, seed=1)
    write_file(tmp_path / "home/zoo/files/tiny_moco/tiny.pth.tar", other)
    assert {"published file, SHA-256", "known of tiny.pth.tar", "weights, converted again"} <= set(
        failed(verify.verify_published(entry))
    )


def test_the_fixed_image_is_the_same_everywhere():
    image = fingerprint.fixed_image(112)
    assert image.shape == (1, 112, 112, 3) and image.dtype == np.float32
    # by hand: row 5, column 7, channel 2: 365 + 1057 + 118 + 35 = 1575 = 6 x 256 + 39
    assert image[0, 5, 7, 2] == np.float32(39 / 255)
    # row 9, column 9, channel 0: 657 + 1359 + 81 mod 64 = 2033 = 7 x 256 + 241
    assert image[0, 9, 9, 0] == np.float32(241 / 255)


def test_the_command_fetches_verifies_and_clears(entry, capsys, tmp_path):
    assert cli.main(["zoo", "fetch", "tiny_moco"]) == 0
    assert cli.main(["zoo", "verify", "tiny_moco"]) == 0
    said = capsys.readouterr().out
    assert "ok      weights, converted again" in said
    assert said.splitlines()[-1] == "tiny_moco: nothing differs from what was converted before"
    assert cli.main(["zoo", "pins"]) == 0
    assert "tiny_moco/tiny.pth.tar: " in capsys.readouterr().out
    assert cli.main(["zoo", "cache"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 entries, ")
    assert cli.main(["zoo", "cache", "--clear", "tiny_moco"]) == 0
    assert cache.sizes() == {}
    with pytest.raises(SystemExit) as end:
        cli.main(["zoo", "pins", "--forget", "tiny_moko"])
    assert end.value.code == 2
    assert "Received: 'tiny_moko'. Did you mean 'tiny_moco'?" in capsys.readouterr().err
    assert cli.main(["zoo", "pins", "--forget", "tiny_moco"]) == 0
    assert cache.read_pins() == {}
    with pytest.raises(SystemExit) as end:
        cli.main(["zoo", "cache", "--clear", "tiny_moco"])
    assert end.value.code == 2


def test_the_command_says_in_one_line_what_is_wrong(entry, server, capsys, monkeypatch):
    server.pages.clear()
    with pytest.raises(SystemExit) as end:
        cli.main(["zoo", "fetch", "tiny_moco"])
    assert end.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("keras-ssl: Expected to get tiny.pth.tar. Received: http://127.0.0.1")
    assert "answers 404" in line and "--weights FILE" in line


def test_verify_of_an_own_entry_hashes_its_files(capsys):
    assert cli.main(["zoo", "verify", "simclr_rnmini_cifar10"]) == 0
    assert "encoder.npz: expected " in capsys.readouterr().out
