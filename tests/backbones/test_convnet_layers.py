"""What convolutional backbones and XCiT are made of, by hand: groups, dilation, pools, response norm, drops."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.backbones.units import Unit
from keras_ssl.layers import PaddedConvolution, fourier_positions, local_response_norm
from tests.backbones.networks import NETWORKS, keys


def test_dropout_keeps_the_mean():
    network = NETWORKS["alexnet_dense"](dropout=0.75)
    x = tf.ones((2000, 10), tf.float32)
    dropped = network._dropped(x, keys(2000), "dense1").numpy()
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert abs(dropped.mean() - 1.0) < 5 * np.sqrt(3 / 20_000)  # variance p / (1 - p) = 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_groups_are_separate_convolutions_forward_and_backward(dtype):
    """Three groups of two channels, stride 2, a border of 1: by loops over places, groups and channels."""
    rng = np.random.default_rng(0)
    layer = PaddedConvolution(6, 3, 2, border=1, groups=3, use_bias=True, dtype=dtype)
    layer.build((None, 7, 6, 6))
    layer.bias.assign(rng.normal(size=6))
    x, kernel = rng.normal(size=(2, 7, 6, 6)).astype(dtype), layer.kernel.numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 3, 6))
    for i, j, o in np.ndindex(4, 3, 6):
        window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, o // 2 * 2 : o // 2 * 2 + 2]
        expected[:, i, j, o] = (window * kernel[..., o]).sum((1, 2, 3)) + layer.bias[o]
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(y[..., 2:4])  # the middle group
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    gradient = tape.gradient(loss, layer.kernel.value).numpy()
    assert np.all(gradient[..., [0, 1, 4, 5]] == 0) and np.abs(gradient[..., 2:4]).min() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dilated_convolution_forward_and_backward(dtype):
    """Dilation 2 with a border of 2: by loops; the gradient of the sum is the sum of what each element saw."""
    rng = np.random.default_rng(0)
    layer = PaddedConvolution(3, 3, border=2, dilation=2, use_bias=True, dtype=dtype)
    layer.build((None, 7, 6, 2))
    layer.bias.assign(rng.normal(size=3))
    x, kernel = rng.normal(size=(2, 7, 6, 2)).astype(dtype), layer.kernel.numpy()
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = np.zeros((2, 7, 6, 3)) + layer.bias.numpy()
    gradient = np.zeros((3, 3, 2))
    for i, j in np.ndindex(3, 3):
        seen = padded[:, 2 * i : 2 * i + 7, 2 * j : 2 * j + 6]
        expected += seen @ kernel[i, j]
        gradient[i, j] = seen.sum((0, 1, 2))
    with tf.GradientTape() as tape:
        y = layer(x)
        loss = tf.reduce_sum(y)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    got = tape.gradient(loss, layer.kernel.value).numpy()
    np.testing.assert_allclose(got, np.repeat(gradient[..., None], 3, -1), rtol=1e-4, atol=1e-5)
    again = PaddedConvolution.from_config(layer.get_config())
    assert (again.dilation_rate, again.border) == ((2, 2), 2)


def test_a_pool_that_rounds_up_by_hand():
    """A row of 4 has windows (0, 1, 2) and (2, 3); a row of 3 and one of 5 are covered as they are."""
    row = tf.constant([0.0, 3.0, 1.0, 2.0, 5.0])
    for length, up, down in (
        (3, [3.0], [3.0]),
        (4, [3.0, 2.0], [3.0]),
        (5, [3.0, 5.0], [3.0, 5.0]),
    ):
        x = tf.tile(row[None, :length, None, None], (1, 1, 3, 1))
        for ceil, expected in ((True, up), (False, down)):
            unit = Unit(1, pool=(3, 2), ceil_pool=ceil, kernel_size=1, border=0)
            assert unit.pooled(x)[0, :, 0, 0].numpy().tolist() == expected
            assert unit.side(length) == (length, len(expected))


def test_response_norm_by_hand_and_by_tensorflow():
    """One channel of value 2 next to one of 1: 2 / (1 + alpha / 5 * (4 + 1))^beta."""
    x = tf.constant([[[[2.0, 1.0, 0.0, 0.0, 0.0, 3.0]]]])
    y = local_response_norm(x, size=5, alpha=0.6, beta=0.5)
    np.testing.assert_allclose(y[0, 0, 0, 0], 2 / np.sqrt(1 + 0.12 * 5), rtol=1e-6)
    np.testing.assert_allclose(y[0, 0, 0, 5], 3 / np.sqrt(1 + 0.12 * 9), rtol=1e-6)
    x = tf.random.normal((2, 3, 3, 9)) * 40.0
    theirs = tf.nn.local_response_normalization(x, 2, bias=1.0, alpha=2e-5, beta=0.75)
    np.testing.assert_allclose(local_response_norm(x), theirs, rtol=1e-5)


def test_the_place_code_by_hand():
    """Row 2 of 4: half a turn; entry 2 of a half is slowed by 10000^(2/4)."""
    code = fourier_positions((4, 2), 4)
    assert code.shape == (1, 4, 2, 8)
    np.testing.assert_allclose(code[0, 1, :, :2], [[0.0, -1.0]] * 2, atol=1e-5)
    np.testing.assert_allclose(code[0, 1, 0, 2], np.sin(np.pi / 100), atol=1e-5)
    np.testing.assert_allclose(code[0, :, 1, 4:6], [[0.0, 1.0]] * 4, atol=1e-5)  # a full turn
