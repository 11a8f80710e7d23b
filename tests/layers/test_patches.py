"""Patches: order, round trip, and the embedding as a convolution."""

import numpy as np
import pytest
import tensorflow as tf

from keras_ssl.layers import PatchEmbedding, patchify, unpatchify


def test_order_by_hand():
    """A 2 x 4 image of 2 x 2 patches: row, then column within the patch, then channel."""
    image = np.arange(16).reshape(1, 2, 4, 2)
    expected = [[[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]]
    np.testing.assert_array_equal(patchify(tf.constant(image), 2), expected)


def test_equals_the_loop():
    images = np.random.default_rng(0).normal(size=(2, 6, 9, 3)).astype("float32")
    patches = patchify(tf.constant(images), 3).numpy()
    for row in range(2):
        for column in range(3):
            cut = images[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].reshape(2, 27)
            np.testing.assert_array_equal(patches[:, 3 * row + column], cut)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_round_trip_is_bit_exact(dtype):
    images = tf.cast(tf.random.uniform((2, 8, 12, 3), 0.0, 255.0), dtype)
    np.testing.assert_array_equal(unpatchify(patchify(images, 4), (2, 3), 4), images)


def test_embedding_is_a_strided_convolution():
    layer = PatchEmbedding(4, 5, dtype="float64")
    images = tf.random.normal((2, 8, 12, 3), dtype="float64")
    tokens = layer(images)
    layer.bias.assign(np.arange(5.0))
    kernel = tf.reshape(layer.kernel, (4, 4, 3, 5))
    expected = tf.reshape(tf.nn.conv2d(images, kernel, 4, "VALID"), (2, 6, 5)) + np.arange(5.0)
    assert tokens.shape == (2, 6, 5)
    np.testing.assert_allclose(layer(images), expected, rtol=1e-12)
    clone = PatchEmbedding.from_config(layer.get_config())
    assert (clone.patch_size, clone.width, clone.dtype) == (4, 5, "float64")


def test_errors():
    with pytest.raises(ValueError, match=r"patch_size=4.*\(1, 6, 8, 3\)"):
        patchify(tf.zeros((1, 6, 8, 3)), 4)
    with pytest.raises(ValueError, match=r"\(1, 5, 12\)"):
        unpatchify(tf.zeros((1, 5, 12)), (2, 3), 2)
    with pytest.raises(ValueError, match=r"\(1, 6, 13\)"):
        unpatchify(tf.zeros((1, 6, 13)), (2, 3), 2)
    with pytest.raises(ValueError, match="width=0"):
        PatchEmbedding(4, 0)
