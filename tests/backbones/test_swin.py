"""Swin: windows, shifts and masks by hand and by what one place can see; sizes, precisions, compilation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones, random
from keras_ssl.layers import PatchMerging, WindowBlock, relative_positions, shift_mask
from keras_ssl.pretraining.build import backbone_settings


def swin(**settings):
    """Four stages; windows of 3, in the last stages of 2 and 1; shifted by 1 in the first two."""
    settings = {"image_size": 40, "window_size": 3, "width": 8, "blocks": (2, 2, 1, 1)} | settings
    return backbones.Swin(num_heads=(1, 2, 4, 8), **settings)


def block(window, shift, grid, width=4):
    layer = WindowBlock(width, 2, window, shift=shift, name="block")
    layer.build((None, *grid, width))
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(variable + rng.normal(size=variable.shape))
    return layer


def noise(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def test_relative_positions_by_hand():
    """Window 2, a table of 3 x 3: the middle is a place itself; a key one column on is one entry before it."""
    expected = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(relative_positions(2), expected)
    for window in (1, 3, 7):
        index = relative_positions(window)
        assert set(index.ravel()) == set(range((2 * window - 1) ** 2))
        np.testing.assert_array_equal(index + index.T, (2 * window - 1) ** 2 - 1)  # opposite ways


def test_shift_mask_by_hand():
    """Windows of 2 on 4 x 4, rolled by 1: the last row and the last column came over the edge."""
    mask = shift_mask((4, 4), 2, 1)
    apart = mask != 0
    assert set(np.unique(mask)) == {-100.0, 0.0} and not apart[0].any()
    beside = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]  # columns differ
    below = [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]  # rows differ
    np.testing.assert_array_equal(apart[1:], np.array([beside, below, 1 - np.eye(4)], bool))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("grid", [(6, 9), (5, 7), (2, 3)])
def test_a_place_is_seen_in_its_window_only(shift, grid):
    """Changing one place changes exactly the places of its window; shifted, the edges are windows of their own."""
    layer, x = block(3, shift, grid), noise(1, *grid, 4)
    group = [(np.arange(side) - shift) // 3 for side in grid]
    for row, column in [(0, 0), (1, 2), (grid[0] - 1, grid[1] - 1)]:
        other = x.copy()
        other[0, row, column, :2] += 1.0
        changed = np.abs(layer(other) - layer(x))[0].max(-1) > 1e-5
        same = (group[0] == group[0][row])[:, None] & (group[1] == group[1][column])[None, :]
        np.testing.assert_array_equal(changed, same)


def test_rolling_by_a_window_rolls_what_comes_out():
    layer, x = block(3, 0, (6, 9)), noise(2, 6, 9, 4)
    rolled = layer(np.roll(x, (3, -3), (1, 2)))
    np.testing.assert_allclose(rolled, np.roll(layer(x), (3, -3), (1, 2)), rtol=1e-4, atol=1e-5)
    assert np.abs(layer(np.roll(x, 1, 2)) - np.roll(layer(x), 1, 2)).max() > 0.1


def test_windows_inside_a_shifted_map_are_those_of_the_map_that_starts_there():
    """With the same weights: where nothing was carried over an edge, shift 2 is the map from row and column 2 on."""
    plain, shifted, x = block(5, 0, (15, 15)), block(5, 2, (15, 15)), noise(2, 15, 15, 4)
    shifted.set_weights(plain.get_weights())
    inside = slice(2, 12)
    expected = plain(x[:, inside, inside])
    np.testing.assert_allclose(shifted(x)[:, inside, inside], expected, rtol=1e-4, atol=1e-5)


def test_merging_by_hand():
    """1 2 / 3 4 is read as 1 3 2 4; mean 5/2, variance 5/4. Odd sides get zeros at the end."""
    layer = PatchMerging(1, layer_norm_epsilon=1e-12)
    layer.build((None, 2, 2, 1))
    layer.reduction.kernel.assign([[0, 0], [1, 0], [0, 1], [0, 0]])  # second and third
    x = np.array([[1, 2], [3, 4]], "float32")[None, :, :, None]
    np.testing.assert_allclose(
        layer(x)[0, 0, 0], np.array([3 - 2.5, 2 - 2.5]) / 1.25**0.5, rtol=1e-5
    )
    layer.reduction.kernel.assign([[1, 0], [0, 0], [0, 0], [0, 1]])  # first and last
    y = layer(np.arange(1, 10, dtype="float32").reshape(1, 3, 3, 1))[0]
    assert y.shape == (2, 2, 2)
    root3 = 3**0.5  # of 9 0 0 0: mean 9/4, deviation 9/4 root 3
    np.testing.assert_allclose(y[1, 1], [root3, -1 / root3], rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "last"), [((40, 40), (2, 2)), ((33, 71), (1, 3)), ((7, 9), (1, 1))]
)
def test_any_size_gives_maps_and_their_mean(image, last):
    """Patches are rounded down, merged maps up; features are the mean over the last map."""
    network = swin()
    outputs = network(noise(2, *image, 3), output="layers")
    assert outputs["map"].shape == (2, *last, 64)
    np.testing.assert_allclose(outputs["features"], np.mean(outputs["map"], (1, 2)), atol=1e-5)
    rows, columns = image[0] // 4, image[1] // 4
    grids = []
    for count in (2, 2, 1, 1):
        grids += count * [(rows, columns)]
        rows, columns = -(-rows // 2), -(-columns // 2)
    assert [tuple(layer.shape[1:3]) for layer in outputs["layers"]] == grids
    np.testing.assert_array_equal(outputs["layers"][-1], outputs["map"])


def test_a_clone_and_a_reloaded_network_are_the_same(tmp_path):
    network = swin(patch_size=2, image_size=21, drop_path=0.2, layer_norm_epsilon=1e-5)
    config = network.get_config()
    assert type(network).from_config(config).get_config() == config
    network.save(tmp_path / "swin.keras")
    loaded = keras.models.load_model(tmp_path / "swin.keras")
    assert loaded.get_config() == config
    x = noise(2, 30, 21, 3)
    np.testing.assert_array_equal(loaded(x)["map"], network(x)["map"])


def gradients(network, x, keys):
    with tf.GradientTape() as tape:
        h = tf.cast(network(x, training=True, keys=keys)["features"], tf.float32)
        loss = tf.reduce_sum(h * tf.linspace(-1.0, 1.0, h.shape[-1]))
    return loss, tape.gradient(loss, [v.value for v in network.trainable_variables])


def to_compile():
    """Returns a network, images for maps of 7 x 9 and 4 x 5, and keys."""
    network = backbones.Swin(4, (2, 1), (1, 2), window_size=3, drop_path=0.3, image_size=28)
    return network, noise(3, 28, 36, 3), random.sample_keys(0, tf.range(3, dtype=tf.int64))


def test_compiled_is_eager():
    """By XLA: rolled, padded and merged maps, biases, masks, drop-path."""
    network, x, keys = to_compile()

    def run(x):
        return network(x, training=True, keys=keys)["map"]

    fast = tf.function(run, jit_compile=True, autograph=False)(x)
    np.testing.assert_allclose(fast, run(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_gradients_are_traced_ones():
    network, x, keys = to_compile()
    run = [
        tf.function(gradients, jit_compile=jit, autograph=False)(network, x, keys)
        for jit in (False, True)
    ]
    np.testing.assert_allclose(run[0][0], run[1][0], rtol=1e-4)
    for plain, compiled in zip(run[0][1], run[1][1], strict=True):
        scale = np.abs(plain).max()
        assert scale > 0
        np.testing.assert_allclose(plain, compiled, atol=1e-4 * scale + 1e-7)


def test_gradients_in_bfloat16_are_finite_and_nearly_those_of_float32():
    wide, half = (
        backbones.Swin(8, (2, 1), (1, 2), window_size=3, image_size=28, dtype=policy)
        for policy in ("float32", "mixed_bfloat16")
    )
    half.set_weights(wide.get_weights())
    x = noise(3, 28, 36, 3)
    assert half(x)["map"].dtype == "bfloat16"
    expected, got = (gradients(network, x, None)[1] for network in (wide, half))
    assert all(g.dtype == tf.float32 and np.isfinite(g).all() for g in got)
    flat = [np.concatenate([np.ravel(g) for g in each]) for each in (expected, got)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert cosine > 0.99


def test_bias_and_softmax_are_in_float32():
    """Biases of 1 + i / 512 are nearly all the same in bfloat16; with queries of 0 they decide alone."""
    layer = WindowBlock(2, 1, 2, dtype="mixed_bfloat16")
    layer.build((None, 2, 2, 2))
    layer.qkv.kernel.assign(layer.qkv.kernel * 0.0)
    table = 1.0 + np.arange(9)[:, None] / 512
    layer.bias_table.assign(table)
    seen, original = [], layer._bias
    layer._bias = lambda grid: seen.append(original(grid)) or seen[-1]
    layer(tf.zeros((1, 2, 2, 2), tf.bfloat16))
    expected = table[relative_positions(2)][None, None, ..., 0]
    assert seen[0].dtype == tf.float32
    np.testing.assert_allclose(seen[0], expected, rtol=1e-6)
    _, weights = super(WindowBlock, layer)._attention(tf.zeros((1, 4, 2)), None, 20.0 * seen[0])
    exact = np.exp(20.0 * expected)
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(weights, "float32"), exact, rtol=2**-8)  # rounded once


def test_drop_path_grows_over_all_stages():
    """0.3 over six blocks: 0, 0.06, ... 0.3, as the authors' linspace."""
    rates = [block.drop_path for stage in swin(drop_path=0.3).stages for block in stage]
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 6))


