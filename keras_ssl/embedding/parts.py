"""What an unfinished file of features is kept as: numbered parts and the settings they were made with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_ssl.data.shards import replacing
from keras_ssl.embedding.files import Features

_STATE = "state.json"
_NAMES = {
    "data_fingerprint": "the same images",
    "encoder_sha256": "the same weights of the encoder",
}


class Parts:
    """The folder `FILE.parts` beside the file that is being made.

    Part i holds the features of records `i * size` to `(i + 1) * size`, broken ones left out; a part is there whole
    or not at all, so a killed process leaves nothing that must be mended.

    Args:
        path: Path. The file that the parts become.
        settings: dict of JSON values. What the features depend on.
        count: int. Records in all.
        size: int. Records in a part.

    Raises:
        ValueError: If there are parts of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any], count: int, size: int) -> None:
        self.folder = folder_of(path)
        self.settings, self.size = settings, size
        self.blocks = [range(i, min(i + size, count)) for i in range(0, count, size)]
        state = self.folder / _STATE
        if state.is_file():
            refuse_other(json.loads(state.read_text()), settings, f"the parts in {self.folder}")
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"Expected a new folder for parts. Received: {self.folder}, which holds something else."
            )
        else:
            with replacing(state) as file:
                file.write((json.dumps(settings, indent=1) + "\n").encode())

    def missing(self) -> list[int]:
        """Returns the numbers of the parts that are still to be made."""
        return [i for i in range(len(self.blocks)) if not self._path(i).is_file()]

    def write(self, number: int, part: Features, broken: list[dict[str, Any]]) -> None:
        """Writes a part, with the records left out of it."""
        labels = {} if part.labels is None else {"labels": part.labels}
        with replacing(self._path(number)) as file:
            np.savez(
                file,
                features=part.features,
                paths=part.paths,
                ids=part.ids,
                broken=np.array(json.dumps(broken)),
                **labels,
            )

    def __iter__(self) -> Iterator[Features]:
        """Yields the parts that hold at least one image."""
        for number in range(len(self.blocks)):
            with np.load(self._path(number), allow_pickle=False) as file:
                if len(file["ids"]):
                    labels = file.get("labels")
                    yield Features(file["features"], file["paths"], file["ids"], labels, {})

    def broken(self) -> list[dict[str, Any]]:
        """Returns what was left out, in order, of the parts that are there."""
        found = []
        for number in range(len(self.blocks)):
            if self._path(number).is_file():
                with np.load(self._path(number), allow_pickle=False) as file:
                    found += json.loads(str(file["broken"]))
        return found

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"


def folder_of(path: Path) -> Path:
    """Returns the folder of the parts of a file."""
    return path.with_name(f"{path.name}.parts")


def remove_parts(path: Path) -> None:
    """Removes the parts of a file, if there are any."""
    folder = folder_of(path)
    if (folder / _STATE).is_file():
        shutil.rmtree(folder, ignore_errors=True)


def refuse_other(stored: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Says in one sentence which setting differs from that of an earlier call."""
    for name in sorted(wanted):
        if stored.get(name) != wanted[name]:
            raise ValueError(
                f"Expected {_NAMES.get(name, name)} as in {where}, {stored.get(name)!r}. Received: {wanted[name]!r}; "
                "give the same command again, choose another --out, or remove what is there."
            )
