"""The transformer block against the equations, head by head."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from keras_ssl import random
from keras_ssl.layers import TransformerBlock

WIDTH, HEADS, TOKENS = 12, 3, 5


def block(**settings):
    """A block whose variables all matter."""
    layer = TransformerBlock(WIDTH, HEADS, **{"dtype": "float64", "name": "block", **settings})
    layer.build((None, None, WIDTH))
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(0.5 if "gamma" in variable.name else 0.0, 0.5, variable.shape))
    return layer


def values(layer):
    return {v.path.removeprefix("block/"): v.numpy().astype("float64") for v in layer.variables}


def norm(x, v, name):
    centered = x - x.mean(-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * v[f"{name}/gamma"] + v[f"{name}/beta"]


def reference(layer, x, factors=(1.0, 1.0)):
    """x + s1 * attention(norm1(x)), then + s2 * mlp(norm2(x)); loops over samples, heads and queries."""
    v, size = values(layer), WIDTH // HEADS
    weights = np.zeros((len(x), HEADS, x.shape[1], x.shape[1]))
    qkv = norm(x, v, "norm1") @ v["qkv/kernel"] + v["qkv/bias"]
    heads = np.zeros_like(x)
    for b in range(len(x)):
        for h in range(HEADS):
            q, k, value = (
                qkv[b, :, third * WIDTH + h * size : third * WIDTH + (h + 1) * size]
                for third in range(3)
            )
            for i in range(x.shape[1]):
                scores = np.array([q[i] @ k[j] / np.sqrt(size) for j in range(x.shape[1])])
                weights[b, h, i] = np.exp(scores) / np.exp(scores).sum()
                heads[b, i, h * size : (h + 1) * size] = weights[b, h, i] @ value
    attention = heads @ v["projection/kernel"] + v["projection/bias"]
    x = x + factors[0] * v.get("scale1", 1.0) * attention
    hidden = norm(x, v, "norm2") @ v["hidden/kernel"] + v["hidden/bias"]
    hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
    return x + factors[1] * v.get("scale2", 1.0) * (
        hidden @ v["output/kernel"] + v["output/bias"]
    ), weights


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 1e-10), ({"layer_scale": 0.1, "mlp_ratio": 2.5}, 1e-10), ({"dtype": "float32"}, 1e-4)],
)
def test_equals_the_equations(settings, tolerance):
    layer = block(**settings)
    x = np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH))
    y, weights = layer(tf.constant(x, layer.dtype), return_attention=True)
    expected, expected_weights = reference(layer, x)
    assert y.dtype == layer.dtype
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(weights, expected_weights, atol=tolerance)
    np.testing.assert_allclose(tf.reduce_sum(weights, -1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(layer(tf.constant(x, layer.dtype)), y, rtol=1e-6)


def test_number_of_heads_matters_though_shapes_do_not():
    x = np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH))
    three = block()
    six = TransformerBlock(WIDTH, 6, dtype="float64", name="block")
    six.build((None, None, WIDTH))
    six.set_weights(three.get_weights())
    assert np.abs(six(x) - three(x)).max() > 1e-2


def test_zero_layer_scale_is_the_identity():
    x = tf.random.normal((2, TOKENS, WIDTH), dtype="float64")
    layer = block(layer_scale=1e-5)
    layer.scale1.assign(tf.zeros(WIDTH))
    layer.scale2.assign(tf.zeros(WIDTH))
    np.testing.assert_array_equal(layer(x), x)
    fresh = TransformerBlock(WIDTH, HEADS, layer_scale=1e-5)
    fresh.build((None, None, WIDTH))
    np.testing.assert_allclose([fresh.scale1.numpy(), fresh.scale2.numpy()], 1e-5)


def test_drop_path_drops_each_branch_by_its_own_name():
    rate, count = 0.5, 32
    keys = random.sample_keys(3, tf.range(count, dtype=tf.int64))
    layer = block(drop_path=rate)
    x = np.random.default_rng(1).normal(size=(count, TOKENS, WIDTH))
    y = layer(x, training=True, keys=keys).numpy()
    seen = set()
    for sample in range(count):
        options = {
            (a, b): reference(layer, x[sample : sample + 1], (a, b))[0]
            for a in (0.0, 2.0)
            for b in (0.0, 2.0)
        }
        matches = [
            pair
            for pair, expected in options.items()
            if np.allclose(y[sample], expected[0], atol=1e-9)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 4
    np.testing.assert_allclose(layer(x, keys=keys), reference(layer, x)[0], rtol=1e-9)
    with pytest.raises(ValueError, match="keys=None"):
        layer(x, training=True)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    layer = block(dtype=policy)
    x = np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH))
    y, weights = layer(x, return_attention=True)
    assert y.dtype == weights.dtype == layer.compute_dtype
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    assert layer.norm1(tf.cast(x, layer.compute_dtype)).dtype == tf.float32
    expected = reference(layer, x)[0]
    assert np.abs(tf.cast(y, "float64") - expected).max() < 0.05 * np.abs(expected).max()


def test_initial_kernels():
    def deviation(initialization):
        layer = TransformerBlock(256, 4, initialization=initialization)
        layer.build((None, None, 256))
        return [layer.qkv.kernel.numpy().std(), layer.hidden.kernel.numpy().std()]

    np.testing.assert_allclose(deviation("normal"), [0.02, 0.02], rtol=0.02)
    glorot = np.sqrt(2 / (256 + 1024))  # variance 2 / (fan_in + fan_out)
    np.testing.assert_allclose(deviation("xavier"), [np.sqrt(2 / (256 + 768)), glorot], rtol=0.02)
    np.testing.assert_allclose(deviation("xavier_split"), [np.sqrt(2 / 512), glorot], rtol=0.02)


def test_config_round_trip():
    layer = block(layer_scale=0.1, drop_path=0.2, mlp_ratio=2.0, initialization="xavier")
    clone = TransformerBlock.from_config(layer.get_config())
    clone.build((None, None, WIDTH))
    assert clone.get_config() == layer.get_config()
    assert [v.path for v in clone.variables] == [v.path for v in layer.variables]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_heads": 5}, "num_heads=5, width=12"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
        ({"initialization": "he"}, "initialization='he'"),
    ],
)
def test_wrong_settings(arguments, match):
    with pytest.raises(ValueError, match=match):
        TransformerBlock(**{"width": WIDTH, "num_heads": HEADS, **arguments})
