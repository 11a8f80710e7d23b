"""Networks of other libraries behind our contract."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import backbones
from keras_ssl.layers import BatchNormalization

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("keras_hub") is None, reason="the extra keras-hub is not installed"
)
needs_cv = pytest.mark.skipif(
    importlib.util.find_spec("keras_cv") is None, reason="the extra keras-cv is not installed"
)

HUB_RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
}
HUB_VIT = {"patch_size": (8, 8), "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
CV_RESNET = {
    "stackwise_filters": [64, 128],
    "stackwise_blocks": [1, 1],
    "stackwise_strides": [1, 2],
    "block_type": "basic_block",
}


def pictures(size=32):
    return np.random.default_rng(0).uniform(size=(3, size, size, 3)).astype("float32")


def check_contract(name, tmp_path, **settings):
    """Output, clone, unique paths, save and load."""
    model = backbones.build(name, image_size=32, **settings)
    y = model(pictures(), training=True)
    assert y["features"].shape == (3, model.feature_dim)
    assert y["features"].dtype == tf.float32
    paths = [v.path for v in model.variables]
    assert len(set(paths)) == len(paths) and all(path.startswith("backbone/") for path in paths)
    clone = type(model).from_config(model.get_config())
    assert [v.shape for v in clone.variables] == [v.shape for v in model.variables]
    assert clone.get_config() == model.get_config()
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(pictures())["features"], model(pictures())["features"])
    return model


@pytest.mark.thorough  # builds ResNet-50 five times
def test_resnet50_of_keras_applications(tmp_path):
    """Our batch-norm inside, its own Caffe preprocessing (BGR, 0-255, mean subtracted), the same function."""
    model = check_contract("keras_applications:ResNet50", tmp_path)
    assert model.replica_exact and model.mean is None and model.feature_dim == 2048
    layers = list(model.network._flatten_layers())
    norms = [layer for layer in layers if isinstance(layer, BatchNormalization)]
    assert len(norms) == 53 and all(norm.synchronized for norm in norms)
    assert norms[0].epsilon == pytest.approx(1.001e-5) and norms[0].momentum == 0.99
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
    x = pictures()
    bgr = 255.0 * x[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(model.normalize(x), bgr, rtol=1e-5, atol=1e-3)
    original = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(32, 32, 3))
    original.set_weights(model.network.get_weights())
    np.testing.assert_allclose(model(x)["map"], original(bgr), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        model(x)["features"], np.mean(original(bgr), (1, 2)), rtol=1e-3, atol=1e-3
    )


def test_dropout_is_not_replica_exact():
    assert not backbones.build("keras_applications:EfficientNetB0", image_size=32).replica_exact


def test_mobilenet_takes_other_sizes_and_precision():
    model = backbones.build(
        "keras_applications:MobileNetV2",
        image_size=32,
        settings={"alpha": 0.35},
        dtype="mixed_bfloat16",
    )
    assert model.replica_exact
    np.testing.assert_allclose(model.normalize(pictures()), 2 * pictures() - 1, atol=1e-6)
    assert model.normalize(pictures()).dtype == tf.float32
    y = model(pictures(64), training=True)
    assert y["map"].shape == (3, 2, 2, 1280) and y["map"].dtype == tf.bfloat16
    assert {v.dtype for v in model.variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_batch_norm_learns_in_training():
    model = backbones.build(
        "keras_applications:MobileNetV2", image_size=32, settings={"alpha": 0.35}
    )
    norm = next(layer for layer in model.network.layers if isinstance(layer, BatchNormalization))
    before = norm.moving_mean.numpy()
    model(pictures())
    np.testing.assert_array_equal(norm.moving_mean, before)
    model(pictures(), training=True)
    assert np.abs(norm.moving_mean - before).max() > 1e-5


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("keras_applications:Resnet50", {}, "keras_applications:Resnet50"),
        ("keras_applications:", {}, "source='keras_applications:'"),
        ("keras_applications:VGG16", {"weights": "jft"}, "weights='jft'"),
    ],
)
def test_wrong_names(name, settings, match):
    with pytest.raises(ValueError, match=match):
        backbones.build(name, image_size=32, **settings)


def test_no_tokens_to_choose():
    model = backbones.build(
        "keras_applications:MobileNetV2", image_size=32, settings={"alpha": 0.35}
    )
    with pytest.raises(ValueError, match="only a ViT can .* Received: AdaptedBackbone"):
        model(pictures(), keep=np.zeros((3, 1), "int32"))
    with pytest.raises(ValueError, match="output='layers'"):
        model(pictures(), output="layers")


@pytest.mark.parametrize("library", ["keras_hub", "keras_cv"])
def test_missing_library_names_the_extra(library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    extra = library.replace("_", "-")
    with pytest.raises(ImportError, match=rf"pip install 'keras_ssl\[{extra}\]'"):
        backbones.build(f"{library}:ResNetBackbone")


@needs_hub
def test_resnet_of_keras_hub(tmp_path):
    model = check_contract("keras_hub:ResNetBackbone", tmp_path, settings=HUB_RESNET)
    assert model.replica_exact and model.mean == backbones.IMAGENET_MEAN
    assert any(isinstance(layer, BatchNormalization) for layer in model.network.layers)
    expected = model.network(
        (pictures() - np.array(model.mean, "float32")) / np.array(model.std, "float32")
    )
    np.testing.assert_allclose(model(pictures())["map"], expected, rtol=1e-4, atol=1e-4)


@needs_hub
def test_vit_of_keras_hub(tmp_path):
    model = check_contract("keras_hub:ViTBackbone", tmp_path, settings=HUB_VIT)
    y, raw = model(pictures()), model.network(model.normalize(pictures()))
    assert y["tokens"].shape == (3, 16, 16)
    np.testing.assert_array_equal(y["features"], raw[:, 0])
    np.testing.assert_array_equal(y["tokens"], raw[:, 1:])
    dropping = backbones.build(
        "keras_hub:ViTBackbone", image_size=32, settings={**HUB_VIT, "dropout_rate": 0.1}
    )
    assert not dropping.replica_exact
    with pytest.raises(ValueError, match="weights='imagenet'"):
        backbones.build(
            "keras_hub:ViTBackbone", image_size=32, weights="imagenet", settings=HUB_VIT
        )


@needs_hub
def test_preset_of_keras_hub_brings_its_preprocessing(tmp_path):
    """A local preset folder: pixels * 255 * scale + offset, and its weights only when asked for."""
    import keras_hub

    saved = keras_hub.models.ResNetBackbone(**HUB_RESNET)
    saved.save_to_preset(str(tmp_path))
    converter = keras_hub.layers.ResNetImageConverter(
        scale=[0.01, 0.02, 0.03], offset=[1.0, 2.0, 3.0]
    )
    converter.save_to_preset(str(tmp_path))
    model = backbones.build(f"keras_hub:{tmp_path}", image_size=32, weights="imagenet")
    expected = pictures() * 255.0 * np.array([0.01, 0.02, 0.03]) + np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(model.normalize(pictures()), expected, rtol=1e-5)
    np.testing.assert_allclose(model(pictures())["map"], saved(expected), rtol=1e-4, atol=1e-4)
    fresh = backbones.build(f"keras_hub:{tmp_path}", image_size=32)
    assert np.abs(fresh(pictures())["map"] - saved(expected)).max() > 1e-2


@needs_cv
def test_resnet_of_keras_cv(tmp_path):
    model = check_contract("keras_cv:ResNetBackbone", tmp_path, settings=CV_RESNET)
    assert model.replica_exact and model.mean is None
    np.testing.assert_array_equal(model.normalize(pictures()), pictures())
    np.testing.assert_allclose(
        model(pictures())["map"], model.network(pictures()), rtol=1e-5, atol=1e-5
    )
