"""Where an encoder comes from, and on what terms: what an export writes into its card and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_ssl import export as exporting
from keras_ssl.pretraining.recipe import load_recipe
from keras_ssl.zoo.catalog import Entry, get_entry
from keras_ssl.zoo.published import Published
from keras_ssl.zoo.terms import LICENCES

_USE = {True: "allowed", False: "not allowed", None: "read the license"}


_INITIAL = {
    "source": "initial_weights",
    "license": "license_of_initial_weights",
    "commercial_use": "commercial_use_of_initial_weights",
}
_GENERATIONS = 8  # runs that began with one another's weights


def facts_of(encoder: str | Path, generations: int = _GENERATIONS) -> dict[str, Any]:
    """Returns what is known of an encoder that `load_any_encoder` takes, looked for in the same order.

    Args:
        encoder: str or path. Run folder, checkpoint, `.keras` file, SavedModel or zoo entry.
        generations: int >= 0. How many runs that began with another's weights are followed. Defaults to `8`.

    Returns:
        dict of JSON values. `source`, a name without the folders of this machine, and what is known of `method`,
        `backbone`, `data`, `weight_decay`, `license` and `commercial_use`. A SavedModel keeps what was stored with
        it and gets `exported_from`.
    """
    path = Path(encoder)
    if (path / "entry.json").is_file():
        return entry_facts(get_entry(path.resolve().name))
    for folder in (path, *_folders_of_run(path)):
        stored = load_recipe(folder)
        if stored is not None:
            return {"source": last_part(path), **recipe_facts(stored["recipe"], generations)}
    if (path / "saved_model.pb").is_file():
        known = exporting.read_metadata(path).get("source", {})
        return {**known, "exported_from": last_part(path)}
    if path.exists():
        return {"source": last_part(path)}
    try:
        return entry_facts(get_entry(str(encoder)))
    except ValueError:  # no entry; loading says so
        return {"source": last_part(encoder)}


def recipe_facts(recipe: Mapping[str, Any], generations: int = _GENERATIONS) -> dict[str, Any]:
    """Returns what a recipe says of an encoder; of paths only the last part, as cards are given away.

    A run that began with other weights has their name, and what is known of their license, as
    `license_of_initial_weights` and `commercial_use_of_initial_weights`: training on does not change those terms.

    Args:
        recipe: mapping. Fields of a `Recipe`.
        generations: int >= 0. See `facts_of`.
    """
    facts = {name: recipe[name] for name in ("method", "backbone", "weight_decay")}
    facts["data"] = last_part(recipe["data"])
    if recipe.get("init") is None:
        return facts
    known = facts_of(recipe["init"], generations - 1) if generations else {"source": "not followed"}
    terms = {name: known[name] for name in _INITIAL.values() if name in known}
    return {**facts, **terms, **{_INITIAL[name]: known[name] for name in _INITIAL if name in known}}


def entry_facts(entry: Entry | Published) -> dict[str, Any]:
    """Returns what the catalog says of an entry, its license and whether it allows commercial use included."""
    terms = LICENCES[entry.licence]
    facts = {
        "source": f"zoo entry {entry.name}, published by {entry.source}",
        "method": entry.method,
        "backbone": entry.backbone,
        "data": entry.data if isinstance(entry, Published) else entry.recipe["dataset"],
        "license": f"{terms.name} ({terms.where})",
        "commercial_use": _USE[entry.commercial],
    }
    if isinstance(entry, Entry):
        decay = entry.recipe.get("settings", {}).get("weight_decay")
        facts |= {} if decay is None else {"weight_decay": decay}
    return facts


def last_part(name: Any) -> str:
    """Returns a path or address without its folders, which are nobody else's business; other names as they are.

    Args:
        name: str or path.

    Example:

        >>> last_part("/home/me/photos/")
        'photos'
        >>> last_part("tfds:imagenet/64x64")
        'tfds:imagenet/64x64'
    """
    text = str(name)
    if text.startswith("tfds:"):
        return text
    return next((part for part in reversed(re.split(r"[/\\]", text)) if part), text)


def _folders_of_run(path: Path) -> list[Path]:
    """Returns the folder of the run that a checkpoint or an `encoder.keras` lies in, if it is one of these."""
    if (path / "manifest.json").is_file():
        return [path.resolve().parents[1]]
    return [path.parent] if path.name == "encoder.keras" and path.is_file() else []
