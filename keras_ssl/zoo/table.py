"""Tables generated from the zoo, between two markers of a file.

python -m keras_ssl.zoo.table README.md                  # this library's own entries, as measured
python -m keras_ssl.zoo.table --published docs/zoo.md    # other people's, as published
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from keras_ssl.zoo import published as others
from keras_ssl.zoo.catalog import Entry, find_entries, format_value
from keras_ssl.zoo.published import Published

BEGIN, END = "<!-- zoo table: begin -->", "<!-- zoo table: end -->"

_PUBLISHED = (
    "name",
    "method",
    "backbone",
    "data",
    "epochs",
    "published linear",
    "published k-NN",
    "licence",
    "size",
    "layout",
)
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


def published_table(entries: Sequence[Published]) -> str:
    """Returns the table of other people's encoders in Markdown, their number by licence before it."""
    lines = [f"| {' | '.join(_PUBLISHED)} |", f"| {' | '.join('---' for _ in _PUBLISHED)} |"]
    lines += [f"| {' | '.join(_published_cells(entry))} |" for entry in entries]
    count = Counter(entry.terms.name for entry in entries)
    licences = ", ".join(f"{number} {name}" for name, number in count.most_common())
    return f"{len(entries)} entries. Licences of the weights: {licences}.\n\n" + "\n".join(lines)


def update_readme(path: str | Path, published: bool = False) -> bool:
    """Writes a table between the two markers of a file; returns whether the file changed.

    Args:
        path: str or Path.
        published: bool. Other people's entries instead of this library's own. Defaults to `False`.

    Raises:
        ValueError: if the file does not have each marker once.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"Expected {BEGIN!r} and {END!r}, once each. Received: {path}.")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = (
        published_table(list(others.published().values()))
        if published
        else table(find_entries(), path.resolve().parent)
    )
    updated = f"{before}{BEGIN}\n{made}\n{END}{after}"
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


def _published_cells(entry: Published) -> tuple[str, ...]:
    numbers = [
        "" if entry.metrics.get(key) is None else f"{entry.metrics[key]:g}"
        for key in ("linear", "knn")
    ]
    by = "" if entry.metrics_by == "the authors" or not any(numbers) else f" ({entry.metrics_by})"
    return (
        f"`{entry.name}`",
        entry.method,
        entry.network(),
        entry.data,
        str(entry.epochs or ""),
        numbers[0] + (by if numbers[0] else ""),
        numbers[1] + (by if numbers[1] and not numbers[0] else ""),
        entry.terms.name + ("" if entry.access == "open" else f"; {entry.access}"),
        entry.size_text(),
        f"`{entry.layout}`",
    )


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--published"]
    if len(arguments) != 1:
        sys.exit("Expected one file: python -m keras_ssl.zoo.table [--published] FILE.md")
    update_readme(arguments[0], published=len(arguments) < len(sys.argv) - 1)
