"""How far an encoder in another format is from the encoder it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_ssl.evaluation.features import encoder_outputs

# The smallest cosine, over the images measured, between the features of the file and of the encoder in float32. What
# falls below is not an encoder of the same worth: a wrong conversion, or a range of values that 8 bits do not hold.
SMALLEST = {"float32": 0.999, "float16": 0.999, "int8": 0.98}
_GENERATED = 8  # images, where none are given


class Agreement(NamedTuple):
    """Cosines between the features of a file and of the encoder.

    Attributes:
        smallest: float. Of all images.
        mean: float. Over the images.
        count: int. Number of images.
        precision: str. A key of `SMALLEST`.
    """

    smallest: float
    mean: float
    count: int
    precision: str

    @property
    def enough(self) -> bool:
        """Whether the file may stand for the encoder."""
        return self.smallest >= SMALLEST[self.precision]

    def line(self, images: str) -> str:
        """Returns what the command prints; begins with "Warning:" if it is not enough."""
        text = (
            f"cosine with the encoder in float32: mean {self.mean:.5f}, smallest {self.smallest:.5f} on {self.count} "
            f"{images}"
        )
        if self.enough:
            return f"{text}."
        return f"Warning: {text}; at least {SMALLEST[self.precision]} was expected for {self.precision}."


def measure_agreement(
    expected: np.ndarray, received: np.ndarray, precision: str = "float32"
) -> Agreement:
    """Compares features image by image.

    Args:
        expected: float `(images, feature_dim)`. Of the encoder in float32.
        received: float `(images, feature_dim)`. Of the file.
        precision: str. A key of `SMALLEST`. Defaults to `"float32"`.

    Returns:
        Agreement. An image whose features are not finite counts as -1, the worst cosine there is.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(received, np.float64)
    if a.shape != b.shape or a.ndim != 2 or not len(a):
        raise ValueError(
            f"Features of the same images were expected. Received: shapes {a.shape} and {b.shape}"
        )
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (a * b).sum(1) / lengths
    cosine = np.where(np.isfinite(cosine), cosine, np.where((a == b).all(1), 1.0, -1.0))
    return Agreement(float(cosine.min()), float(cosine.mean()), len(cosine), precision)


def generated_images(image_size: int, count: int = _GENERATED) -> np.ndarray:
    """Returns images to measure on where there are no others: noise with as much contrast in every octave.

    Args:
        image_size: int. Side, pixels.
        count: int. Number of images. Defaults to `8`.

    Returns:
        float32 `(count, image_size, image_size, 3)` in [0, 1], the same at every call.
    """
    generator = np.random.default_rng(0)
    images, side = np.zeros((count, image_size, image_size, 3), np.float32), 2
    while side <= image_size:
        noise = generator.standard_normal((count, side, side, 3)).astype(np.float32)
        images += tf.image.resize(noise, (image_size, image_size), "bicubic").numpy()
        side *= 2
    return np.clip(0.5 + 0.2 * images / max(float(images.std()), 1e-6), 0.0, 1.0)


def features_of(encoder: Callable, images: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Returns the features of images, float32 `(images, feature_dim)`, a few images at a time."""
    parts: list[Any] = [
        encoder_outputs(encoder, tf.constant(images[start : start + batch_size]))["features"]
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
