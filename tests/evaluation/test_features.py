"""Feature extraction: order, transform, batches and labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ssl import views
from keras_ssl.evaluation import features


class Source:
    """Images that hold their own number; record 3 is broken and record 0 stands in for it."""

    def __init__(self, count=7, labels=True, aspect=1.0):
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (count, 12, 16, 3)).astype(np.uint8)
        self.num_samples = count
        self.labels = np.arange(count, dtype=np.int64) * 10 if labels else None
        self.aspect = aspect
        self.asked = []

    def read_batch(self, indices):
        self.asked.append(indices.tolist())
        shown = np.where(indices == 3, 0, indices)
        return self.images[shown], np.full(len(indices), self.aspect, np.float32), shown


def flat(images):
    return {"features": tf.reshape(images, [tf.shape(images)[0], 8 * 8 * 3])}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_all_images_in_order_whatever_the_batch(batch_size):
    source = Source()
    got, labels = features.extract_features(flat, source, image_size=8, batch_size=batch_size)
    shown = [0, 1, 2, 0, 4, 5, 6]
    expected = views.center_crop(source.images[shown], size=8, crop_ratio=1.0)
    np.testing.assert_allclose(got, tf.reshape(expected, [7, -1]), atol=1e-6)
    assert got.dtype == np.float32
    assert labels.dtype == np.int32
    assert labels.tolist() == [10 * i for i in shown]
    assert [i for block in source.asked for i in block] == list(range(7))


def test_aspect_and_crop_ratio_reach_the_transform():
    source = Source(aspect=2.0, labels=False)
    got, labels = features.extract_features(
        flat, source, image_size=8, batch_size=7, crop_ratio=0.5
    )
    shown = source.images[[0, 1, 2, 0, 4, 5, 6]]
    right = views.center_crop(shown, np.full(7, 2.0, np.float32), size=8, crop_ratio=0.5)
    wrong = views.center_crop(shown, size=8, crop_ratio=0.5)
    np.testing.assert_allclose(got, tf.reshape(right, [7, -1]), atol=1e-6)
    assert np.abs(got - tf.reshape(wrong, [7, -1])).max() > 0.05
    assert labels is None


def test_small_pictures_are_used_whole():
    assert [features.default_crop_ratio(size) for size in (32, 64, 65, 224)] == [1, 1, 0.875, 0.875]
    assert features.FeatureExtractor(flat, image_size=96).crop_ratio == 0.875
    assert features.FeatureExtractor(flat, image_size=96, crop_ratio=1.0).crop_ratio == 1.0


def test_indices_limit_and_progress():
    calls = []
    extract = features.FeatureExtractor(flat, image_size=8, batch_size=2)
    everything, _ = extract(Source())
    some, labels = extract(
        Source(), indices=np.array([6, 1, 4]), limit=2, progress=lambda *done: calls.append(done)
    )
    np.testing.assert_array_equal(some, everything[[6, 1]])
    assert labels.tolist() == [60, 10]
    assert calls == [(2, 2)]
    assert len(extract(Source(), limit=5)[0]) == 5


def test_one_shape_reaches_the_encoder_and_it_is_traced_once():
    shapes = []

    def encoder(images):
        shapes.append(images.shape[0])
        return flat(images)

    extract = features.FeatureExtractor(encoder, image_size=8, batch_size=3)
    extract(Source())
    extract(Source(count=4))
    assert shapes == [3]


def test_float_and_byte_arrays_are_the_same_pictures():
    images = Source().images
    from_bytes, labels = features.extract_features(flat, images, image_size=8)
    from_floats, _ = features.extract_features(flat, images / 255.0, image_size=8)
    np.testing.assert_allclose(from_bytes, from_floats, atol=1e-6)
    assert labels is None


def test_keras_encoder_runs_in_inference_mode_and_gives_float32():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.GlobalAveragePooling2D()(inputs))
    encoder = keras.Model(inputs, {"features": keras.layers.Dropout(0.9)(x)}, dtype="bfloat16")
    before = [v.numpy() for v in encoder.variables]
    source = Source()
    first, _ = features.extract_features(encoder, source, image_size=8)
    second, _ = features.extract_features(encoder, source, image_size=8)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    for old, new in zip(before, encoder.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_the_encoders_own_size_is_the_default():
    class Encoder:
        image_size = 8

        def __call__(self, images):
            return tf.reshape(images, [tf.shape(images)[0], 8 * 8 * 3])

    got, _ = features.extract_features(Encoder(), Source())
    np.testing.assert_array_equal(got, features.extract_features(flat, Source(), image_size=8)[0])


def test_an_error_of_the_source_is_raised_as_it_is():
    class Broken(Source):
        def read_batch(self, indices):
            raise ValueError("too many broken records")

    with pytest.raises(ValueError, match="too many broken records"):
        features.extract_features(flat, Broken(), image_size=8)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"`image_size` must be a positive int.*None"):
        features.extract_features(flat, Source())
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        features.FeatureExtractor(flat, image_size=8, batch_size=0)
    for ratio in (0.0, 3.0):
        with pytest.raises(ValueError, match=rf"`crop_ratio` must be in \(0, 1\].*{ratio}"):
            features.FeatureExtractor(flat, image_size=8, crop_ratio=ratio)
    with pytest.raises(ValueError, match="At least one image"):
        features.extract_features(flat, Source(), image_size=8, limit=0, batch_size=4)
    with pytest.raises(ValueError, match=r"\(samples, height, width, 3\).*\(2, 8, 8, 1\)"):
        features.extract_features(flat, np.zeros((2, 8, 8, 1)), image_size=8)
    with pytest.raises(ValueError, match=r"outputs=\['map'\]"):
        features.encoder_outputs(lambda images: {"map": images}, tf.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"features.shape=\(1, 8, 8, 3\)"):
        features.encoder_outputs(lambda images: images, tf.zeros((1, 8, 8, 3)))
