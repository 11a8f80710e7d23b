"""Convolutional backbones, XCiT and Swin: they train, in every precision, and say what is wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, methods, optimizers
from keras_ssl.methods import RunInfo
from tests.backbones.networks import NETWORKS, F, keys, pictures
from tests.without_values import without_values


def blocks_of(network):
    if hasattr(network, "stages"):
        return sum(network.stages, [])
    return [*network.units] if hasattr(network, "units") else network.blocks + network.class_blocks


def step(network):
    """Returns output, gradients and state after one training call, and how often each block was called."""
    x, weight = pictures(network, dtype="float64"), np.linspace(-1, 1, network.feature_dim)
    calls = []
    for block in blocks_of(network):
        original = block.call
        block.call = lambda *args, original=original, **kw: calls.append(1) or original(*args, **kw)

    with tf.GradientTape() as tape:
        h = network(x, training=True, keys=keys())["features"]
        loss = tf.reduce_sum(h**2 * weight)
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    state = [v.numpy() for v in network.non_trainable_variables]
    return h.numpy(), [g.numpy() for g in gradients], state, len(calls) / len(blocks_of(network))


@pytest.mark.parametrize(
    "kind",
    [kind if kind != "vgg" else pytest.param(kind, marks=pytest.mark.slow) for kind in NETWORKS],
)
def test_a_clone_trains_the_same_with_and_without_recomputation(kind):
    """In float64: every variable gets a gradient, and recomputing the blocks changes none of them."""
    plain = NETWORKS[kind](dtype="float64")
    for variable in plain.trainable_variables:  # away from zeros, ones and dead ReLUs
        noise = np.random.default_rng(variable.shape.rank).uniform(0.0, 0.3, variable.shape)
        variable.assign(variable + noise)
    again = type(plain).from_config({**plain.get_config(), "recompute": True})
    assert again.recompute and again.dtype_policy.name == "float64"
    for target, source in zip(again.variables, plain.variables, strict=True):
        assert target.path == source.path
        target.assign(source)
    before = [v.numpy() for v in plain.non_trainable_variables]
    expected, got = step(plain), step(again)
    assert expected[0].dtype == np.float64
    assert (expected[3], got[3]) == (1, 2)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-12)
    norm = np.sqrt(sum(np.sum(g**2) for g in expected[1]))
    for variable, a, b in zip(plain.trainable_variables, expected[1], got[1], strict=True):
        # A bias before a batch-norm, and one that softmax ignores, have a true gradient of 0.
        bias = variable.path.endswith("bias")
        assert bias or np.abs(a).max() > 1e-9 * norm, variable.path
        np.testing.assert_allclose(a, b, atol=1e-9 * norm)
    for a, b in zip(expected[2], got[2], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)  # moved once
    assert not before or any(
        not np.array_equal(a, b) for a, b in zip(before, expected[2], strict=True)
    )


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "kind", ["regnet", "alexnet", "vgg_dilated", "preact", "xcit", "convnext", "swin"]
)
def test_half_precision_keeps_float32_weights_and_nearly_the_numbers(kind, policy):
    wide, half = NETWORKS[kind](), NETWORKS[kind](dtype=policy)
    for target, source in zip(half.variables, wide.variables, strict=True):
        target.assign(source)
    assert {v.dtype for v in half.variables} == {"float32"}
    x = pictures(wide)
    expected, got = wide(x)["features"], half(x)["features"]
    assert got.dtype == half.compute_dtype
    error = np.linalg.norm(np.asarray(got, "float32") - expected) / np.linalg.norm(expected)
    assert error < (0.05 if policy == "mixed_bfloat16" else 0.01)


def moves_every_kernel(network, method, local_size=None, step=lambda model: model.train_step, **kw):
    """Runs one training step of a method on two large views, and three small ones if a size is given."""
    model = method(network, **kw)
    model.compile(optimizers.AdamW(1e-3, weight_decay=0.0), seed=0)
    model.bind(RunInfo(num_samples=8, steps_per_epoch=2, total_steps=2, global_batch=4, replicas=1))
    before = {v.path: v.numpy() for v in network.trainable_variables if "kernel" in v.path}
    two = pictures(network, 8).reshape(2, 4, *pictures(network).shape[1:])
    views = {"global": tf.constant(two), "keys": keys()}
    if local_size:
        small = np.random.default_rng(1).uniform(size=(3, 4, local_size, local_size, 3))
        views["local"] = tf.constant(small, tf.float32)
    logs = step(model)({"views": views})
    assert np.isfinite(float(logs["loss"]))
    for variable in network.trainable_variables:
        if variable.path in before:
            assert np.any(variable.numpy() != before[variable.path]), variable.path


SIMCLR = {"projection_dim": 8, "hidden_dim": 8}


@pytest.mark.parametrize("kind", ["regnet", "alexnet_dense", "vgg", "xcit", "convnext", "swin"])
def test_a_step_of_simclr_moves_every_kernel(kind):
    moves_every_kernel(NETWORKS[kind](), methods.SimCLR, **SIMCLR)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regnet", "alexnet", "vgg", "xcit", "convnext", "swin"])
def test_a_step_of_dino_with_local_views_moves_every_kernel(kind):
    size, local_size = (80, 64) if kind == "alexnet" else (16, 8)
    small = {"num_prototypes": 12, "hidden_dim": 8, "bottleneck_dim": 6}
    network = NETWORKS[kind](image_size=size)
    moves_every_kernel(network, methods.DINO, local_size, freeze_last_layer_epochs=0.0, **small)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regnet", "alexnet_dense", "vgg", "xcit", "convnext", "swin"])
def test_a_step_of_byol_and_one_of_swav_move_every_kernel(kind):
    small, local_size = (
        {"hidden_dim": 8, "projection_dim": 6},
        8 if kind != "alexnet_dense" else None,
    )
    moves_every_kernel(NETWORKS[kind](), methods.BYOL, **small)
    small |= {"num_prototypes": 10, "freeze_prototypes_epochs": 0.0}
    moves_every_kernel(NETWORKS[kind](), methods.SwAV, local_size, **small)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regnet", "xcit", "swin"])
def test_xla_compiles_a_step(kind):
    """Grouped convolutions, gates, drop-path by keys and both kinds of attention, forward and backward."""

    def compiled(model):
        return tf.function(model.train_step, jit_compile=True)

    moves_every_kernel(NETWORKS[kind](), methods.SimCLR, step=compiled, **SIMCLR)


def test_drops_follow_the_keys():
    """Dropout and drop-path depend on the key of the sample only; without keys they are refused."""
    for kind in ("alexnet_dense", "xcit", "convnext", "swin"):
        network = NETWORKS[kind]()
        x = np.repeat(pictures(network, 1), 12, axis=0)
        mixed = tf.concat([tf.repeat(keys(1), 4, axis=0), keys(8)], 0)
        h = network(x, training=True, keys=mixed)["features"].numpy()
        same, other = h[:4], h[4:]
        np.testing.assert_allclose(same, same[:1].repeat(4, 0), rtol=1e-5, atol=1e-6)
        assert np.ptp(other, axis=0).max() > 1e-4
        with pytest.raises(ValueError, match="needs `keys`"):
            network(x, training=True)


@pytest.mark.parametrize(
    "kind", ["alexnet_dense", "alexnet_lab", "vgg_dilated", "preact", "xcit", "swin"]
)
def test_a_saved_model_loads_with_its_weights(kind, tmp_path):
    network = NETWORKS[kind]()
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    x = pictures(network)
    np.testing.assert_array_equal(loaded(x)["features"], network(x)["features"])


@pytest.mark.parametrize(
    "kind", ["regnet", "alexnet", "alexnet_lab", "vgg", "vgg_dilated", "preact", "convnext"]
)
def test_a_traced_convnet_takes_any_size(kind):
    """As an exported one does: height and width are not known while it is traced."""
    network = NETWORKS[kind]()
    free = tf.function(network, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in (network.image_size, network.image_size + 7):
        x = np.random.default_rng(0).uniform(size=(2, size, size + 3, 3)).astype("float32")
        np.testing.assert_allclose(
            free(x)["features"], network(x)["features"], rtol=1e-4, atol=1e-6
        )


def test_lightness_sees_no_color():
    network = backbones.AlexNet(F, lightness=True, image_size=64)
    gray = np.full((1, 64, 64, 3), 0.5, "float32")
    np.testing.assert_allclose(
        network.normalize(gray), 3.3889, atol=1e-3
    )  # L of mid gray is 53.389
    assert network.mean is None
    clone = type(network).from_config(network.get_config())
    assert clone.units[0].layer.kernel.shape == (11, 11, 1, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: backbones.AlexNet(image_size=62), "larger images.*62 pixels"),
        (lambda: backbones.AlexNet((1, 2, 3)), "five entries"),
        (lambda: backbones.AlexNet(F, sobel=True, lightness=True), "at most one of sobel"),
        (lambda: backbones.AlexNet(F, lab=True, lightness=True), "Received: lightness and lab"),
        (lambda: backbones.AlexNet(F, dropout=1.0), "dropout in"),
        (lambda: backbones.DilatedVGG((1, 2)), "one number for each stage"),
        (
            lambda: backbones.DilatedVGG((1, 1), filters=(4, 4), halved=2, dilations=(1, 2)),
            "dilation 1 in the stages that halve",
        ),
        (lambda: backbones.VGG((1, 1)), "one number for each stage"),
        (lambda: backbones.RegNet((1,), (10,), 4), "`group_width` must divide `filters`"),
        (lambda: backbones.RegNet((1, 1), (8,), 4), "one number for each stage"),
        (lambda: backbones.XCiT(8, 1, 3), "`num_heads` must divide `width`"),
        (lambda: backbones.XCiT(8, 1, 2, patch_size=14), "2, 4, 8 or 16"),
        (lambda: backbones.ConvNeXt((1, 1), (4, 8), image_size=7), "at least 8 x 8"),
        (lambda: backbones.ConvNeXt((1,), (4, 8)), "one number for each stage"),
        (
            lambda: NETWORKS["alexnet_dense"]()(np.zeros((1, 128, 128, 3), "float32")),
            r"dense layers were built for, \(1, 1, 8\).*\(3, 3, 8\)",
        ),
        (lambda: NETWORKS["vgg"]()(np.zeros((1, 3, 16, 3), "float32")), "Received: 3 x 16 pixels"),
        (
            lambda: NETWORKS["xcit"]()(np.zeros((1, 16, 16, 3), "float32"), mask=[1]),
            "only a ViT can leave out or hide patches. Received: XCiT with keep=None, mask=",
        ),
        (
            lambda: tf.function(NETWORKS["xcit"]()).get_concrete_function(
                tf.TensorSpec((None, None, 16, 3))
            ),
            r"known height and width.* Received: shape=\(None, None, 16, 3\)",
        ),
    ],
)
def test_what_does_not_work_is_said(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_names_build_at_small_sizes():
    with without_values():
        assert backbones.build("xcit_small_12", image_size=32).patch_size == 4
        assert backbones.build("xcit_small_12").patch_size == 16
        assert backbones.build("convnext_tiny", image_size=32).feature_dim == 768
        for size, patch, window in ((32, 2, 4), (64, 2, 4), (65, 4, 7), (None, 4, 7)):
            swin = backbones.build("swin_tiny", image_size=size)
            assert (swin.patch_size, swin.settings["window_size"]) == (patch, window)
        assert backbones.build("vgg16", image_size=32).last_map == (1, 1, 512)
        assert backbones.build("alexnet").last_map == (6, 6, 256)
