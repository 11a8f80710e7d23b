"""A published encoder by name: fetched, checked, pinned, converted once, verified, or refused in a sentence."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_ssl import checkpoints, cli, zoo
from keras_ssl.conversion import LAYOUTS, extract, weights_digest
from keras_ssl.zoo import (
    cache,
    converting,
    download,
    fingerprint,
    loading,
    published,
    verify,
    weights,
)
from keras_ssl.zoo.cache import ZooError
from keras_ssl.zoo.published import File, Published
from tests.zoo.file_server import Page, serving

SLOW = pytest.mark.slow
SETTINGS = {"blocks": (1, 1), "filters": (4, 6), "bottleneck": True}
IMAGES = np.random.default_rng(5).random((2, 65, 65, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def make_entry(url, **changes):
    facts = {
        "settings": SETTINGS,
        "image_size": 65,
        "top_keys": ("state_dict",),
        "prefixes": ("module.encoder_q.",),
        "preprocessing": "swav",
        **changes,
    }
    file = File("tiny.pth.tar", (url,) if url else ())
    licence = facts.pop("licence", "mit")
    return Published(
        "tiny_moco", "moco_v2", "tests", "resnet18", "torchvision_resnet", licence, (file,), **facts
    )


def random_network(entry, seed=0):
    rng = np.random.default_rng(seed)
    network = converting.build_network(entry)
    for variable in network.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) * rng.choice([-1, 1], variable.shape))
        if "variance" in variable.path:
            variable.assign(np.abs(variable.numpy()))
    return network


def write_file(path, network, prefix="module.encoder_q."):
    """Writes the network as MoCo's training does: with head, second encoder, queue and optimizer."""
    tensors = extract(network, LAYOUTS["torchvision_resnet"])
    named = {prefix + key: value for key, value in tensors.items()}
    named[f"{prefix}bn1.num_batches_tracked"] = np.array(7)
    named[f"{prefix}fc.0.weight"] = np.ones((3, 24), np.float32)
    named |= {f"module.encoder_k.{key}": value + 1 for key, value in tensors.items()}
    named["module.queue"] = np.ones((4, 8), np.float32)
    checkpoints.write_torch(path, named, {"epoch": 200, "arch": "resnet50"}, key="state_dict")
    return path.read_bytes()


@pytest.fixture
def network():
    return random_network(make_entry(""))


