"""What went wrong in a campaign, counted by its cause: failed tasks, and members that were left out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.data.events import Event

__all__ = ["LEFT_OUT", "LONGEST_REASON", "Cause", "Failures"]

LEFT_OUT = "left-out"
"""Failure class of a member that a committee goes on without."""

MOST_TRACES = 20
"""Paths that are kept of each cause; the newest ones."""

LONGEST_REASON = 400
"""Characters of a message that are looked at; a program may have printed a megabyte into it."""

_VARYING = re.compile(r"(?<![A-Za-z])[-+]?\d+(\.\d+)?([eE][-+]?\d+)?|[\w./-]*/[\w./-]+|\b[\w]*\d[\w-]*\b")
"""What differs between two failures of one cause: numbers, paths, and names that hold numbers."""


@dataclass
class Cause:
    """One cause, and all that failed by it.

    Attributes:
        kind: Kind of the task.
        failure_class: What the task's border made of it (`structure`, `retry`, `setup`, …), or `LEFT_OUT`.
        reason: First line of the first message.
        count: How often it happened.
        first_seen: Unix time in seconds, 0 where no event says.
        last_seen: The same of the last.
        traces: Files with the tracebacks, relative to the run directory, the newest ones.
    """

    kind: str
    failure_class: str
    reason: str
    count: int = 0
    first_seen: float = 0.0
    last_seen: float = 0.0
    traces: list[str] = field(default_factory=list)

    def count_one(self, when: float, trace: str = "") -> None:
        """Take in that it happened once more."""
        self.count += 1
        self.first_seen = min(self.first_seen or when, when)
        self.last_seen = max(self.last_seen, when)
        if trace:
            # A task that is tried again writes its trace to the same file.
            self.traces = [*(path for path in self.traces if path != trace), trace][-MOST_TRACES:]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "kind": self.kind,
            "failure_class": self.failure_class,
            "reason": self.reason,
            "count": self.count,
            "first_seen": self.first_seen,
            "last_seen": self.last_seen,
            "traces": list(self.traces),
        }


class Failures:
    """Counts failures by cause while events are read."""

    def __init__(self) -> None:
        self._causes: dict[tuple[str, str, str], Cause] = {}
        self._trained: Counter[str] = Counter()

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if event.outcome == "failed":
            self._add_failed(event)
        elif event.kind in {"train", "train-baseline"}:
            self._trained[_committee_of(event.request)] += 1
        elif event.kind == "evaluate":
            self._add_left_out(event)

    def causes(self) -> list[Cause]:
        """Return all causes, the most frequent first."""
        return sorted(self._causes.values(), key=lambda cause: (-cause.count, cause.first_seen))

    def _add_failed(self, event: Event) -> None:
        values = event.values
        reason = _first_line(values)
        trace = values.get("trace")
        self._cause(event.kind, str(values.get("failure_class", "unknown")), reason).count_one(
            _when(event), trace if isinstance(trace, str) else ""
        )

    def _add_left_out(self, event: Event) -> None:
        used = event.values.get("members_used")
        n_members = self._trained[event.request.replace("evaluate-", "").replace("round-", "r")]
        if isinstance(used, list) and 0 < len(used) < n_members:
            missing = n_members - len(used)
            members = "one member gives" if missing == 1 else f"{missing} members give"
            reason = f"{members} no finite numbers on the test set and does not count"
            if missing > 1:
                reason = reason.replace("does not count", "do not count")
            self._cause(event.kind, LEFT_OUT, reason).count_one(_when(event))

    def _cause(self, kind: str, failure_class: str, reason: str) -> Cause:
        key = (kind, failure_class, _VARYING.sub("#", reason))
        return self._causes.setdefault(key, Cause(kind, failure_class, reason))


def _committee_of(request: str) -> str:
    """Return what the trainings of one committee have in common: `r003` of `train-r003-m1`."""
    return request.rpartition("-m")[0].removeprefix("train-")


def _first_line(values: Mapping[str, Any]) -> str:
    lines = str(values.get("message") or "").strip().splitlines()
    line = lines[0].strip() if lines else str(values.get("error") or "no message")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} …"


def _when(event: Event) -> float:
    return float(event.times.get("ended", event.times.get("started", event.times.get("queued", 0.0))))
