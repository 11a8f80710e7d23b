"""What a person sees of a run: the first lines, a progress line, findings, the last line."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS = 5.0  # between lines of progress where there is no terminal


class Meter:
    """Images per second and the time that is left.

    Args:
        total_steps: int. Steps of the run.
        batch_size: int. Images in a step.
        start_step: int. Steps done before this process.
    """

    def __init__(self, total_steps: int, batch_size: int, start_step: int = 0):
        self.total_steps, self.batch_size = total_steps, batch_size
        self._first = None
        self._last = (time.monotonic(), start_step)

    def rate(self, step: int) -> float:
        """Returns images per second since the last call."""
        now = time.monotonic()
        before, done = self._last
        self._last = (now, step)
        if self._first is None:  # the first interval holds the compilation
            self._first = (now, step)
        return (step - done) * self.batch_size / max(now - before, 1e-9)

    def skip(self) -> None:
        """Leaves out of the next rate the time since the last call: a look of the monitor, a save."""
        self._last = (time.monotonic(), self._last[1])

    def remaining(self, step: int) -> float | None:
        """Returns seconds to the end, or None before the first interval is over."""
        if self._first is None or step == self._first[1]:
            return None
        now, (before, first) = time.monotonic(), self._first
        return (now - before) / (step - first) * (self.total_steps - step)


class Reporter:
    """Prints lines, and a progress bar when the output is a terminal.

    Args:
        total_steps: int. Steps of the run.
        start_step: int. Steps done before this process.
        quiet: bool. Prints only the last line. Defaults to `False`.
        title: str. What the progress is of. Defaults to `"pre-training"`.
    """

    def __init__(
        self, total_steps: int, start_step: int, quiet: bool = False, title: str = "pre-training"
    ):
        self.quiet = quiet
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar, self._printed = None, -_SECONDS
        if self.console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(title, total=total_steps, completed=start_step, text="")
            self._bar.start()

    def line(self, text: str, *, always: bool = False) -> None:
        """Prints one line."""
        if not self.quiet or always:
            self.console.print(text, markup=False)

    def progress(self, step: int, text: str, *, last: bool = False) -> None:
        """Moves the bar, or prints the text when there is none: every few seconds, and the last one."""
        if self._bar is None:
            now = time.monotonic()
            if last or now - self._printed >= _SECONDS:
                self._printed = now
                self.line(text)
        else:
            self._bar.update(self._task, completed=step, text=text)

    def close(self) -> None:
        """Ends the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float | None) -> str:
    """Returns 4s, 3m20s, 2h05m or 3d04h; "?" for None."""
    if seconds is None:
        return "?"
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"
