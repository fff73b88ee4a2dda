"""Scheduling: which role gets a free slot. Every worker has something to do while there is work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fff.steering.active_learning.calculator import Calculator
    from fff.steering.active_learning.sampler import Sampler
    from fff.steering.active_learning.selector import Selector
    from fff.steering.active_learning.state import State
    from fff.steering.active_learning.tester import Tester
    from fff.steering.active_learning.trainer import Trainer
    from fff.steering.records import Request

    type Work = tuple[str, Callable[[], bool], Callable[[], Request]]
    # A kind of task, whether one could start now, and what takes it.

__all__ = ["Scheduler"]

_LENGTHS = {"dynamics": 1, "calculate": 2, "reference-dynamics": 3, "train": 3, "train-baseline": 3}
"""How long kinds of task take beside each other; those that are not named are short."""


class Scheduler:
    """Hands out free slots, one request at a time.

    What stands in line goes before anything else: tasks that were lost, and calculations of several slots
    whose turn has come. Inference and other short work for the accelerators comes next, since others wait
    for it; then training; then sampling and calculation by the slots each may use; reference dynamics fill
    what is left. Kinds of task may share pools in any way.

    Slots that become free are kept for the first in line until it can take all of its own at once. On those
    that it cannot use yet other tasks may begin as long as it must wait for tasks of longer kinds in any
    case. None of these begins meanwhile, so that it waits for what runs of each kind and for no more.

    Args:
        state: The shared state.
        trainer: Trainer role.
        sampler: Sampler role.
        selector: Selector role.
        calculator: Calculator role.
        tester: Tester role.
    """

    def __init__(
        self,
        state: State,
        trainer: Trainer,
        sampler: Sampler,
        selector: Selector,
        calculator: Calculator,
        tester: Tester,
    ) -> None:
        self.state = state
        self._calculator = calculator
        self._tester = tester
        self._sampler = sampler
        self._selector = selector
        self._inference: Sequence[Work] = (
            ("refit", trainer.wants_refit, trainer.take_refit),
            ("choose", selector.wants_choice, selector.take_choice),
            ("score", selector.wants_score, selector.take_score),
            ("evaluate", tester.wants_evaluation, tester.take_evaluation),
        )
        self._trainings: Sequence[Work] = (
            ("train", trainer.wants_slot, trainer.take),
            ("train-baseline", tester.wants_training, tester.take_training),
        )
        self._sampling: Work = ("dynamics", sampler.wants_slot, sampler.take)
        self._short_work: Sequence[Work] = (
            *self._inference,
            ("dynamics", self._wants_its_sampling, sampler.take),
            ("calculate", self._has_room_for_calculation, calculator.take),
            self._sampling,
        )
        self._cpu_work: Sequence[Work] = (
            ("reference-dynamics", self._wants_test_set, tester.take_reference),
            ("dynamics", self._wants_its_sampling, sampler.take),
            ("calculate", calculator.wants_slot, calculator.take),
            self._sampling,
            ("reference-dynamics", self._has_room_for_reference, tester.take_reference),
        )
        self._partial_chunk: Work = ("score", self._wants_partial_chunk, selector.take_score)
        lowest, highest = self._bounds()
        state.sampling_slots = min(max(state.config.sampling.n_parallel, lowest), highest)

    def next_request(self) -> Request | None:
        """Return a request that may start now, or None when all slots are taken or nothing is to be done."""
        return next(filter(None, map(self._next_of, self.state.free)), None)

    def move_slots(self) -> None:
        """Move a slot from sampling to calculation when many audits wait, and back when few do."""
        state = self.state
        queue = state.config.queue
        lowest, highest = self._bounds()
        waiting = len(state.audits)
        if waiting > queue.length + queue.tolerance:
            state.sampling_slots -= 1
        elif waiting < queue.length - queue.tolerance:
            state.sampling_slots += 1
        state.sampling_slots = min(max(state.sampling_slots, lowest), highest)

    def _bounds(self) -> tuple[int, int]:
        """Return the least and the most slots for sampling: in a pool of both neither loop may starve."""
        pool_of = self.state.pool_of
        total = self.state.capacity[pool_of["dynamics"]]
        if pool_of["dynamics"] != pool_of["calculate"]:
            return total, total
        return (1, total - 1) if total > 1 else (0, 1)

    def _next_of(self, pool: str) -> Request | None:
        """Return a request that may start now in a pool."""
        state = self.state
        free = state.free[pool]
        if free < 1:
            return None
        first = state.first_in_line(pool)
        if first is None:
            request = self._new(pool)
            if request is None or request.slots <= free:
                return request
            # Its turn has come: from now on slots are kept for it.
            state.queue(request)
            first = request
        elif first.slots <= free:
            state.end(first)
            return first
        length = self._waits_for(first)
        shorter = (work for work in self._short_work if _length(work[0]) < length)
        return self._take(pool, *shorter)

    def _new(self, pool: str) -> Request | None:
        """Return what comes next where nothing stands in line; it may need more slots than are free."""
        return (
            self._take(pool, *self._inference)
            or (self._take(pool, *self._trainings) if self._may_train() else None)
            # What nothing else wants: it takes nothing from anybody.
            or self._take(pool, *self._cpu_work, *self._trainings, self._partial_chunk)
        )

    def _take(self, pool: str, *works: Work) -> Request | None:
        """Return the first of several kinds of work that belongs to a pool and could start now."""
        pool_of = self.state.pool_of
        return next((take() for kind, wants, take in works if pool_of[kind] == pool and wants()), None)

    def _waits_for(self, first: Request) -> int:
        """Return of which length are the tasks that the first in line must wait for in any case.

        It could not begin if all that runs of shorter kinds ended at once.
        """
        state = self.state
        left = state.capacity[first.pool]
        running = [request for request in state.open.values() if request.pool == first.pool]
        for length in range(max(_LENGTHS.values()), 0, -1):
            left -= sum(request.slots for request in running if _length(request.kind) == length)
            if left < first.slots:
                return length
        return 0

    def _may_train(self) -> bool:
        """Whether training may take a slot of a pool it shares, without locking the others out of it."""
        state = self.state
        total = state.capacity[state.pool_of["train"]]
        if total == 1:
            return not state.trained_last
        return state.running("train") + state.running("train-baseline") < total - 1

    def _wants_its_sampling(self) -> bool:
        """Whether sampling has not all of its slots."""
        return self.state.running("dynamics") < self.state.sampling_slots and self._sampler.wants_slot()

    def _wants_test_set(self) -> bool:
        """Whether to make a stretch of the test set now, though others want the slots too.

        One at a time, so that the error of the first committee is known while there is still a campaign; and
        never with the whole pool.
        """
        state = self.state
        if not state.initial_done or not self._tester.wants_test_set():
            return False
        return state.capacity[state.pool_of["reference-dynamics"]] > self._tester.next_slots()

    def _has_room_for_calculation(self) -> bool:
        """Whether the next calculation could run on what is left."""
        free = self.state.free[self.state.pool_of["calculate"]]
        return self._calculator.wants_slot() and self._calculator.next_slots() <= free

    def _has_room_for_reference(self) -> bool:
        """Whether reference dynamics could run on what is left; no slots are kept for it."""
        state = self.state
        if not self._tester.wants_reference():
            return False
        pool, slots = state.pool_of["reference-dynamics"], self._tester.next_slots()
        # More than there are at all: it stands in line, so that it is known what the campaign failed of.
        return slots <= state.free[pool] or slots > state.capacity[pool]

    def _wants_partial_chunk(self) -> bool:
        """Whether to score a chunk that is not full rather than leave an accelerator idle.

        Where sampling or calculation has the same workers these have something better to do.
        """
        pool_of = self.state.pool_of
        is_apart = pool_of["score"] not in (pool_of["dynamics"], pool_of["calculate"])
        return is_apart and self._selector.wants_any_score()


def _length(kind: str) -> int:
    return _LENGTHS.get(kind, 0)
