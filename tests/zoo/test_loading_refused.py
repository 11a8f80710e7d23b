"""Torn, changed and wrong files of published encoders, in the cache and outside, and processes that are killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_ssl import checkpoints, zoo
from keras_ssl.conversion import weights_digest
from keras_ssl.zoo import (
    cache,
    weights,
)
from keras_ssl.zoo.cache import ZooError
from tests.zoo.file_server import Page
from tests.zoo.tiny_moco import SETTINGS, random_network, write_file

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("entry")


def test_a_pinned_file_that_changes_is_refused(network, server, tmp_path, entry):
    zoo.load("tiny_moco")
    pin = cache.read_pins()["tiny_moco/tiny.pth.tar"]
    assert pin["sha256"] == cache.hash_file(tmp_path / "tiny.pth.tar")["sha256"]
    cache.clear("tiny_moco")
    other = random_network(entry, seed=1)
    page = Page(write_file(tmp_path / "other.pth", other))
    server.pages["/tiny.pth.tar"] = page
    with pytest.raises(ZooError, match="pinned on 20.*zoo pins --forget tiny_moco"):
        zoo.load("tiny_moco")
    with pytest.raises(ZooError, match="pinned on .*any_file=True"):
        zoo.load("tiny_moco", weights=tmp_path / "other.pth")
    chosen = zoo.load("tiny_moco", weights=tmp_path / "other.pth", any_file=True)
    assert weights_digest(chosen) == weights_digest(other)
    assert cache.forget_pins("tiny_moco") == 1
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(other)


@pytest.mark.parametrize(
    "harm",
    [
        "flip",
        "other version",
        "no version",
        *(pytest.param(harm, marks=SLOW) for harm in ("cut", "no certificate", "no weights")),
    ],
)
def test_torn_weights_in_the_cache_are_made_again_without_fetching(
    network, server, tmp_path, capsys, harm
):
    zoo.load("tiny_moco")
    slot = tmp_path / "home/zoo/encoders/tiny_moco/published"
    file = slot / "weights.safetensors"
    data = file.read_bytes()
    if harm == "flip":
        file.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif harm == "cut":
        file.write_bytes(data[:100])
    elif harm == "no certificate":
        (slot / "certificate.json").write_text("{")
    elif harm == "no weights":
        file.unlink()
    else:
        certificate = json.loads((slot / "certificate.json").read_text())
        del certificate["made_from"]
        changed = certificate | ({"made_from": "x"} if harm == "other version" else {})
        (slot / "certificate.json").write_text(json.dumps(changed))
    capsys.readouterr()
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(network)
    said = capsys.readouterr().err
    assert ("of another version" if harm.endswith("version") else "are damaged") in said
    assert len(server.log) == 1
    assert file.read_bytes() == data


def test_a_torn_file_in_the_cache_is_fetched_again(network, server, tmp_path):
    zoo.load("tiny_moco")
    (tmp_path / "home/zoo/files/tiny_moco/tiny.pth.tar").write_bytes(b"PK")
    (tmp_path / "home/zoo/encoders/tiny_moco/published/weights.safetensors").unlink()
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(network)
    assert len(server.log) == 2


def test_a_conversion_that_breaks_off_leaves_nothing_that_is_taken(
    network, server, tmp_path, monkeypatch
):
    write = checkpoints.write_safetensors

    def killed(path, *arguments):
        write(path, *arguments)
        os.truncate(path, 200)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "write_safetensors", killed)
        zoo.load("tiny_moco")
    folder = tmp_path / "home/zoo/encoders/tiny_moco"
    assert list(folder.iterdir()) == []
    (folder / ".published-1").mkdir()  # of a process that could not even clean up
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(network)
    assert [path.name for path in folder.iterdir()] == ["published"]
    assert len(server.log) == 1


def test_a_wrong_file_is_told_with_what_is_in_it(entry, tmp_path):
    path = tmp_path / "wrong.pth"
    checkpoints.write_torch(path, {"head.weight": np.zeros((3, 5), np.float32)}, {"epoch": 3})
    with pytest.raises(ZooError) as error:
        zoo.load("tiny_moco", weights=path)
    text = str(error.value)
    assert "\n" not in text
    for part in (
        "published file of tiny_moco",
        "'state_dict'",
        "torch-zip",
        "head.weight",
        "(3, 5)",
    ):
        assert part in text
    other = random_network(dataclasses.replace(entry, settings={**SETTINGS, "filters": (4, 8)}))
    write_file(path, other)
    with pytest.raises(ZooError, match=r"'layer2.0.conv1.weight' with shape \(6, 16, 1, 1\)"):
        zoo.load("tiny_moco", weights=path)
    path.write_bytes(b"<html>Sign in</html>")
    with pytest.raises(ZooError, match="a page of a web site"):
        zoo.load("tiny_moco", weights=path)
    with pytest.raises(ZooError, match="nowhere.pth, which does not exist"):
        zoo.load("tiny_moco", weights=tmp_path / "nowhere.pth")
    assert not (tmp_path / "home/zoo/encoders/tiny_moco").exists()


def test_a_fetched_page_instead_of_a_file_is_not_pinned(server, entry):
    server.pages["/tiny.pth.tar"] = Page(b"<html>Sign in</html>")
    with pytest.raises(ZooError, match="`keras-ssl zoo cache --clear tiny_moco`"):
        zoo.load("tiny_moco")
    assert cache.read_pins() == {}


def test_own_entries_take_no_files(tmp_path):
    with pytest.raises(ValueError, match="own entries. Received: weights='x.pth'"):
        weights.load("simclr_rnmini_cifar10", weights="x.pth")


PROCESS = """
import os, sys, signal
from keras_ssl import checkpoints, zoo
from keras_ssl.zoo import published
from keras_ssl.zoo.published import File, Published
url, settings, kill = sys.argv[1], eval(sys.argv[2]), sys.argv[3] == "kill"
entry = Published(
    "tiny_moco", "moco_v2", "tests", "resnet18", "torchvision_resnet", "mit",
    (File("tiny.pth.tar", (url,)),), settings=settings, image_size=65,
    top_keys=("state_dict",), prefixes=("module.encoder_q.",), preprocessing="swav",
)
published.published = lambda: {"tiny_moco": entry}
write = checkpoints.write_safetensors
def killed(path, *arguments):
    write(path, *arguments)
    os.truncate(path, 200)
    os.kill(os.getpid(), signal.SIGKILL)
if kill:
    checkpoints.write_safetensors = killed
from keras_ssl.conversion import weights_digest
print(weights_digest(zoo.load("tiny_moco")))
"""


@pytest.mark.slow
def test_killed_while_converting_and_two_at_once(network, server, tmp_path, subprocess_env):
    env = {**subprocess_env, "KERAS_SSL_HOME": str(tmp_path / "home"), "no_proxy": "*"}

    def start(mode):
        arguments = [server.url("/tiny.pth.tar"), repr(SETTINGS), mode]
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments], env=env, stdout=subprocess.PIPE, text=True
        )

    killed = start("kill")
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "home/zoo/encoders/tiny_moco"
    assert [path.name.startswith(".published-") for path in folder.iterdir()] == [True]
    two = [start("load") for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].strip() for process in two]
    assert outputs == [weights_digest(network)] * 2
    assert [path.name for path in folder.iterdir()] == ["published"]
    assert [path for path, _ in server.log] == ["/tiny.pth.tar"]
