"""What SimCLR, BYOL and colorization add to the ResNet: selective kernels, other paddings, a last stage without
stride, lightness; trained, saved and compiled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones
from keras_ssl.backbones import ResNet
from keras_ssl.backbones.residual import SelectiveKernel
from keras_ssl.conversion import LAYOUTS, convert
from keras_ssl.conversion.references import numpy_resnets
from tests.conversion import fixtures

PLAN = {"blocks": (1, 2), "filters": (4, 6)}
KINDS = {
    "selective": {"padding": "simclr", "selective_kernels": True},
    "same": {"padding": "same"},
    "colorization": {"last_stride": 1, "lightness": True},
}


def network(kind, **settings):
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "image_size": 32}
    return ResNet(**{**PLAN, **plain, **KINDS[kind], **settings})


def filled(kind, **settings):
    """A network with running statistics and gammas that matter."""
    made, rng = network(kind, **settings), np.random.default_rng(0)
    for variable in made.variables:
        positive = "gamma" in variable.path or "variance" in variable.path
        if "kernel" not in variable.path:
            variable.assign(rng.uniform(0.5 if positive else -0.5, 1.0, variable.shape))
    return made


@pytest.mark.parametrize("training", [False, True])
def test_selective_kernels_equal_the_reference_in_float64(training):
    """Batch statistics too, those of the squeezed means included."""
    tensors = fixtures.random_tensors(fixtures.simclr_shapes(**PLAN, selective=True))
    made = network("selective", dtype="float64")
    convert({f"base_model/{k}": v for k, v in tensors.items()}, made, LAYOUTS["simclr_tf1"])
    images = fixtures.pictures((33, 40), batch=4).astype(np.float64)
    expected = numpy_resnets.simclr(tensors, images, PLAN["blocks"], True, training)
    got = made(images, training=training)
    np.testing.assert_allclose(got["map"], expected["map"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got["features"], expected["features"], rtol=1e-9, atol=1e-9)


def test_mixing_weights_by_hand():
    """The first stream is 2 everywhere, the second 1. With scores ln 3 and 0 the mix is 3/4 of 2 and 1/4 of 1."""
    layer = SelectiveKernel(1, 1)
    layer.build((None, 4, 4, 1))
    layer.streams.kernel.assign(np.zeros((3, 3, 1, 2)))
    layer.streams_norm.beta.assign([2.0, 1.0])
    layer.squeeze.kernel.assign(np.ones((1, 1, 1, 32)))
    layer.squeeze_norm.moving_mean.assign(np.full(32, 2.0))  # the mean of the sum is 3
    layer.squeeze_norm.epsilon = 1e-12
    expand = np.zeros((1, 1, 32, 2))
    expand[..., 0] = np.log(3.0) / 32
    layer.expand.kernel.assign(expand)
    got = layer(np.zeros((1, 4, 4, 1), np.float32))
    np.testing.assert_allclose(got, np.full((1, 4, 4, 1), 1.75), rtol=1e-5)
    layer.expand.kernel.assign(expand * 1e4)  # no overflow
    np.testing.assert_allclose(
        layer(np.zeros((1, 4, 4, 1), np.float32)), np.full((1, 4, 4, 1), 2.0)
    )


@pytest.mark.parametrize("size", [31, 32, 33])
def test_same_padding_is_that_of_keras_layers(size):
    """Convolution and max-pool of the stem against `keras.layers` with `padding="same"`."""
    made = network("same", blocks=(1,), filters=(4,))
    images = fixtures.pictures(size)
    conv = keras.layers.Conv2D(4, 7, 2, padding="same", use_bias=False)
    conv.build((None, size, size, 3))
    conv.kernel.assign(made.stem_conv.kernel)
    x = keras.layers.MaxPool2D(3, 2, padding="same")(tf.nn.relu(made.stem_norm(conv(images))))
    expected = made.stages[0][0](x)
    np.testing.assert_allclose(made(images)["map"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_trainable_variable(kind):
    made = filled(kind)
    images = fixtures.pictures(40, batch=4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(images, training=True)["features"] ** 2)
    gradients = tape.gradient(loss, [v.value for v in made.trainable_variables])
    for variable, gradient in zip(made.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("xla", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_recompute_and_xla_change_nothing(kind, xla):
    """Features, the whole gradient and the running statistics of a training step."""
    made = filled(kind, blocks=(1, 1), filters=(2, 4))
    images = fixtures.pictures(40, batch=4)
    state = made.get_weights()

    def step():
        with tf.GradientTape() as tape:
            features = made(images, training=True)["features"]
            loss = tf.reduce_sum(features**2)
        gradients = tape.gradient(loss, [v.value for v in made.trainable_variables])
        return features, tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    expected = step()
    moved = made.get_weights()
    made.set_weights(state)
    made.recompute = True
    got = tf.function(step, jit_compile=True)() if xla else step()
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=1e-4)
    assert np.linalg.norm(got[1] - expected[1]) < 1e-3 * np.linalg.norm(expected[1])
    for a, b in zip(moved, made.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_mixed_precision(kind, policy):
    made, exact = filled(kind, dtype=policy), filled(kind)
    images = fixtures.pictures(40)
    got = made(images)["features"]
    assert got.dtype == made.compute_dtype and {v.dtype for v in made.variables} == {"float32"}
    exact.set_weights(made.get_weights())
    expected = exact(images)["features"]
    assert np.abs(tf.cast(got, "float32") - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
def test_clone_and_saving(kind, tmp_path):
    made = filled(kind)
    paths = [v.path for v in made.variables]
    assert len(set(paths)) == len(paths)
    clone = ResNet.from_config(made.get_config())
    assert [v.path for v in clone.variables] == paths
    made.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    images = fixtures.pictures(40)
    np.testing.assert_array_equal(loaded(images)["features"], made(images)["features"])


def test_configs_from_before_still_load():
    """Without the new settings a network is what it was: PyTorch's padding, plain blocks."""
    config = ResNet(**PLAN, image_size=32).get_config()
    new = {"padding": "torch", "selective_kernels": False, "last_stride": 2, "lightness": False}
    old = {k: v for k, v in config.items() if k not in new}
    assert ResNet.from_config(old).get_config() == config
    assert {key: config[key] for key in new} == new


