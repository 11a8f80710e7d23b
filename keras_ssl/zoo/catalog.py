"""What can be loaded: this library's own entries, read from their folders, and those of others. Imports no TensorFlow.

An own entry is a folder with `entry.json` (what the encoder is, and the SHA-256 of every other file), `recipe.json`
(how it was trained), `results.json` (what was measured), `log.jsonl`, `card.md` (written from the others) and
`encoder.npz`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from keras_ssl.zoo import published as others
from keras_ssl.zoo.published import ACCESS, Published
from keras_ssl.zoo.terms import LICENCES

_SHOWN = 20  # names in an error

# The installed wheel holds the entries beside this file; a checkout has them in its top-level folder.
_INSTALLED = Path(__file__).resolve().parent / "entries"
_CHECKOUT = Path(__file__).resolve().parents[2] / "zoo"


@dataclasses.dataclass(frozen=True, repr=False)
class Entry:
    """One of this library's own encoders.

    Args:
        name: str. Name of the entry and of its folder.
        recipe: dict. How it was trained: `method`, `backbone`, `dataset`, `epochs`, `command` and more.
        results: dict. What was measured; accuracies `knn` and `linear` are in [0, 1].
        encoder: dict. Registered class and config of the encoder, from which `load` builds it.
        files: dict. SHA-256 of each file of the entry.
        folder: Path. Where the files are.
    """

    name: str
    recipe: dict[str, Any]
    results: dict[str, Any]
    encoder: dict[str, Any]
    files: dict[str, str]
    folder: Path

    source = "keras_ssl"
    access = "open"
    licence = "apache-2.0"
    commercial = True

    @property
    def method(self) -> str:
        return self.recipe["method"]

    @property
    def backbone(self) -> str:
        return self.recipe["backbone"]

    def __repr__(self) -> str:
        return f"<Entry {self.line()}>"

    def line(self) -> str:
        """Returns what it is and what was measured, in one line."""
        knn, linear = (format_value(key, self.results.get(key)) for key in ("knn", "linear"))
        return (
            f"{self.name}: {self.method}, {self.backbone}, {self.recipe['dataset']}, "
            f"{self.recipe['epochs']} epochs; k-NN {knn}, linear {linear}"
        )


def entries_folder() -> Path:
    """Returns the folder that holds the entries of this installation or checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def read_entry(folder: Path) -> Entry:
    """Returns the entry in a folder.

    Raises:
        ValueError: if one of its files is missing or is not what it should be.
    """
    folder = Path(folder)
    try:
        record, recipe, results = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("entry.json", "recipe.json", "results.json")
        )
        return Entry(folder.name, recipe, results, record["encoder"], record["files"], folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected a complete zoo entry. Received: {folder} ({type(error).__name__}: {error})."
        ) from error


def find_all(
    method: str | None = None,
    backbone: str | None = None,
    *,
    licence: str | None = None,
    commercial: bool | None = None,
    access: str | None = None,
    source: str | None = None,
) -> list[Entry | Published]:
    """Returns the encoders that can be loaded: this library's own by name, then other people's by family.

    Args:
        method: str. Only those of this method. Defaults to `None` (all).
        backbone: str. Only those with this backbone, by its name in `BACKBONES`. Defaults to `None` (all).
        licence: str. Only those whose weights have this licence, by its key in `LICENCES`. Defaults to `None` (all).
        commercial: bool. True: only those that allow commercial use; False: only those that forbid it. Defaults to
            `None` (all, those included whose terms one has to read).
        access: str. `"open"`, `"gated"` or `"manual"`. Defaults to `None` (all).
        source: str. Only those that this project published; `"keras_ssl"` for our own. Defaults to `None` (all).

    Raises:
        ValueError: if the licence or the access is none that there is.
    """
    for key, value, known in (("licence", licence, tuple(LICENCES)), ("access", access, ACCESS)):
        if value is not None and value not in known:
            raise ValueError(
                f"Expected {key} to be one of {', '.join(known)}. Received: {key}={value!r}."
            )
    everything = [*find_entries(), *others.published().values()]
    wanted = {
        "method": method,
        "backbone": backbone,
        "licence": licence,
        "commercial": commercial,
        "access": access,
        "source": source,
    }
    return [
        entry
        for entry in everything
        if all(value in (None, getattr(entry, key)) for key, value in wanted.items())
    ]


def find_entries(method: str | None = None, backbone: str | None = None) -> list[Entry]:
    """Returns this library's own encoders, in the order of their names.

    Args:
        method: str. Only those of this method, by its name in `METHODS`. Defaults to `None` (all).
        backbone: str. Only those with this backbone, by its name in `BACKBONES`. Defaults to `None` (all).
    """
    entries = (read_entry(path.parent) for path in sorted(entries_folder().glob("*/entry.json")))
    return [
        entry
        for entry in entries
        if method in (None, entry.method) and backbone in (None, entry.backbone)
    ]


def get_entry(name: str) -> Entry | Published:
    """Returns the entry with this name.

    Raises:
        ValueError: if there is none.
    """
    names = [path.parent.name for path in sorted(entries_folder().glob("*/entry.json"))]
    if name in names:
        return read_entry(entries_folder() / name)
    table = others.published()
    if name in table:
        return table[name]
    names += table
    hint = others.suggest_name(name, names)
    if not hint and len(names) > _SHOWN:
        hint = f" `keras-ssl zoo list` shows all {len(names)}."
    elif not hint:
        hint = f" Published: {', '.join(names) or 'none'}."
    raise ValueError(f"Expected the name of a zoo entry. Received: name={name!r}.{hint}")


def write_card(name: str) -> str:
    """Returns the card of the entry with this name, Markdown generated from what is known of it."""
    entry = get_entry(name)
    if isinstance(entry, Published):
        return others.write_published_card(entry)
    return format_card(entry.name, entry.recipe, entry.results)


def format_card(name: str, recipe: dict[str, Any], results: dict[str, Any]) -> str:
    """Returns an entry's card: how to load it, what was measured, how it was trained."""
    return f"""# {name}

A `{recipe["backbone"]}` encoder pre-trained with `{recipe["method"]}` on {recipe["dataset"]},
{recipe["epochs"]} epochs.

```python
import keras_ssl

encoder = keras_ssl.zoo.load("{name}")  # a keras.Model: RGB images in [0, 1] -> features
features = encoder(images)["features"]  # (batch, feature_dim)
```

## Measured

{_rows(results)}

## Recipe

{_rows(recipe)}

This file is generated from `recipe.json` and `results.json`; `entry.json` holds the SHA-256 of every file.
"""


def format_value(key: str, value: Any) -> str:
    """Returns a value as a table cell: accuracies in percent, nothing as "not run", the rest as it is."""
    if value is None:
        return "not run"
    if isinstance(value, float) and (key.startswith(("knn", "linear")) and 0 <= value <= 1):
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _rows(table: dict[str, Any]) -> str:
    lines = ["| | |", "| --- | --- |"]
    return "\n".join(
        lines + [f"| {key} | {format_value(key, value)} |" for key, value in table.items()]
    )
