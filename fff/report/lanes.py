"""What each worker did when: a lane of segments per worker, made while events are read."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.data.events import Event

__all__ = ["IDLE", "LETTERS", "Lanes", "Segment", "letter"]

LETTERS = {
    "train": "T",
    "train-baseline": "B",
    "refit": "F",
    "dynamics": "D",
    "score": "S",
    "choose": "C",
    "calculate": "L",
    "reference-dynamics": "R",
    "evaluate": "E",
}
"""A letter for each kind of task, where a word has no room."""

IDLE = "."


def letter(kind: str) -> str:
    """Return the letter of a kind of task; a question mark for one that is not known."""
    return LETTERS.get(kind, "?")


class Segment(NamedTuple):
    """A task on a worker; sorted by its start.

    Attributes:
        started: Unix time in seconds.
        ended: Unix time in seconds.
        kind: Kind of the task.
        failed: Whether it failed.
        request: Id of its request.
    """

    started: float
    ended: float
    kind: str
    failed: bool
    request: str


class Lanes:
    """The segments of every worker, in order of their starts; workers in order of their first event."""

    def __init__(self) -> None:
        self._segments: dict[str, list[Segment]] = {}

    def add(self, event: Event) -> None:
        """Take in the next event; one that names no worker, or no times, says nothing about a lane."""
        times = event.times
        if not event.worker or "started" not in times or "ended" not in times:
            return
        # A clock that was put back must not make time negative.
        ended = max(times["started"], times["ended"])
        segment = Segment(times["started"], ended, event.kind, event.outcome == "failed", event.request)
        # Nearly always the last: receivers of different kinds may be late by a moment.
        insort(self._segments.setdefault(event.worker, []), segment)

    @property
    def workers(self) -> list[str]:
        """Host and process of every worker that has ended a task."""
        return list(self._segments)

    def segments(
        self, worker: str, since: float = float("-inf"), until: float = float("inf")
    ) -> list[Segment]:
        """Return the segments of a worker that touch a stretch of time (Unix times in seconds)."""
        return list(self._touching(worker, since, until))[::-1]

    def last_end(self, worker: str) -> float:
        """Return when a worker's last task ended (Unix time in seconds); 0 for one that is not known."""
        segments = self._segments.get(worker)
        return segments[-1].ended if segments else 0.0

    def last_kind(self, worker: str) -> str:
        """Return the kind of a worker's last task; empty for a worker that is not known."""
        segments = self._segments.get(worker)
        return segments[-1].kind if segments else ""

    def busy(self, worker: str, since: float, until: float) -> float:
        """Return the part of a stretch of time in which a worker had a task, from 0 to 1.

        Args:
            worker: Host and process.
            since: Unix time in seconds.
            until: Unix time in seconds.
        """
        if until <= since:
            return 0.0
        total, free_from = 0.0, since
        for segment in self.segments(worker, since, until):
            start, end = max(segment.started, free_from), min(segment.ended, until)
            if end > start:
                total += end - start
                free_from = end
        return min(1.0, total / (until - since))

    def _touching(self, worker: str, since: float, until: float) -> Iterator[Segment]:
        """Yield backwards from the last one that begins in time; one worker's tasks do not overlap."""
        segments = self._segments.get(worker, [])
        for index in range(bisect_right(segments, until, key=_start) - 1, -1, -1):
            if segments[index].ended < since:
                return
            yield segments[index]


def _start(segment: Segment) -> float:
    return segment.started
