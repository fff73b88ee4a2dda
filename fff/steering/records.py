"""What a policy takes and gives: events in, requests out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from fff.data.events import Event

__all__ = ["LOST", "MAX_LOSSES", "Agent", "Policy", "Request", "Verdict"]

LOST = "lost"
"""Failure class of a task whose workers all went away with it: nothing that it did, nor its structure."""

MAX_LOSSES = 10
"""Losses in a row that count as a failed try: what is lost so often may never end within a block."""

Agent = Literal["Trainer", "Sampler", "Selector", "Calculator"]


@dataclass(frozen=True)
class Request:
    """One task to be started now.

    Attributes:
        id: Stable name made from campaign state, never from the clock; starts with a letter.
        kind: The task function that answers it.
        agent: Whose submitter sends it and whose receiver takes the result.
        pool: The slots it takes are of this pool.
        args: Small JSON-able arguments.
        models: Keys of what travels to the task as a proxy: models and training sets.
        attempt: From 1; a request that is tried again keeps its id.
        slots: How many slots of its pool it takes, all from its start to its end.
        losses: How often in a row it was lost with the workers that ran it, which is no try of its own.
    """

    id: str
    kind: str
    agent: Agent
    pool: str
    args: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    attempt: int = 1
    slots: int = 1
    losses: int = 0

    def next_attempt(self) -> Request:
        """Return the same request, to be tried once more."""
        return replace(self, attempt=self.attempt + 1, losses=0)

    def once_more(self) -> Request:
        """Return the same request at the same attempt, after it was lost with its workers."""
        return replace(self, losses=self.losses + 1)


@dataclass(frozen=True)
class Verdict:
    """Why the campaign is over."""

    state: Literal["finished", "failed"]
    reason: str


class Policy(Protocol):
    """Decides. It is pure: no thread, no clock, no file, no global randomness.

    Replaying the same events into a fresh policy gives the same state and the same requests.
    """

    def start(self) -> Sequence[Request]:
        """Return the requests that may start at once."""
        ...

    def handle(self, event: Event) -> Sequence[Request]:
        """Take in an event and return the requests that may start now.

        Besides the ends of requests there is `changed`: an accepted change of config or capacity, labels that
        were found without their events, or the wish to go on after a failure (see `ActiveLearning`).
        """
        ...

    @property
    def verdict(self) -> Verdict | None:
        """Why the campaign is over, or None while it goes on."""
        ...

    @property
    def open_requests(self) -> Mapping[str, Request]:
        """Requests that were emitted and have no event yet, by id."""
        ...

    @property
    def live_models(self) -> Set[str]:
        """Keys of the models that later requests may name; others may be evicted."""
        ...

    @property
    def needed_results(self) -> Set[str]:
        """Ids of the requests whose files later requests may read."""
        ...

    @property
    def held_back(self) -> int:
        """Free slots that a calculation could have if `calculation.max_ahead` did not hold it back."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers that people watch, JSON-able."""
        ...
