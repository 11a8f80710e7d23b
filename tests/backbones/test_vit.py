"""ViT against a NumPy network in timm's layout; masking, token dropping, other image sizes."""

import numpy as np
import pytest
from scipy.special import erf

from keras_ssl import backbones
from keras_ssl.layers import bicubic_matrix, sincos_positions
from tests.backbones.tiny_vit import DEPTH, HEADS, PATCH, PATCHES, WIDTH, pictures, tiny

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def timm_weights(model):
    """The variables under timm's names, in PyTorch's layout."""
    v = {v.path.removeprefix("backbone/"): v.numpy() for v in model.variables}
    t = {"cls_token": v.get("class_token"), "pos_embed": v["position_table"]}
    kernel = v["patch_embedding/kernel"].reshape(PATCH, PATCH, 3, WIDTH)
    t["patch_embed.proj.weight"] = kernel.transpose(3, 2, 0, 1)
    t["patch_embed.proj.bias"] = v["patch_embedding/bias"]
    t["norm.weight"], t["norm.bias"] = v["norm/gamma"], v["norm/beta"]
    names = {"qkv": "attn.qkv", "projection": "attn.proj", "hidden": "mlp.fc1", "output": "mlp.fc2"}
    for i in range(DEPTH):
        for norm in ("norm1", "norm2"):
            t[f"blocks.{i}.{norm}.weight"] = v[f"block{i}/{norm}/gamma"]
            t[f"blocks.{i}.{norm}.bias"] = v[f"block{i}/{norm}/beta"]
        for ours, theirs in names.items():
            t[f"blocks.{i}.{theirs}.weight"] = v[f"block{i}/{ours}/kernel"].T
            t[f"blocks.{i}.{theirs}.bias"] = v[f"block{i}/{ours}/bias"]
    return t


