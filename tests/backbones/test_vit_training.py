"""ViT trains, is saved, cloned and traced, in every precision, and says what is wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import random
from keras_ssl.backbones import ViT
from tests.backbones.tiny_vit import PATCHES, SIZE, pictures, tiny


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
