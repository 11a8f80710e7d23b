"""Features of one fixed image, by which a conversion is recognized on another machine."""

from __future__ import annotations

import keras
import numpy as np

from keras_ssl.zoo.published import Published

FEATURES = 16  # of the fixed image, in the certificate
_ANY_SIZE = ("resnet", "vit", "regnet", "xcit", "convnext", "swin")


def fixed_image(size: int) -> np.ndarray:
    """Returns the image whose features are compared: `(1, size, size, 3)` float32 in [0, 1], by integer arithmetic.

    Value 255 x: (73 row + 151 column + 59 channel + row x column mod 64) mod 256.
    """
    row, column, channel = np.meshgrid(*map(np.arange, (size, size, 3)), indexing="ij")
    levels = (73 * row + 151 * column + 59 * channel + row * column % 64) % 256
    return (levels[None] / 255).astype(np.float32)


def features_of_fixed_image(network: keras.Model, entry: Published) -> list[float]:
    """Returns the first features of the fixed image, at 112 pixels where the network takes that size."""
    fits = entry.backbone.startswith(_ANY_SIZE) and 112 % getattr(network, "patch_size", 1) == 0
    size = 112 if fits else entry.image_size
    features = network(fixed_image(size), training=False)["features"]
    return [float(value) for value in np.asarray(features, np.float32)[0, :FEATURES]]
