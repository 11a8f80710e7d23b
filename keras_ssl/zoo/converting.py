"""From a published file to a filled network and the certificate of it."""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_ssl
from keras_ssl import checkpoints
from keras_ssl.conversion import LAYOUTS, convert, read_head
from keras_ssl.zoo import cache
from keras_ssl.zoo.cache import ZooError
from keras_ssl.zoo.fingerprint import features_of_fixed_image
from keras_ssl.zoo.origin import Source
from keras_ssl.zoo.published import Published
from keras_ssl.zoo.terms import IMAGENET_MEAN, IMAGENET_STD

FORM = 1  # raise when a layout, the engine or a reader of heads changes what it gives


def build_network(entry: Published, **more: Any) -> keras.Model:
    """Returns the freshly initialized network of an entry, in the current dtype policy."""
    from keras_ssl import backbones

    images = entry.images
    settings = dict(entry.settings)
    if (images.mean, images.std) != (IMAGENET_MEAN, IMAGENET_STD):
        settings |= {"mean": images.mean, "std": images.std}
    return backbones.build(entry.backbone, image_size=entry.image_size, **{**settings, **more})


def convert_source(
    entry: Published, source: Source
) -> tuple[keras.Model, keras.Model | None, dict[str, Any]]:
    """Returns a float32 network filled from the files, its head if the file has one, and the certificate.

    Raises:
        ZooError: if they are not what the entry's layout says; it tells what was found in the first.
    """
    network = build_network(entry, dtype="float32")
    try:
        tree, tensors = read_tensors(entry, source.paths[0])
        outside = _count_outside(checkpoints.flatten(tree), tensors)
        made = convert(tensors, network, LAYOUTS[entry.layout])
    except ValueError as error:
        path = source.paths[0]
        kept = cache.folder() in path.parents
        hint = (
            f" `keras-ssl zoo cache --clear {entry.name}` makes it be fetched again."
            if kept
            else ""
        )
        raise ZooError(
            f"Expected the published file of {entry.name}, or one laid out like it. "
            f"Received: {path}: {_flat(error)}{_found_in(path)}{hint}"
        ) from error
    head, made_head = _convert_head(entry, tree, tensors)
    return (
        network,
        head,
        {
            "entry": entry.name,
            "made_from": form_of(entry),
            "source": source.where,
            "source_sha256": source.sha256,
            "conversion": {**made, "outside": outside},
            "head": made_head,
            "files": {},
            "features": features_of_fixed_image(network, entry),
            "versions": {"keras_ssl": keras_ssl.__version__, "keras": keras.__version__},
        },
    )


def _convert_head(
    entry: Published, tree: Mapping[str, Any], tensors: dict[str, np.ndarray]
) -> tuple[keras.Model | None, dict[str, Any]]:
    """Returns the head of a file, in float32, with what the certificate says of it.

    Args:
        entry: Published.
        tree: mapping. All that the file holds; the head is taken from it where it stands beside the encoder.
        tensors: dict. What `read_tensors` selected for the encoder; the head is among them otherwise.
    """
    if not entry.head:
        return None, {"missing": "the entry has none."}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        if entry.head_prefixes:
            tensors = checkpoints.select_tensors(tree, entry.top_keys, entry.head_prefixes)
        head, made = read_head(entry.head, tensors)
    except ValueError as error:
        return None, {"missing": _flat(error)}
    finally:
        keras.config.set_dtype_policy(policy)
    return head, {"settings": head.settings, "conversion": made}


def form_of(entry: Published) -> str:
    """Returns a hash of the entry's part in what a file becomes, and of `FORM`, which stands for the code's part.

    Converted weights of another form are made anew.
    """
    decisive = (
        FORM,
        entry.backbone,
        sorted((key, repr(value)) for key, value in entry.settings.items()),
        entry.image_size,
        entry.layout,
        entry.top_keys,
        entry.prefixes,
        entry.head,
        entry.preprocessing,
        *([entry.head_prefixes] if entry.head_prefixes else []),
    )
    return hashlib.sha256(repr(decisive).encode()).hexdigest()


def read_tensors(entry: Published, path: Path) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    """Returns all that a file holds, nested as there, and of it the tensors for an entry's layout.

    Of a SavedModel the first is empty: all its tensors are among the second.

    Args:
        entry: Published. Its `top_keys` and `prefixes` say what is taken.
        path: Path. File, `.index` file of a checkpoint, or folder of a SavedModel or the `saved_model.pb` in it.

    Raises:
        ValueError: if the file cannot be read, or nothing is where the entry says.
    """
    if entry.container == "saved model":
        from keras_ssl.conversion.simclr import read_saved_model

        return {}, read_saved_model(path.parent if path.name == "saved_model.pb" else path)
    tree = checkpoints.read(path).tree
    return tree, checkpoints.select_tensors(tree, entry.top_keys, entry.prefixes)


def _count_outside(
    everything: dict[str, np.ndarray], taken: dict[str, np.ndarray]
) -> dict[str, int]:
    """Returns the number of tensors outside the encoder's, by the first two parts of their names but `module`."""
    inside = collections.Counter(id(array) for array in taken.values())
    outside: collections.Counter[str] = collections.Counter()
    for name, array in everything.items():
        if inside[id(array)]:
            inside[id(array)] -= 1  # tied tensors are one array under two names
            continue
        parts = [part for part in re.split(r"[./]", name) if part != "module"]
        outside[".".join(parts[:2])] += 1
    return dict(sorted(outside.items()))


def _found_in(path: Path) -> str:
    """Returns what a file holds, in one line; nothing if it cannot be read, which has been said then."""
    try:
        return f" In it: {_flat(checkpoints.describe(path))}."
    except (ValueError, OSError):
        return ""


def _flat(text: object) -> str:
    """Returns a text as one line."""
    return "; ".join(line.strip() for line in str(text).splitlines() if line.strip())
