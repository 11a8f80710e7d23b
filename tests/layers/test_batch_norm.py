"""Batch-norm against the formula, against itself on two replicas, and in low precision."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import BatchNormalization


class TwoPass(BatchNormalization):
    """The layer without TensorFlow's fused kernel."""

    _fusible = False


def reference(x, gamma, beta, epsilon=1e-5):
    """Output, mean and unbiased variance, channel by channel in float64."""
    x = np.asarray(x, "float64")
    y, means, variances = np.empty_like(x), [], []
    for channel in range(x.shape[-1]):
        values = x[..., channel].ravel()
        mean = sum(values) / len(values)
        deviations = values - mean
        variance = sum(deviations**2) / len(values)
        y[..., channel] = (
            gamma[channel] * (x[..., channel] - mean) / np.sqrt(variance + epsilon) + beta[channel]
        )
        means.append(mean)
        variances.append(sum(deviations**2) / (len(values) - 1))
    return y, np.array(means), np.array(variances)


def filled(layer, shape):
    """Builds the layer and gives gamma and beta values that are not trivial."""
    layer.build((None, *shape[1:]))
    channels = shape[-1]
    layer.gamma.assign(np.linspace(0.5, 2.0, channels))
    layer.beta.assign(np.linspace(-1.0, 1.0, channels))
    return layer


def test_by_hand():
    """x = 1, 3: mean 2, variance 1, y = -+1/sqrt(1 + eps); unbiased variance 2, so running ones 0.2 and 0.9 + 0.2."""
    layer = BatchNormalization()
    y = layer(tf.constant([[1.0], [3.0]]), training=True)
    np.testing.assert_allclose(y, [[-0.999995], [0.999995]], atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.2], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [1.1], rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 3), (4, 5, 3), (3, 4, 5, 3)])
@pytest.mark.parametrize("cls", [BatchNormalization, TwoPass])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_the_formula(shape, cls, dtype):
    layer = filled(cls(momentum=0.7, dtype=dtype), shape)
    mean, variance = np.zeros(3), np.ones(3)
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    for step in range(3):
        x = np.random.default_rng(step).normal(3.0, 2.0, shape)
        y = layer(tf.constant(x, dtype), training=True)
        expected, batch_mean, batch_variance = reference(x, gamma, beta)
        mean = 0.7 * mean + 0.3 * batch_mean
        variance = 0.7 * variance + 0.3 * batch_variance
        assert y.dtype == dtype
        np.testing.assert_allclose(
            y, expected, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12
        )
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=tolerance)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=tolerance)
    inference = layer(tf.constant(x, dtype))
    np.testing.assert_allclose(
        inference, gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, rtol=1e-4, atol=1e-5
    )


def gradients(layer, x, weights, training):
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(weights * layer(x, training=training) ** 2)
    return tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(32, 6), (4, 8, 8, 6)])
def test_fused_gradients_equal_two_pass(shape, training):
    x, weights = tf.random.normal(shape, 1.0, 2.0), tf.random.normal(shape)
    fused = gradients(filled(BatchNormalization(), shape), x, weights, training)
    slow = gradients(filled(TwoPass(), shape), x, weights, training)
    for one, other in zip(fused, slow, strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("cls", [BatchNormalization, TwoPass])
def test_a_large_mean_costs_no_digits(cls):
    """E[x^2] - E[x]^2 at mean 1000 and deviation 1 would lose six of float32's seven digits."""
    x = np.float32(1000.0) + np.random.default_rng(0).normal(size=(512, 2)).astype("float32")
    layer = cls(momentum=0.0)
    y = layer(x, training=True)
    expected, _, variance = reference(x, np.ones(2), np.zeros(2))
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(y, expected, atol=1e-3)


def test_options_make_the_variables():
    def names(**options):
        layer = BatchNormalization(**options)
        layer.build((None, 4))
        return [variable.name for variable in layer.variables], len(layer.trainable_variables)

    running = ["moving_mean", "moving_variance"]
    assert names() == (["gamma", "beta", *running], 2)
    assert names(center=False) == (["gamma", *running], 1)
    assert names(center=False, scale=False) == (running, 0)


@pytest.mark.parametrize("cls", [BatchNormalization, TwoPass])
def test_without_center_and_scale(cls):
    x = np.random.default_rng(0).normal(2.0, 3.0, (16, 4))
    y = cls(center=False, scale=False)(x.astype("float32"), training=True)
    np.testing.assert_allclose(y, reference(x, np.ones(4), np.zeros(4))[0], atol=1e-5)


def test_zero_gamma_starts_as_beta():
    y = BatchNormalization(gamma_initializer="zeros")(tf.random.normal((8, 3)), training=True)
    np.testing.assert_array_equal(y, np.zeros((8, 3)))


def test_frozen_layer_uses_running_statistics_and_keeps_them():
    layer = BatchNormalization(trainable=False)
    x = tf.constant([[1.0], [3.0]])
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1 + 1e-5), rtol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean, [0.0])


