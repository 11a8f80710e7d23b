"""The heads of the papers: what they are made of and what they compute."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from keras_ssl.layers import MLP

HEADS = {
    # name: widths, settings, names of the variables that are trained
    "simclr": (
        (8, 4),
        {"use_bias": False, "output_norm": "scale", "kernel_initializer": "zeros"},
        ["dense0/kernel", "norm0/gamma", "norm0/beta", "dense1/kernel", "norm1/gamma"],
    ),
    "swav": (
        (8, 4),
        {},
        [
            "dense0/kernel",
            "dense0/bias",
            "norm0/gamma",
            "norm0/beta",
            "dense1/kernel",
            "dense1/bias",
        ],
    ),
    "byol": (
        (8, 4),
        {"output_bias": False},
        ["dense0/kernel", "dense0/bias", "norm0/gamma", "norm0/beta", "dense1/kernel"],
    ),
    "moco_v3": (
        (8, 4),
        {"use_bias": False, "output_norm": "plain"},
        ["dense0/kernel", "norm0/gamma", "norm0/beta", "dense1/kernel"],
    ),
    "dino": (
        (8, 8, 4),
        {"activation": "gelu", "hidden_norm": False},
        [f"dense{i}/{name}" for i in range(3) for name in ("kernel", "bias")],
    ),
    "simsiam": (
        (8, 4),
        {"use_bias": False, "output_norm": "full"},
        [
            "dense0/kernel",
            "norm0/gamma",
            "norm0/beta",
            "dense1/kernel",
            "norm1/gamma",
            "norm1/beta",
        ],
    ),
}


def fill(layer, seed=0):
    """Gives every variable a value that is not trivial."""
    rng = np.random.default_rng(seed)
    for variable in layer.variables:
        low = 0.5 if "variance" in variable.name or "gamma" in variable.name else -1.0
        variable.assign(rng.uniform(low, 1.5, variable.shape))


def reference(layer, x):
    """Linear, batch-norm by batch statistics, activation, layer by layer in float64."""
    values = {
        variable.path.split("/", 1)[1]: variable.numpy().astype("float64")
        for variable in layer.variables
    }
    last = len(layer.widths) - 1
    for i in range(last + 1):
        x = x @ values[f"dense{i}/kernel"] + values.get(f"dense{i}/bias", 0.0)
        if f"norm{i}/moving_mean" in values:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
            x = x * values.get(f"norm{i}/gamma", 1.0) + values.get(f"norm{i}/beta", 0.0)
        if i < last:
            x = (
                np.maximum(x, 0)
                if layer.activation == "relu"
                else 0.5 * x * (1 + erf(x / np.sqrt(2)))
            )
    return x


@pytest.mark.parametrize("head", HEADS)
def test_heads_have_their_variables_and_their_formula(head):
    widths, settings, names = HEADS[head]
    layer = MLP(widths, dtype="float64", name="head", **settings)
    layer.build((None, 6))
    assert sorted(v.path for v in layer.trainable_variables) == sorted(
        f"head/{name}" for name in names
    )
    fill(layer)
    x = np.random.default_rng(1).normal(size=(16, 6))
    expected = reference(layer, x)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-9, atol=1e-9)
    assert np.abs(layer(x, training=False) - expected).max() > 1e-3 or "norm" not in " ".join(names)


def test_output_norms_center_or_not():
    """Without beta every output has mean 0 over the batch; without gamma its variance is 1, whatever the input."""
    x = tf.random.normal((64, 6)) + 3.0
    layer = MLP((8, 4), output_norm="plain")
    z = layer(x, training=True).numpy()
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(z.var(0), 1.0, atol=1e-3)
    layer = MLP((8, 4), output_norm="scale")
    layer.build((None, 6))
    layer.norms[-1].gamma.assign([1.0, 2.0, 3.0, 4.0])
    z = layer(x, training=True).numpy()
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), [1.0, 2.0, 3.0, 4.0], rtol=1e-3)


def test_initial_kernels():
    layer = MLP((256, 256, 256))
    layer.build((None, 256))
    first, second, third = (dense.kernel.numpy() for dense in layer.dense_layers)
    assert np.abs(first).max() <= 1 / 16 and np.isclose(first.std(), 1 / 16 / np.sqrt(3), rtol=0.02)
    normal = MLP((256, 256), kernel_initializer=keras.initializers.RandomNormal(stddev=0.01))
    normal.build((None, 256))
    one, two = (dense.kernel.numpy() for dense in normal.dense_layers)
    np.testing.assert_allclose([one.std(), two.std()], 0.01, rtol=0.02)
    for a, b in ((first, second), (second, third), (one, two)):
        assert not np.array_equal(a, b)
    for dense in layer.dense_layers:
        assert not np.any(dense.bias)


def test_seed_fixes_the_kernels():
    def kernel():
        keras.utils.set_random_seed(3)
        layer = MLP((4, 4))
        layer.build((None, 4))
        return layer.dense_layers[1].kernel.numpy()

    np.testing.assert_array_equal(kernel(), kernel())


def test_gelu_is_exact():
    """0.8413 = Phi(1); the tanh formula gives 0.84119 at 1 and differs by 2e-4 at 2."""
    layer = MLP(
        (1, 1), activation="gelu", hidden_norm=False, use_bias=False, kernel_initializer="ones"
    )
    np.testing.assert_allclose(
        layer(tf.constant([[1.0], [2.0]])), [[0.8413447], [1.9544997]], rtol=1e-6
    )


def test_mixed_precision_and_config():
    layer = MLP(
        (8, 4),
        output_norm="scale",
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype="mixed_bfloat16",
        synchronized=False,
        name="projector",
    )
    assert layer(tf.random.normal((4, 6)), training=True).dtype == tf.bfloat16
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    clone = MLP.from_config(layer.get_config())
    clone.build((None, 6))
    assert clone.get_config() == layer.get_config()
    assert [v.path for v in clone.variables] == [v.path for v in layer.variables]
    assert not clone.norms[0].synchronized and clone.dense_layers[0].compute_dtype == "bfloat16"


def test_saved_in_a_model(tmp_path):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, MLP((8, 4), output_norm="plain")(inputs))
    fill(model)
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("widths", "settings", "match"),
    [
        ((), {}, r"widths=\(\)"),
        ((8, 0), {}, r"widths=\(8, 0\)"),
        ((8,), {"output_norm": "gamma"}, "output_norm='gamma'"),
        ((8,), {"activation": "tanh"}, "activation='tanh'"),
    ],
)
def test_wrong_settings(widths, settings, match):
    with pytest.raises(ValueError, match=match):
        MLP(widths, **settings)
