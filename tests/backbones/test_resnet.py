"""ResNet against a slow NumPy network, and the numbers everyone knows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones
from keras_ssl.backbones import ResNet

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def tiny(**settings):
    """A few channels a stage, with variables that all matter."""
    defaults = {"blocks": (1, 2), "filters": (4, 6), "image_size": 32, "dtype": "float64"}
    model = ResNet(**{**defaults, **settings})
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "gamma" in variable.path or "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "kernel" not in variable.path:
            variable.assign(rng.normal(0.0, 0.3, variable.shape))
    return model


def convolve(x, kernel, stride=1):
    """Cross-correlation with k // 2 zeros on every side; a loop over the places of the kernel."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    out = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i in range(size):
        for j in range(size):
            cut = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            out += cut @ kernel[i, j]
    return out


def max_pool(x):
    """3x3, stride 2, one pixel of -inf around."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = ((length - 3) // 2 + 1 for length in x.shape[1:3])
    cuts = [x[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
    return np.max(cuts, axis=0)


class Reference:
    """The network from torchvision's definition, on the variables of a model."""

    def __init__(self, model, training):
        self.v = {
            v.path.removeprefix("backbone/"): v.numpy().astype("float64") for v in model.variables
        }
        self.settings, self.training, self.running = model.settings, training, {}

    def norm(self, x, name):
        mean, variance = (self.v[f"{name}/moving_{which}"] for which in ("mean", "variance"))
        if self.training:
            count = x.size // x.shape[-1]
            batch_mean, batch_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.running[f"{name}/moving_mean"] = 0.9 * mean + 0.1 * batch_mean
            unbiased = batch_variance * count / (count - 1)
            self.running[f"{name}/moving_variance"] = 0.9 * variance + 0.1 * unbiased
            mean, variance = batch_mean, batch_variance
        scale = self.v[f"{name}/gamma"] / np.sqrt(variance + 1e-5)
        return (x - mean) * scale + self.v[f"{name}/beta"]

    def block(self, x, name, stride):
        shortcut = x
        sizes = (1, 3, 1) if self.settings["bottleneck"] else (3, 3)
        for i, _ in enumerate(sizes, start=1):
            if i > 1:
                x = np.maximum(x, 0)
            strided = i == sizes.index(3) + 1
            x = self.norm(
                convolve(x, self.v[f"{name}/conv{i}/kernel"], stride if strided else 1),
                f"{name}/norm{i}",
            )
        if f"{name}/shortcut_conv/kernel" in self.v:
            shortcut = self.norm(
                convolve(shortcut, self.v[f"{name}/shortcut_conv/kernel"], stride),
                f"{name}/shortcut_norm",
            )
        return np.maximum(x + shortcut, 0)

    def __call__(self, images):
        big = self.settings["stem"] == "imagenet"
        x = convolve((images - MEAN) / STD, self.v["stem_conv/kernel"], 2 if big else 1)
        x = np.maximum(self.norm(x, "stem_norm"), 0)
        x = max_pool(x) if big else x
        for stage, count in enumerate(self.settings["blocks"], start=1):
            for index in range(count):
                x = self.block(
                    x, f"stage{stage}_block{index}", 2 if stage > 1 and index == 0 else 1
                )
        return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"bottleneck": True}, (32, 32)),
        ({"bottleneck": False}, (33, 30)),
        ({"bottleneck": False, "stem": "cifar", "width": 2}, (8, 8)),
        ({"bottleneck": True, "stem": "cifar", "dtype": "float32"}, (9, 9)),
    ],
)
def test_equals_the_reference(settings, size, training):
    model = tiny(**settings)
    images = np.random.default_rng(1).uniform(size=(3, *size, 3)).astype(model.dtype)
    reference = Reference(model, training)
    expected = reference(images)
    y = model(images, training=training)
    tolerance = 1e-4 if model.dtype == "float32" else 1e-9
    assert np.abs(expected).max() > 0.1
    assert y["map"].dtype == y["features"].dtype == model.dtype
    np.testing.assert_allclose(y["map"], expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(y["features"], expected.mean((1, 2)), rtol=tolerance, atol=tolerance)
    moved = {v.path.removeprefix("backbone/"): v.numpy() for v in model.non_trainable_variables}
    assert set(reference.running) == (set(moved) if training else set())
    for name, value in reference.running.items():
        np.testing.assert_allclose(moved[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "settings", "count", "feature_dim"),
    [
        ("resnet18", {}, 11_176_512, 512),
        ("resnet50", {}, 23_508_032, 2048),
        ("resnet50", {"width": 2}, 93_907_072, 4096),
    ],
)
def test_parameters_equal_torchvision(name, settings, count, feature_dim):
    """torchvision without fc; w2: SwAV's "94M"."""
    model = backbones.build(name, **settings)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == count
    assert model.feature_dim == feature_dim
    if name == "resnet50" and not settings:
        assert sum(int(np.prod(v.shape)) for v in model.non_trainable_variables) == 53_120


def test_width_scales_every_channel():
    """VISSL's rule, on ResNet-50's first block: stem 128, inside 128, out 512."""
    model = ResNet((1,), filters=(64,), width=2, image_size=32)
    shapes = {v.path.removeprefix("backbone/"): tuple(v.shape) for v in model.trainable_variables}
    assert shapes["stem_conv/kernel"] == (7, 7, 3, 128)
    assert shapes["stage1_block0/conv1/kernel"] == (1, 1, 128, 128)
    assert shapes["stage1_block0/conv3/kernel"] == (1, 1, 128, 512)


def test_initial_values():
    model = ResNet((1,), filters=(64,), bottleneck=False, zero_init_residual=True, image_size=32)
    block = model.stages[0][0]
    np.testing.assert_array_equal(block.norms[0].gamma, np.ones(64))
    np.testing.assert_array_equal(block.norms[1].gamma, np.zeros(64))
    np.testing.assert_allclose(
        block.convs[0].kernel.numpy().std(), np.sqrt(2 / (9 * 64)), rtol=0.02
    )
    np.testing.assert_allclose(
        model.stem_conv.kernel.numpy().std(), np.sqrt(2 / (49 * 64)), rtol=0.05
    )
    assert not np.array_equal(block.convs[0].kernel, block.convs[1].kernel)
    x = tf.nn.relu(tf.random.normal((2, 4, 4, 64)))
    np.testing.assert_array_equal(block(x, training=True), x)


def test_layers_are_the_maps_of_the_stages():
    model = tiny(stem="cifar")
    y = model(np.zeros((1, 8, 8, 3)), output="layers")
    assert [tuple(m.shape) for m in y["layers"]] == [(1, 8, 8, 16), (1, 4, 4, 24)]
    np.testing.assert_array_equal(y["layers"][-1], y["map"])


def test_gradient_reaches_every_trainable_variable():
    model = tiny()
    images = np.random.default_rng(1).uniform(size=(3, 32, 32, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True)["features"] ** 2)
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, [v.value for v in model.trainable_variables]),
        strict=True,
    ):
        assert gradient is not None and np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    """The images are normalized in float32: 0.5 and 0.5 + 1/1024 are one number in bfloat16."""
    model, exact = tiny(dtype=policy), tiny()
    exact.set_weights(model.get_weights())
    images = np.random.default_rng(1).uniform(size=(3, 32, 32, 3)).astype("float32")
    y = model(images)
    assert y["features"].dtype == model.compute_dtype
    assert {v.dtype for v in model.variables} == {"float32"}
    assert model.normalize(images).dtype == tf.float32
    expected = exact(images.astype("float64"))["features"]
    assert (
        np.abs(tf.cast(y["features"], "float64") - expected).max() < 0.05 * np.abs(expected).max()
    )


