"""Small encoders whose weights and batch-norm statistics are not those of a fresh network."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_encoder():
    from keras_ssl import backbones

    sizes = {
        "resnet": ("resnet_mini", {"filters": (8, 8, 16, 16)}),
        "vit": ("vit_mini", {"width": 16, "depth": 2, "num_heads": 2}),
    }

    def make(kind):
        name, settings = sizes[kind]
        network = backbones.build(name, image_size=32, **settings)
        generator = np.random.default_rng(0)
        for variable in network.variables:
            noise = 0.1 * generator.normal(size=variable.shape)
            is_variance = "variance" in variable.path
            variable.assign(variable.numpy() + (np.abs(noise) if is_variance else noise))
        return network

    return make


def _small_network():
    """Convolutions, batch-norm and pooling for images of any size: quick to trace, 16 features."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same")(x)
    features = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, {"features": features, "map": x})
    generator = np.random.default_rng(0)
    for variable in network.variables:
        noise = 0.3 * generator.normal(size=variable.shape)
        is_variance = "variance" in variable.path
        variable.assign(variable.numpy() + (np.abs(noise) if is_variance else noise))
    return network


@pytest.fixture
def small_network():
    return _small_network()


@pytest.fixture(scope="session")
def make_small():
    return _small_network
