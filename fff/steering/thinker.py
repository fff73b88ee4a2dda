"""The Thinker carries out what a policy decides: four agents, each a submitter and a receiver.

It holds the only lock, and takes it for decisions alone: files, proxies and messages are handled outside.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any, get_args

from colmena.exceptions import TimeoutException
from colmena.thinker import BaseThinker, agent

from fff.base.errors import CampaignError
from fff.data.events import Event
from fff.data.lines import describe_event
from fff.steering.outbox import Outbox
from fff.steering.records import LOST, MAX_LOSSES, Agent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from colmena.models import Result

    from fff.compute.queues import Queues
    from fff.compute.tasks import Call
    from fff.data.events import EventLog
    from fff.steering.cargo import Cargo
    from fff.steering.records import Policy, Request

__all__ = ["CampaignThinker", "Usage"]

logger = logging.getLogger(__name__)

WAIT_S = 0.5
"""Longest time in seconds before an agent looks whether the campaign is over."""

LARGEST_BACK_OFF_S = 60.0


MOST_IN_FLIGHT = 200
"""Requests in flight that people are told of one by one, the oldest ones; a thousand fill a screen."""

RECENT_TASKS = 20
"""Tasks of a kind from which the time that the next one takes is told."""


class Usage:
    """Adds up how long slots were busy, free, and held back. Not for threads: the Thinker's lock guards it.

    Args:
        capacity: Slots per pool, all of which are there unless `note_pools` says otherwise.
        before: The summary of the sittings before this one, if there were any; tasks are not taken from it.

    Raises:
        ValueError: If a time in that summary is none.
    """

    def __init__(self, capacity: Mapping[str, int], before: Mapping[str, Any] | None = None) -> None:
        before = before or {}
        self.capacity = dict(capacity)
        self.elapsed_before_s = _seconds(before.get("elapsed_s", 0.0))
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        for pool, seconds in before.get("busy_s", {}).items():
            self.busy_s[pool] = _seconds(seconds)
        self._slot_s: defaultdict[str, float] = defaultdict(float)
        for pool, seconds in before.get("slot_s", {}).items():
            self._slot_s[pool] = _seconds(seconds)
        self._pools: dict[str, dict[str, Any]] = {}
        self.by_kind_s: defaultdict[str, float] = defaultdict(float)
        self.recent_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT_TASKS))
        self.tasks: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.held_back_s = _seconds(before.get("held_back_slot_s", 0.0))
        self.started = self._last = time.monotonic()

    def advance(self, policy: Policy) -> None:
        """Account for the time since the last call, before the policy changes."""
        now = time.monotonic()
        elapsed, self._last = now - self._last, now
        for pool, n_asked_for in self._asked_for(policy).items():
            self.busy_s[pool] += min(n_asked_for, self._present(pool)) * elapsed
        for pool in self.capacity:
            self._slot_s[pool] += self._present(pool) * elapsed
        self.held_back_s += policy.held_back * elapsed

    def note_pools(self, pools: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in how many workers are there, where they come and go with jobs of a batch system.

        Args:
            pools: By name of the pool at least `workers`; what else it says, people are told.
        """
        self._pools = {pool: dict(told) for pool, told in pools.items()}

    def pools(self, policy: Policy) -> dict[str, dict[str, Any]]:
        """Return the pools as people are told of them: slots, workers that are there, tasks asked for."""
        asked_for = self._asked_for(policy)
        return {
            pool: {
                **self._pools.get(pool, {}),
                "slots": slots,
                "workers": self._present(pool),
                "asked_for": asked_for[pool],
            }
            for pool, slots in self.capacity.items()
        }

    def _present(self, pool: str) -> int:
        """Return the slots of a pool that have a worker."""
        slots = self.capacity.get(pool, 0)
        return min(int(self._pools.get(pool, {}).get("workers", slots)), slots)

    @staticmethod
    def _asked_for(policy: Policy) -> Counter[str]:
        asked_for: Counter[str] = Counter()
        for request in policy.open_requests.values():
            asked_for[request.pool] += request.slots
        return asked_for

    def add_task(self, event: Event) -> None:
        """Count a task that ended; other events say nothing about the time."""
        if not event.request:
            return
        self.tasks[event.kind] += 1
        if event.outcome == "failed":
            self.failed[event.kind] += 1
        if {"started", "ended"} <= set(event.times):
            took_s = event.times["ended"] - event.times["started"]
            self.by_kind_s[event.kind] += took_s
            if event.outcome == "done":
                self.recent_s[event.kind].append(took_s)

    def expected_s(self, kind: str) -> float:
        """Return how long a task of a kind may take, by the longest of the last ones; 0 for the first."""
        return max(self.recent_s[kind], default=0.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds that the campaign has run, in all its sittings."""
        return self.elapsed_before_s + time.monotonic() - self.started

    def slot_s(self) -> dict[str, float]:
        """Return the time of all slots of each pool that had a worker, in all sittings, up to `advance`."""
        return {pool: max(self._slot_s[pool], 1e-9) for pool in self.capacity}

    def busy_fraction(self) -> dict[str, float]:
        """Return the part of its slots' time that each pool had something to do."""
        return {pool: round(self.busy_s[pool] / total, 3) for pool, total in self.slot_s().items()}

    def summary(self) -> dict[str, Any]:
        """Return where the time went, JSON-able."""
        kinds = {
            kind: {
                "tasks": self.tasks[kind],
                "failed": self.failed[kind],
                "worker_s": round(self.by_kind_s[kind], 3),
            }
            for kind in sorted(self.tasks)
        }
        return {
            "elapsed_s": round(self.elapsed_s, 1),
            "busy_fraction": self.busy_fraction(),
            "busy_s": {pool: round(self.busy_s[pool], 1) for pool in self.capacity},
            "slot_s": {pool: round(total, 1) for pool, total in self.slot_s().items()},
            "held_back_slot_s": round(self.held_back_s, 1),
            "by_kind": kinds,
        }


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds >= 0):
        msg = f"{value!r} is no time in seconds."
        raise ValueError(msg)
    return seconds


