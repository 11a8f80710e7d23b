"""The features of a converted file compared with those of a reference network that reads the same file."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import keras
import numpy as np

from keras_ssl.conversion.references import REFERENCES, Reference
from keras_ssl.conversion.references.running import Run
from keras_ssl.zoo.cache import Say
from keras_ssl.zoo.checks import Check
from keras_ssl.zoo.converting import read_tensors
from keras_ssl.zoo.origin import Source
from keras_ssl.zoo.published import Published, format_bytes

TOLERANCE = 1e-4  # of an output, over its largest number
LARGE = 10**9  # bytes of tensors in float32, from which one image must do
WHAT = "reference network"
INSTALL = "pip install 'keras_ssl[verify]'"


def compare_with_reference(
    entry: Published, source: Source | None, network: keras.Model, say: Say
) -> Check:
    """Returns the check of a converted network against the reference network of its layout.

    Args:
        entry: Published.
        source: Source or None. The published file; None: it is not on this machine.
        network: keras.Model. Filled, in float32.
        say: callable. Gets a sentence if much memory is needed.
    """
    reference = REFERENCES.get(entry.layout)
    if reference is None:
        return Check(WHAT, f"there is none for the layout {entry.layout}", "", None)
    if source is None:
        return Check(WHAT, "the published file to read", "not kept in the cache", None)
    if reference.missing:
        needs = f"{reference.missing}, which runs it: {INSTALL}"
        return Check(WHAT, needs, f"no {reference.missing} installed", None)
    try:
        _, tensors = read_tensors(entry, source.paths[0])
        total = 4 * sum(np.size(value) for value in tensors.values())
        if total >= LARGE:
            say(
                f"the reference network of {entry.name} takes about {format_bytes(total)} of memory for the "
                f"tensors of the file, as much as the converted one beside it; --no-reference does without"
            )
            gc.collect()  # networks that were made before this one hang in cycles
        run = _build(entry, reference, tensors, network)
        return _compare(run, network, list(_images(entry, network, large=total >= LARGE)))
    except ValueError as error:
        return Check(WHAT, "a file that it can read", " ".join(str(error).split()), False)


def _build(
    entry: Published, reference: Reference, tensors: dict[str, np.ndarray], network: keras.Model
) -> Run:
    images, settings = entry.images, {**network.settings, "image_size": entry.image_size}
    return reference.build(entry.layout, tensors, settings, images.mean, images.std)


def _images(entry: Published, network: keras.Model, large: bool) -> Iterator[np.ndarray]:
    """Yields random images `(1, height, width, 3)` float32 in [0, 1], always the same: two, and one of another size.

    One alone for large networks. The other size is not square; odd, but for a ViT, which takes whole patches.
    """
    size, other = entry.image_size, _other_size(entry.image_size, network)
    sizes = [(size, size)] if large else [(size, size), (size, size), *other]
    rng = np.random.default_rng(0)
    for sides in sizes:
        yield rng.random((1, *sides, 3), dtype=np.float32)


def _other_size(size: int, network: keras.Model) -> list[tuple[int, int]]:
    """Returns one more height and width that a network can take, or none if dense layers read its map."""
    from keras_ssl.backbones import ViT

    if network.settings.get("dense"):
        return []
    if isinstance(network, ViT):
        patch = network.patch_size
        return [(size + patch, max(patch, size - 2 * patch))]
    return [(size // 2 * 2 + 7, size // 2 * 2 - 1)]


def _compare(run: Run, network: keras.Model, images: list[np.ndarray]) -> Check:
    """Returns the check; of each output the largest difference, over its largest number, of the worst image."""
    worst: dict[str, float] = {}
    for image in images:
        wanted, got = run(image), network(image, training=False)
        for name in ("features", "tokens", "map"):
            if name in wanted and name in got:
                difference = _relative(np.asarray(got[name]), wanted[name])
                worst[name] = max(worst.get(name, 0.0), difference)
    sizes = dict.fromkeys(f"{image.shape[1]}x{image.shape[2]}" for image in images)
    pictures = f"{len(images)} random image{'s'[: len(images) > 1]}, {' and '.join(sizes)}"
    found = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    return Check(
        WHAT,
        f"largest difference below {TOLERANCE:g} of the largest number ({pictures})",
        found,
        all(value < TOLERANCE for value in worst.values()),
    )


def _relative(got: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the largest difference over the largest wanted number; infinite where shapes or numbers are no match."""
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return float("inf")
    difference = np.abs(got.astype(np.float64) - wanted).max()
    return float(difference / max(float(np.abs(wanted).max()), 1e-12))
