"""What `export_encoder` writes: precision, size on disk, signatures, metadata, and what it refuses."""

import io
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import backbones, export, views
from keras_ssl.export import decode, saved_model


@pytest.fixture(scope="module")
def resnet(make_encoder):
    return make_encoder("resnet")


def tiny(**settings):
    """Convolution, batch-norm and pooling: quick to trace."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, **settings)(inputs)
    x = keras.layers.BatchNormalization()(x)
    features = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, {"features": features, "map": x})


@pytest.fixture(scope="module")
def folder(resnet, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "deep" / "encoder"
    facts = {"method": "simclr", "step": 7}
    return export.export_encoder(resnet, target, crop_ratio=0.8, extra_metadata=facts)


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder))


def encode(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **settings)
    return buffer.getvalue()


def picture(height, width, channels=3, seed=0):
    """A smooth random picture, which JPEG keeps well."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(40, 215, (4, 5, channels)).astype(np.float32)
    smooth = tf.image.resize(coarse, (height, width), method="bicubic").numpy()
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def test_every_weight_is_stored_once(resnet, folder):
    weights = sum(int(np.prod(v.shape)) * 4 for v in resnet.variables)
    stored = sum(file.stat().st_size for file in (folder / "variables").glob("*.data-*"))
    assert weights <= stored < 1.05 * weights + 20_000
    names = [name for name, _ in tf.train.list_variables(str(folder / "variables" / "variables"))]
    values = [name for name in names if name.endswith("VARIABLE_VALUE")]
    assert len(values) == len(resnet.variables)


