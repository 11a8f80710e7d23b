"""What lies beside the model: warm-up requests, the fingerprint, the model card; and pictures of bad or huge files."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_ssl import export
from keras_ssl.export import card, decode, facts, warmup

IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32)
STRINGS = tf.TensorSpec((None,), tf.string)


def encode(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **settings)
    return buffer.getvalue()


def linear(seed=0, noise=0.0):
    """An encoder that can be called: 40 random averages of the image."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(3, 40))
    weights = weights + noise * generator.normal(size=weights.shape)
    return lambda images: {"features": np.mean(images, axis=(1, 2)) @ weights}


# Warm-up -----------------------------------------------------------------------------------------------------


def test_warmup_is_read_by_the_servers_own_messages(tmp_path):
    proto = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api"
    )
    signatures = {"serving_default": {"images": IMAGES}, "bytes": {"image_bytes": STRINGS}}
    path = warmup.write_warmup(tmp_path, signatures, image_size=224, model="swav" * 50)
    assert path == tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    assert path.stat().st_size < 40_000  # eight float images of 224 pixels would take 5 MB
    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = proto.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "swav" * 50
        [(key, value)] = request.inputs.items()
        value = tf.make_ndarray(value)
        found.append((request.model_spec.signature_name, key, value.shape))
        if key == "images":
            assert value.dtype == np.float32 and np.all(value == 0.5)
        else:
            assert all(tf.io.decode_jpeg(one).shape == (224, 224, 3) for one in value)
    assert found == [
        ("bytes", "image_bytes", (1,)),
        ("bytes", "image_bytes", (8,)),
        ("serving_default", "images", (1, 224, 224, 3)),
        ("serving_default", "images", (8, 224, 224, 3)),
    ]


def test_bytes_of_a_request_by_hand():
    """model_spec {name "m", signature_name "s"}, inputs {"x": 2 bytes}: keys are number * 8 + 2, then lengths."""
    got = warmup.predict_request("m", "s", {"x": b"\x01\x02"})
    spec = b"\x0a\x01m" + b"\x1a\x01s"
    entry = b"\x0a\x01x" + b"\x12\x02\x01\x02"
    assert got == b"\x0a\x06" + spec + b"\x12\x07" + entry
    assert warmup._varint(300) == b"\xac\x02"  # 300 = 2 * 128 + 44


def test_too_many_warmup_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="At most 1000 warm-up requests.*Received: 1001"):
        warmup.write_warmup(
            tmp_path, {"a": {"i": IMAGES}}, image_size=1, model="m", batch_sizes=range(1, 1002)
        )


# Fingerprint -------------------------------------------------------------------------------------------------


def test_the_fixed_image_by_hand():
    """(7y + 13x + 29c + xy) mod 256: 7*2 + 13*3 + 29*1 + 6 = 88; 7*20 + 13*20 + 29*2 + 400 = 858 = 3*256 + 90."""
    image = facts.fixed_image(21)
    assert image.shape == (1, 21, 21, 3) and image.dtype == np.float32
    assert image[0, 2, 3, 1] == np.float32(88 / 255)
    assert image[0, 20, 20, 2] == np.float32(90 / 255)


def test_a_fingerprint_tells_encoders_apart(recwarn):
    stored = json.loads(json.dumps(facts.fingerprint(linear(), 16)))
    assert len(stored["values"]) == 32 and stored["feature_dim"] == 40
    facts.check_fingerprint(linear(), stored, "here")
    facts.check_fingerprint(linear(noise=1e-5), stored, "here")
    facts.check_fingerprint(linear(seed=1), None, "here")
    assert not recwarn.list
    with pytest.warns(UserWarning, match="encoder in here gives features that differ by 0"):
        facts.check_fingerprint(linear(noise=3e-3), stored, "here")
    with pytest.raises(ValueError, match="encoder in here to compute what it computed"):
        facts.check_fingerprint(linear(seed=1), stored, "here")
    with pytest.raises(ValueError, match="differ by nan"):
        facts.check_fingerprint(lambda x: {"features": np.full((1, 40), np.nan)}, stored, "here")
    with pytest.raises(ValueError, match="Expected 40 features.*Received: 39"):
        facts.check_fingerprint(lambda x: {"features": np.zeros((1, 39))}, stored, "here")


