"""The one error of this package, and how file names and values are shown in it."""

from __future__ import annotations

from typing import Any


class CheckpointError(ValueError):
    """A checkpoint file that cannot or must not be read; the message says what was expected and received."""


def shown(value: Any, limit: int = 100) -> str:
    """Returns a short text of a value that came from a file; of a container no more than its kind.

    A list that holds itself twice, and so on, has a `repr` that never ends.
    """
    if isinstance(value, tuple) and len(value) <= 32 and all(map(_plain, value)):
        text = f"({', '.join(map(shown, value))})"
    else:
        text = repr(value) if _plain(value) else f"a {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _plain(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 256
    return value is None or isinstance(value, (str, bytes, float))


def some(names: Any, limit: int = 8) -> str:
    """Returns the first few names of a collection, for a message."""
    names = list(names)
    listed = ", ".join(shown(name, 80) for name in names[:limit]) or "none"
    return listed + (f" and {len(names) - limit} more" if len(names) > limit else "")
