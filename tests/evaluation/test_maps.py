"""Attention and principal-component maps: tokens made by hand, a network whose attention is known, real files."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl.backbones import ResNet, ViT
from keras_ssl.evaluation import (
    attention_maps,
    patch_pca,
    pca_colors,
    probe_features,
    save_maps,
)


def vit(**settings):
    return ViT(16, 3, 2, **{"patch_size": 4, "image_size": 16, "num_registers": 2, **settings})


def pictures(height=16, width=16, count=2):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(count, height, width, 3)).astype("float32")


class Tokens:
    """An "encoder" with tokens given by hand."""

    def __init__(self, tokens, name="tokens"):
        self.tokens, self.name = tokens, name

    def __call__(self, images, training):
        return {"features": images[:, 0, 0], self.name: tf.constant(self.tokens)}


def test_attention_is_that_of_the_class_token_to_each_patch():
    network, images = vit(), pictures(12, 20)
    maps = attention_maps(network, images)
    assert maps.shape == (2, 2, 3, 5) and maps.dtype == np.float32
    weights = network(images, output="attention")["attention"].numpy()
    assert weights.shape[-1] == 1 + 2 + 15
    for row in range(3):
        for column in range(5):
            patch = 1 + 2 + 5 * row + column
            np.testing.assert_array_equal(maps[:, :, row, column], weights[:, :, 0, patch])


def test_attention_finds_the_patch_that_the_class_token_asks_for():
    """Queries that are the same for all and keys that grow with brightness: the map is a softmax of brightness."""
    network = ViT(4, 1, 1, patch_size=4, image_size=16, mean=(0, 0, 0), std=(1, 1, 1))
    for variable in network.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    network.patch_embedding.kernel.assign(np.tile([[1 / 48, 0, 0, 0]], (48, 1)))
    network.patch_embedding.bias.assign([0.0, 0.5, 0, 0])
    block = network.blocks[0]
    block.norm1.gamma.assign(np.ones(4))
    kernel, bias = np.zeros((4, 12)), np.zeros(12)
    bias[0], kernel[0, 4] = 8.0, 1.0  # query (8, 0, 0, 0), key = the first normalized channel
    block.qkv.kernel.assign(kernel)
    block.qkv.bias.assign(bias)
    images = np.zeros((1, 16, 16, 3), "float32")
    images[0, 8:12, 4:8] = 1.0
    maps = attention_maps(network, images)
    assert np.unravel_index(maps[0, 0].argmax(), (4, 4)) == (2, 1)
    others = np.delete(maps.ravel(), 9)
    np.testing.assert_allclose(others, others[0], rtol=1e-5)
    assert maps[0, 0, 2, 1] > 5 * others[0]


def test_colors_are_the_three_directions_of_largest_variance():
    """Points on axes of an orthogonal frame with spreads 9, 4, 1: each color is one coordinate, stretched."""
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(5, 5)))[0][:3]
    frame *= np.sign(frame[np.arange(3), np.abs(frame).argmax(1)])[:, None]
    spread = np.array([9.0, 4.0, 1.0])
    coordinates = np.concatenate([np.diag(spread), -np.diag(spread)])
    colors = pca_colors(7.0 + coordinates @ frame)
    np.testing.assert_allclose(colors, (coordinates / spread + 1) / 2, atol=1e-6)


def test_patches_lie_where_they_are():
    """Token = its place; the first component follows the longer side, the second the other."""
    rows, columns = np.indices((3, 6)).reshape(2, -1)
    tokens = np.stack([columns, rows], 1)[None].astype("float32")
    colors = patch_pca(Tokens(tokens), pictures(12, 24, count=1))
    assert colors.shape == (1, 3, 6, 3) and colors.dtype == np.float32
    np.testing.assert_allclose(colors[0, 1, :, 0], np.arange(6) / 5, atol=1e-6)
    np.testing.assert_allclose(colors[0, :, 4, 1], np.arange(3) / 2, atol=1e-6)
    np.testing.assert_array_equal(colors[..., 2], 0.5)  # there is no third direction
    as_map = patch_pca(Tokens(tokens.reshape(1, 3, 6, 2), "map"), pictures(9, 18, count=1))
    np.testing.assert_array_equal(as_map, colors)


def test_foreground_is_one_sign_of_the_first_component():
    """Two far groups along the first axis; within the positive one the second axis decides."""
    tokens = np.zeros((1, 8, 2), "float32")
    tokens[0, :4, 0] = 10.0
    tokens[0, :4, 1] = [0, 1, 2, 3]
    images = pictures(8, 16, count=1)
    colors = patch_pca(Tokens(tokens), images, foreground="positive")
    assert not colors[0, 1].any()
    np.testing.assert_allclose(colors[0, 0, :, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-6)
    other = patch_pca(Tokens(tokens), images, foreground="negative")
    assert not other[0, 0].any() and other[0, 1].all()
    assert not pca_colors(np.zeros((3, 2)), foreground="positive").any()


def test_all_images_share_one_palette():
    tokens = np.arange(8, dtype="float32").reshape(2, 4, 1)
    colors = patch_pca(Tokens(tokens), pictures(8, 8))
    np.testing.assert_allclose(colors[..., 0].ravel(), np.arange(8) / 7, atol=1e-6)


def test_sheet(tmp_path):
    images = np.zeros((2, 8, 16, 3), "float32")
    images[1, :, 8:] = (1.0, 0.5, 0.0)
    attention = np.zeros((2, 2, 2, 4))
    attention[0, 0, 0, 1], attention[0, 1, 1, 3] = 0.9, 0.1
    colors = np.zeros((2, 2, 4, 3))
    colors[1, 1, 0] = (0.0, 1.0, 0.0)
    save_maps(tmp_path / "sheet.png", images, attention=attention, colors=colors)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    high, wide = 8 * 14, 16 * 14  # enlarged to 224 pixels
    assert sheet.shape == (2 * high + 2, 5 * (wide + 2) - 2, 3)

    def cell(row, column):
        top, left = row * (high + 2), column * (wide + 2)
        return sheet[top : top + high, left : left + wide]

    np.testing.assert_array_equal(cell(1, 0)[:, 112:].reshape(-1, 3), [[255, 128, 0]] * high * 112)
    assert (cell(0, 2)[:56, 56:112] == 255).all() and cell(0, 2).mean() == 255 / 8  # head 1
    assert (cell(0, 3)[56:, 168:] == 255).all()  # head 2, stretched for itself
    assert (cell(0, 1)[:56, 56:112] == 255).all() and (cell(0, 1)[56:, 168:] == 28).all()  # mean
    assert (cell(1, 4)[56:, :56] == (0, 255, 0)).all()
    assert (sheet[high : high + 2] == 255).all()


@pytest.mark.parametrize(("last", "mean"), [(1, False), (1, True), (3, False), (2, True)])
def test_probe_features(last, mean):
    network, images = vit(), pictures()
    features = probe_features(network, images, last_blocks=last, with_mean_patches=mean).numpy()
    assert features.shape == (2, 16 * (last + mean))
    x, tokens = network.embed(images), []
    for block in network.blocks:
        x = block(x)
        tokens.append(network.norm(x).numpy())
    for index in range(last):
        expected = tokens[3 - last + index][:, 0]
        np.testing.assert_allclose(features[:, 16 * index :][:, :16], expected, atol=1e-5)
    if mean:
        np.testing.assert_allclose(features[:, -16:], tokens[-1][:, 3:].mean(1), atol=1e-5)


def test_what_cannot_be_drawn():
    images, resnet = pictures(), ResNet((1,), filters=(8,), image_size=16)
    without = vit(class_token=False)
    with pytest.raises(ValueError, match="Received: ViT without a class token"):
        attention_maps(without, images)
    with pytest.raises(ValueError, match="Received: ResNet"):
        attention_maps(resnet, images)
    assert patch_pca(resnet, images).shape == (2, 4, 4, 3)
    with pytest.raises(ValueError, match="Received: Tokens with"):
        patch_pca(Tokens(np.zeros((1, 4, 2)), "other"), images)
    with pytest.raises(ValueError, match="7 tokens for images of 16 x 16"):
        patch_pca(Tokens(np.zeros((2, 7, 2))), images)
    with pytest.raises(ValueError, match="foreground='object'"):
        patch_pca(without, images, foreground="object")
    with pytest.raises(ValueError, match="each of 2 images"):
        save_maps("never.png", images)
    with pytest.raises(ValueError, match=r"Received: \[\(1, 4, 4, 3\)\]"):
        save_maps("never.png", images, colors=np.zeros((1, 4, 4, 3)))
    for encoder, last, message in (
        (resnet, 1, "Received: ResNet"),
        (without, 1, "class token"),
        (vit(), 4, r"\[1, 3\]. Received: last_blocks=4"),
    ):
        with pytest.raises(ValueError, match=message):
            probe_features(encoder, images, last_blocks=last)
