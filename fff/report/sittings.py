"""When a campaign was worked on, and where the time of its slots went."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fff.data.events import CHANGED, OPENED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fff.data.events import Event
    from fff.report.record import Record

__all__ = ["Account", "Sittings", "account_of_slots", "sittings_of"]


class Sittings:
    """The stretches in which a process worked on a campaign: from the clock on the wall to the time worked.

    A campaign that was stopped over night has worked no second of it.

    Args:
        events: The events of the campaign, oldest first.
        resumed: When it went on (Unix times in seconds).
        until: When it was last seen to work (Unix time in seconds); 0 where only its events say.
    """

    def __init__(self, events: Sequence[Event], resumed: Sequence[float] = (), until: float = 0.0) -> None:
        ends = [event.times["ended"] for event in events if "ended" in event.times]
        first = min((time for event in events for time in event.times.values()), default=0.0)
        last = max([*ends, until, first])
        starts = [first, *sorted(start for start in resumed if first < start < last)]
        self.stretches: list[tuple[float, float]] = []
        for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
            inside = [end for end in ends if start <= end < following]
            end = max([*inside, last]) if following == float("inf") else max(inside, default=start)
            self.stretches.append((start, end))

    @property
    def worked_s(self) -> float:
        """Seconds worked in all."""
        return sum(end - start for start, end in self.stretches)

    def worked_by(self, time: float) -> float:
        """Return how many seconds had been worked at a Unix time."""
        return sum(max(0.0, min(time, end) - start) for start, end in self.stretches)

    def index(self, time: float) -> int:
        """Return in which stretch a Unix time lies, from 0."""
        return max((i for i, (start, _) in enumerate(self.stretches) if start <= time), default=0)


def sittings_of(record: Record) -> Sittings:
    """Return when a campaign was worked on."""
    updated = record.status.get("updated")
    # A killed process has left a status that is a moment old; a finished one has written its summary.
    until = float(updated) if isinstance(updated, int | float) else 0.0
    return Sittings(record.events, _resumed_at(record.provenance), until)


def _resumed_at(provenance: Mapping[str, Any]) -> list[float]:
    """Return when a campaign went on (Unix times in seconds)."""
    found = []
    for sitting in provenance.get("resumed", ()):
        try:
            found.append(datetime.fromisoformat(sitting["started"]).timestamp())
        except (KeyError, TypeError, ValueError):
            continue
    return found


@dataclass(frozen=True)
class Account:
    """Where the time of all slots went, in slot-seconds.

    Attributes:
        total_s: Slots times the time worked.
        done_s: By kind of task, what tasks took that gave a result.
        failed_s: What tasks took that gave none.
        start_up_s: Before the first task of each sitting had begun: workers start and import.
        overhead_s: Between sending a task and its beginning, besides: queues, files, proxies.
        held_back_s: Slots left free by `calculation.max_ahead`.
        waiting_s: The rest: nothing could be done, or events were on their way.
    """

    total_s: float
    done_s: Mapping[str, float]
    failed_s: float
    start_up_s: float
    overhead_s: float
    held_back_s: float
    waiting_s: float

    @property
    def busy(self) -> float:
        """The part of all slots' time that tasks took which gave a result, from 0 to 1."""
        return sum(self.done_s.values()) / self.total_s if self.total_s else 0.0


def account_of_slots(events: Sequence[Event], sittings: Sittings, held_back_s: float) -> Account:
    """Return where the time went.

    Args:
        events: The events of the campaign, oldest first.
        sittings: When it was worked on.
        held_back_s: Slot-seconds left free by `calculation.max_ahead`, as the campaign counted them.
    """
    done: defaultdict[str, float] = defaultdict(float)
    failed = 0.0
    begun = [end for _, end in sittings.stretches]
    tasks = [event for event in events if {"started", "ended"} <= event.times.keys()]
    for event in tasks:
        index = sittings.index(event.times["started"])
        begun[index] = min(begun[index], event.times["started"])
    overhead = 0.0
    for event in tasks:
        started, ended = event.times["started"], event.times["ended"]
        took = max(0.0, ended - started)
        if event.outcome == "failed":
            failed += took
        else:
            done[event.kind] += took
        sent = max(event.times.get("queued", started), begun[sittings.index(started)])
        overhead += max(0.0, started - sent)
    n_slots = _slots(events, sittings)
    lengths = [end - start for start, end in sittings.stretches]
    total = sum(n * length for n, length in zip(n_slots, lengths, strict=True))
    start_up = sum(
        n * (first - start) for n, first, (start, _) in zip(n_slots, begun, sittings.stretches, strict=True)
    )
    left = max(0.0, total - sum(done.values()) - failed - start_up - overhead)
    held_back = min(held_back_s, left)
    return Account(total, dict(sorted(done.items())), failed, start_up, overhead, held_back, left - held_back)


def _slots(events: Sequence[Event], sittings: Sittings) -> list[int]:
    """Return the number of slots in each sitting."""
    n_slots = [0] * len(sittings.stretches)
    for event in events:
        capacity = event.values.get("capacity")
        if event.kind in {OPENED, CHANGED} and isinstance(capacity, dict):
            first = sittings.index(event.times.get("started", 0.0))
            n_slots[first:] = [sum(capacity.values())] * (len(n_slots) - first)
    return n_slots
