"""Unit prototypes and the weight-normalized last layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import Prototypes, WeightNormDense
from keras_ssl.losses import l2_normalize


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_scores_are_cosines_with_the_rows():
    layer = Prototypes(4, 6)
    assert layer.kernel.shape == (6, 4)
    z, rows = l2_normalize(draw(3, 2, 4)).numpy(), layer.kernel.numpy()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)
    scores = layer(z)
    assert scores.shape == (3, 2, 6)
    for b in range(3):
        for v in range(2):
            np.testing.assert_allclose(scores[b, v], [z[b, v] @ row for row in rows], atol=1e-6)
    assert len(layer.trainable_weights) == len(layer.weights) == 1


def test_renormalize_keeps_directions():
    layer = Prototypes(4, 6)
    layer.kernel.assign(draw(6, 4) * 3)
    before = layer.kernel.numpy()
    layer.renormalize()
    expected = before / np.linalg.norm(before, axis=1, keepdims=True)
    np.testing.assert_allclose(layer.kernel.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(
        layer.kernel.numpy()[0], before[0] / np.linalg.norm(before[0]), rtol=1e-6
    )


def test_weight_norm_by_hand():
    """v = (3, 4) and g = 2 give w = (1.2, 1.6)."""
    layer = WeightNormDense(2, 1)
    layer.kernel.assign([[3.0], [4.0]])
    layer.norm.assign([[2.0]])
    np.testing.assert_allclose(layer(np.array([[1.0, 0.0], [1.0, 1.0]])), [[1.2], [2.8]], rtol=1e-6)


def test_weight_norm_starts_with_cosines():
    """g = 1: unit inputs give outputs in [-1, 1], whatever the length of v."""
    layer, z = WeightNormDense(4, 50), l2_normalize(draw(20, 4))
    outputs = layer(z)
    assert float(tf.reduce_max(tf.abs(outputs))) <= 1 + 1e-6
    layer.kernel.assign(layer.kernel.value * 7)
    np.testing.assert_allclose(layer(z), outputs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("train_norm", [False, True])
def test_norm_is_frozen_or_trained(train_norm):
    layer = WeightNormDense(4, 5, train_norm=train_norm)
    assert len(layer.trainable_weights) == 1 + train_norm
    assert layer.norm.shape == (
        1,
        5,
    )  # two axes: decayed when g is trained, as in the authors' code
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.square(layer(draw(3, 4))))
    gradient = tape.gradient(value, layer.kernel.value)
    # moving v along itself changes nothing
    np.testing.assert_allclose(tf.reduce_sum(gradient * layer.kernel.value, 0), 0.0, atol=1e-4)
    assert np.linalg.norm(gradient) > 1e-3


@pytest.mark.parametrize("make", [lambda: Prototypes(4, 6), lambda: WeightNormDense(4, 6)])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_precision(make, policy):
    """Outputs are float32 under the mixed policies and float64 under float64, to their full digits."""
    keras.config.set_dtype_policy(policy)
    try:
        layer = make()
    finally:
        keras.config.set_dtype_policy("float32")
    wide = "float64" if policy == "float64" else "float32"
    assert layer.kernel.dtype == wide
    z = l2_normalize(draw(3, 4).astype(wide))
    outputs = layer(z)
    assert outputs.dtype == wide
    kernel = layer.kernel.numpy().astype("float64")
    if isinstance(layer, WeightNormDense):
        kernel = (kernel / np.linalg.norm(kernel, axis=0)).T
    tolerance = 1e-14 if policy == "float64" else 1e-6
    np.testing.assert_allclose(outputs, z.numpy().astype("float64") @ kernel.T, atol=tolerance)


@pytest.mark.parametrize("layer", [Prototypes(4, 6), WeightNormDense(4, 6, train_norm=True)])
def test_config_round_trip(layer):
    copy = type(layer).from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(draw(3, 4)), layer(draw(3, 4)))
    assert copy.get_config() == layer.get_config()
    assert len(copy.trainable_weights) == len(layer.trainable_weights)


def test_save_and_load(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, WeightNormDense(6, 3)(Prototypes(4, 6)(inputs)))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(draw(3, 4)), model(draw(3, 4)))


def test_errors():
    with pytest.raises(ValueError, match="num_prototypes=0"):
        Prototypes(4, 0)
    with pytest.raises(ValueError, match="dim=-1"):
        WeightNormDense(-1, 4)
