"""A published encoder by name: fetched, checked, pinned, converted once, verified, or refused in a sentence."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from keras_ssl import cli, zoo
from keras_ssl.conversion import weights_digest
from keras_ssl.zoo import (
    cache,
    converting,
    loading,
    published,
)
from keras_ssl.zoo.cache import ZooError
from tests.zoo.tiny_moco import IMAGES, make_entry, register

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("entry")


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
