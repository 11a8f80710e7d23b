"""Writing a zoo entry: weights, recipe, results, log and card, all or nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_ssl.zoo.catalog import Entry, entries_folder, format_card, read_entry
from keras_ssl.zoo.weights import describe_encoder, pack, sha256

REQUIRED = ("method", "backbone", "dataset", "epochs", "command")
LARGEST_FILE = 2_000_000  # bytes; larger weights do not belong in the wheel


def pack_entry(
    encoder: keras.Model,
    name: str,
    recipe: dict[str, Any],
    results: dict[str, Any],
    log: Iterable[dict[str, Any] | str] = (),
    directory: str | Path | None = None,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Entry:
    """Writes a zoo entry and returns it.

    Args:
        encoder: keras.Model. The trained backbone; its registered class and config are stored with it.
        name: str. Lower-case letters, digits, `_` and `-`; the folder's name.
        recipe: dict. At least `method`, `backbone`, `dataset`, `epochs` and `command`; quoted numbers go
            here too (`paper`), never in `results`.
        results: dict. Measured numbers; accuracies `knn...` and `linear...` in [0, 1], None for "not run".
        log: iterable of dicts, or of lines of JSON such as an open file. The run's log. Defaults to `()`.
        directory: path. Folder that gets the entry's folder. Defaults to the zoo of this checkout.
        half: bool. Whether to store kernels as float16; measure `results` on such an encoder then (`unpack`
            what `pack` returns). Defaults to `False`.
        overwrite: bool. Whether an entry with this name may be replaced. Defaults to `False`.

    Raises:
        ValueError: if something is missing or wrong; nothing has been written then.
    """
    recipe, results = json.loads(_json(recipe)), json.loads(_json(results))
    _check(name, recipe, results)
    target = Path(directory or entries_folder()) / name
    if target.exists() and not overwrite:
        raise ValueError(
            f"Expected a new name, or overwrite=True. Received: name={name!r}, which exists."
        )
    files = {
        "recipe.json": _json(recipe),
        "results.json": _json(results),
        "log.jsonl": "".join(_log_line(line) for line in log).encode(),
        "card.md": format_card(name, recipe, results).encode(),
        "encoder.npz": pack(encoder, half),
    }
    if len(files["encoder.npz"]) > LARGEST_FILE:
        raise ValueError(
            f"Expected weights of at most {LARGEST_FILE} bytes. Received: {len(files['encoder.npz'])} bytes"
            f" with half={half}."
        )
    hashes = {file: sha256(data) for file, data in files.items()}
    files["entry.json"] = _json({"encoder": describe_encoder(encoder), "files": hashes})
    _write_folder(target, files)
    return read_entry(target)


def _check(name: str, recipe: dict[str, Any], results: dict[str, Any]) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(
            f"Expected lower-case letters, digits, '_' and '-'. Received: name={name!r}."
        )
    if missing := [key for key in REQUIRED if recipe.get(key) in (None, "")]:
        raise ValueError(
            f"Expected a recipe with {', '.join(REQUIRED)}. Received: no {', '.join(missing)}."
        )
    for key, value in results.items():
        accuracy = key.startswith(("knn", "linear")) and value is not None
        if accuracy and not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise ValueError(f"Expected accuracies in [0, 1]. Received: {key}={value!r}.")


def _log_line(line: dict[str, Any] | str) -> str:
    return (line.strip() if isinstance(line, str) else json.dumps(line)) + "\n"


def _json(value: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise ValueError(f"Expected finite JSON values ({error}). Received: {value!r}.") from error
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"not JSON: {type(value).__name__}")


def _write_folder(target: Path, files: dict[str, bytes]) -> None:
    """Writes a folder next to `target` and renames it, so that a killed process leaves no half entry."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        new, old = scratch / "new", scratch / "old"
        new.mkdir()
        for file, data in files.items():
            (new / file).write_bytes(data)
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
    finally:
        shutil.rmtree(scratch)
