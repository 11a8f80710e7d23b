"""The README's results table, generated from the zoo: `python -m keras_ssl.zoo.table README.md`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_ssl.zoo.catalog import Entry, find_entries, format_value

BEGIN, END = "<!-- zoo table: begin -->", "<!-- zoo table: end -->"

_COLUMNS = (
    "method",
    "backbone",
    "data",
    "epochs",
    "k-NN",
    "linear",
    "paper's number",
    "recipe",
    "weights",
)


def table(entries: Sequence[Entry], relative_to: str | Path = ".") -> str:
    """Returns the results table of some entries in Markdown.

    Args:
        entries: sequence of Entry.
        relative_to: path. Folder of the file that shows the table; its links start there.
    """
    lines = [f"| {' | '.join(_COLUMNS)} |", f"| {' | '.join('---' for _ in _COLUMNS)} |"]
    return "\n".join(lines + [_row(entry, relative_to) for entry in entries])


def update_readme(path: str | Path) -> bool:
    """Writes the table of all entries between the two markers of a file; returns whether the file changed.

    Raises:
        ValueError: if the file does not have each marker once.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"Expected {BEGIN!r} and {END!r}, once each. Received: {path}.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    updated = f"{before}{BEGIN}\n{table(find_entries(), path.resolve().parent)}\n{END}{after}"
    if updated == text:
        return False
    scratch = path.with_name(path.name + ".new")
    scratch.write_text(updated, encoding="utf-8")
    os.replace(scratch, path)
    return True


def _row(entry: Entry, relative_to: str | Path) -> str:
    link = Path(os.path.relpath(entry.folder, relative_to)).as_posix()
    size = (entry.folder / "encoder.npz").stat().st_size
    cells = (
        entry.method,
        entry.backbone,
        entry.recipe["dataset"],
        entry.recipe["epochs"],
        *(entry.results.get(key) for key in ("knn", "linear")),
        entry.recipe.get("paper", "none quoted"),
        f"[{entry.name}]({link}/card.md)",
        f"[{size / 1e6:.1f} MB]({link}/encoder.npz)",
    )
    keys = ("", "", "", "", "knn", "linear", "", "", "")
    return (
        f"| {' | '.join(format_value(key, cell) for key, cell in zip(keys, cells, strict=True))} |"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Expected one file: python -m keras_ssl.zoo.table README.md")
    update_readme(sys.argv[1])
