"""Weights of an encoder as one small `.npz` file, and `load()`, which builds the encoder and fills it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ssl.zoo.catalog import get_entry
from keras_ssl.zoo.published import Published

_LARGEST_HALF = float(np.finfo(np.float16).max)


def load(
    name: str,
    weights: str | Path | bool | None = "published",
    *,
    include: str = "features",
    accept_licence: bool = False,
    any_file: bool = False,
) -> keras.Model:
    """Returns a published encoder, ready for `predict`, fine-tuning and export.

    This library's own entries are here already. Other people's are fetched on first use, checked, converted and kept
    in the cache, `KERAS_SSL_HOME`; what is fetched, and how large it is, is said on the standard error.

    Args:
        name: str. Name of the entry; `keras_ssl.zoo.list()` shows all.
        weights: str, Path or None. `"published"`; None for a freshly initialized encoder; or, for other people's
            entries, a file or a `file://` or `http(s)://` address to take instead, for machines without network.
            True and False stand for `"published"` and None. Defaults to `"published"`.
        include: str. `"features"`; `"tokens"`, the same encoder if it gives patch tokens or a map beside the features,
            else an error; or `"head"`, for entries whose file holds the head of the pre-training: an
            `EncoderWithHead`, which also gives `"projection"` and, with prototypes, `"scores"`. Defaults to
            `"features"`.
        accept_licence: bool. Consent to the licence of the weights, where it is asked for; also given by naming
            it in `KERAS_SSL_ACCEPT_LICENCES`. Defaults to `False`.
        any_file: bool. Whether a given file may differ in size and hash from the published one, such as a training
            of your own with the authors' code. Defaults to `False`.

    Returns:
        A `keras.Model` from RGB images in [0, 1], `(batch, height, width, 3)`, to a dict with `"features"`,
        `(batch, feature_dim)`, and `"tokens"` or `"map"`. It has the current Keras dtype policy.

    Raises:
        ValueError: if there is no such entry, it has not what is to be included, or its weights are missing, not
            allowed or not those that were published.
    """
    if include not in ("features", "tokens", "head"):
        raise ValueError(
            f"Expected include to be 'features', 'tokens' or 'head'. Received: include={include!r}."
        )
    if isinstance(weights, bool):
        weights = "published" if weights else None
    entry = get_entry(name)
    if isinstance(entry, Published):
        from keras_ssl.zoo.loading import load_published

        return load_published(
            entry, weights, include=include, accept_licence=accept_licence, any_file=any_file
        )
    if include == "head":
        raise ValueError(
            f"Expected include='features' or 'tokens' for {name}, which has no head. Received: include='head'."
        )
    if weights not in (None, "published"):
        raise ValueError(
            f"Expected weights='published' or None for {name}, which is one of this library's own entries. "
            f"Received: weights={str(weights)!r}."
        )
    data = (
        _read_checked(entry.folder / "encoder.npz", entry.files["encoder.npz"]) if weights else None
    )
    encoder = build_encoder(entry.encoder)
    if data is not None:
        unpack(data, encoder)
    return checked(encoder, include)


def checked(encoder: keras.Model, include: str) -> keras.Model:
    """Returns an encoder that gives what is to be included, as its outputs on one image of its size show.

    Raises:
        ValueError: if `include` is `"tokens"` and there are neither tokens nor a map.
    """
    if include != "tokens":
        return encoder
    size = encoder.image_size
    outputs = encoder.compute_output_spec(keras.KerasTensor((1, size, size, 3), "float32"))
    if not {"tokens", "map"} & set(outputs):
        raise ValueError(
            f"Expected an encoder with tokens or a map; load it with include='features'. "
            f"Received: {encoder.name}, which gives {', '.join(sorted(outputs))}."
        )
    return encoder


def describe_encoder(encoder: keras.Model) -> dict[str, Any]:
    """Returns the encoder's registered class and config as plain JSON values.

    Left out: what is the user's choice, the dtype policy and `recompute`, and whether it was frozen, as a teacher is.
    """
    left_out = ("dtype", "recompute", "trainable")
    config = {key: value for key, value in encoder.get_config().items() if key not in left_out}
    try:
        plain = json.loads(json.dumps(config))
    except TypeError as error:
        raise ValueError(
            f"Expected an encoder whose get_config() is JSON. Received: {encoder.name} ({error})."
        ) from error
    return {"class": keras.saving.get_registered_name(type(encoder)), "config": plain}


def build_encoder(description: dict[str, Any]) -> keras.Model:
    """Returns a freshly initialized encoder from what `describe_encoder` returned."""
    import keras_ssl.backbones  # noqa: F401 (registers the classes)

    encoder_class = keras.saving.get_registered_object(description["class"])
    if encoder_class is None:
        raise ValueError(
            f"Expected an encoder class that this version knows. Received: {description['class']!r}."
        )
    return encoder_class.from_config(dict(description["config"]))


def pack(encoder: keras.Model, half: bool = False) -> bytes:
    """Returns the encoder's variables as the bytes of an `.npz` file.

    Args:
        encoder: keras.Model. Its variables are stored in order, each under its number and path.
        half: bool. Whether to store kernels (two or more axes) as float16: half the size, about three digits.
            Biases and batch-norm statistics stay float32, as does a kernel with a number beyond float16.
            Defaults to `False`.
    """
    buffer = io.BytesIO()
    arrays = {}
    for key, variable in numbered(encoder).items():
        value = np.asarray(variable.numpy())
        if np.issubdtype(value.dtype, np.floating):
            value = value.astype(np.float32)
            if half and value.ndim >= 2 and np.abs(value).max(initial=0.0) <= _LARGEST_HALF:
                value = value.astype(np.float16)
        arrays[key] = value
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes, encoder: keras.Model) -> None:
    """Assigns the variables in the bytes of an `.npz` file to an encoder; checks all before it assigns any.

    Raises:
        ValueError: if a variable is missing, left over or of another shape.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    variables = numbered(encoder)
    if different := sorted(arrays.keys() ^ variables.keys()):
        raise ValueError(
            f"Expected weights with the {len(variables)} variables of {encoder.name}. "
            f"Received: {len(arrays)} arrays; the first that differs is {different[0]!r}."
        )
    for key, variable in variables.items():
        if arrays[key].shape != tuple(variable.shape):
            raise ValueError(
                f"Expected {key!r} with shape {tuple(variable.shape)}. Received: shape={arrays[key].shape}."
            )
    for key, variable in variables.items():
        variable.assign(arrays[key].astype(variable.dtype))


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of `data` as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _read_checked(path: Any, expected: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"Expected the weights of the entry in {path}. Received: {error}."
        ) from error
    if sha256(data) != expected:
        raise ValueError(
            f"Expected {path} with SHA-256 {expected}; nothing was loaded. Received: {sha256(data)}."
        )
    return data


def numbered(encoder: keras.Model) -> dict[str, keras.Variable]:
    """Returns the variables by number and path, the model's own name (it may carry a counter) left out."""
    return {
        f"{number:04d}/{variable.path.removeprefix(encoder.name + '/')}": variable
        for number, variable in enumerate(encoder.variables)
    }
