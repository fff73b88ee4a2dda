"""The active-learning policy: takes events to the roles, and asks the scheduler what starts next."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from fff.config import config_from_dict
from fff.data.events import CHANGED
from fff.steering.active_learning.calculator import Calculator
from fff.steering.active_learning.sampler import Sampler
from fff.steering.active_learning.scheduling import Scheduler
from fff.steering.active_learning.selector import Selector
from fff.steering.active_learning.state import START_MODEL, State
from fff.steering.active_learning.tester import Tester
from fff.steering.active_learning.trainer import Trainer
from fff.steering.records import LOST, MAX_LOSSES, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.data.events import Event
    from fff.steering.active_learning.state import Round
    from fff.steering.records import Request

__all__ = ["POLICY_VERSION", "ActiveLearning", "trained_by"]

POLICY_VERSION = 3
"""Raised whenever the same events would give other requests than before."""

MOST_REASONS = 20
"""Structures that were set aside, of which people are told why."""

MOST_IN_LINE = 20
"""Requests in line for slots that people are told of, those who wait longest."""


class ActiveLearning:
    """Steers an active-learning campaign; see `Policy` for what is promised.

    Source: Ward et al., "Fast-finetuned forcefields" (2022), and arXiv:2303.08803 for the two loops.

    Args:
        opened: The campaign's first event.
    """

    def __init__(self, opened: Event) -> None:
        self.state = state = State.from_opened(opened)
        self._selector = Selector(state)
        self._tester = Tester(state)
        self._sampler = Sampler(state, self._selector)
        self._trainer = Trainer(state, self._selector, self._tester)
        self._calculator = Calculator(state, self._sampler, self._selector)
        self._scheduler = Scheduler(
            state, self._trainer, self._sampler, self._selector, self._calculator, self._tester
        )
        self._receivers = {
            "train": self._trainer.receive,
            "refit": self._trainer.receive_refit,
            "dynamics": self._sampler.receive,
            "score": self._selector.receive_scores,
            "choose": self._selector.receive_choice,
            "calculate": self._calculator.receive,
            "reference-dynamics": self._tester.receive_reference,
            "evaluate": self._tester.receive_evaluation,
            "train-baseline": self._tester.receive_training,
        }

    def start(self) -> list[Request]:
        """Return the requests that may start at once."""
        self._tester.start()
        return self._emit()

    def handle(self, event: Event) -> list[Request]:
        """Take in the end of a request and return what may start now.

        A task that was lost says nothing about what it was asked, so it is asked again and no role hears of
        it: at the next attempt where it may have been its own doing (failure class `retry`: its worker died,
        its time ran out, a file system was away), at the same one where all workers around it went away with
        it (class `lost`: a block of nodes has ended).

        Raises:
            KeyError: If the event answers no request that is open or stands in line (its label may have been
                found meanwhile): the log does not belong to this policy.
            ValueError: If it answers another attempt or kind than that one.
        """
        if event.kind == CHANGED:
            self._change(event.values)
            return self._emit()
        state = self.state
        request = state.find(event.request)
        if (event.kind, event.attempt) != (request.kind, request.attempt):
            msg = (
                f"{event.request} is open as {request.kind}, attempt {request.attempt}; "
                f"the event is of {event.kind}, attempt {event.attempt}"
            )
            raise ValueError(msg)
        state.end(request)
        again = _again(event, request, state)
        if again is not None:
            state.queue(again)
        else:
            self._receivers[request.kind](event, request)
        return self._emit()

    @property
    def verdict(self) -> Verdict | None:
        """Why the campaign is over, or None while it goes on."""
        return self.state.verdict

    @property
    def open_requests(self) -> Mapping[str, Request]:
        """Requests that were emitted and have no event yet, by id."""
        return self.state.open

    @property
    def live_models(self) -> set[str]:
        """Keys of the models and training sets that later requests may name."""
        state = self.state
        live = set() if state.sampling_model is None else {state.sampling_model}
        if state.config.model.start:
            live.add(START_MODEL)
        if state.committee is not None:
            live.add(state.committee.key)
        if state.training is not None:
            live.add(f"labels:{state.training.n_labels}")
        if state.baseline is not None and state.baseline.waiting:
            live.add(f"baseline:{state.baseline.n_labels}")
        return live

    @property
    def needed_results(self) -> set[str]:
        """Ids of the requests whose files later requests may read: models, frames, scores, test sets."""
        state = self.state
        requests = [*state.open.values(), *state.line, *state.given_up]
        # A trajectory may go back to its start, and reference dynamics begins there too.
        frames = {trajectory.frame for trajectory in state.trajectories} | set(state.start_frames)
        frames |= {frame for frame, _ in state.initial} | set(state.pool)
        frames |= {audit.frame for audit in state.audits} | set(state.taken)
        # Committees that wait to be measured, and the members so far of those that are not complete.
        models = self.live_models | {key for _, key, *_ in state.to_evaluate}
        for folder, part in (
            (f"round-{state.round:03d}", state.training),
            (state.baseline_folder, state.baseline),
        ):
            if part is not None and (part.waiting or part.running):
                models |= {f"member:{folder}:{member}" for member in part.members}
        needed = {score.request for score in (*state.scored.values(), *state.selected.values())}
        files = [*state.test_files, *state.baseline_files]
        for request in requests:
            args = request.args
            models |= set(request.models)
            frames |= (
                {args["frame"]} if "frame" in args else {*args.get("frames", ()), *args.get("taken", ())}
            )
            needed |= {score[0] for score in args.get("candidates", {}).values()}
            needed |= {args["score"][0]} if args.get("score") else set()
        needed |= {frame.rpartition(":")[0] for frame in frames}
        needed |= {file.rpartition("/")[2].removesuffix(".npz") for file in files}
        return needed | {name for key in models for name in trained_by(key)}

    def training_set(self, n: int) -> list[str]:
        """Return the ids of the first `n` labels."""
        return [label.request for label in self.state.labels[:n]]

    def baseline_files(self) -> list[str]:
        """Return the files with the random frames of the comparison."""
        return list(self.state.baseline_files)

    @property
    def held_back(self) -> int:
        """Free slots that a calculation could have if `calculation.max_ahead` did not hold it back."""
        pool = self.state.pool_of["calculate"]
        # Slots that are kept for a request in line are not free for any other.
        if self.state.first_in_line(pool) is not None or not self._calculator.is_held_back():
            return 0
        # Less than none is free where there are fewer slots than before.
        return max(self.state.free[pool], 0)

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers that people watch, JSON-able."""
        state = self.state
        return {
            "round": state.committee.round if state.committee else None,
            "training": _members(state.training),
            "baseline": _members(state.baseline),
            "retrain": {
                "new_labels": len(state.labels) - state.n_labels_at_start,
                "every": state.config.training.retrain_every,
            },
            "labels": {
                "done": state.n_own_labels,
                "failed": state.n_failed,
                "in_flight": state.running("calculate"),
                "target": state.config.stop.max_labels,
            },
            "waiting": {
                "audits": len(state.audits),
                "selected": len(state.selected),
                "unscored": len(state.unscored),
                "scored": len(state.scored),
            },
            "retries": sum(1 for request in state.line if request.attempt > 1 or request.losses),
            "waiting_for_slots": [
                {"request": request.id, "pool": request.pool, "slots": request.slots}
                for request in islice(state.line, MOST_IN_LINE)
            ],
            "selected_deviations": {
                "kind": state.config.selection.deviation,
                **_spread([score.deviation for score in state.selected.values()]),
            },
            "trajectories": {
                "running": state.running("dynamics"),
                "waiting": sum(1 for trajectory in state.trajectories if trajectory.status == "waiting"),
                "idle": sum(1 for trajectory in state.trajectories if trajectory.status == "idle"),
            },
            "audits": {
                "made": state.n_audits,
                "passed": state.n_audits_passed,
                "most_in_a_row": state.most_audits_in_a_row,
            },
            "running": {kind: count for kind, count in sorted(state.n_open.items()) if count},
            "next_run_steps": self._sampler.run_length(),
            "errors": dict(state.errors),
            "first_failures": dict(state.first_failure),
            "set_aside": dict(islice(state.set_aside.items(), MOST_REASONS)),
        }

    def _change(self, values: Mapping[str, Any]) -> None:
        """Take in what was decided between two sittings.

        Args:
            values: Any of `labels` (rows of the database without an event: request, hash, source), `config`
                (the whole of it), `capacity` with `pool_of`, and `go_on` (after a failure whose cause was
                put right).
        """
        state = self.state
        if "config" in values:
            config = config_from_dict(values["config"])
            extended = config.stop.max_labels > state.config.stop.max_labels
            state.config = config
            state.place_anew()
            self._tester.extend()
            if extended and state.verdict is not None and state.verdict.state == "finished":
                state.verdict = None
        if "capacity" in values:
            state.move_to(values["capacity"], values["pool_of"])
        # Before anything is tried again: they take their part of the budget.
        if values.get("labels"):
            self._calculator.adopt(values["labels"])
            if state.verdict is not None and state.verdict.state == "finished":
                # The last committee must know them too.
                state.verdict = None
        if values.get("go_on"):
            state.verdict = None
            state.barren_runs = 0
            state.first_failure.clear()
            self._calculator.go_on()
            self._trainer.go_on()

    def _emit(self) -> list[Request]:
        state = self.state
        emitted: list[Request] = []
        self._scheduler.move_slots()
        while state.verdict is None:
            request = self._scheduler.next_request()
            if request is None:
                break
            state.begin(request)
            state.trained_last = request.kind in {"train", "train-baseline"}
            emitted.append(request)
        if state.verdict is None and not state.open:
            state.verdict = self._why_it_is_over()
        return emitted

    def _why_it_is_over(self) -> Verdict:
        """Return why nothing is left to be done. A campaign never waits for what cannot come."""
        state = self.state
        committee = state.committee
        if state.budget_spent and committee is not None and committee.n_labels == len(state.labels):
            return Verdict(
                "finished", f"{state.n_own_labels} labels were made, as many as stop.max_labels asks for"
            )
        for request in state.line:
            total = state.capacity[request.pool]
            if request.slots > total:
                return Verdict(
                    "failed",
                    f"{request.id} needs {request.slots} slots at once, by `calculation.nodes_by_size`, and "
                    f"{request.pool} has {total}: give it more by `site`, or calculations fewer",
                )
        error = state.first_failure.get("calculate")
        return Verdict(
            "failed",
            f"nothing is left to do after {state.n_own_labels} of {state.config.stop.max_labels} labels: "
            "no structure is left to label and no trajectory can go on"
            + (f". The first calculation that failed: {error}" if error else ""),
        )


