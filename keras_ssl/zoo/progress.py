"""Progress of a download on the standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from keras_ssl.zoo.cache import Say
from keras_ssl.zoo.published import format_bytes

_SECONDS = 10.0  # between lines where there is no terminal

Update = Callable[[int, int | None], None]


@contextlib.contextmanager
def progress(name: str, say: Say) -> Iterator[Update]:
    """Yields the function to call with the bytes that are there and the bytes in all (None: not known)."""
    if sys.stderr.isatty():
        with _bar(name) as update:
            yield update
    else:
        yield _lines(name, say)


def _lines(name: str, say: Say) -> Update:
    last = time.monotonic()

    def update(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last < _SECONDS:
            return
        last = time.monotonic()
        share = f" of {format_bytes(total)} ({100 * done // max(total, 1)} %)" if total else ""
        say(f"{name}: {format_bytes(done)}{share}")

    return update


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
