"""ViT against a NumPy network in timm's layout; masking, token dropping, other image sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from keras_ssl import backbones, random
from keras_ssl.backbones import ViT
from keras_ssl.layers import bicubic_matrix, sincos_positions

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WIDTH, DEPTH, HEADS, PATCH, SIZE = 16, 2, 4, 4, 16
PATCHES = (SIZE // PATCH) ** 2


def tiny(**settings):
    """A small ViT with variables that all matter."""
    defaults = {"patch_size": PATCH, "image_size": SIZE, "dtype": "float64"}
    model = ViT(WIDTH, DEPTH, HEADS, **{**defaults, **settings})
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if "gamma" in variable.path else 0.0, 0.3, variable.shape))
    return model


def pictures(count=2, size=(SIZE, SIZE), dtype="float64"):
    return np.random.default_rng(1).uniform(size=(count, *size, 3)).astype(dtype)


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


def test_drop_path_grows_with_depth_and_needs_keys():
    model = ViT(8, 5, 2, patch_size=4, image_size=8, drop_path=0.2)
    np.testing.assert_allclose(
        [block.drop_path for block in model.blocks], [0, 0.05, 0.1, 0.15, 0.2]
    )
    model = tiny(drop_path=0.5)
    keys = random.sample_keys(0, tf.range(8, dtype=tf.int64))
    images = pictures(8)
    y = model(images, training=True, keys=keys)["features"].numpy()
    part = model(images[3:5], training=True, keys=keys[3:5])["features"]
    np.testing.assert_allclose(part, y[3:5], rtol=1e-9)
    assert np.abs(y - model(images, keys=keys)["features"]).max() > 1e-3
    with pytest.raises(ValueError, match="keys=None"):
        model(images, training=True)


def test_initial_values():
    normal = ViT(64, 1, 4, patch_size=8, image_size=32, use_mask_token=True)
    tokens = [normal.class_token, normal.position_table, normal.patch_embedding.kernel]
    np.testing.assert_allclose([v.numpy().std() for v in tokens], 0.02, rtol=0.3)
    assert not normal.mask_token.numpy().any()
    frozen = ViT(
        64,
        1,
        4,
        patch_size=8,
        image_size=32,
        initialization="xavier_split",
        freeze_patch_embedding=True,
    )
    assert np.abs(frozen.class_token.numpy()).max() < 1e-5
    limit = np.sqrt(6 / (8 * 8 * 3 + 64))
    assert 0.95 * limit < np.abs(frozen.patch_embedding.kernel.numpy()).max() <= limit
    names = {v.path for v in frozen.variables} - {v.path for v in frozen.trainable_variables}
    assert names == {"backbone/patch_embedding/kernel", "backbone/patch_embedding/bias"}


def test_gradient_reaches_every_trainable_variable():
    model = tiny(use_mask_token=True, layer_scale=0.1)
    mask = np.zeros((2, PATCHES), bool)
    mask[:, 2:5] = True
    with tf.GradientTape() as tape:
        y = model(pictures(), training=True, mask=mask)
        loss = tf.reduce_sum(y["features"] ** 3) + tf.reduce_sum(y["tokens"] ** 3)
    for variable, gradient in zip(
        model.trainable_variables,
        tape.gradient(loss, [v.value for v in model.trainable_variables]),
        strict=True,
    ):
        assert gradient is not None and np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    model, exact = tiny(dtype=policy, use_mask_token=True), tiny(use_mask_token=True)
    exact.set_weights(model.get_weights())
    images = pictures(size=(8, 24), dtype="float32")
    mask = np.zeros((2, 12), bool)
    mask[:, 1] = True
    y = model(images, mask=mask, keep=np.array([[1, 2], [3, 1]], "int32"), output="attention")
    expected = exact(images.astype("float64"), mask=mask, keep=np.array([[1, 2], [3, 1]], "int32"))
    assert {value.dtype for value in y.values()} == {tf.as_dtype(model.compute_dtype)}
    assert {v.dtype for v in model.variables} == {"float32"}
    difference = np.abs(tf.cast(y["features"], "float64") - expected["features"]).max()
    assert difference < 0.05 * np.abs(expected["features"]).max()


def test_clone_paths_and_saving(tmp_path):
    model = tiny(
        use_mask_token=True, layer_scale=0.1, drop_path=0.1, positions="sincos", position_offset=0.1
    )
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths) and "backbone/block1/qkv/kernel" in paths
    clone = ViT.from_config(model.get_config())
    assert [v.path for v in clone.variables] == paths and clone.get_config() == model.get_config()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(pictures())["tokens"], model(pictures())["tokens"])
    assert [v.path for v in loaded.variables] == paths


def test_graph_with_unknown_batch():
    model = tiny(dtype="float32", use_mask_token=True)
    specs = [
        tf.TensorSpec((None, SIZE, SIZE, 3)),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None, PATCHES), tf.bool),
    ]
    call = tf.function(lambda x, keep, mask: model(x, keep=keep, mask=mask), input_signature=specs)
    arguments = (
        pictures(dtype="float32"),
        np.array([[1, 2], [3, 1]], "int32"),
        np.zeros((2, PATCHES), bool),
    )
    eager = model(arguments[0], keep=arguments[1])
    np.testing.assert_allclose(call(*arguments)["tokens"], eager["tokens"], atol=1e-5)


def test_in_a_functional_model():
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Dense(5)(tiny(dtype="float32")(inputs)["features"]))
    assert model(pictures(dtype="float32")).shape == (2, 5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"positions": "rotary"}, "positions='rotary'"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"class_token": False, "pooling": "token"}, "class_token=False"),
        ({"image_size": 18}, "image_size=18, patch_size=4"),
    ],
)
def test_wrong_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        tiny(**settings)


def test_wrong_calls():
    model = tiny()
    with pytest.raises(ValueError, match="use_mask_token=False"):
        model(pictures(), mask=np.zeros((2, PATCHES), bool))
    with pytest.raises(ValueError, match="output='logits'"):
        model(pictures(), output="logits")
    with pytest.raises(ValueError, match="patch_size=4"):
        model(pictures(size=(18, 16)))
