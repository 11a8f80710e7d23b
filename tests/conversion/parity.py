"""The table of parity rows: for each layout a checkpoint of random weights, our network, and a reference afresh.

`tests/conversion/` holds every row to its tolerance; `benchmarks/parity.py` writes down what was measured. A family
adds its rows by a function in its module, which `FAMILIES` names.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import numpy as np
import pytest

from keras_ssl.conversion import LAYOUTS, convert
from tests.conversion.fixtures import pictures

# Modules of tests/conversion/ with a function `rows() -> list[Row]`.
FAMILIES = (
    "resnet_rows",
    "head_rows",
    "vit_rows",
    "convnet_rows",
    "color_rows",
    "preact_rows",
    "swin_rows",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        name: str. What is compared, a few words.
        layout: str. Name in `LAYOUTS`.
        reference: str. What the expected numbers come from.
        make: callable. Returns `(tensors, network, expected)`: the checkpoint, a network of ours that was not filled,
            and a function from images in [0, 1] to a dict of arrays, each under the name that it has in ours.
        sizes: sides of the images, or (height, width); for a head, numbers of vectors.
        needs: names of the optional packages that `make` imports.
        slow: bool. Whether it takes more than a few seconds.
        inputs: callable. Makes what the networks are given from a size. Defaults to images in [0, 1].
    """

    name: str
    layout: str
    reference: str
    make: Callable
    sizes: tuple
    needs: tuple = ()
    inputs: Callable = pictures
    slow: bool = False

    @property
    def parameter(self):
        """The row as a parameter of a test."""
        marks = pytest.mark.slow if self.slow else ()
        return pytest.param(self, id=f"{self.layout}-{self.name}", marks=marks)


def rows(family: str) -> list[Row]:
    """Returns the rows of one family."""
    return importlib.import_module(f"tests.conversion.{family}").rows()


def measure(row: Row) -> dict:
    """Fills the network and returns what is written down about a row: counts and the largest differences.

    `relative` is the largest absolute difference over the largest expected number, for the worst size and output.
    """
    tensors, network, expected = row.make()
    certificate = convert(tensors, network, LAYOUTS[row.layout])
    worst, relative = 0.0, 0.0
    for size in row.sizes:
        inputs = row.inputs(size)
        got, wanted = network(inputs), expected(inputs)
        for name, value in wanted.items():
            ours = got[name] if not isinstance(got[name], tuple) else np.concatenate(got[name], -1)
            scale = float(np.abs(value).max())
            if ours.shape != value.shape or not 1e-2 < scale < np.inf:
                raise AssertionError(f"{row.name}: {name} {ours.shape} {value.shape} {scale}")
            difference = float(np.abs(np.asarray(ours, np.float64) - value).max())
            if not np.isfinite(difference):
                raise AssertionError(f"{row.name}: {name} is not finite")
            worst, relative = max(worst, difference), max(relative, difference / scale)
    return {
        "name": row.name,
        "layout": row.layout,
        "reference": row.reference,
        "tensors": certificate["tensors_used"],
        "variables": certificate["variables_filled"],
        "left_out": len(certificate["left_out"]),
        "sizes": [
            size if isinstance(size, int) else "x".join(map(str, size)) for size in row.sizes
        ],
        "absolute": float(f"{worst:.2e}"),
        "relative": float(f"{relative:.2e}"),
    }
