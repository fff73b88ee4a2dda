"""Calculator: which structure is labelled next, and what becomes of labels and failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fff.base.draws import uniform
from fff.selection import AuditErrors
from fff.steering.active_learning.state import START_MODEL, LabelRecord
from fff.steering.records import Request, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fff.data.events import Event
    from fff.steering.active_learning.sampler import Sampler
    from fff.steering.active_learning.selector import Selector
    from fff.steering.active_learning.state import Audit, State

__all__ = ["Calculator", "label_number"]


class Calculator:
    """Owns the labels and what was set aside.

    Args:
        state: The shared state.
        sampler: Told the outcome of every audit.
        selector: Owns the waiting list that frames are taken from.
    """

    def __init__(self, state: State, sampler: Sampler, selector: Selector) -> None:
        self.state = state
        self._sampler = sampler
        self._selector = selector

    def wants_slot(self) -> bool:
        """Whether a structure could be labelled now."""
        self._drop_known()
        return self._has_work() and not self.is_held_back()

    def is_held_back(self) -> bool:
        """Whether only `calculation.max_ahead` keeps the next label from being made."""
        state = self.state
        return not state.initial and state.caused >= state.config.max_ahead and self._has_work()

    def take(self) -> Request:
        """Return the next label: an initial structure, or audit and selection at random."""
        state = self.state
        if state.initial:
            frame, hash_ = state.initial.pop(0)
            request = self._request(frame, hash_, {"source": "initial", "segment": frame})
            state.initial_open.add(request.id)
            return request
        audit = self._next_audit()
        return self._take_selected(next(iter(state.selected))) if audit is None else self._take_audit(audit)

    def next_slots(self) -> int:
        """Return how many slots the next label takes; there must be one that is wanted."""
        state = self.state
        if state.initial:
            return state.slots_for("calculate", {"frame": state.initial[0][0]})
        audit = self._next_audit()
        of = state.pool[next(iter(state.selected))] if audit is None else audit
        return state.slots_for("calculate", {"trajectory": of.trajectory})

    def receive(self, event: Event, request: Request) -> None:
        """Take in a label or a failure, and judge the run that was audited."""
        if event.outcome == "failed":
            self._receive_failure(event, request)
            return
        state, args = self.state, request.args
        state.consecutive_failures["calculate"] = 0
        state.initial_open.discard(request.id)
        state.labels.append(LabelRecord(request.id, args["hash"], args["source"], args["frame"]))
        state.n_own_labels += 1
        if args["source"] == "audit":
            errors = AuditErrors(event.values["energy_error"], event.values["force_error"])
            self._sampler.audited(args["trajectory"], args["frame"], args["steps"], errors)

    def adopt(self, labels: Sequence[Mapping[str, str]]) -> None:
        """Take in labels that the database holds and no event tells of: they were paid for.

        Args:
            labels: Request, hash and source of each.
        """
        state = self.state
        for label in labels:
            # Their ids are taken: rows are never replaced.
            state.n_calculations = max(state.n_calculations, label_number(label["request"]) + 1)
            if label["hash"] not in state.known:
                state.labels.append(LabelRecord(label["request"], label["hash"], label["source"]))
                state.known[label["hash"]] = label["request"]
                state.n_own_labels += 1
        self._drop_known()

    def go_on(self) -> None:
        """Give what failed for no fault of its own another chance, after the cause was put right."""
        state = self.state
        state.consecutive_failures.clear()
        for request in state.given_up:
            hash_ = request.args["hash"]
            del state.set_aside[hash_]
            state.n_failed -= 1
            if request.args["source"] == "audit" or state.budget_taken:
                # Its trajectory went elsewhere meanwhile, or other structures have taken its place in the
                # budget; it may come again by itself.
                del state.known[hash_]
                continue
            if request.args["source"] == "initial":
                state.initial_open.add(request.id)
            elif request.args["generation"] == state.sampling_round:
                state.caused += 1
            state.queue(request.next_attempt())
        state.given_up.clear()

    def _receive_failure(self, event: Event, request: Request) -> None:
        state, args = self.state, request.args
        message = event.values.get("message", "unknown")
        first = state.first_failure.setdefault("calculate", message)
        failure_class = event.values.get("failure_class")
        # What was lost and may be tried again does not come here.
        again = failure_class != "structure" and state.may_retry(request)
        self._count_failure(first)
        if again:
            state.queue(request.next_attempt())
            return
        # Set aside: the hash stays known, so that the structure is never asked for again.
        state.n_failed += 1
        state.set_aside[args["hash"]] = message
        if failure_class != "structure" or args["source"] == "initial":
            # What the user gave may fail for the settings: without it there would be nothing to go on with.
            state.given_up.append(request)
        state.initial_open.discard(request.id)
        if args["source"] != "initial" and args["generation"] == state.sampling_round:
            state.caused -= 1
        if args["source"] == "audit":
            self._sampler.audited(args["trajectory"], args["frame"], args["steps"], None)
        if state.initial_done and not state.labels:
            state.verdict = Verdict("failed", f"No initial structure could be labelled. First: {first}")

    def _count_failure(self, first: str) -> None:
        """Stop when so many failed in a row that it must be the set-up."""
        state = self.state
        failures = state.consecutive_failures["calculate"] = state.consecutive_failures["calculate"] + 1
        if failures >= state.config.calculation.max_consecutive_failures:
            state.verdict = Verdict(
                "failed", f"{failures} reference calculations failed in a row. First: {first}"
            )

    def _has_work(self) -> bool:
        state = self.state
        if state.budget_taken:
            return False
        return bool(state.initial or state.selected or self._audits())

    def _audits(self) -> list[Audit]:
        """Return the audits that may be made: those of a given model wait for its reference energies."""
        if self.state.refit in {"none", "done"}:
            return self.state.audits
        known = self.state.known
        return [a for a in self.state.audits if a.model != START_MODEL and a.hash not in known]

    def _next_audit(self) -> Audit | None:
        """Return the audit whose turn it is, or None if it is the selection's."""
        state = self.state
        audits = self._audits()
        draw = uniform(state.seed, "audit-or-selection", state.n_calculations)
        return audits[0] if audits and (not state.selected or draw < state.config.audit.fraction) else None

    def _drop_known(self) -> None:
        """Drop from the heads of the lists what the reference knows by now: nothing is calculated twice."""
        state = self.state
        while state.audits and state.audits[0].hash in state.known:
            audit = state.audits.pop(0)
            self._sampler.audited(audit.trajectory, audit.frame, audit.steps, None)
        while state.selected:
            frame_id = next(iter(state.selected))
            if state.pool[frame_id].hash not in state.known:
                break
            self._selector.remove(frame_id)
        while state.initial and state.initial[0][1] in state.known:
            state.initial.pop(0)

    def _take_audit(self, audit: Audit) -> Request:
        self.state.audits.remove(audit)
        shifts = self.state.energy_shifts_eV if audit.model == START_MODEL else {}
        return self._request(
            audit.frame,
            audit.hash,
            {
                "source": "audit",
                "segment": f"dynamics-t{audit.trajectory:03d}-r{audit.run:04d}",
                "trajectory": audit.trajectory,
                "steps": audit.steps,
                "model": audit.model,
                "deviation": audit.deviation,
                "energy_shifts_eV": shifts,
            },
        )

    def _take_selected(self, frame_id: str) -> Request:
        frame = self.state.pool[frame_id]
        # A frame that still waits for the new committee's opinion keeps the old one's.
        score = self.state.scored.get(frame_id, self.state.selected[frame_id])
        self._selector.remove(frame_id)
        return self._request(
            frame_id,
            frame.hash,
            {
                "source": "active",
                "segment": frame.segment,
                "trajectory": frame.trajectory,
                "model": frame.model,
                "deviation": score.deviation,
                "score": [score.request, score.row],
            },
        )

    def _request(self, frame: str, hash_: str, args: dict[str, Any]) -> Request:
        state = self.state
        args = {
            "frame": frame,
            "hash": hash_,
            "round": state.committee.round if state.committee else -1,
            "generation": state.sampling_round,
            **args,
        }
        request = Request(
            id=f"label-{state.n_calculations:05d}",
            kind="calculate",
            agent="Calculator",
            pool=state.pool_of["calculate"],
            args=args,
            slots=state.slots_for("calculate", args),
        )
        state.n_calculations += 1
        state.barren_runs = 0
        state.known[hash_] = request.id
        if args["source"] != "initial":
            state.caused += 1
            state.taken.append(frame)
        return request


def label_number(request: str) -> int:
    """Return the number in the id of a label's request.

    Example:
        >>> label_number("label-00012")
        12
    """
    return int(request.rpartition("-")[2])