class CampaignThinker(BaseThinker):
    """Runs a policy on a task server.

    Args:
        queues: Colmena queues with one topic per agent.
        policy: Decides.
        log: Where events go before the policy sees them; its next sequence number is `first_seq`.
        first_seq: Sequence number of the next event.
        cargo: Loads requests and unloads results.
        usage: Adds up where the time goes; it goes on over several Thinkers.
        watch: Called about twice a second with this thinker; may call `stop`.
        walltime_end: When the last task must have ended, on the clock `time.monotonic` (s).

    Attributes:
        seq: Sequence number of the next event.
        stop_reason: Why it was asked to stop, or None.
        is_stopped_by_walltime: Whether it stopped by itself, since nothing that is left would end in time.
        error: What went wrong in an agent, or None.
    """

    def __init__(
        self,
        queues: Queues,
        policy: Policy,
        log: EventLog,
        first_seq: int,
        cargo: Cargo,
        usage: Usage,
        watch: Callable[[CampaignThinker], None],
        walltime_end: float = math.inf,
    ) -> None:
        super().__init__(queues)
        self._queues = queues
        self.policy = policy
        self.usage = usage
        self.stop_reason: str | None = None
        self.is_stopped_by_walltime = False
        self.error: BaseException | None = None
        self._deadline = math.inf
        self._log = log
        self.seq = first_seq
        self._walltime_end = walltime_end
        self._held: list[Request] = []
        self._cargo = cargo
        self._watch = watch
        self._lock = threading.Lock()
        self._outboxes = {name: Outbox() for name in get_args(Agent)}
        self._in_flight: dict[str, tuple[Request, Call, float]] = {}

    def begin(self, requests: Sequence[Request]) -> None:
        """Hand the first requests to the submitters; call it before `run`."""
        with self._lock:
            live = self._dispatch(requests)
        self._cargo.set_live(live, self.seq - 1)
        if self.policy.verdict is not None:
            self.done.set()

    def ask(self, request: Request, watch: Callable[[], None]) -> dict[str, Any] | None:
        """Have a request carried out whose event is in the log already, and return its values.

        Call it before `begin`, from one thread.

        Args:
            request: The request.
            watch: Called about twice a second meanwhile.

        Returns:
            The values, or None if this was asked to stop.

        Raises:
            CampaignError: If the task fails.
        """
        self._send(request)
        while self.stop_reason is None:
            watch()
            try:
                result = self.queues.get_result(topic=request.agent, timeout=WAIT_S)
            except TimeoutException:
                continue
            if result is None:
                continue
            _, call, _ = self._in_flight.pop(request.id)
            self._cargo.release(call)
            envelope = result.value if result.success else self._cargo.explain_loss(request, call, result)
            if envelope["outcome"] == "interrupted":
                return None
            values = self._cargo.read_values(envelope)
            if values.get("failure_class") == LOST and request.losses + 1 < MAX_LOSSES:
                request = request.once_more()
                self._send(request)
                continue
            if envelope["outcome"] != "done":
                msg = f"{request.id} could not be carried out again: {values.get('message', 'unknown')}"
                raise CampaignError(msg)
            return values
        return None

    def record(self, event: Event) -> None:
        """Write an event that is no task's end, and let the policy take it in; call it before `begin`."""
        with self._lock:
            self._log.append(event)
            self.seq += 1
            self.policy.handle(event)

    def stop(self, reason: str, *, grace_s: float = 0.0) -> None:
        """Send nothing more, take in what ends within the grace, then come back from `run`.

        Safe from a signal handler. A second call may shorten the grace.
        """
        if self.stop_reason is None:
            self.stop_reason = reason
        self._deadline = min(self._deadline, time.monotonic() + grace_s)
        if grace_s <= 0:
            self.done.set()

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers that people watch."""
        with self._lock:
            self.usage.advance(self.policy)
            snapshot = self.policy.snapshot()
            usage = self.usage.summary()
            pools = self.usage.pools(self.policy)
        return {
            **snapshot,
            "pools": pools,
            "in_flight": self._describe_flights(),
            "usage": usage,
            "largest_message_bytes": self._queues.largest_message,
        }

    def _describe_flights(self) -> list[dict[str, Any]]:
        """Return what is in flight, and since when (Unix time in seconds)."""
        # A copy, made in one step: submitters and receivers change it meanwhile.
        flights = sorted(self._in_flight.copy().values(), key=lambda flight: flight[2])[:MOST_IN_FLIGHT]
        return [
            {
                "request": request.id,
                "kind": request.kind,
                "pool": request.pool,
                "attempt": request.attempt,
                "since": since,
            }
            for request, _, since in flights
        ]

    # The four agents. Each body is one line so that a reader of Colmena code finds the pairs.

    @agent
    def submit_trainings(self) -> None:
        """Trainer, submitter."""
        self._submit("Trainer")

    @agent
    def receive_models(self) -> None:
        """Trainer, receiver."""
        self._receive("Trainer")

    @agent
    def submit_dynamics(self) -> None:
        """Sampler, submitter."""
        self._submit("Sampler")

    @agent
    def receive_frames(self) -> None:
        """Sampler, receiver."""
        self._receive("Sampler")

    @agent
    def submit_inference(self) -> None:
        """Selector, submitter."""
        self._submit("Selector")

    @agent
    def receive_scores(self) -> None:
        """Selector, receiver."""
        self._receive("Selector")

    @agent
    def submit_calculations(self) -> None:
        """Calculator, submitter."""
        self._submit("Calculator")

    @agent
    def receive_labels(self) -> None:
        """Calculator, receiver."""
        self._receive("Calculator")

    @agent
    def watch(self) -> None:
        """Look after the campaign as a whole: status, stop requests, the task server's health."""

        def look() -> None:
            self._watch(self)
            self._log.sync()
            self._stop_if_all_is_held()
            if self.stop_reason is not None and (not self._in_flight or time.monotonic() > self._deadline):
                self.done.set()
            self.done.wait(WAIT_S)

        self._until_done(look)

    def _submit(self, name: Agent) -> None:
        def submit_next() -> None:
            if self._is_stopping():
                # Nothing new is sent; what waits here is asked for again by whoever resumes.
                self.done.wait(WAIT_S)
                return
            request = self._outboxes[name].get(WAIT_S)
            if request is not None and not self._is_stopping() and not self._is_too_long(request):
                self._send(request)

        self._until_done(submit_next)

    def _receive(self, name: Agent) -> None:
        def receive_next() -> None:
            try:
                result = self.queues.get_result(topic=name, timeout=WAIT_S)
            except TimeoutException:
                return
            if result is not None:
                self._take_in(result)

        self._until_done(receive_next)

    def _until_done(self, body: Callable[[], None]) -> None:
        """Repeat `body`; an error in any agent ends the campaign, since Colmena would only log it."""
        try:
            while not self.done.is_set():
                body()
        except BaseException as error:
            self.error = self.error or error
            logger.exception("An agent failed.")
        finally:
            self.done.set()

    def _is_stopping(self) -> bool:
        return self.stop_reason is not None or self.done.is_set()

    def _is_too_long(self, request: Request) -> bool:
        """Hold a request that cannot end before the walltime does, as far as tasks of its kind tell."""
        with self._lock:
            if time.monotonic() + self.usage.expected_s(request.kind) <= self._walltime_end:
                return False
            self._held.append(request)
        logger.info("%s is not started: it would not end before the walltime does.", request.id)
        return True

    def _stop_if_all_is_held(self) -> None:
        with self._lock:
            all_held = bool(self._held) and len(self._held) == len(self.policy.open_requests)
        if all_held:
            self.is_stopped_by_walltime = True
            self.stop("the walltime is near, and what is left to do would not end before it")

    def _send(self, request: Request) -> None:
        call, proxies = self._cargo.load(request)
        self._in_flight[request.id] = (request, call, time.time())
        self.queues.send_inputs(
            call,
            *proxies,
            method=request.kind,
            topic=request.agent,
            task_info={"request": request.id},
        )

    def _take_in(self, result: Result) -> None:
        info = result.task_info or {}
        request, call, queued = self._in_flight[info["request"]]
        envelope = result.value if result.success else self._cargo.explain_loss(request, call, result)
        if envelope["outcome"] == "interrupted":
            # It was asked to stop and has written its checkpoint. No event: whoever resumes asks again.
            logger.info("%s was interrupted; it goes on from its checkpoint.", request.id)
            self._cargo.release(call)
            del self._in_flight[request.id]
            return
        values = self._cargo.read_values(envelope)
        if values.get("failure_class") == "disk":
            # Not the fault of the task, and the next one would meet it too.
            msg = f"{request.id} found no space: {values['message']}"
            raise CampaignError(msg, hint="Make room on that disk.")
        self._cargo.unload(request, values, envelope["outcome"])
        self._cargo.release(call)
        del self._in_flight[request.id]
        times = {"queued": queued}
        times |= {key: envelope[key] for key in ("started", "ended") if key in envelope}
        with self._lock:
            event = Event(
                seq=self.seq,
                kind=request.kind,
                request=request.id,
                attempt=request.attempt,
                outcome=envelope["outcome"],
                values=values,
                times=times,
                worker=envelope.get("worker", ""),
                device=envelope.get("device", ""),
            )
            live = self._decide(event)
        logger.log(logging.WARNING if event.outcome == "failed" else logging.INFO, describe_event(event))
        self._cargo.set_live(live, event.seq)
        if self.policy.verdict is not None:
            self.done.set()

    def _decide(self, event: Event) -> Set[str]:
        """Log first, then decide; the lock is held."""
        self.usage.advance(self.policy)
        self.usage.add_task(event)
        self._log.append(event)
        self.seq += 1
        return self._dispatch(self.policy.handle(event))

    def _dispatch(self, requests: Sequence[Request]) -> Set[str]:
        for request in requests:
            failed = request.attempt - 1 + request.losses
            delay = min(2.0**failed, LARGEST_BACK_OFF_S) if failed else 0.0
            self._outboxes[request.agent].put(request, delay_s=delay)
        return self.policy.live_models
