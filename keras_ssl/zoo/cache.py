"""The folder of fetched files and converted encoders: locks, pins, sizes. Imports no TensorFlow.

zoo/pins.json                   hashes that were pinned on first use
zoo/files/NAME/...              files as published
zoo/encoders/NAME/SLOT/...      converted: weights.safetensors and certificate.json
zoo/locks/NAME.lock             held by the process that fetches or converts
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_ssl import env

Say = Callable[[str], object]
PUBLISHED = "published"  # the slot of the file that the entry names


class ZooError(ValueError):
    """A published encoder could not be had; the message says why and what to do."""


def say_to_stderr(sentence: str) -> None:
    """Writes one line to the standard error."""
    sys.stderr.write(f"zoo: {sentence}\n")
    sys.stderr.flush()


def folder() -> Path:
    """Returns the cache folder of the zoo; it need not exist."""
    return env.home() / "zoo"


def files_folder(name: str) -> Path:
    """Returns where an entry's files are kept as published."""
    return folder() / "files" / name


def slot_folder(name: str, slot: str) -> Path:
    """Returns where an entry's converted weights are kept."""
    return folder() / "encoders" / name / slot


@contextlib.contextmanager
def locked(name: str, say: Say = say_to_stderr) -> Iterator[None]:
    """Waits until no other process works on an entry, and keeps others out; ends with the process at the latest.

    Raises:
        ZooError: if the cache folder cannot be written.
    """
    path = folder() / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")  # never removed: two processes could lock two files
    except OSError as error:
        raise ZooError(
            f"Expected a cache folder that can be written; set KERAS_SSL_HOME to another. "
            f"Received: {folder()} ({error.strerror})."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process works on {name}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file, or None if there is none or it is torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def hash_file(path: Path, kinds: Sequence[str] = ("sha256",)) -> dict[str, str]:
    """Returns hexadecimal digests of a file by name of the hash; reads it once, in pieces."""
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            for digest in digests.values():
                digest.update(piece)
    return {kind: digest.hexdigest() for kind, digest in digests.items()}


# pins --------------------------------------------------------------------------------------------------------


def read_pins() -> dict[str, dict[str, Any]]:
    """Returns what was pinned: `{"NAME/FILE": {"sha256", "size", "from", "date"}}`.

    Raises:
        ZooError: if the file is damaged.
    """
    path = folder() / "pins.json"
    if not path.exists():
        return {}
    pins = read_json(path)
    if not isinstance(pins, dict):
        raise ZooError(
            f"Expected JSON in the file of pinned hashes; restore it, or remove it to pin anew. Received: {path}."
        )
    return pins


def pin(name: str, file: str, sha256: str, size: int, source: str) -> None:
    """Pins the hash of a file, if it is not pinned yet."""
    with locked("pins", say=lambda sentence: None):
        pins = read_pins()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        pins.setdefault(
            f"{name}/{file}", {"sha256": sha256, "size": size, "from": source, "date": now}
        )
        write_json(folder() / "pins.json", pins)


def forget_pins(name: str) -> int:
    """Removes the pins of an entry and returns how many there were."""
    with locked("pins", say=lambda sentence: None):
        pins = read_pins()
        kept = {key: value for key, value in pins.items() if not key.startswith(f"{name}/")}
        write_json(folder() / "pins.json", kept)
    return len(pins) - len(kept)


# sizes -------------------------------------------------------------------------------------------------------


def sizes() -> dict[str, tuple[int, int]]:
    """Returns the bytes of published files and of converted weights in the cache, by entry."""
    names = {
        path.name
        for part in ("files", "encoders")
        if (folder() / part).is_dir()
        for path in (folder() / part).iterdir()
        if path.is_dir()
    }
    return {
        name: (_size(files_folder(name)), _size(folder() / "encoders" / name))
        for name in sorted(names)
    }


def clear(name: str) -> int:
    """Removes an entry's files and converted weights, or those of all entries, and returns the bytes; pins stay.

    Args:
        name: str. Name of an entry, or `"all"`.

    Raises:
        ZooError: if there is nothing of it in the cache.
    """
    there = sizes()
    if name != "all" and name not in there:
        raise ZooError(
            f"Expected an entry that is in the cache, one of {', '.join(there) or 'none'}. Received: {name!r}."
        )
    for entry in there if name == "all" else (name,):
        with locked(entry):
            shutil.rmtree(files_folder(entry), ignore_errors=True)
            shutil.rmtree(folder() / "encoders" / entry, ignore_errors=True)
    return sum(sum(there[entry]) for entry in (there if name == "all" else (name,)))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
