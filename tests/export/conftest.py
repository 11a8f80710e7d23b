"""Small encoders whose weights and batch-norm statistics are not those of a fresh network."""

import numpy as np
import pytest

from tests.small_network import make_small_network


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


@pytest.fixture
def small_network():
    return make_small_network()


@pytest.fixture(scope="session")
def make_small():
    return make_small_network


@pytest.fixture(scope="module")
def pictures():
    """The digits, 32 pixels: real images, of few kinds, far from noise."""
    from keras_ssl.data import load_digits

    images, _, _ = load_digits().read_batch(np.arange(64))
    return images.astype(np.float32) / 255.0