def test_frozen_variables_leave_batch_statistics_on():
    layer = filled(BatchNormalization(), (2, 1))
    layer.gamma.trainable = layer.beta.trainable = False
    layer(tf.constant([[1.0], [3.0]]), training=True)
    assert layer.trainable_variables == []
    np.testing.assert_allclose(layer.moving_mean, [0.2], rtol=1e-6)


@pytest.mark.parametrize("cls", [BatchNormalization, TwoPass])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_keeps_statistics_in_float32(cls, policy):
    """The mean of 4,096 values near 300 needs more than the 8 or 11 bits of the half types."""
    layer = cls(momentum=0.0, dtype=policy)
    x = tf.cast(300.0 + 16.0 * tf.random.normal((64, 8, 8, 2)), layer.compute_dtype)
    y = layer(x, training=True)
    expected, mean, variance = reference(tf.cast(x, "float64"), np.ones(2), np.zeros(2))
    assert y.dtype == layer.compute_dtype
    assert layer.moving_mean.dtype == layer.gamma.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(tf.cast(y, "float64"), expected, atol=0.03)
    assert layer(x).dtype == layer.compute_dtype


def test_config_round_trip():
    layer = BatchNormalization(
        0.8,
        1e-3,
        center=False,
        synchronized=False,
        gamma_initializer="zeros",
        name="norm",
        dtype="mixed_bfloat16",
    )
    clone = BatchNormalization.from_config(layer.get_config())
    assert clone.get_config() == layer.get_config()
    assert (clone.momentum, clone.epsilon, clone.center, clone.synchronized) == (
        0.8,
        1e-3,
        False,
        False,
    )
    assert isinstance(clone.gamma_initializer, keras.initializers.Zeros)


def test_graph_equals_eager():
    x = tf.random.normal((4, 6, 6, 3))
    eager, graph = (filled(BatchNormalization(), x.shape) for _ in range(2))
    compiled = tf.function(
        lambda x: graph(x, training=True), input_signature=[tf.TensorSpec((None, 6, 6, 3))]
    )
    np.testing.assert_allclose(compiled(x), eager(x, training=True), atol=1e-6)
    np.testing.assert_allclose(graph.moving_variance, eager.moving_variance, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"), [({"momentum": 1.0}, "momentum=1.0"), ({"epsilon": 0.0}, "epsilon=0.0")]
)
def test_wrong_options(options, match):
    with pytest.raises(ValueError, match=match):
        BatchNormalization(**options)


@pytest.mark.parametrize("shape", [(3,), (None, None)])
def test_wrong_shapes(shape):
    with pytest.raises(ValueError, match="input_shape="):
        BatchNormalization().build(shape)


TWO_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from keras_ssl.layers import BatchNormalization

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x = rng.normal(5.0, 2.0, (8, 3, 3, 4)) * np.arange(1, 9)[:, None, None, None]
weights = rng.normal(size=x.shape)


def step(layer, x, weights):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(weights * y**2)
    return y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


def replicas(dtype, synchronized):
    with strategy.scope():
        layer = BatchNormalization(dtype=dtype, synchronized=synchronized)
        layer.build(x.shape)

    def part(context):
        i = context.replica_id_in_sync_group
        return tf.constant(x, dtype)[4 * i : 4 * i + 4], tf.constant(weights, dtype)[4 * i : 4 * i + 4]

    x2, weights2 = strategy.run(lambda: part(tf.distribute.get_replica_context()))
    out = tf.function(lambda a, b: strategy.run(step, args=(layer, a, b)))(x2, weights2)
    y, dx = (np.concatenate(strategy.experimental_local_results(v)) for v in out[:2])
    dgamma, dbeta = (sum(strategy.experimental_local_results(v)).numpy() for v in out[2:])
    for variable in layer.variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second)
    return (y, dx, dgamma, dbeta), layer


def whole(layer, x, weights):
    layer.build(x.shape)
    return [v.numpy() for v in step(layer, tf.constant(x, layer.dtype), tf.constant(weights, layer.dtype))]


for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
    results, layer = replicas(dtype, True)
    single = BatchNormalization(dtype=dtype)
    for one, other in zip(results, whole(single, x, weights), strict=True):
        assert np.abs(one - other).max() < tolerance * np.abs(other).max(), (dtype, np.abs(one - other).max())
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(layer, name), getattr(single, name), rtol=tolerance)

results, layer = replicas("float64", False)
halves = [BatchNormalization(dtype="float64") for _ in range(2)]
parts = [whole(half, x[4 * i : 4 * i + 4], weights[4 * i : 4 * i + 4]) for i, half in enumerate(halves)]
np.testing.assert_allclose(results[0], np.concatenate([part[0] for part in parts]), rtol=1e-12)
assert np.abs(parts[0][0] - whole(BatchNormalization(dtype="float64"), x, weights)[0][:4]).max() > 0.1
for name in ("moving_mean", "moving_variance"):
    np.testing.assert_allclose(getattr(layer, name), sum(getattr(h, name).numpy() for h in halves) / 2, rtol=1e-12)
print("equal")
"""


def test_two_replicas_equal_one(subprocess_env):
    """Outputs, gradients and running statistics; unsynchronized replicas differ, but not in running statistics."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS],
        env=subprocess_env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
