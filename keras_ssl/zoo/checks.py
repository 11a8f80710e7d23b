"""What a verification says, line by line."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of a verification; `ok` is None where there is nothing to compare with.

    Args:
        what: str. What was looked at.
        expected: str. What it should be, or what is missing for the comparison.
        found: str. What it is.
        ok: bool or None.
    """

    what: str
    expected: str
    found: str
    ok: bool | None
