"""The SavedModel as a Keras layer, and encoders as `.keras` files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import export

IMAGES = np.random.default_rng(0).random((8, 32, 32, 3)).astype(np.float32)
LABELS = np.arange(8) % 2


@pytest.fixture(scope="module")
def resnet(make_encoder):
    return make_encoder("resnet")


@pytest.fixture(scope="module")
def folder(resnet, tmp_path_factory):
    return export.export_encoder(resnet, tmp_path_factory.mktemp("layer") / "encoder")


def classifier(encoder):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs)))
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def values(variables):
    return [v.numpy() for v in variables]


def changed(before, variables):
    return [bool(np.any(a != b.numpy())) for a, b in zip(before, variables, strict=True)]


def test_layer_computes_what_the_encoder_computes(resnet, folder):
    layer = export.SavedModelEncoder(folder)
    expected = resnet(IMAGES)
    np.testing.assert_allclose(layer(IMAGES), expected["features"], rtol=1e-5, atol=1e-5)
    assert (layer.feature_dim, layer.image_size) == (16, 32)
    maps = export.SavedModelEncoder(folder, output="map")(IMAGES)
    np.testing.assert_allclose(maps, expected["map"], rtol=1e-5, atol=1e-5)
    outputs = export.load_encoder(folder)(IMAGES)
    assert set(outputs) == {"features", "map"}


def test_weights_come_in_the_encoders_order(resnet, folder):
    layer = export.load_encoder(folder)
    assert [tuple(v.shape) for v in layer.variables] == [tuple(v.shape) for v in resnet.variables]
    for own, other in zip(resnet.variables, layer.variables, strict=True):
        np.testing.assert_array_equal(own.numpy(), other.numpy())
        assert own.trainable == other.trainable
    assert len({v.path for v in layer.variables}) == len(layer.variables)


def test_fit_trains_all_of_it_and_save_keeps_it(folder, tmp_path):
    layer = export.SavedModelEncoder(folder)
    model = classifier(layer)
    assert len(model.trainable_variables) == len(layer.trainable_variables) + 2
    before, statistics = values(layer.variables), values(layer.non_trainable_variables)
    losses = model.fit(IMAGES, LABELS, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all(changed(before, layer.variables))
    assert all(changed(statistics, layer.non_trainable_variables))
    for own, inside in zip(layer.variables, layer._module.variables, strict=True):
        np.testing.assert_array_equal(own.numpy(), inside.numpy())

    model.save(tmp_path / "classifier.keras")
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras.saving.load_model(tmp_path / "classifier.keras")
    again = keras.saving.load_model(tmp_path / "classifier.keras", safe_mode=False)
    np.testing.assert_allclose(again(IMAGES), model(IMAGES), atol=1e-5)
    fresh = export.SavedModelEncoder(folder)
    assert np.abs(fresh(IMAGES) - layer(IMAGES)).max() > 1e-3


def test_a_frozen_layer_keeps_weights_and_statistics(folder):
    layer = export.SavedModelEncoder(folder, trainable=False)
    model = classifier(layer)
    assert len(model.trainable_variables) == 2
    before = values(layer.variables)
    model.fit(IMAGES, LABELS, batch_size=8, epochs=1, verbose=0)
    assert not any(changed(before, layer.variables))
    layer.trainable = True
    layer(IMAGES, training=True)
    assert any(changed(before, layer.variables))


def test_edges_stay_float32_under_a_mixed_policy(folder):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = export.SavedModelEncoder(folder)
        outputs = layer(tf.cast(IMAGES, tf.bfloat16))
    finally:
        keras.config.set_dtype_policy("float32")
    assert outputs.dtype == tf.float32
    assert layer.compute_dtype == "float32"


def test_config_rebuilds_the_layer(folder):
    layer = export.SavedModelEncoder(folder, output="map", trainable=False, name="mine")
    twin = export.SavedModelEncoder.from_config(layer.get_config())
    assert (twin.name, twin.trainable, twin.output_name) == ("mine", False, "map")
    np.testing.assert_array_equal(twin(IMAGES), layer(IMAGES))


def test_wrong_folders_and_outputs_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no saved_model.pb"):
        export.load_encoder(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(ValueError, match="a SavedModel of another kind"):
        export.load_encoder(tmp_path / "other")
    with pytest.raises(ValueError, match=r"\['features', 'map', 'all'\].*output='tokens'"):
        export.SavedModelEncoder(folder, output="tokens")


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_an_encoder_goes_through_a_keras_file(kind, make_encoder, tmp_path):
    network = make_encoder(kind)
    network.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_allclose(again(IMAGES)["features"], network(IMAGES)["features"], atol=1e-6)
    assert again.image_size == 32
