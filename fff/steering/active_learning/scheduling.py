"""Scheduling: which role gets a free slot. Every worker has something to do while there is work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fff.steering.active_learning.calculator import Calculator
    from fff.steering.active_learning.sampler import Sampler
    from fff.steering.active_learning.selector import Selector
    from fff.steering.active_learning.state import State
    from fff.steering.active_learning.tester import Tester
    from fff.steering.active_learning.trainer import Trainer
    from fff.steering.records import Request

__all__ = ["Scheduler"]


class Scheduler:
    """Hands out free slots, one request at a time.

    What was lost is tried again before anything else. Inference and other short work for the accelerators
    comes next, since others wait for it; then training; then sampling and calculation by the slots each may
    use; reference dynamics fill what is left.

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
        self._trainer = trainer
        self._sampler = sampler
        self._selector = selector
        self._calculator = calculator
        self._tester = tester
        lowest, highest = self._bounds()
        state.sampling_slots = min(max(state.config.sampling.n_parallel, lowest), highest)

    def next_request(self) -> Request | None:
        """Return a request that may start now, or None when all slots are taken or nothing is to be done."""
        for pool, free in self.state.free.items():
            if free < 1:
                continue
            request = (
                self.state.take_retry(pool)
                or self._inference(pool)
                or self._training(pool)
                or self._cpu_work(pool)
            )
            if request is None:
                # Nothing else wants the slot, so a training takes nothing from anybody.
                request = self._training(pool, fill=True)
            if request is not None:
                return request
        return None

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
        """Return the least and the most slots for sampling: neither loop may starve where there are two."""
        total = self.state.capacity[self.state.pool_of["dynamics"]]
        return (1, total - 1) if total > 1 else (0, 1)

    def _inference(self, pool: str) -> Request | None:
        if self.state.pool_of["score"] != pool:
            return None
        if self._trainer.wants_refit():
            return self._trainer.take_refit()
        if self._selector.wants_slot():
            return self._selector.take()
        if self._tester.wants_evaluation():
            return self._tester.take_evaluation()
        return None

    def _training(self, pool: str, *, fill: bool = False) -> Request | None:
        state = self.state
        if state.pool_of["train"] != pool:
            return None
        if not fill and not self._may_train():
            return None
        if self._trainer.wants_slot():
            return self._trainer.take()
        if self._tester.wants_training():
            return self._tester.take_training()
        return None

    def _may_train(self) -> bool:
        """Whether training may take a slot of a pool it shares, without locking the others out of it."""
        state = self.state
        total = state.capacity[state.pool_of["train"]]
        if total == 1:
            return not state.trained_last
        return state.running("train") + state.running("train-baseline") < total - 1

    def _cpu_work(self, pool: str) -> Request | None:
        state = self.state
        if state.pool_of["dynamics"] != pool:
            return None
        if state.initial_done and state.capacity[pool] > 1 and self._tester.wants_test_set():
            # One slot, so that the error of the first committee is known while there is still a campaign.
            return self._tester.take_reference()
        if state.running("dynamics") < state.sampling_slots and self._sampler.wants_slot():
            return self._sampler.take()
        if self._calculator.wants_slot():
            return self._calculator.take()
        if self._sampler.wants_slot():
            return self._sampler.take()
        if self._tester.wants_reference():
            return self._tester.take_reference()
        return None
