"""Tester: the test set that is never trained on, the errors on it, and the comparison with random frames.

It has no agents of its own: its reference dynamics run through the Calculator's, its evaluations through
the Selector's and its trainings through the Trainer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fff.base.draws import seed_for
from fff.steering.active_learning.state import START_MODEL, Chunk, Round, committee_key
from fff.steering.records import Request

if TYPE_CHECKING:
    from fff.data.events import Event
    from fff.steering.active_learning.state import Committee, Purpose, State

__all__ = ["Tester", "count_chunks"]

FRAMES_PER_CHUNK = 10
"""Frames from one stretch of reference dynamics: short enough to run side by side."""

MAX_ATTEMPTS = 2


def count_chunks(n_frames: int, n_conditions: int) -> int:
    """Return into how many stretches of reference dynamics frames are divided.

    Args:
        n_frames: Frames in all.
        n_conditions: Start structures times temperatures.
    """
    return max(-(-n_frames // FRAMES_PER_CHUNK), min(n_frames, n_conditions))


class Tester:
    """Owns the test set and the errors.

    Args:
        state: The shared state.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    def start(self) -> None:
        """Plan the dynamics that make the test set and the random frames, once."""
        state = self.state
        test = state.config.test
        if not state.test_files:
            self._plan("testset", test.n_frames or 0)
        self.extend()

    def extend(self) -> None:
        """Plan the random frames that `stop.max_labels` asks for beyond those planned before."""
        state = self.state
        if not state.config.test.random_baseline:
            return
        imported = len(state.labels) - state.n_own_labels
        more = imported + state.config.stop.max_labels - state.n_random_planned
        if more > 0:
            self._plan("randomset", more)
            state.n_random_planned += more

    def new_committee(self, committee: Committee) -> None:
        """Have the error of a new committee measured."""
        if self._has_test_set():
            self.state.to_evaluate.append(
                (f"round-{committee.round:03d}", committee.key, committee.n_labels, 1)
            )

    def wants_reference(self) -> bool:
        """Whether reference dynamics could run now."""
        return bool(self.state.chunks_waiting)

    def wants_test_set(self) -> bool:
        """Whether the test set could be made now and nobody is at it."""
        state = self.state
        first = next(iter(state.chunks_waiting), None)
        return first is not None and first.purpose == "testset" and not state.running("reference-dynamics")

    def next_slots(self) -> int:
        """Return how many slots the next stretch of reference dynamics takes."""
        start, _ = self._conditions(self.state.chunks_waiting[0])
        return self.state.slots_for("reference-dynamics", {"frame": start})

    def take_reference(self) -> Request:
        """Return the next stretch of reference dynamics."""
        state = self.state
        slots = self.next_slots()
        chunk = state.chunks_waiting.pop(0)
        start, temperature_K = self._conditions(chunk)
        return Request(
            id=f"{chunk.purpose}-{chunk.index:04d}",
            kind="reference-dynamics",
            agent="Calculator",
            pool=state.pool_of["reference-dynamics"],
            args={
                "purpose": chunk.purpose,
                "index": chunk.index,
                "n_chunks": chunk.n_chunks,
                "frame": start,
                "temperature_K": temperature_K,
                "n_frames": chunk.n_frames,
                "seed": seed_for(state.seed, chunk.purpose, chunk.index, chunk.attempt),
            },
            attempt=chunk.attempt,
            slots=slots,
        )

    def receive_reference(self, event: Event, request: Request) -> None:
        """Take in the file of a stretch; one that fails twice is done without."""
        state, args = self.state, request.args
        if event.outcome == "done":
            if args["purpose"] == "testset":
                state.test_files.append(event.values["file"])
            else:
                state.baseline_files.append(event.values["file"])
                state.n_baseline_frames += event.values["n_frames"]
        elif request.attempt < MAX_ATTEMPTS:
            chunk = Chunk(
                args["purpose"], args["index"], args["n_frames"], args["n_chunks"], request.attempt + 1
            )
            state.chunks_waiting.append(chunk)
        else:
            state.first_failure.setdefault("reference-dynamics", event.values.get("message", "unknown"))
        if not self._test_set_ready() and not self._makes("testset"):
            # Every stretch failed: there is nothing to measure on, and the summary says why.
            state.to_evaluate.clear()

    def wants_evaluation(self) -> bool:
        """Whether the error of a committee could be measured now."""
        return self._test_set_ready() and bool(self.state.to_evaluate)

    def take_evaluation(self) -> Request:
        """Return the next evaluation on the test set."""
        state = self.state
        name, key, n_labels, attempt = state.to_evaluate.pop(0)
        return Request(
            id=f"evaluate-{name}",
            kind="evaluate",
            agent="Selector",
            pool=state.pool_of["evaluate"],
            args={"name": name, "n_labels": n_labels, "files": sorted(state.test_files)},
            models=(key,),
            attempt=attempt,
        )

    def receive_evaluation(self, event: Event, request: Request) -> None:
        """Take in the errors of a committee; a failure is tried once more, then noted."""
        args = request.args
        if event.outcome == "done":
            # Of several comparisons, each after an extension, the one on most frames counts.
            name = "baseline" if args["name"].startswith("baseline") else args["name"]
            if args["n_labels"] >= self.state.errors.get(name, {}).get("n_labels", 0):
                self.state.errors[name] = {"n_labels": args["n_labels"], **event.values}
        elif request.attempt < MAX_ATTEMPTS:
            self.state.to_evaluate.append(
                (args["name"], request.models[0], args["n_labels"], request.attempt + 1)
            )
        else:
            self.state.first_failure.setdefault("evaluate", event.values.get("message", "unknown"))

    def wants_training(self) -> bool:
        """Whether a member of the comparison committee could be trained now: after the last committee."""
        baseline = self.state.baseline
        if baseline is not None and (baseline.waiting or baseline.running):
            return bool(baseline.waiting)
        return self._baseline_is_due() and (baseline is None or baseline.n_labels < self._n_compared())

    def take_training(self) -> Request:
        """Return the training of the next member on random frames, as the campaign's own members train."""
        state = self.state
        baseline = state.baseline
        if baseline is None or not baseline.waiting:
            state.n_baselines += 0 if baseline is None else 1
            members = [(member, 1) for member in range(state.config.committee.size)]
            baseline = state.baseline = Round(-1, self._n_compared(), members)
        member, attempt = baseline.waiting.pop(0)
        baseline.running.add(member)
        return Request(
            id=f"train-{state.baseline_folder}-m{member}",
            kind="train-baseline",
            agent="Trainer",
            pool=state.pool_of["train"],
            args={
                "directory": f"{state.baseline_folder}/member-{member}",
                "member": member,
                "n_labels": baseline.n_labels,
                "seed": seed_for(state.seed, "train-baseline", member, attempt),
                "split_seed": seed_for(state.seed, "split", member),
            },
            models=(f"baseline:{baseline.n_labels}", *((START_MODEL,) if state.config.model.start else ())),
            attempt=attempt,
        )

    def receive_training(self, event: Event, request: Request) -> None:
        """Take in a member of the comparison committee; with all in, have its error measured."""
        baseline = self.state.baseline
        if baseline is None:
            msg = f"There is no committee that {request.id} belongs to."
            raise RuntimeError(msg)
        member = request.args["member"]
        baseline.running.discard(member)
        if event.outcome == "done":
            baseline.members.append(member)
        elif request.attempt < MAX_ATTEMPTS:
            baseline.waiting.append((member, request.attempt + 1))
        else:
            self.state.first_failure.setdefault("train-baseline", event.values.get("message", "unknown"))
        if not baseline.waiting and not baseline.running and baseline.members:
            folder = self.state.baseline_folder
            key = committee_key(folder, baseline.members)
            self.state.to_evaluate.append((folder, key, baseline.n_labels, 1))

    def _n_compared(self) -> int:
        """Return how many random frames the comparison committee is trained on.

        Fewer than labels only if stretches of dynamics failed; the table says how many there were. More than
        before in a campaign that was extended, also while the comparison was made: then it is made anew.
        """
        return min(len(self.state.labels), self.state.n_baseline_frames)

    def _plan(self, purpose: Purpose, n_frames: int) -> None:
        """Divide frames into stretches so that every start structure and temperature has its share."""
        n_chunks = count_chunks(n_frames, self._n_conditions())
        first = self.state.n_chunks[purpose]
        for index in range(n_chunks):
            size = (index + 1) * n_frames // n_chunks - index * n_frames // n_chunks
            self.state.chunks_waiting.append(Chunk(purpose, first + index, size, n_chunks))
        self.state.n_chunks[purpose] += n_chunks

    def _n_conditions(self) -> int:
        return len(self.state.start_frames) * len(self.state.config.test.temperatures_K)

    def _conditions(self, chunk: Chunk) -> tuple[str, float]:
        """Return start structure and temperature of a stretch; fewer stretches than conditions are spread."""
        temperatures = self.state.config.test.temperatures_K
        n = self._n_conditions()
        index = chunk.index % n if chunk.n_chunks >= n else chunk.index * n // chunk.n_chunks % n
        return self.state.start_frames[index // len(temperatures)], temperatures[index % len(temperatures)]

    def _makes(self, purpose: Purpose) -> bool:
        waiting = any(chunk.purpose == purpose for chunk in self.state.chunks_waiting)
        return waiting or any(
            request.args["purpose"] == purpose for request in self.state.of_kind("reference-dynamics")
        )

    def _has_test_set(self) -> bool:
        return bool(self.state.test_files) or self._makes("testset")

    def _test_set_ready(self) -> bool:
        return bool(self.state.test_files) and not self._makes("testset")

    def _baseline_is_due(self) -> bool:
        state = self.state
        return (
            bool(state.baseline_files)
            and not self._makes("randomset")
            and state.budget_spent
            and state.committee is not None
            and state.committee.n_labels == len(state.labels)
        )