def test_an_exported_encoder_whose_weights_were_changed_is_not_loaded(small_network, tmp_path):
    other = small_network
    folder = export.export_encoder(other, tmp_path / "encoder", image_size=32)
    for variable in other.variables:
        if "kernel" in variable.path:
            variable.assign(variable * 1.5)
    target = tmp_path / "other"
    changed = export.export_encoder(other, target, image_size=32, train_signature=True)
    assert export.load_encoder(folder).feature_dim == 16
    for file in (changed / "variables").iterdir():
        (folder / "variables" / file.name).write_bytes(file.read_bytes())
    for load in (export.load_encoder, export.SavedModelEncoder):
        with pytest.raises(ValueError, match="compute what it computed when it was written"):
            load(folder)

    # The signature that trains: another answer, other statistics, and no warm-up that would run it.
    module = tf.saved_model.load(str(changed))
    names = [b"bytes", b"feature_map", b"serving_default"]
    records = tf.data.TFRecordDataset(str(changed / warmup.FILE)).as_numpy_iterator()
    assert [next(name for name in names if name in record) for record in records] == [
        name for name in names for _ in range(2)
    ]
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    statistics = [v for v in module.variables if "moving" in v.name]
    before = [v.numpy() for v in statistics]
    trained = module.signatures["train"](images=tf.constant(images))["features"]
    assert np.abs(trained - other(images)["features"]).max() > 1e-2
    assert all(np.any(a != v.numpy()) for a, v in zip(before, statistics, strict=True))
    assert "`train`" in (changed / "model_card.md").read_text()


# Model card --------------------------------------------------------------------------------------------------


def test_the_card_says_what_is_known_and_what_is_not():
    known = {
        "keras_ssl_version": "1.2",
        "feature_dim": 2048,
        "image_size": 224,
        "any_image_size": False,
        "preprocessing": {"crop_ratio": 0.875},
        "signatures": ["bytes", "serving_default"],
        "source": {"method": "swav", "license": "CC-BY-NC 4.0", "weight_decay": 1e-6, "top1": 75.3},
    }
    text = card.write_card(known, weight_mb=93.76)
    for line in (
        "| method | swav |",
        "| data | not stated |",
        "| license | CC-BY-NC 4.0 |",
        "| top1 | 75.3 |",
        "| image size | 224 x 224 pixels; no other size |",
        "| weights | 93.76 MB in float32 |",
        "- `serving_default`: `images`, float32 `(batch, 224, 224, 3)` in [0, 1] to `features`",
    ):
        assert line in text.splitlines()
    assert "0.875 times the shorter side" in text
    assert "trained with 1e-06. Decay that an optimizer applies is no part of this file" in text
    assert "`tokens`" not in text
    assert "trained with" not in card.write_card({**known, "source": {}}, 1.0)


# Pictures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decode_32():
    return tf.function(lambda files: decode.decode_batch(files, 32, 0.8), input_signature=[STRINGS])