def test_interface_of_a_reusable_saved_model(resnet, loaded):
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    expected = resnet(images)
    outputs = loaded.outputs(images)
    assert set(outputs) == {"features", "map"}
    np.testing.assert_allclose(outputs["map"], expected["map"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        loaded(images, training=False), expected["features"], rtol=1e-5, atol=1e-5
    )
    assert len(loaded.variables) == len(resnet.variables)
    assert len(loaded.trainable_variables) == len(resnet.trainable_variables)
    assert list(loaded.regularization_losses) == []
    for own, saved in zip(resnet.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(own.numpy(), saved.numpy())


def test_a_convnet_takes_any_size_and_a_transformer_its_own(
    resnet, loaded, folder, make_encoder, tmp_path
):
    large = np.random.default_rng(0).random((1, 48, 40, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded(large), resnet(large)["features"], rtol=1e-5, atol=1e-5)
    assert export.read_metadata(folder)["any_image_size"]
    export.export_encoder(make_encoder("vit"), tmp_path / "vit")
    assert not export.read_metadata(tmp_path / "vit")["any_image_size"]
    served = tf.saved_model.load(str(tmp_path / "vit")).signatures["serving_default"]
    assert served.structured_input_signature[1]["images"].shape.as_list() == [None, 32, 32, 3]


@pytest.mark.parametrize("shape", [(40, 40), (90, 61), (33, 200), (20, 24)])
def test_bytes_see_what_evaluation_sees(loaded, shape):
    """PNG is lossless: the signature equals the float signature on `views.center_crop`'s view."""
    image = picture(*shape)
    view = views.center_crop(image[None], size=32, crop_ratio=0.8)
    expected = loaded.signatures["serving_default"](images=view)["features"]
    got = loaded.signatures["bytes"](image_bytes=tf.constant([encode(image)]))["features"]
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(decode.decode_and_crop(encode(image), 32, 0.8), view[0], atol=1e-5)


def test_bytes_crop_by_hand_when_no_resize_is_needed():
    """Shorter side 40 = 32 / 0.8: the view is the central 32 x 32 pixels."""
    image = picture(40, 60)
    got = decode.decode_and_crop(encode(image), 32, 0.8)
    np.testing.assert_allclose(got, image[4:36, 14:46] / 255.0, atol=1e-6)


def test_bytes_resize_as_pillow_does():
    image = picture(123, 77)
    resized = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR, (0, 23, 77, 100))
    got = decode.decode_and_crop(encode(image), 32, 1.0)
    assert np.abs(got - np.asarray(resized) / 255.0).max() < 1.01 / 255


def test_one_batch_of_all_formats_sizes_and_gray(loaded):
    """Pillow, which feeds the training, decodes each file to the pixels that the signature sees."""
    color, gray = picture(50, 70), picture(64, 45, channels=1)[..., 0]
    alpha = np.concatenate([color, np.full((50, 70, 1), 255, np.uint8)], axis=2)
    files = [
        encode(color, "JPEG", quality=95),
        encode(color, "PNG"),
        encode(color, "BMP"),
        encode(alpha, "PNG"),
        encode(gray, "PNG"),
        encode(gray, "JPEG", quality=95),
    ]
    got = loaded.signatures["bytes"](image_bytes=tf.constant(files))["features"].numpy()
    for row, file in zip(got, files, strict=True):
        image = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        view = views.center_crop(image[None], size=32, crop_ratio=0.8)
        np.testing.assert_allclose(decode.decode_and_crop(file, 32, 0.8), view[0], atol=1e-5)
        np.testing.assert_allclose(row, loaded(view)[0], rtol=1e-4, atol=2e-4)
    assert np.linalg.norm(got[1] - got[4]) > 0.1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_any_training_policy_exports_float32(policy, make_encoder, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        network = make_encoder("resnet")
        assert network.compute_dtype == policy.removeprefix("mixed_")
        copy = saved_model.float32_copy(network)
        assert keras.config.dtype_policy().name == policy
        if policy == "mixed_bfloat16":
            export.export_encoder(network, tmp_path / "encoder")
    finally:
        keras.config.set_dtype_policy("float32")
    dtypes = {layer.compute_dtype for layer in copy._flatten_layers()}
    assert dtypes == {"float32"}
    assert {v.dtype for v in copy.variables} == {"float32"}
    images = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    exact = copy(images)["features"].numpy()
    rough = np.asarray(tf.cast(network(images)["features"], tf.float32))
    np.testing.assert_allclose(rough, exact, rtol=0.1, atol=0.05)
    if policy == "mixed_bfloat16":
        module = tf.saved_model.load(str(tmp_path / "encoder"))
        got = module(images)
        assert got.dtype == tf.float32
        assert {v.dtype for v in module.variables} == {tf.float32}
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5)
        assert np.abs(rough - exact).max() > 1e-4


def test_a_frozen_encoder_is_exported_trainable_and_stays_frozen_here(tmp_path):
    network = tiny()
    total = len(network.trainable_variables)
    network.trainable = False
    export.export_encoder(network, tmp_path / "encoder", image_size=8)
    module = tf.saved_model.load(str(tmp_path / "encoder"))
    assert len(module.trainable_variables) == total > 0
    assert network.trainable_variables == []
    mean = next(v for v in module.variables if "moving_mean" in v.name)
    before = mean.numpy()
    module(np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32), training=True)
    assert np.abs(mean.numpy() - before).max() > 0


def test_drop_path_is_active_in_training_only(tmp_path):
    settings = {"width": 16, "depth": 2, "num_heads": 2, "drop_path": 0.5}
    network = backbones.build("vit_mini", image_size=32, **settings)
    export.export_encoder(network, tmp_path / "encoder")
    module = tf.saved_model.load(str(tmp_path / "encoder"))
    images = np.random.default_rng(0).random((16, 32, 32, 3)).astype(np.float32)
    first, second = (module(images, training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    np.testing.assert_array_equal(module(images), module(images))


def test_weight_penalties_are_exported(tmp_path):
    network = tiny(kernel_regularizer=keras.regularizers.L2(0.5))
    export.export_encoder(network, tmp_path / "encoder", image_size=8)
    module = tf.saved_model.load(str(tmp_path / "encoder"))
    [penalty] = module.regularization_losses
    kernel = module.trainable_variables[0]
    assert float(penalty()) == pytest.approx(0.5 * np.sum(kernel.numpy() ** 2), rel=1e-5)
    with tf.GradientTape() as tape:
        value = penalty()
    np.testing.assert_allclose(tape.gradient(value, kernel), kernel, rtol=1e-5)


def test_metadata_says_how_to_feed_it(folder):
    facts = json.loads((folder / "assets.extra" / "keras_ssl.json").read_text())
    assert facts == export.read_metadata(folder)
    assert facts["feature_dim"] == 16
    assert facts["image_size"] == 32
    assert facts["preprocessing"]["crop_ratio"] == 0.8
    assert facts["source"] == {"method": "simclr", "step": 7}


def test_an_older_export_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    network, target = tiny(), tmp_path / "encoder"
    target.mkdir()
    export.export_encoder(network, target, image_size=8, extra_metadata={"step": 1})
    (target / "variables" / "stale").write_text("old")
    export.export_encoder(network, target, image_size=8, extra_metadata={"step": 2})
    assert export.read_metadata(target)["source"] == {"step": 2}
    assert not (target / "variables" / "stale").exists()
    assert os.listdir(tmp_path) == ["encoder"]
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="over an older SavedModel.*something else"):
        export.export_encoder(network, target, image_size=8)
    assert (target / "notes.txt").read_text() == "mine"


def test_a_renaming_that_fails_puts_the_old_folder_back(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "file").write_text("old")
    with pytest.raises(FileNotFoundError):
        saved_model.put_in_place(tmp_path / "missing", tmp_path / "encoder", tmp_path / "old")
    assert (tmp_path / "encoder" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["encoder"]


def test_a_failed_export_leaves_the_old_one(resnet, tmp_path, monkeypatch):
    target = tmp_path / "encoder"
    target.mkdir()
    (target / "saved_model.pb").write_text("old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export.export_encoder(resnet, target)
    assert (target / "saved_model.pb").read_text() == "old"
    assert os.listdir(tmp_path) == ["encoder"]


def test_what_is_refused_is_named(resnet, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(ValueError, match=r"new or empty folder.*photos.*something else"):
        export.export_encoder(resnet, tmp_path / "photos")
    with pytest.raises(ValueError, match=r"something else"):
        export.export_encoder(resnet, tmp_path / "photos" / "cat.jpg")
    with pytest.raises(ValueError, match=r"`crop_ratio` must be in \(0, 1\].*1.5"):
        export.export_encoder(resnet, tmp_path / "new", crop_ratio=1.5)
    with pytest.raises(ValueError, match=r"`image_size` must be a positive int.*None"):
        export.export_encoder(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "new")
    with pytest.raises(ValueError, match=r"Only a Keras model.*encoder=function"):
        export.export_encoder(lambda images: images, tmp_path / "new", image_size=8)
    with (
        tf.distribute.OneDeviceStrategy("CPU:0").scope(),
        pytest.raises(ValueError, match="outside"),
    ):
        export.export_encoder(resnet, tmp_path / "new")
    assert os.listdir(tmp_path) == ["photos"]