def _again(event: Event, request: Request, state: State) -> Request | None:
    """Return the request by which a lost task is asked again, or None if its role hears of the event."""
    failure_class = event.values.get("failure_class") if event.outcome == "failed" else None
    if failure_class == LOST and request.losses + 1 < MAX_LOSSES:
        return request.once_more()
    if failure_class in (LOST, "retry") and state.may_retry(request):
        return request.next_attempt()
    return None


def _members(part: Round | None) -> dict[str, Any] | None:
    """Return where each member of a round is, or None where nothing is left to be trained."""
    if part is None or not (part.waiting or part.running):
        return None
    return {
        "round": part.number if part.number >= 0 else None,
        "n_labels": part.n_labels,
        "done": sorted(part.members),
        "running": sorted(part.running),
        "waiting": sorted(member for member, _ in part.waiting),
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    """Return the least, the middle and the largest of some numbers; None where there are none."""
    if not values:
        return {"lowest": None, "median": None, "highest": None}
    ordered = sorted(values)
    return {"lowest": ordered[0], "median": ordered[len(ordered) // 2], "highest": ordered[-1]}


def trained_by(key: str) -> list[str]:
    """Return the ids of the requests that trained the models of a key.

    Example:
        >>> trained_by("committee:round-003:0-2"), trained_by("member:baseline:1"), trained_by("labels:8")
        (['train-r003-m0', 'train-r003-m2'], ['train-baseline-m1'], [])
    """
    kind, _, rest = key.partition(":")
    if kind not in {"committee", "member"}:
        return []
    folder, _, members = rest.partition(":")
    return [f"train-{folder.replace('round-', 'r')}-m{member}" for member in members.split("-")]
