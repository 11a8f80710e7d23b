"""The transformer block against the equations, head by head."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from keras_ssl import random
from keras_ssl.layers import TransformerBlock
from keras_ssl.layers.transformer import swiglu_width

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


def test_gated_perceptron():
    """output(silu(a) * b), a the first half; 12 * 4 * 2 / 3 = 32 wide, 12 * 3 * 2 / 3 = 24, 12 * 1 * 2 / 3 -> 8."""
    layer = block(ffn="swiglu")
    v, x = values(layer), np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH))
    assert v["hidden/kernel"].shape == (WIDTH, 64) and v["output/kernel"].shape == (32, WIDTH)
    assert [swiglu_width(WIDTH, ratio) for ratio in (3, 1)] == [24, 8]
    assert swiglu_width(12, 4.2) == 40  # 50 * 2 / 3 = 33, up to a multiple of 8
    layer.projection.kernel.assign(np.zeros((WIDTH, WIDTH)))
    layer.projection.bias.assign(np.zeros(WIDTH))
    hidden = norm(x, v, "norm2") @ v["hidden/kernel"] + v["hidden/bias"]
    gate, value = hidden[..., :32], hidden[..., 32:]
    gated = gate / (1 + np.exp(-gate)) * value
    expected = x + gated @ v["output/kernel"] + v["output/bias"]
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", ["query_value", False])
def test_biases_of_query_and_value(bias):
    """The block with all three biases, the key's set to 0, or all."""
    layer, full = block(qkv_bias=bias), block()
    x = tf.constant(np.random.default_rng(1).normal(size=(2, TOKENS, WIDTH)))
    v, given = values(layer), np.zeros((3, WIDTH))
    if bias:
        assert v["query_value_bias"].shape == (2 * WIDTH,)
        given[[0, 2]] = v.pop("query_value_bias").reshape(2, WIDTH)
    for variable in full.variables:
        name = variable.path.removeprefix("block/")
        variable.assign(given.ravel() if name == "qkv/bias" else v.pop(name))
    assert not v
    np.testing.assert_allclose(layer(x), full(x), rtol=1e-9)


def test_epsilon_of_the_layer_norms():
    x = np.full((1, 1, WIDTH), 3.0)
    x[..., 0] += 1e-3
    for epsilon in (1e-6, 1e-5):
        layer = block(layer_norm_epsilon=epsilon)
        for part in (layer.norm1, layer.norm2):
            centered = x - x.mean()
            expected = centered / np.sqrt((centered**2).mean() + epsilon)
            expected = expected * part.gamma.numpy() + part.beta.numpy()
            np.testing.assert_allclose(part(x), expected, rtol=1e-9)


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
    settings = {"ffn": "swiglu", "qkv_bias": False, "layer_norm_epsilon": 1e-5}
    layer = block(
        layer_scale=0.1, drop_path=0.2, mlp_ratio=2.0, initialization="xavier", **settings
    )
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
        ({"ffn": "gated"}, "ffn='gated'"),
        ({"qkv_bias": "value"}, "qkv_bias='value'"),
    ],
)
def test_wrong_settings(arguments, match):
    with pytest.raises(ValueError, match=match):
        TransformerBlock(**{"width": WIDTH, "num_heads": HEADS, **arguments})
