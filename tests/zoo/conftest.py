"""Fixtures of the zoo: a cache of its own for every test, a small published entry, an own encoder."""

import sys
import types

import numpy as np
import pytest

from tests.zoo.file_server import Page, serving


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_SSL_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture
def network():
    from tests.zoo.tiny_moco import make_entry, random_network

    return random_network(make_entry(""))


@pytest.fixture
def entry(server, network, tmp_path, monkeypatch):
    """One entry, whose file the server has, and the only one there is."""
    from keras_ssl.zoo import download
    from tests.zoo.tiny_moco import make_entry, register, write_file

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("KERAS_SSL_ACCEPT_LICENCES", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    server.log.clear()
    server.pages = {"/tiny.pth.tar": Page(write_file(tmp_path / "tiny.pth.tar", network))}
    return register(monkeypatch, make_entry(server.url("/tiny.pth.tar")))


@pytest.fixture
def own_zoo(tmp_path, monkeypatch):
    """An empty zoo folder, no entries of others, and a stand-in for the module that registers the backbones."""
    from keras_ssl.zoo import catalog, publish
    from keras_ssl.zoo import published as others

    monkeypatch.setattr(others, "published", dict)
    monkeypatch.setattr(catalog, "entries_folder", lambda: tmp_path / "zoo")
    monkeypatch.setattr(publish, "entries_folder", lambda: tmp_path / "zoo")
    monkeypatch.setitem(sys.modules, "keras_ssl.backbones", types.ModuleType("keras_ssl.backbones"))


@pytest.fixture
def encoder():
    from tests.zoo.own_entries import TinyBackbone

    encoder = TinyBackbone()
    rng = np.random.default_rng(1)
    for variable in encoder.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return encoder


@pytest.fixture
def images():
    return np.random.default_rng(2).random((5, 8, 8, 3), dtype=np.float32)