def photograph(name, times):
    """A photograph, enlarged, with a little noise."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    large = image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).integers(-8, 9, (large.height, large.width, 1))
    return np.clip(np.asarray(large).astype(np.int16) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("size, ratio", [(112, 1), (80, 2), (40, 4), (21, 8)])
def test_a_large_jpeg_is_decoded_small_within_a_stated_band(name, size, ratio, monkeypatch):
    """427 x 640 pixels, crop 0.875: side 373.6, so 3.3, 4.7, 9.3 and 17.8 times the view."""
    used = []
    decode_jpeg = tf.io.decode_jpeg

    def spy(contents, **settings):
        used.append(settings["ratio"])
        return decode_jpeg(contents, **settings)

    monkeypatch.setattr(tf.io, "decode_jpeg", spy)
    file = encode(photograph(name, 1), "JPEG", quality=92)
    got = decode.decode_and_crop(tf.constant(file), size, 0.875).numpy()
    assert used == [ratio]
    whole = np.asarray(Image.open(io.BytesIO(file)))
    shape = tf.constant(whole.shape[:2], tf.float32)
    exact = decode._crop(tf.constant(whole), shape, size, 0.875).numpy()
    difference = 255 * np.abs(got - exact)
    if ratio == 1:
        assert difference.max() < 1e-3
    else:
        assert difference.mean() < 1.0 and difference.max() < 12


@pytest.mark.parametrize("height, width", [(257, 300), (260, 511), (300, 259)])
def test_sides_that_a_ratio_does_not_divide_do_not_shift_the_view(height, width):
    """A ramp: a shift of one decoded pixel, eight of the file, would be 8 / 300 of the range."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 / width, y * 255 / height, 0 * x + 128], axis=2).astype(np.uint8)
    file = encode(ramp, "JPEG", quality=98, subsampling=0)
    shape = tf.constant(ramp.shape[:2], tf.float32)
    exact = decode._crop(tf.constant(ramp), shape, 14, 1.0).numpy()
    got = decode.decode_and_crop(tf.constant(file), 14, 1.0).numpy()
    assert np.abs(got - exact).max() < 2.5 / 255


# A GIF with a screen of 1 x 1 and one frame of 9000 x 9000, which TensorFlow would unpack to 243 MB.
SMALL_SCREEN = (
    b"GIF89a"
    + bytes([1, 0, 1, 0, 0x80, 0, 0, 0, 0, 0, 255, 255, 255, 0x2C, 0, 0, 0, 0])
    + (2 * (9000).to_bytes(2, "little") + bytes([0, 2, 2, 0x4C, 1, 0, 0x3B]))
)


@pytest.mark.parametrize(
    "bad, sentence",
    [
        (b"", "image 1 of the request, 0 bytes of something else"),
        (b"x", "image 1 of the request, 1 bytes of something else"),
        (b"RIFF0000WEBPVP8 ", "16 bytes of something else"),
        (b"\xff\xd8\xff\xe0", "Invalid JPEG data"),
        (b"\x89PNG", "(?i)unknown image file|invalid png"),
        (SMALL_SCREEN, "Expected a JPEG, PNG or BMP file.*image 1"),
        (b"BM", "(?i)bmp"),
    ],
)
def test_bad_files_are_refused(bad, sentence, decode_32):
    good = encode(np.full((40, 50, 3), 7, np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match=sentence):
        decode_32([good, bad])
    np.testing.assert_allclose(decode_32([good]), 7 / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_size_is_read_from_the_header(kind, decode_32, monkeypatch):
    image = np.zeros((123, 457, 3), np.uint8)
    file = encode(image, kind)
    assert tuple(map(int, decode._declared_shape(tf.constant(file)))) == (123, 457)
    monkeypatch.setattr(decode, "MAX_PIXELS", 123 * 457 - 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image 5 .* 457 x 123"):
        decode.decode_and_crop(tf.constant(file), 8, 1.0, index=5)
    monkeypatch.setattr(decode, "MAX_PIXELS", 123 * 457)
    assert decode.decode_and_crop(tf.constant(file), 8, 1.0).shape == (8, 8, 3)


def test_a_bmp_from_the_top_down_and_a_jpeg_have_limits_too(monkeypatch):
    file = bytearray(encode(np.zeros((123, 457, 3), np.uint8), "BMP"))
    file[22:26] = (-123).to_bytes(4, "little", signed=True)
    assert tuple(map(int, decode._declared_shape(tf.constant(bytes(file))))) == (123, 457)
    monkeypatch.setattr(decode, "MAX_JPEG_PIXELS", 2**20)
    jpeg = encode(np.zeros((1025, 1025, 3), np.uint8), "JPEG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 1 \* 2\^20 pixels"):
        decode.decode_and_crop(tf.constant(jpeg), 8, 1.0)


def test_few_pictures_are_decoded_at_a_time(decode_32):
    """Each may take 540 MB while it is decoded, so their number is no matter of the number of processors."""
    graph = decode_32.get_concrete_function().graph
    [loop] = [node for node in graph.get_operations() if node.type in ("While", "StatelessWhile")]
    assert loop.get_attr("parallel_iterations") == 4
