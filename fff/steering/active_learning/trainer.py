"""Trainer: when to train, on what, and what becomes of the models that arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fff.base.draws import seed_for
from fff.steering.active_learning.state import FEWEST_LABELS, START_MODEL, Committee, Round
from fff.steering.records import Request, Verdict

if TYPE_CHECKING:
    from fff.data.events import Event
    from fff.steering.active_learning.selector import Selector
    from fff.steering.active_learning.state import State
    from fff.steering.active_learning.tester import Tester

__all__ = ["Trainer"]

MAX_ATTEMPTS = 2
"""A member that fails is tried once more."""

FEWEST_MEMBERS = 2
"""Members without which there is no deviation, and no committee."""

MAX_FAILED_ROUNDS = 2
"""Rounds in a row that may give no committee before the campaign stops."""


class Trainer:
    """Owns the rounds, the committee and the sampling model.

    Args:
        state: The shared state.
        selector: Told when a committee is complete, to score its waiting list again.
        tester: Told when a committee is complete, to measure its error.
    """

    def __init__(self, state: State, selector: Selector, tester: Tester) -> None:
        self.state = state
        self._selector = selector
        self._tester = tester

    def wants_slot(self) -> bool:
        """Whether a member could be trained now."""
        training = self.state.training
        return self._is_due() if training is None else bool(training.waiting)

    def take(self) -> Request:
        """Return the training of the next member; the first of them opens the round."""
        state = self.state
        training = state.training or self._open_round()
        member, attempt = training.waiting.pop(0)
        training.running.add(member)
        start = self._start_key(member)
        return Request(
            id=f"train-r{training.number:03d}-m{member}",
            kind="train",
            agent="Trainer",
            pool=state.pool_of["train"],
            args={
                "round": training.number,
                "directory": f"round-{training.number:03d}/member-{member}",
                "member": member,
                "n_labels": training.n_labels,
                "seed": seed_for(state.seed, "train", training.number, member, attempt),
                "split_seed": seed_for(state.seed, "split", member),
            },
            models=(f"labels:{training.n_labels}", *((start,) if start else ())),
            attempt=attempt,
        )

    def receive(self, event: Event, request: Request) -> None:
        """Take in the end of a training: each model counts at once, the committee when all are in."""
        training = self.state.training
        if training is None:
            msg = f"There is no round that {request.id} belongs to."
            raise RuntimeError(msg)
        member = request.args["member"]
        training.running.discard(member)
        if event.outcome == "done":
            training.members.append(member)
            if len(training.members) == 1:
                self._first_model(training, member)
        elif request.attempt < MAX_ATTEMPTS:
            training.waiting.append((member, request.attempt + 1))
        else:
            self.state.first_failure.setdefault("train", event.values.get("message", "unknown"))
        if not training.waiting and not training.running:
            self._close_round(training)

    def wants_refit(self) -> bool:
        """Whether the given model's reference energies can be refitted to the first labels."""
        state = self.state
        return state.refit in {"due", "retry"} and state.initial_done and bool(state.labels)

    def take_refit(self) -> Request:
        """Return the refit of the given model's reference energies."""
        attempt = 2 if self.state.refit == "retry" else 1
        self.state.refit = "running"
        return Request(
            id="refit-start",
            kind="refit",
            agent="Trainer",
            pool=self.state.pool_of["refit"],
            args={"n_labels": len(self.state.labels)},
            models=(f"labels:{len(self.state.labels)}", START_MODEL),
            attempt=attempt,
        )

    def receive_refit(self, event: Event, request: Request) -> None:
        """Take in the shifts, or try once more; without them no audit of the given model has a meaning."""
        if event.outcome == "done":
            self.state.refit = "done"
            self.state.energy_shifts_eV = dict(event.values["shifts_eV"])
        elif request.attempt < MAX_ATTEMPTS:
            self.state.refit = "retry"
        else:
            why = event.values.get("message", "unknown")
            self.state.verdict = Verdict(
                "failed", f"The given model could not be evaluated on the first labels: {why}"
            )

    def go_on(self) -> None:
        """Try again what ended the campaign, after the cause was put right."""
        state = self.state
        state.failed_rounds = 0
        if state.committee is not None and state.training is None:
            # The labels that the failed rounds were for.
            state.n_labels_at_start = state.committee.n_labels
        if state.refit == "running" and not state.running("refit"):
            state.refit = "due"

    def _is_due(self) -> bool:
        state = self.state
        if len(state.labels) < FEWEST_LABELS or not state.initial_done:
            return False
        if state.committee is None:
            return True
        new = len(state.labels) - state.n_labels_at_start
        # A difference of counts: a trigger that falls into a running round is still there at its end.
        return new >= state.config.training.retrain_every or (state.budget_spent and new > 0)

    def _open_round(self) -> Round:
        state = self.state
        state.round += 1
        state.n_labels_at_start = len(state.labels)
        members = [(member, 1) for member in range(state.config.committee.size)]
        state.training = Round(state.round, len(state.labels), members)
        return state.training

    def _start_key(self, member: int) -> str | None:
        state = self.state
        committee = state.committee
        if state.config.training.start_from == "previous" and committee is not None:
            previous = committee.members[member % len(committee.members)]
            return f"member:round-{committee.round:03d}:{previous}"
        return START_MODEL if state.config.model.start else None

    def _first_model(self, training: Round, member: int) -> None:
        self.state.sampling_model = f"member:round-{training.number:03d}:{member}"
        self.state.sampling_round = training.number
        self.state.caused = 0

    def _close_round(self, training: Round) -> None:
        state = self.state
        state.training = None
        if len(training.members) >= FEWEST_MEMBERS:
            state.failed_rounds = 0
            state.committee = Committee(training.number, tuple(training.members), training.n_labels)
            self._selector.new_committee()
            self._tester.new_committee(state.committee)
            return
        state.failed_rounds += 1
        if state.committee is None or state.failed_rounds >= MAX_FAILED_ROUNDS:
            why = state.first_failure.get("train", "unknown")
            state.verdict = Verdict(
                "failed",
                f"Round {training.number} gave {len(training.members)} of {state.config.committee.size} "
                f"models; a committee needs two. First error: {why}",
            )
            return
        # Its trigger is kept: no further label may come, with as many on hand as `max_ahead` allows.
        state.n_labels_at_start = state.committee.n_labels