@pytest.mark.parametrize(
    ("blocks", "last_stride", "sides"),
    [
        ((1,), 2, [16]),
        ((1,), 1, [16]),
        ((1, 1), 1, [16, 16]),
        ((1, 2, 1, 2), 2, [16, 8, 4, 2]),
        ((1, 2, 1, 2), 1, [16, 8, 4, 4]),
    ],
)
def test_sides_of_the_maps(blocks, last_stride, sides):
    """64 pixels: the stem gives 16."""
    filters = (4, 6, 8, 10)[: len(blocks)]
    made = ResNet(blocks, filters=filters, last_stride=last_stride, image_size=64)
    maps = made(fixtures.pictures(64), output="layers")["layers"]
    assert [x.shape[1] for x in maps] == sides


def test_lightness_sees_no_color():
    """Two images of one lightness and other colors give one answer; gray of 0.5 is L = 53.389."""
    made = filled("colorization", mean=(0.3,) * 3, std=(0.2,) * 3)
    assert (made.mean, made.std, made.stem_conv.kernel.shape) == (None, None, (7, 7, 1, 4))
    gray = np.full((1, 32, 32, 3), 0.5, np.float32)
    np.testing.assert_allclose(made.normalize(gray), np.full((1, 32, 32, 1), 3.3889), atol=1e-3)
    linear = np.array([0.0, 0.21404114 / 0.715160, 0.0])  # all of gray's luminance in green
    green = np.where(linear > 0, 1.055 * linear ** (1 / 2.4) - 0.055, 0.0).astype(np.float32)
    x = np.random.default_rng(0).uniform(0.2, 0.8, (1, 32, 32, 3)).astype(np.float32)
    y = x.copy()
    x[:, 8:24, 8:24], y[:, 8:24, 8:24] = gray[0, 0, 0], green
    assert np.abs(x - y).max() > 0.2
    one, two = made(x)["features"], made(y)["features"]
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"padding": "valid"}, "padding='valid'"),
        ({"last_stride": 3}, "last_stride=3"),
        ({"selective_kernels": True, "bottleneck": False}, "Received: bottleneck=False"),
    ],
)
def test_wrong_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        ResNet(**PLAN, **settings)


def test_selective_stem_is_that_of_small_images_where_asked():
    """SimCLR's stem for 32 pixels is one convolution, selective kernels or not."""
    made = backbones.build("resnet_mini", bottleneck=True, selective_kernels=True)
    assert len(made.stem_convs) == 1 and made.stem_conv.kernel.shape == (3, 3, 3, 24)
    assert network("selective").stem_convs[0].kernel.shape == (3, 3, 3, 2)
