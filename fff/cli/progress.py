"""How far a single step is, on standard error: a bar with the time left, or a line a minute."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import typer

from fff.base.durations import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

__all__ = ["note", "progress"]

_LINE_EVERY_s = 60.0
_REFRESHES_PER_s = 4.0


def note(line: str) -> None:
    """Print a line on standard error, if there is still somebody to read it."""
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)


@contextlib.contextmanager
def progress(what: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function that takes how much is done, of how much, and what happened last.

    Args:
        what: What is done, in a word.
        unit: What is counted.
        quiet: Whether to show nothing.

    Example:
        >>> with progress("Labelling", "structures", quiet=True) as tell:
        ...     tell(1, 10, "water.xyz")
    """
    if quiet:
        yield lambda _done, _total, _note: None
    elif sys.stderr.isatty():
        with _bar(what, unit) as tell:
            yield tell
    else:
        yield _Lines(what, unit)


class _Pace:
    """How long it will take, by what was done since the first look: a resumed step began somewhere."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None

    def left(self, done: int, total: int) -> str:
        """Return the time left for people; empty where it cannot be known yet."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, done)
        since, first = self._began
        if done <= first or done >= total:
            return ""
        return f"{duration((total - done) * (now - since) / (done - first))} left"


class _Lines:
    """A line at once, then one a minute."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._pace = _Pace()
        self._next = 0.0

    def __call__(self, done: int, total: int, last: str) -> None:
        left = self._pace.left(done, total)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_EVERY_s
        parts = [f"{self._what}: {done} of {total} {self._unit}", left, last]
        note(", ".join(part for part in parts if part))


@contextlib.contextmanager
def _bar(what: str, unit: str) -> Iterator[Callable[[int, int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
        TextColumn("[dim]{task.fields[last]}", table_column=Column(no_wrap=True, ratio=1)),
    )
    console = Console(stderr=True, highlight=False)
    shown = Progress(
        *columns, console=console, refresh_per_second=_REFRESHES_PER_s, transient=True, expand=True
    )
    with shown:
        task = shown.add_task(what, total=None, count="", left="", last="starting")
        yield _Bar(shown, task, unit)


class _Bar:
    def __init__(self, shown: Progress, task: TaskID, unit: str) -> None:
        self._shown, self._task, self._unit = shown, task, unit
        self._pace = _Pace()

    def __call__(self, done: int, total: int, last: str) -> None:
        from rich.markup import escape

        self._shown.update(
            self._task,
            completed=done,
            total=total,
            count=f"{done} of {total} {self._unit}",
            left=self._pace.left(done, total),
            last=escape(last),
        )
