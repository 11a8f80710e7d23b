"""A folder of small pictures of every troublesome kind, and an encoder whose features can be worked out by hand."""

import numpy as np
import pytest
from PIL import Image


def smooth(seed, height=24, width=24):
    """Returns a uint8 picture of a few soft patches of color."""
    coarse = np.random.default_rng(seed).integers(0, 255, (3, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def picture():
    return smooth


@pytest.fixture
def folder(tmp_path):
    """Two classes, 20 good pictures without loss and one broken; names sort as they are numbered."""
    root = tmp_path / "pictures"
    for number in range(20):
        place = root / ("cats" if number < 11 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth(number)).save(place / f"{number:02d}.png")
    (root / "cats" / "05x.jpg").write_bytes(b"this is no picture")
    return root


@pytest.fixture(scope="session")
def encoder():
    """Means over the quarters of the image, as one vector: what is embedded can be computed with NumPy."""
    import tensorflow as tf

    def quarters(images):
        size = images.shape[1] // 2
        means = tf.nn.avg_pool2d(images, size, size, "VALID")
        return {"features": tf.reshape(means, (-1, 12))}

    return quarters
