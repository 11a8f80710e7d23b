"""Zoo entries: what is published comes back exactly, and nothing that was tampered with is loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_ssl import zoo
from keras_ssl.zoo import weights
from tests.zoo.own_entries import RECIPE, RESULTS, TinyBackbone

pytestmark = pytest.mark.usefixtures("own_zoo")


@pytest.mark.parametrize("half", [False, True])
def test_published_encoder_comes_back(encoder, images, half):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS, half=half)
    loaded = zoo.load("tiny_squares")
    assert isinstance(loaded, TinyBackbone) and loaded is not encoder
    for stored, original in zip(loaded.variables, encoder.variables, strict=True):
        kernel = half and len(original.shape) >= 2
        exact = original.numpy().astype(np.float16) if kernel else original.numpy()
        np.testing.assert_array_equal(stored.numpy(), exact.astype(np.float32))
    np.testing.assert_allclose(
        loaded(images)["features"], encoder(images)["features"], rtol=2e-3 if half else 0, atol=0
    )
    assert np.array_equal(loaded.dense.kernel, encoder.dense.kernel) is not half


def test_without_weights_the_encoder_is_fresh(encoder, tmp_path):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    (tmp_path / "zoo/tiny_squares/encoder.npz").unlink()
    fresh = zoo.load("tiny_squares", weights=False)
    assert fresh.feature_dim == 4
    assert not np.array_equal(fresh.dense.kernel, encoder.dense.kernel)


def test_loaded_encoder_follows_the_current_dtype_policy(encoder):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loaded = zoo.load("tiny_squares")
        assert loaded.compute_dtype == loaded.dense.compute_dtype == "bfloat16"
        assert loaded.scale.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_frozen_teacher_comes_back_trainable(encoder):
    encoder.trainable = False
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    loaded = zoo.load("tiny_squares")
    assert len(loaded.trainable_variables) == 5
    np.testing.assert_array_equal(loaded.dense.kernel, encoder.dense.kernel)


def test_a_kernel_beyond_float16_stays_float32(encoder):
    encoder.dense.kernel.assign(np.full((3, 4), 1e6))
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS, half=True)
    np.testing.assert_array_equal(zoo.load("tiny_squares").dense.kernel, np.full((3, 4), 1e6))


def test_tampered_weights_are_refused(encoder, tmp_path, monkeypatch):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    path = tmp_path / "zoo/tiny_squares/encoder.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(
        np, "load", lambda *args, **kwargs: pytest.fail("read before it was checked")
    )
    with pytest.raises(
        ValueError, match="SHA-256 [0-9a-f]{64}; nothing was loaded. Received: [0-9a-f]{64}"
    ):
        zoo.load("tiny_squares")


def test_missing_weights_are_named(encoder, tmp_path):
    zoo.pack_entry(encoder, "tiny_squares", RECIPE, RESULTS)
    (tmp_path / "zoo/tiny_squares/encoder.npz").unlink()
    with pytest.raises(ValueError, match="Expected the weights of the entry in .*encoder.npz"):
        zoo.load("tiny_squares")


def test_weights_of_another_encoder_change_nothing(encoder):
    wider = TinyBackbone(feature_dim=5)
    before = [variable.numpy() for variable in wider.variables]
    with pytest.raises(ValueError, match=r"'0000/scale' with shape \(5,\). Received: shape=\(4,\)"):
        weights.unpack(weights.pack(encoder), wider)
    for variable, value in zip(wider.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(
        ValueError, match="the 2 variables of .* 7 arrays; the first that differs is '0000/"
    ):
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="other")])
        weights.unpack(weights.pack(encoder), other)


def test_the_name_of_the_model_does_not_matter(encoder):
    other = TinyBackbone(name="other")
    weights.unpack(weights.pack(encoder), other)
    np.testing.assert_array_equal(other.scale, encoder.scale)
