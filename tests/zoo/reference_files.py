"""Small published files of every layout with a reference network, and the check of them."""

from __future__ import annotations

import importlib.util

import pytest

from keras_ssl import checkpoints
from keras_ssl.conversion.references import REFERENCES
from keras_ssl.zoo import comparison, converting
from keras_ssl.zoo.published import File, Published
from keras_ssl.zoo.terms import PREPROCESSING
from tests.conversion import parity

# What builds a network of a class, whose every setting is given.
NAMES = {
    "ResNet": "resnet50",
    "ViT": "vit_small",
    "RegNet": "regnety_16gf",
    "AlexNet": "alexnet",
    "VGG": "vgg16",
    "XCiT": "xcit_small_12",
    "ConvNeXt": "convnext_tiny",
    "Swin": "swin_tiny",
    "DilatedVGG": "vgg_dilated",
    "PreActResNet": "resnet18_preact",
}
TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="torch is not installed; it runs the references")
ROWS = [
    row
    for family in parity.FAMILIES
    for row in parity.rows(family)
    if row.layout in REFERENCES and row.layout != "simclr_tf2"
]
FIRST = {row.layout: row for row in reversed(ROWS) if not row.slow}
FIRST |= {row.layout: row for row in ROWS if row.name == "swin_w5"}  # the smallest of its layout


def entry_of(row, network, container="torch"):
    """Returns an entry whose network is that of a parity row."""
    mean, std = (tuple(value) if value else None for value in (network.mean, network.std))
    images = next(
        (
            name
            for name, images in PREPROCESSING.items()
            if (images.mean, images.std) == (mean, std)
        ),
        "lightness",
    )
    return Published(
        "tiny",
        "method",
        "tests",
        NAMES[type(network).__name__],
        row.layout,
        "mit",
        (File("file"),),
        settings=network.settings,
        image_size=network.image_size,
        preprocessing=images,
        container=container,
        access="manual",
    )


def written(row, tmp_path):
    """Returns the entry of a row and the path of its file."""
    for package in row.needs:
        pytest.importorskip(package, reason=f"{package} is not installed; it makes the reference")
    tensors, network, _ = row.make()
    checkpoints.write_torch(tmp_path / "file", tensors)
    return entry_of(row, network), tmp_path / "file"


def reference_check(checks):
    (check,) = [check for check in checks if check.what == "reference network"]
    return check


def failed(checks):
    return [check.what for check in checks if check.ok is False]


def worst(check):
    return max(float(part.split(" ")[1]) for part in check.found.split(", "))


def compared(entry, path, network=None):
    """Returns the check alone, and the network, which is converted first if there is none."""
    source = converting.Source((path,), ("",), "")
    if network is None:
        network, _, _ = converting.convert_source(entry, source)
    return comparison.compare_with_reference(entry, source, network, print), network
