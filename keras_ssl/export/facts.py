"""What is written beside an encoder: what it expects, and what it computes for one fixed image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ssl.evaluation.features import default_crop_ratio, encoder_outputs

# Shares of the largest feature. The first is far above what another processor or another order of sums changes in
# float32; the second is above what TensorFloat-32 does.
TOLERANCE, FAILURE = 1e-3, 2e-2
_KEPT = 32  # features in the fingerprint


def encoder_settings(
    encoder: Any, image_size: int | None, crop_ratio: float | None
) -> tuple[int, float]:
    """Returns the image size and crop ratio that an encoder is written with, checked.

    Raises:
        ValueError: If the size is no positive int, or the ratio is not in (0, 1].
    """
    image_size = getattr(encoder, "image_size", None) if image_size is None else image_size
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"`image_size` must be a positive int. Received: image_size={image_size}")
    crop_ratio = default_crop_ratio(image_size) if crop_ratio is None else float(crop_ratio)
    if not 0.0 < crop_ratio <= 1.0:
        raise ValueError(f"`crop_ratio` must be in (0, 1]. Received: crop_ratio={crop_ratio}")
    return image_size, crop_ratio


def fixed_image(size: int) -> np.ndarray:
    """Returns the image of the fingerprint: pixel (y, x, c) is ((7y + 13x + 29c + xy) mod 256) / 255.

    Args:
        size: int. Side, pixels.

    Returns:
        float32 `(1, size, size, 3)` in [0, 1].
    """
    y, x, c = np.ogrid[:size, :size, :3]
    return (((7 * y + 13 * x + 29 * c + y * x) % 256) / 255.0).astype(np.float32)[None]


def fingerprint(encoder: Callable, image_size: int) -> dict[str, Any]:
    """Returns what tells two encoders apart: some features of `fixed_image`, and the largest of all.

    Args:
        encoder: Callable from images `(batch, height, width, 3)` in [0, 1] to a dict with `"features"`.
        image_size: int. Side of the image, pixels.

    Returns:
        dict of JSON values: `image_size`, `feature_dim`, `largest`, and `values`, up to 32 features evenly spaced.
    """
    features = _features(encoder, image_size)
    places = _places(len(features))
    return {
        "image": "pixel (y, x, c) is ((7y + 13x + 29c + xy) mod 256) / 255",
        "image_size": image_size,
        "feature_dim": len(features),
        "tolerance": TOLERANCE,
        "largest": float(f"{np.abs(features).max():.7g}"),
        "places": places.tolist(),
        "values": [float(f"{value:.7g}") for value in features[places]],
    }


def check_fingerprint(encoder: Callable, stored: Mapping[str, Any] | None, where: Any) -> None:
    """Compares an encoder with the fingerprint that was stored with it; without one there is nothing to compare.

    Args:
        encoder: As for `fingerprint`.
        stored: dict. What `fingerprint` gave, or None.
        where: path. Named in the message.

    Raises:
        ValueError: If the features differ by more than 2% of the largest: other weights, or a broken file. A
            smaller difference, above 0.1%, is a warning: another precision.
    """
    if not stored:
        return
    features = _features(encoder, stored["image_size"])
    if len(features) != stored["feature_dim"]:
        raise ValueError(
            f"Expected {stored['feature_dim']} features, which the encoder in {where} had when it was written. "
            f"Received: {len(features)}; export it again."
        )
    largest = max(abs(stored["largest"]), 1e-12)
    difference = np.abs(features[stored["places"]] - stored["values"]).max() / largest
    if not difference <= FAILURE:
        raise ValueError(
            f"Expected the encoder in {where} to compute what it computed when it was written. Received: features "
            f"of the fixed image that differ by {difference:.1%} of the largest; export it again."
        )
    if difference > stored["tolerance"]:
        warnings.warn(
            f"The encoder in {where} gives features that differ by {difference:.2%} from those when it was written: "
            "this device computes in a lower precision than float32.",
            stacklevel=3,
        )


def folder_size(directory: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _features(encoder: Callable, image_size: int) -> np.ndarray:
    return np.asarray(
        encoder_outputs(encoder, keras.ops.convert_to_tensor(fixed_image(image_size)))["features"]
    )[0]


def _places(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _KEPT)).round().astype(int))
