"""Plays the task server for the active-learning policy: no clock, no process, every request answered by hand.

A `Game` holds a policy and what it asked for. A test finishes or fails open requests in any order it likes;
what it does not say about a result is filled in as the functions of `fff.compute.tasks` would. After every
step the rules that hold at all times are checked, so that each test checks them too.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from fff.config import config_from_dict
from fff.data.events import CHANGED, Event
from fff.steering.active_learning import ActiveLearning, scheduling
from fff.steering.active_learning.policy import POLICY_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fff.steering.active_learning.state import State
    from fff.steering.records import Request

_ON_ACCELERATORS = ("train", "train-baseline", "refit", "score", "choose", "evaluate")
_ON_CORES = ("dynamics", "calculate", "reference-dynamics")

LAPTOP = dict.fromkeys([*_ON_ACCELERATORS, *_ON_CORES], "shared")
WORKSTATION = dict.fromkeys(_ON_ACCELERATORS, "gpu") | dict.fromkeys(_ON_CORES, "cpu")

EXTERNAL: dict[str, Any] = {
    "reference": {"kind": "ase", "calculator": "nwchem"},
    "site": {"kind": "laptop", "mpi_launch": "mpiexec -n {ranks}"},
}
"""Sections of a config whose calculations may take several slots."""

SMALL: dict[str, Any] = {
    "structures": ["molecule:H2O"],
    "reference": {"kind": "xtb"},
    "start": {"n_labels": 4},
    "committee": {"size": 3},
    "training": {"retrain_every": 4},
    "sampling": {"n_parallel": 2, "n_trajectories": 4, "n_frames": 3},
    "selection": {"chunk_size": 3, "pool_size": 50},
    "test": {"n_frames": 0},
    "stop": {"max_labels": 20},
}
"""A campaign in which everything happens soon."""


def opened(
    pools: Mapping[str, int] | int = 4,
    *,
    n_starts: int = 2,
    n_initial: int | None = None,
    n_imported: int = 0,
    start_model: bool = False,
    test_files: Sequence[str] = (),
    sizes: Sequence[int] = (3,),
    pool_of: Mapping[str, str] | None = None,
    **sections: Mapping[str, Any],
) -> Event:
    """Return the first event of a small campaign.

    Args:
        pools: Slots of the pools `gpu` and `cpu`, or of the one shared pool.
        n_starts: Start structures.
        n_initial: Structures to label first; as `start.n_labels` says when None.
        n_imported: Labels to begin with.
        start_model: Whether a trained model is given.
        test_files: Files of a given test set.
        sizes: Atoms of the structures, one after the other; each atom has ten electrons.
        pool_of: The pool of every kind of task, where it is neither a laptop's nor a workstation's.
        **sections: Keys of the config that differ from `SMALL`, by section.
    """
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
    if start_model:
        merged["model"] = {"start": "given"}
    for name, section in sections.items():
        merged[name] = {**merged.get(name, {}), **section} if isinstance(section, dict) else section
    config = config_from_dict(merged).model_dump(mode="json")
    n_initial = config["start"]["n_labels"] if n_initial is None else n_initial
    capacity = {"shared": pools} if isinstance(pools, int) else dict(pools)
    values = {
        "config": config,
        "capacity": capacity,
        "pool_of": pool_of or (LAPTOP if isinstance(pools, int) else WORKSTATION),
        "start_frames": [_first_frame("start", i, sizes) for i in range(n_starts)],
        "initial_frames": [_first_frame("initial", i, sizes) for i in range(n_initial)],
        "imported": [{"request": f"imported-{i:05d}", "hash": f"s-imported-{i}"} for i in range(n_imported)],
        "start_model": start_model,
        "test_files": list(test_files),
        "policy_version": POLICY_VERSION,
    }
    return Event(0, "opened", values=values)


def _first_frame(name: str, index: int, sizes: Sequence[int]) -> dict[str, Any]:
    n_atoms = sizes[index % len(sizes)]
    return {
        "id": f"{name}:{index}",
        "hash": f"s-{name}-{index}",
        "n_atoms": n_atoms,
        "n_electrons": 10 * n_atoms,
    }


def frame(name: str, deviation: float | None = 0.5, *, hash_: str | None = None) -> dict[str, Any]:
    """Return how a dynamics task describes a frame."""
    return {"id": name, "hash": hash_ or f"s-{name}", "deviation": deviation}


def answer(request: Request, config: Any) -> dict[str, Any]:
    """Return what the task of a request would return if all goes well; every audit passes."""
    args = request.args
    if request.kind in {"train", "train-baseline"}:
        return {
            "epochs": 10,
            "stop_reason": "max_epochs",
            "validation_force_mae_eV_per_A": 0.1,
            "sha256": f"weights of {args['directory']}",
        }
    if request.kind == "refit":
        return {"shifts_eV": {"1": -0.5, "8": 1.5}}
    if request.kind == "dynamics":
        others = [frame(f"{request.id}:{i}") for i in range(config.sampling.n_frames)]
        last = frame(f"{request.id}:{config.sampling.n_frames}")
        return {
            "reason": "completed",
            "steps": args["n_steps"],
            "last": last,
            "others": others,
            "max_deviation": 0.5,
        }
    if request.kind == "score":
        deviations = [round(0.1 + 0.01 * i, 6) for i in range(len(args["frames"]))]
        return {"deviations": deviations, "members_used": [0, 1, 2]}
    if request.kind == "choose":
        return {"frames": list(args["candidates"])[: args["n"]]}
    if request.kind == "calculate":
        values = {"file": f"tasks/{request.id}.npz", "wall_s": 1.0}
        audit = {"energy_error": 0.001, "force_error": 0.1}
        return values | (audit if args["source"] == "audit" else {})
    if request.kind == "reference-dynamics":
        return {"file": f"test/{request.id}.npz", "n_frames": args["n_frames"]}
    return {"n_structures": 10, "force_mae_meV_per_A": 50.0}


def reads(request: Request, baseline_files: Sequence[str] = ()) -> set[str]:
    """Return the requests whose files the task of a request reads, and the names of what was given.

    Args:
        request: The request.
        baseline_files: The files with the random frames of the comparison.
    """
    args = request.args
    found = {PurePath(file).stem for file in args.get("files", ())}
    for key in request.models:
        kind, _, rest = key.partition(":")
        if kind in {"member", "committee"}:
            folder, _, members = rest.partition(":")
            found |= {f"train-{folder.replace('round-', 'r')}-m{member}" for member in members.split("-")}
        if kind == "baseline":
            found |= {PurePath(file).stem for file in baseline_files}
    frames = [*args.get("frames", ()), *args.get("taken", ()), *([args["frame"]] if "frame" in args else [])]
    found |= {name.rpartition(":")[0] for name in frames}
    found |= {score for score, _ in args.get("candidates", {}).values()}
    return found | ({args["score"][0]} if args.get("score") else set())


def _slots_used(requests: Iterable[Request]) -> Counter[str]:
    used: Counter[str] = Counter()
    for request in requests:
        used[request.pool] += request.slots
    return used


WRITERS = {"train", "train-baseline", "dynamics", "score", "reference-dynamics"}
"""Kinds whose tasks write files that other tasks read."""


class Game:
    """A policy, and the requests it waits for.

    Args:
        event: The first event.
        **options: Those of `opened`, when no event is given.
    """

    def __init__(self, event: Event | None = None, **options: Any) -> None:
        self.opened = event or opened(**options)
        self.policy = ActiveLearning(self.opened)
        self.events = [self.opened]
        self.asked: list[Request] = []
        self.hashes_in_flight: Counter[str] = Counter()
        self.hashes_done: set[str] = set()
        self.labels: list[str] = [item["request"] for item in self.opened.values["imported"]]
        self.n_made = 0
        self._budget = self.config.stop.max_labels
        self._least_free = dict.fromkeys(self.state.capacity, 0)
        self._largest_pool = 0
        self._first_in_line: tuple[Request, int] | None = None
        self._waited: Counter[str] = Counter()
        self._most_slots = Counter(self.state.capacity)
        self._written: set[str] = set()
        self._given_up: set[str] = set()
        self._take(self.policy.start())

    @property
    def state(self) -> State:
        """The policy's state."""
        return self.policy.state

    @property
    def config(self) -> Any:
        """The config of the campaign."""
        return self.state.config

    @property
    def open(self) -> list[Request]:
        """What was asked for and has no answer yet, oldest first."""
        return list(self.policy.open_requests.values())

    def kinds(self) -> dict[str, int]:
        """Return how many requests of each kind are open."""
        return dict(Counter(request.kind for request in self.open))

    def of(self, kind: str, **args: Any) -> list[Request]:
        """Return the open requests of a kind whose arguments have these values."""
        return [r for r in self.open if r.kind == kind and args.items() <= dict(r.args).items()]

    def finish(self, request: Request, **values: Any) -> list[Request]:
        """Have a task give its result; returns what the policy asks for then."""
        return self._handle(request, "done", {**answer(request, self.config), **values})

    def answer(self, request: Request) -> list[Request]:
        """Have a label found in the database; returns what the policy asks for then."""
        return self._handle(request, "done", answer(request, self.config))

    def fail(
        self, request: Request, message: str = "it broke", failure_class: str | None = None
    ) -> list[Request]:
        """Have a task fail; returns what the policy asks for then."""
        # A calculation is lost, any other task breaks down, unless told otherwise.
        failure_class = failure_class or ("retry" if request.kind == "calculate" else "setup")
        values = {"failure_class": failure_class, "error": "Error", "message": message}
        return self._handle(request, "failed", values)

    def lose(self, request: Request, message: str = "its worker died") -> list[Request]:
        """Have a task be lost; returns what the policy asks for then."""
        return self.fail(request, message, "retry")

    def change(self, **values: Any) -> list[Request]:
        """Have something decided between two sittings; returns what the policy asks for then."""
        event = Event.from_line(Event(len(self.events), CHANGED, values=values).to_line())
        own = self.state.n_own_labels + self.state.running("calculate")
        self.events.append(event)
        for label in values.get("labels", ()):
            own += 1
            if label["hash"] not in self.state.known:
                self.labels.append(label["request"])
                self.hashes_done.add(label["hash"])
        was_open = list(self.open)
        new = self.policy.handle(event)
        for request in was_open:
            if request.kind == "calculate" and request.id in {waiting.id for waiting in self.state.line}:
                self.hashes_in_flight[request.args["hash"]] -= 1
        # What is done, on its way or open stays so where fewer labels, slots or frames are allowed.
        self._budget = max(self.config.stop.max_labels, own)
        used = _slots_used(request for request in self.open if request not in new)
        self._least_free = {pool: min(0, n - used[pool]) for pool, n in self.state.capacity.items()}
        self._largest_pool = len(self.state.pool)
        self._most_slots |= Counter(self.state.capacity)
        self._take(new)
        return new

    def change_config(self, **sections: Any) -> list[Request]:
        """Have keys of the config changed between two sittings; returns what the policy asks for then."""
        config = self.config.model_dump(mode="json")
        for name, section in sections.items():
            config[name] = {**config[name], **section} if isinstance(section, dict) else section
        return self.change(config=config)

    def move(self, pools: Mapping[str, int] | int) -> list[Request]:
        """Have the campaign go on with other slots; returns what the policy asks for then."""
        if isinstance(pools, int):
            return self.change(capacity={"shared": pools}, pool_of=LAPTOP)
        return self.change(capacity=dict(pools), pool_of=WORKSTATION)

    def finish_all(self, kind: str, **values: Any) -> list[Request]:
        """Finish every request of a kind that is open now, one after the other."""
        return [new for request in self.of(kind) for new in self.finish(request, **values)]

    def play(
        self,
        until: Callable[[Game], Any] = lambda game: False,
        *,
        hold: Iterable[str] = (),
        limit: int = 5000,
    ) -> Game:
        """Finish the oldest open request of a kind that is not held, until `until` or nothing is left."""
        held = set(hold)
        for _ in range(limit):
            ready = [request for request in self.open if request.kind not in held]
            if until(self) or not ready:
                return self
            self.finish(ready[0])
        msg = f"still going after {limit} events: {self.kinds()}"
        raise AssertionError(msg)

    def play_to_committee(self, number: int = 0, *, hold: Iterable[str] = ()) -> Game:
        """Play until the committee of a round is there."""
        self.play(lambda game: game.state.committee and game.state.committee.round >= number, hold=hold)
        assert self.state.committee is not None
        assert self.state.committee.round == number
        return self

    def _handle(self, request: Request, outcome: Any, values: Mapping[str, Any]) -> list[Request]:
        assert request in [*self.open, *self.state.line]
        event = Event(
            seq=len(self.events),
            kind=request.kind,
            request=request.id,
            attempt=request.attempt,
            outcome=outcome,
            values=values,
        )
        # What is not JSON could not be in the log.
        event = Event.from_line(event.to_line())
        self.events.append(event)
        if request.kind == "calculate":
            self.hashes_in_flight[request.args["hash"]] -= 1
            if outcome == "done":
                self.hashes_done.add(request.args["hash"])
                self.labels.append(request.id)
                self.n_made += 1
        if request.kind in WRITERS and outcome == "done":
            self._written.add(request.id)
        self._count_wait(request)
        new = self.policy.handle(event)
        self._check_line(new)
        self._take(new)
        return new

    def _count_wait(self, ended: Request) -> None:
        """Check that whoever is first in line waits for few tasks, each of a kind that it must wait for.

        They are no more of each length than there are slots, or were once.
        """
        first = self.state.first_in_line(ended.pool)
        self._first_in_line = None
        if first is None:
            return
        length = self.policy._scheduler._waits_for(first)
        self._first_in_line = (first, length)
        if scheduling._length(ended.kind) >= length:
            self._waited[first.id] += 1
            n_lengths = 1 + max(scheduling._LENGTHS.values())
            assert self._waited[first.id] <= n_lengths * self._most_slots[ended.pool], (
                f"{first.id} is starved"
            )

    def _check_line(self, new: Sequence[Request]) -> None:
        """Check that nothing goes before who was first in line, and still is, but what is shorter."""
        if self._first_in_line is None:
            return
        first, length = self._first_in_line
        if self.state.first_in_line(first.pool) == first:
            lengths = [scheduling._length(request.kind) for request in new if request.pool == first.pool]
            assert all(passing < length for passing in lengths)
            assert self.policy._scheduler._waits_for(first) <= length
        else:
            self._waited[first.id] = 0

    def _take(self, new: Sequence[Request]) -> None:
        self.asked += new
        for request in new:
            Event(0, request.kind, values=request.args).to_line()
            if request.kind == "calculate":
                hash_ = request.args["hash"]
                assert hash_ not in self.hashes_done, f"{hash_} has its label already"
                self.hashes_in_flight[hash_] += 1
                assert self.hashes_in_flight[hash_] == 1, f"{hash_} is on its way already"
        self.check()

    def check(self) -> None:
        """Check what holds at all times."""
        state, policy = self.state, self.policy
        ids = [request.id for request in self.open]
        assert len(ids) == len(set(ids))
        self._check_slots()
        assert state.n_own_labels + state.running("calculate") <= self._budget
        assert len(state.pool) <= max(state.config.selection.pool_size, self._largest_pool)
        self._largest_pool = len(state.pool)
        assert set(state.selected) | set(state.scored) | set(state.unscored) | state.rescoring <= set(
            state.pool
        )
        assert self.labels == policy.training_set(len(self.labels))
        # Nothing waits for ever.
        assert self.open or policy.verdict is not None
        running = Counter(request.args["trajectory"] for request in state.of_kind("dynamics"))
        for index, trajectory in enumerate(state.trajectories):
            assert running[index] == (trajectory.status == "running")
        idle = [index for index, t in enumerate(state.trajectories) if t.status == "idle"]
        assert sorted(state.idle) == idle
        self._check_files()

    def _check_slots(self) -> None:
        state = self.state
        used = _slots_used(self.open)
        for pool, slots in state.capacity.items():
            assert self._least_free[pool] <= state.free[pool] <= slots
            assert state.free[pool] + used[pool] == slots
            self._least_free[pool] = min(0, state.free[pool])
            first = state.first_in_line(pool)
            # Who is first in line begins as soon as there is room.
            assert first is None or state.free[pool] < first.slots or self.policy.verdict is not None
        assert state.n_open == Counter(request.kind for request in [*self.open, *state.line])

    def _check_files(self) -> None:
        """Check that what is read was needed at all times since it was written, as the policy says."""
        needed = self.policy.needed_results
        for request in [*self.open, *self.state.line]:
            read = reads(request, self.policy.baseline_files())
            assert not read & self._given_up, f"{request.id} reads what was not needed before"
            assert read & self._written <= needed, f"{request.id} reads what is not needed"
        self._given_up |= self._written - needed