def test_images_are_normalized_before_they_lose_bits():
    """0.5 and 0.5 + 2^-10 are one number in bfloat16; normalized first they are two."""
    model = tiny(dtype="mixed_bfloat16")
    value = np.full((1, 2, 2, 3), 0.5) + np.array([0.0, 2.0**-10])[None, :, None, None]
    seen = []
    model.stem_conv.call = lambda x: seen.append(x) or tf.zeros((1, 2, 2, 4), x.dtype)
    model(tf.constant(value, "float32"))
    assert seen[0].dtype == tf.bfloat16
    np.testing.assert_array_equal(seen[0], tf.cast((value - MEAN) / STD, "bfloat16"))


def test_clone_paths_and_saving(tmp_path):
    model = tiny(
        stem="cifar", zero_init_residual=True, synchronized=False, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths) and paths[0] == "backbone/stem_conv/kernel"
    clone = ResNet.from_config(model.get_config())
    assert [v.path for v in clone.variables] == paths
    assert clone.get_config() == model.get_config()
    assert not clone.stem_norm.synchronized and clone.mean == (0.5,) * 3
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert [v.path for v in loaded.variables] == paths
    images = np.random.default_rng(1).uniform(size=(2, 8, 8, 3))
    np.testing.assert_array_equal(loaded(images)["features"], model(images)["features"])


def test_frozen_clone_stays_frozen():
    model = tiny(stem="cifar")
    model.trainable = False
    clone = ResNet.from_config(model.get_config())
    before = clone.stem_norm.moving_mean.numpy()
    clone(np.random.default_rng(1).uniform(size=(2, 8, 8, 3)), training=True)
    assert clone.trainable_variables == []
    np.testing.assert_array_equal(clone.stem_norm.moving_mean, before)


def test_in_a_functional_model():
    inputs = keras.Input((8, 8, 3))
    backbone = tiny(stem="cifar", dtype="float32")
    model = keras.Model(inputs, keras.layers.Dense(5)(backbone(inputs)["features"]))
    assert model(np.zeros((2, 8, 8, 3), "float32")).shape == (2, 5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"x": np.zeros((1, 8, 8, 3), "uint8")}, "dtype=uint8"),
        ({"x": np.zeros((1, 8, 8, 1))}, r"shape=\(1, 8, 8, 1\)"),
        ({"output": "attention"}, "output='attention'"),
        (
            {"keep": np.zeros((1, 1), "int32")},
            "only a ViT can leave out or hide patches. Received: ResNet",
        ),
    ],
)
def test_wrong_calls(call, match):
    with pytest.raises(ValueError, match=match):
        tiny(stem="cifar")(**{"x": np.zeros((1, 8, 8, 3)), **call})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"stem": "patch"}, "stem='patch'"),
        ({"blocks": (1, 1, 1)}, r"blocks=\(1, 1, 1\)"),
        ({"width": 0}, "width=0"),
        ({"image_size": 0}, "image_size=0"),
    ],
)
def test_wrong_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        tiny(**settings)
