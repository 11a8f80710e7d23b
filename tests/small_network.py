"""A network that is quick to trace, for tests that export one."""

import numpy as np


def make_small_network():
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
