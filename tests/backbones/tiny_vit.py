"""A small ViT whose variables all matter, and images for it."""

import numpy as np

from keras_ssl.backbones import ViT

WIDTH, DEPTH, HEADS, PATCH, SIZE = 16, 2, 4, 4, 16
PATCHES = (SIZE // PATCH) ** 2


def tiny(**settings):
    """A small ViT with variables that all matter."""
    defaults = {"patch_size": PATCH, "image_size": SIZE, "dtype": "float64"}
    model = ViT(WIDTH, DEPTH, HEADS, **{**defaults, **settings})
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1.0 if "gamma" in variable.path else 0.0, 0.3, variable.shape))
    return model


def pictures(count=2, size=(SIZE, SIZE), dtype="float64"):
    return np.random.default_rng(1).uniform(size=(count, *size, 3)).astype(dtype)
