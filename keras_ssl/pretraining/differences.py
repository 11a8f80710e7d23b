"""In what two recipes differ, for people."""

from __future__ import annotations

from typing import Any


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns name -> (old, new) of the settings in which two recipes differ, under the names that flags have."""
    old, new = _flat(old), _flat(new)
    names = sorted(set(old) | set(new))
    return {
        name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    }


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        prefix = "" if name == "method_settings" else name.removesuffix("settings")
        own = isinstance(value, dict)
        flat |= {prefix + key: item for key, item in value.items()} if own else {name: value}
    return flat