def reference(t, images):
    """timm's forward pass: `(batch, 1 + patches, width)` after the final norm."""

    def norm(x, name):
        centered = x - x.mean(-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    x = ((images - MEAN) / STD).transpose(0, 3, 1, 2)
    weight, tokens = t["patch_embed.proj.weight"], []
    for row in range(0, x.shape[2], PATCH):
        for column in range(0, x.shape[3], PATCH):
            cut = x[:, :, row : row + PATCH, column : column + PATCH]
            tokens.append(np.einsum("bcij,dcij->bd", cut, weight) + t["patch_embed.proj.bias"])
    x = np.stack(tokens, axis=1)
    x = np.concatenate([np.repeat(t["cls_token"], len(x), axis=0), x], axis=1) + t["pos_embed"]
    for i in range(DEPTH):
        name = f"blocks.{i}"
        b, n, d = x.shape
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        q, k, v = qkv.reshape(b, n, 3, HEADS, d // HEADS).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2) * (d // HEADS) ** -0.5
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        x = x + linear((weights @ v).swapaxes(1, 2).reshape(b, n, d), f"{name}.attn.proj")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        x = x + linear(0.5 * hidden * (1 + erf(hidden / np.sqrt(2))), f"{name}.mlp.fc2")
    return norm(x, "norm"), weights


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_equals_timm(dtype, tolerance):
    model = tiny(dtype=dtype)
    images = pictures(dtype=dtype)
    expected, weights = reference(timm_weights(model), images)
    y = model(images, output="attention")
    assert y["features"].dtype == y["tokens"].dtype == dtype
    np.testing.assert_allclose(y["features"], expected[:, 0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(y["tokens"], expected[:, 1:], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(y["attention"], weights, rtol=tolerance, atol=tolerance)
    assert weights.std() > 0.01


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("size", [(8, 8), (24, 12)])
def test_other_image_sizes_resize_the_positions(size, offset):
    model = tiny(position_offset=offset)
    t = timm_weights(model)
    rows, columns = (bicubic_matrix(4, length // PATCH, offset=offset) for length in size)
    patches = t["pos_embed"][0, 1:].reshape(4, 4, WIDTH)
    resized = np.einsum("yh,xw,hwd->yxd", rows, columns, patches).reshape(1, -1, WIDTH)
    t["pos_embed"] = np.concatenate([t["pos_embed"][:, :1], resized], axis=1)
    expected = reference(t, pictures(size=size))[0]
    np.testing.assert_allclose(
        model(pictures(size=size))["tokens"], expected[:, 1:], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [("vit_tiny", 5_524_416), ("vit_small", 21_665_664), ("vit_base", 85_798_656)],
)
def test_parameters_equal_timm(name, count):
    """Without a head, patch 16 at 224: DINO's ViT-S and ViT-B."""
    model = backbones.build(name)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == count
    assert (model.patch_size, model.grid) == (16, (14, 14))


def test_hidden_patches_do_not_matter_and_order_is_kept():
    model = tiny()
    keep = np.array([[5, 0, 9], [15, 3, 2]], "int32")
    images = pictures()
    y = model(images, keep=keep)
    assert y["tokens"].shape == (2, 3, WIDTH)
    changed = images.copy()
    for sample in range(2):
        for patch in set(range(PATCHES)) - set(keep[sample]):
            row, column = PATCH * (patch // 4), PATCH * (patch % 4)
            changed[sample, row : row + PATCH, column : column + PATCH] = 0.9
    again = model(changed, keep=keep)
    np.testing.assert_array_equal(again["features"], y["features"])
    np.testing.assert_array_equal(again["tokens"], y["tokens"])
    assert np.abs(model(changed)["features"] - model(images)["features"]).max() > 1e-3
    turned = model(images, keep=keep[:, ::-1])
    np.testing.assert_allclose(turned["tokens"], y["tokens"][:, ::-1], rtol=1e-9)
    np.testing.assert_allclose(turned["features"], y["features"], rtol=1e-9)


def test_keeping_all_patches_changes_nothing():
    model = tiny()
    everything = np.tile(np.arange(PATCHES, dtype="int32"), (2, 1))
    y, kept = model(pictures()), model(pictures(), keep=everything)
    np.testing.assert_array_equal(kept["tokens"], y["tokens"])


def test_masked_patches_become_the_mask_token_with_their_position():
    model = tiny(use_mask_token=True)
    mask = np.zeros((2, PATCHES), bool)
    mask[0, 3] = mask[1, [7, 8]] = True
    images = pictures()
    changed = images.copy()
    changed[0, 0:4, 12:16] = 0.9  # patch 3: row 0, column 3
    np.testing.assert_array_equal(
        model(changed, mask=mask)["tokens"], model(images, mask=mask)["tokens"]
    )
    assert np.abs(model(images, mask=mask)["tokens"] - model(images)["tokens"]).max() > 1e-3
    np.testing.assert_array_equal(
        model(images, mask=np.zeros((2, PATCHES), bool))["tokens"], model(images)["tokens"]
    )
    first = model.embed(images, mask=mask)
    token, table = model.mask_token.numpy()[0, 0], model.position_table.numpy()[0]
    np.testing.assert_allclose(first[1, 1 + 8], token + table[1 + 8], rtol=1e-12)
    np.testing.assert_array_equal(first[1, 1 + 6], model.embed(images)[1, 1 + 6])


def test_mean_pooling_without_class_token():
    model = tiny(class_token=False)
    y = model(pictures())
    assert model.position_table.shape == (1, PATCHES, WIDTH) and model.class_token is None
    np.testing.assert_allclose(y["features"], np.mean(y["tokens"], 1), rtol=1e-9)
    both = tiny(pooling="mean")(pictures())
    np.testing.assert_allclose(both["features"], np.mean(both["tokens"], 1), rtol=1e-9)


def test_layers_end_with_the_output():
    model = tiny()
    y = model(pictures(), output="layers")
    assert [tuple(layer.shape) for layer in y["layers"]] == [(2, 1 + PATCHES, WIDTH)] * DEPTH
    np.testing.assert_array_equal(y["layers"][-1][:, 0], y["features"])
    np.testing.assert_allclose(
        y["layers"][0], model.norm(model.blocks[0](model.embed(pictures()))), rtol=1e-9
    )


@pytest.mark.parametrize("positions", ["sincos", "sincos_row_first"])
def test_fixed_positions(positions):
    model = tiny(positions=positions)
    expected = sincos_positions(WIDTH, (4, 4), class_token=True, row_first=positions != "sincos")
    np.testing.assert_allclose(model.position_table[0], expected, atol=1e-12)
    assert all(v is not model.position_table for v in model.trainable_variables)
