"""The formats in which an encoder leaves the house; choosing one does not import TensorFlow."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras


class Format(NamedTuple):
    """One way to write an encoder.

    Attributes:
        text: str. What it is, for `--help`; a few words.
        writer: str. `"module:function"`, imported when it is used. The function takes `(encoder, to, *, image_size,
            facts)` and the given ones of `options`, and returns the lines that the command prints.
        options: tuple of str. Names of further settings that the writer takes.
    """

    text: str
    writer: str
    options: tuple[str, ...] = ()


FORMATS: dict[str, Format] = {
    "saved_model": Format(
        "SavedModel to serve and to fine-tune",
        "keras_ssl.export.serving:write",
        ("crop_ratio", "version", "train_signature"),
    ),
    "preset": Format("KerasHub-style folder", "keras_ssl.export.preset:write", ("crop_ratio",)),
    "litert": Format(
        "LiteRT (TensorFlow Lite) file",
        "keras_ssl.export.litert:write",
        ("quantize", "calibration"),
    ),
    "onnx": Format("ONNX file", "keras_ssl.export.onnx:write"),
    "torch": Format("weights as a PyTorch checkpoint", "keras_ssl.export.torch:write"),
    "safetensors": Format(
        "the same weights as safetensors", "keras_ssl.export.torch:write_as_safetensors"
    ),
}


_OF_SUFFIX = {
    ".tflite": "litert",
    ".onnx": "onnx",
    ".pth": "torch",
    ".pt": "torch",
    ".safetensors": "safetensors",
}


def check_target(format: str, to: str | Path) -> None:
    """Refuses a target that shows that another format was meant, and a folder where a file is to be written.

    Args:
        format: str. A name of `FORMATS`.
        to: path. What is to be written.

    Raises:
        ValueError: If it is refused.
    """
    path = Path(to)
    meant = _OF_SUFFIX.get(path.suffix.lower(), format)
    if meant != format:
        raise ValueError(f"Expected --format {meant} for {path}. Received: --format {format}.")
    if format == "saved_model" and str(to) in set(FORMATS) - {format}:
        raise ValueError(
            f"Expected --format {to} with a path in --to, or --to ./{to} for a folder of that name. "
            f"Received: --to {to} --format {format}."
        )
    if format not in ("saved_model", "preset") and path.is_dir():
        raise ValueError(
            f"Expected a file in --to for --format {format}. Received: {path}, a folder."
        )


def write_as(
    format: str,
    encoder: keras.Model,
    to: str | Path,
    *,
    image_size: int,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[str]:
    """Writes an encoder in one of the `FORMATS`.

    Args:
        format: str. A name of `FORMATS`.
        encoder: Keras model from images in [0, 1] to a dict with `"features"`.
        to: path. Folder or file, as the format has it.
        image_size: int. Side of the images, pixels.
        facts: dict of JSON values. Where the encoder is from: method, backbone, data. Defaults to `None`.
        **options: Settings of the format; None stands for a setting that was not given.

    Returns:
        list of str. What to tell the user.

    Raises:
        ValueError: If there is no such format, a setting is given that it does not take, or `to` belongs to another
            format.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected a format of {', '.join(FORMATS)}. Received: {format!r}.")
    check_target(format, to)
    chosen = FORMATS[format]
    given = {name: value for name, value in options.items() if value is not None}
    for name in sorted(set(given) - set(chosen.options)):
        takers = [other for other, entry in FORMATS.items() if name in entry.options]
        raise ValueError(
            f"Expected --{name.replace('_', '-')} with --format {' or '.join(takers)} only. "
            f"Received: --format {format}."
        )
    module, _, function = chosen.writer.partition(":")
    write = getattr(importlib.import_module(module), function)
    return write(encoder, Path(to), image_size=image_size, facts=dict(facts or {}), **given)
