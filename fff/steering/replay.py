"""Replay: the log of a campaign taken into a fresh policy, which then knows all that the old one knew."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fff.base.collection import collection_paused
from fff.base.errors import RunDirectoryError
from fff.data.events import CHANGED, OPENED, damaged
from fff.steering.active_learning import ActiveLearning
from fff.steering.active_learning.policy import POLICY_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fff.data.events import Event
    from fff.steering.records import Request

__all__ = ["Replay", "replay"]

# What the policy raises on an event that it could not have caused.
_MISFITS = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


@dataclass
class Replay:
    """A campaign as its log tells it.

    Attributes:
        policy: Knows what the policy knew when the last event was written.
        events: All events.
        done: Every request that gave its result, with the event, by id; of several tries the last.
    """

    policy: ActiveLearning
    events: list[Event]
    done: dict[str, tuple[Request, Event]] = field(default_factory=dict)

    def take_in(self, event: Event) -> None:
        """Let the policy take in the next event, and note what its request gave."""
        self._take_in(event)
        self.events.append(event)

    def _take_in(self, event: Event) -> None:
        if event.kind == CHANGED:
            for name, values in event.values.get("restored", {}).items():
                request, done = self.done[name]
                self.done[name] = (request, replace(done, values={**done.values, **values}))
            self.policy.handle(event)
            return
        request = self.policy.state.find(event.request)
        self.policy.handle(event)
        if event.outcome == "done":
            self.done[request.id] = (request, event)


def replay(events: Sequence[Event], path: Path) -> Replay:
    """Return the campaign that a log tells of.

    Args:
        events: All events of the log.
        path: The log, for messages.

    Raises:
        LogDamagedError: If an event does not follow from those before it.
        RunDirectoryError: If another version of the policy decided: it would decide otherwise.
    """
    if not events or events[0].kind != OPENED:
        raise damaged(path, 1, f"a log begins with the event `{OPENED}`")
    version = events[0].values.get("policy_version")
    if version != POLICY_VERSION:
        msg = (
            f"The campaign in {path.parent} was steered by policy {version}; "
            f"this fff has policy {POLICY_VERSION}."
        )
        hint = (
            "Go on with the fff that began it (see provenance.json), or begin a new campaign: "
            f"`labels: [{path.parent / 'labels.db'}]` gives it the labels of this one."
        )
        raise RunDirectoryError(msg, hint=hint, path=str(path))
    try:
        found = Replay(ActiveLearning(events[0]), [events[0]])
        found.policy.start()
    except _MISFITS as error:
        raise damaged(path, 1, _why(error)) from error
    with collection_paused():
        _take_in_all(found, events[1:], path)
    try:
        json.dumps(found.policy.snapshot(), allow_nan=False)
        set(found.policy.needed_results)
    except _MISFITS as error:
        why = f"a name or a number up to here is none; {_why(error)}"
        raise damaged(path, len(events), why) from error
    return found


def _take_in_all(found: Replay, events: Sequence[Event], path: Path) -> None:
    for event in events:
        try:
            found.take_in(event)
        except _MISFITS as error:
            raise damaged(
                path, event.seq + 1, f"it does not follow from what stands before; {_why(error)}"
            ) from error


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