def test_flags_of_a_run():
    """What `--backbone swin_tiny` takes as `--backbone_...`; the sizes are fixed by the name."""
    known = set(backbone_settings("swin_tiny"))
    assert {"window_size", "patch_size", "drop_path", "recompute"} <= known
    assert not known & {"width", "blocks", "num_heads"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: swin(blocks=(1, 1)), "one positive number for each stage"),
        (lambda: swin(blocks=(1, 1, 0, 1)), r"Received: blocks=\[1, 1, 0, 1\]"),
        (lambda: swin(window_size=0), "must be positive. Received: patch_size=4, window_size=0"),
        (lambda: swin(image_size=31), "at least 32.*Received: image_size=31"),
        (lambda: backbones.Swin(8, (1,), (3,)), "`num_heads` must divide `width`"),
        (lambda: swin(drop_path=1.0), "`drop_path` must be in"),
        (lambda: WindowBlock(4, 2, 3, shift=3), "`shift` in .* Received: window_size=3, shift=3"),
        (lambda: swin()(noise(1, 3, 40, 3)), r"at least 4 pixels.*\(1, 3, 40, 3\)"),
        (lambda: swin()(noise(1, 40, 40, 3), mask=[1]), "only a ViT can leave out or hide"),
        (lambda: swin()(noise(1, 40, 40, 3), output="attention"), "`output` of Swin must be"),
        (
            lambda: tf.function(swin()).get_concrete_function(tf.TensorSpec((None, None, 40, 3))),
            "known height and width",
        ),
    ],
)
def test_what_does_not_work_is_said(build, message):
    with pytest.raises(ValueError, match=message):
        build()