@pytest.fixture(autouse=True)
def entry(server, network, tmp_path, monkeypatch):
    """One entry, whose file the server has, and a cache of its own."""
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("KERAS_SSL_ACCEPT_LICENCES", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    server.log.clear()
    server.pages = {"/tiny.pth.tar": Page(write_file(tmp_path / "tiny.pth.tar", network))}
    return register(monkeypatch, make_entry(server.url("/tiny.pth.tar")))


def register(monkeypatch, entry):
    monkeypatch.setattr(published, "published", lambda: {entry.name: entry})
    return entry


def test_by_name_it_is_fetched_once_and_gives_the_features_of_the_file(
    network, server, tmp_path, capsys
):
    expected = network(IMAGES)["features"]
    for _ in range(2):
        loaded = zoo.load("tiny_moco")
        assert loaded is not network
        np.testing.assert_array_equal(loaded(IMAGES)["features"], expected)
    assert loaded.std == (0.228, 0.224, 0.225)
    assert [path for path, _ in server.log] == ["/tiny.pth.tar"]
    said = capsys.readouterr().err
    assert said.count("licence of the weights of tiny_moco: MIT (https://") == 1
    assert (
        f"fetching tiny.pth.tar, 0.0 MB, from {server.url('/tiny.pth.tar')}".replace(
            "0.0 MB", published.format_bytes(len(server.pages["/tiny.pth.tar"].data))
        )
        in said
    )
    certificate = json.loads(
        (tmp_path / "home/zoo/encoders/tiny_moco/published/certificate.json").read_text()
    )
    made = certificate["conversion"]
    assert made["tensors_used"] == made["variables_filled"] == len(network.variables)
    assert made["left_out"] == ["bn1.num_batches_tracked", "fc.0.weight"]
    assert made["outside"] == {
        "state_dict.encoder_k": len(network.variables),
        "state_dict.queue": 1,
    }
    assert made["sha256"] == weights_digest(loaded)
    assert certificate["source"] == server.url("/tiny.pth.tar")
    assert certificate["source_sha256"] == cache.hash_file(tmp_path / "tiny.pth.tar")["sha256"]


def test_it_follows_the_dtype_policy_and_the_cache_does_not(network):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loaded = zoo.load("tiny_moco")
        assert loaded.compute_dtype == "bfloat16"
        keras.config.set_dtype_policy("float64")
        wide = zoo.load("tiny_moco")
    finally:
        keras.config.set_dtype_policy("float32")
    assert wide.variables[0].dtype == "float64"
    for model in (loaded, wide, zoo.load("tiny_moco")):
        assert weights_digest(model) == weights_digest(network)


def test_without_weights_nothing_is_fetched_nor_asked(server, monkeypatch):
    register(monkeypatch, make_entry("", licence="seer", access="gated"))
    for nothing in (None, False):
        fresh = zoo.load("tiny_moco", weights=nothing)
        assert fresh.feature_dim == 24
    assert server.log == []


@pytest.mark.parametrize("kind", ["path", *(pytest.param(k, marks=SLOW) for k in ("file", "http"))])
def test_a_given_file_needs_no_address(network, server, tmp_path, monkeypatch, kind):
    register(monkeypatch, make_entry("", access="manual", how="Unpack it."))
    path = tmp_path / "tiny.pth.tar"
    given = {"path": path, "file": path.as_uri(), "http": server.url("/tiny.pth.tar?v=1")}[kind]
    server.pages["/tiny.pth.tar?v=1"] = server.pages["/tiny.pth.tar"]
    loaded = zoo.load("tiny_moco", weights=given)
    assert weights_digest(loaded) == weights_digest(network)
    assert cache.read_pins() == {}
    with pytest.raises(ZooError, match=r"weights=FILE, or once .* Received: none. Unpack"):
        zoo.load("tiny_moco")
    loading.install(published.published()["tiny_moco"], given, as_published=True)
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(network)
    assert list(cache.read_pins()) == ["tiny_moco/tiny.pth.tar"]


def test_only_the_published_file_is_kept_under_the_name(entry, tmp_path):
    with pytest.raises(ZooError, match="the published file for loading by name"):
        loading.install(entry, tmp_path / "tiny.pth.tar", any_file=True, as_published=True)
    with pytest.raises(SystemExit) as end:
        cli.main(["zoo", "fetch", "tiny_moco", "--weights", "x", "--any-file"])
    assert end.value.code == 2
    assert cache.sizes() == {}


def test_a_signed_address_is_not_kept(server, network, tmp_path, capsys):
    server.pages["/own.pth?key=SECRET"] = server.pages["/tiny.pth.tar"]
    loading.install(
        published.published()["tiny_moco"], server.url("/own.pth?key=SECRET"), as_published=True
    )
    certificate = (tmp_path / "home/zoo/encoders/tiny_moco/published/certificate.json").read_text()
    assert json.loads(certificate)["source"] == server.url("/own.pth")
    assert cli.main(["zoo", "pins"]) == 0
    said = capsys.readouterr()
    assert server.url("/own.pth") in said.out
    pins = (tmp_path / "home/zoo/pins.json").read_text()
    assert "SECRET" not in said.out + said.err + certificate + pins


def test_weights_are_made_again_when_the_code_gives_other_ones(
    network, server, capsys, monkeypatch
):
    zoo.load("tiny_moco")
    monkeypatch.setattr(converting, "FORM", converting.FORM + 1)
    capsys.readouterr()
    assert weights_digest(zoo.load("tiny_moco")) == weights_digest(network)
    assert "of another version; making them again" in capsys.readouterr().err


def test_tokens_or_a_map_where_they_are_wanted(entry, network, monkeypatch):
    assert weights_digest(zoo.load("tiny_moco", include="tokens")) == weights_digest(network)
    assert "map" in zoo.load("tiny_moco", None, include="tokens")(IMAGES)
    own = zoo.load("simclr_rnmini_cifar10", include="tokens")
    assert {"tokens", "map"} & set(own.compute_output_spec(keras.KerasTensor((1, 32, 32, 3))))
    kind, call = type(network), type(network).call

    def without(self, *arguments, **settings):
        return {"features": call(self, *arguments, **settings)["features"]}

    monkeypatch.setattr(kind, "call", without)
    for weights_of in ("published", None):
        with pytest.raises(ValueError, match="with tokens or a map; .*which gives features"):
            zoo.load("tiny_moco", weights_of, include="tokens")
    with pytest.raises(ValueError, match="to be 'features', 'tokens' or 'head'"):
        zoo.load("tiny_moco", include="token")


@pytest.mark.parametrize(
    "licence, variable",
    [
        ("cc-by-nc-4.0", "mit, CC-BY-NC-4.0"),
        pytest.param("seer", "seer", marks=SLOW),
    ],
)
def test_consent_is_asked_for_before_anything_is_fetched(
    network, server, monkeypatch, licence, variable
):
    register(monkeypatch, make_entry(server.url("/tiny.pth.tar"), licence=licence))
    for weights_of in ("published", "anything"):
        with pytest.raises(ZooError) as error:
            zoo.load("tiny_moco", weights=weights_of)
        assert "accept_licence=True, run `keras-ssl zoo fetch tiny_moco --accept-licence`" in str(
            error.value
        )
        assert f"KERAS_SSL_ACCEPT_LICENCES={licence}" in str(error.value)
        assert published.LICENCES[licence].name in str(error.value)
    assert server.log == []
    with monkeypatch.context() as patch:
        patch.setenv("KERAS_SSL_ACCEPT_LICENCES", variable)
        zoo.load("tiny_moco")
    cache.clear("tiny_moco")
    assert weights_digest(zoo.load("tiny_moco", accept_licence=True)) == weights_digest(network)
    zoo.load("tiny_moco")  # what is in the cache was consented to


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


# verify ------------------------------------------------------------------------------------------------------


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


# command -----------------------------------------------------------------------------------------------------


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


# a real process ----------------------------------------------------------------------------------------------

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
