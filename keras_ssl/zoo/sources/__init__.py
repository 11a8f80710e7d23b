"""The tables of published encoders, one file for each family of publishers. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

from keras_ssl.zoo.published import Published
from keras_ssl.zoo.sources import (
    byol,
    color,
    dinov2,
    dinov3,
    lightly,
    masked,
    pretext,
    redundancy,
    resnets,
    simclr,
    transformers,
    vissl,
)

FAMILIES = (
    resnets,
    redundancy,
    transformers,
    masked,
    dinov2,
    dinov3,
    simclr,
    byol,
    vissl,
    pretext,
    color,
    lightly,
)


def all_entries() -> Iterator[Published]:
    """Yields all entries, family by family."""
    for family in FAMILIES:
        yield from family.entries()
