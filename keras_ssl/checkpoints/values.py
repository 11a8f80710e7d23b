"""What a pickle's objects become here: plain values, and inert stand-ins for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_ssl.checkpoints.errors import CheckpointError

_PLAIN_KEYS = (str, bytes, bool, float, type(None))


class Opaque:
    """An object of somebody else's class, of which only the name and what the file says is kept.

    Attributes:
        name: str. The class as the file names it.
        args: tuple. What the class would have been called with.
        state: the state that would have been set, or None.
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple = (), state: Any = None):
        self.name, self.args, self.state = name, args, state

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class Pending(Opaque):
    """An object that its state will replace; `slots` are the places of the memo that hold it."""

    __slots__ = ("finish", "slots")

    def __init__(self, name: str, args: tuple, finish: Callable[[Pending, Any], Any]):
        super().__init__(name, args)
        self.finish, self.slots = finish, []


class Global:
    """A name in a pickle: what it is called, and what stands in for calling it; without `build`, an `Opaque`."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[..., Any] | None = None):
        self.name, self.build = name, build

    def __repr__(self) -> str:
        return f"<class {self.name}, not loaded>"


class Namespace(dict):
    """The attributes of an `argparse.Namespace`."""


def checked_key(key: Any, depth: int = 0) -> Any:
    """Returns a key whose hash is quick to compute, or raises."""
    quick = isinstance(key, (*_PLAIN_KEYS, Global, Opaque))
    if not quick and isinstance(key, int):
        quick = -(2**63) <= key < 2**64
    if not quick and isinstance(key, tuple) and depth < 3 and len(key) <= 64:
        quick = all(checked_key(part, depth + 1) is part for part in key)
    if not quick:
        raise CheckpointError(
            f"Expected plain keys in a dictionary. Received: {type(key).__name__}."
        )
    return key
