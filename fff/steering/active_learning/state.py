"""What the roles of the active-learning policy share. Plain data: equal states compare equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fff.config import ActiveLearningConfig, config_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fff.data.events import Event
    from fff.steering.records import Request, Verdict

__all__ = [
    "FEWEST_LABELS",
    "START_MODEL",
    "Audit",
    "Chunk",
    "Committee",
    "LabelRecord",
    "PoolFrame",
    "Round",
    "Run",
    "Score",
    "Size",
    "State",
    "Trajectory",
    "committee_key",
]

Purpose = Literal["testset", "randomset"]

START_MODEL = "start"
"""Key of the model that the config gives."""

_BY_SIZE = ("calculate", "reference-dynamics")
"""Kinds of task that take several slots where the structure is large."""

FEWEST_LABELS = 2
"""Labels that a round needs: one to train on and one to hold out."""


def committee_key(folder: str, members: Iterable[int]) -> str:
    """Return the key of a committee that travels whole: `committee:round-003:0-1-3`."""
    return f"committee:{folder}:{'-'.join(map(str, members))}"


@dataclass
class Trajectory:
    """A trajectory: where it started, where it is, and what it is waiting for.

    Attributes:
        start: Frame id of its starting structure.
        frame: Frame id from which it goes on: the last that passed an audit, or the start.
        status: `idle`, `running`, or `waiting` for its audit.
        runs: Runs started so far.
        passed: Audits passed in a row since it last went back to its starting structure.
    """

    start: str
    frame: str
    status: Literal["idle", "running", "waiting"] = "idle"
    runs: int = 0
    passed: int = 0


@dataclass(frozen=True)
class Audit:
    """The last frame of a run, waiting for the reference calculation that judges the run.

    Attributes:
        frame: Frame id.
        hash: Hash of the structure.
        trajectory: Index of the trajectory.
        run: Number of the run within its trajectory.
        steps: Steps of the run.
        model: Key of the model that drove it.
        round: Round of that model; -1 for a given model.
        deviation: Committee deviation at the frame in eV/Å, or None.
    """

    frame: str
    hash: str
    trajectory: int
    run: int
    steps: int
    model: str
    round: int
    deviation: float | None = None


class PoolFrame(NamedTuple):
    """A sampled frame that may be labelled.

    Attributes:
        frame: Frame id.
        hash: Hash of the structure.
        segment: Run it comes from; frames of one segment are correlated.
        trajectory: Index of the trajectory.
        model: Key of the model that drove the run.
    """

    frame: str
    hash: str
    segment: str
    trajectory: int
    model: str


class Score(NamedTuple):
    """Where the present committee's opinion of a frame is found: file, row, and the deviation (eV/Å)."""

    request: str
    row: int
    deviation: float


@dataclass
class Round:
    """A training round.

    Attributes:
        number: From 0.
        n_labels: The round trains on the first this many labels.
        waiting: Members to be sent, with the attempt they are at.
        running: Members in training.
        members: Members that arrived, in order of arrival.
    """

    number: int
    n_labels: int
    waiting: list[tuple[int, int]]
    running: set[int] = field(default_factory=set)
    members: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Committee:
    """A complete committee: its round, its members in order of arrival, and how many labels it knows."""

    round: int
    members: tuple[int, ...]
    n_labels: int

    @property
    def key(self) -> str:
        """Its key as a model that travels."""
        return committee_key(f"round-{self.round:03d}", self.members)


@dataclass(frozen=True)
class LabelRecord:
    """A label the campaign has.

    Attributes:
        request: Id it is stored under.
        hash: Hash of its structure.
        source: initial, imported, audit or active.
        frame: Frame id; empty for an imported one.
    """

    request: str
    hash: str
    source: str
    frame: str = ""


class Size(NamedTuple):
    """Size of a structure: its atoms, and the electrons that it has when it is neutral."""

    n_atoms: int
    n_electrons: int


@dataclass(frozen=True)
class Chunk:
    """A stretch of dynamics driven by the reference itself.

    Attributes:
        purpose: `testset`, or `randomset` for the random frames that the campaign is compared with.
        index: Its number within its purpose.
        n_frames: Frames it gives.
        n_chunks: How many stretches there are of this purpose.
        attempt: From 1.
    """

    purpose: Purpose
    index: int
    n_frames: int
    n_chunks: int
    attempt: int = 1


@dataclass(frozen=True)
class Run:
    """What a past run teaches about the next: its audit's energy error (eV/atom) and its steps."""

    energy_error: float
    steps: int


@dataclass
class State:
    """Everything the roles know; each attribute is owned by the role named beside it."""

    config: ActiveLearningConfig
    capacity: dict[str, int]
    pool_of: dict[str, str]

    # Scheduling
    free: dict[str, int]
    open: dict[str, Request] = field(default_factory=dict)
    line: list[Request] = field(default_factory=list)
    n_open: Counter[str] = field(default_factory=Counter)
    sampling_slots: int = 1
    trained_last: bool = False

    # Labels: the Calculator adds, all read
    labels: list[LabelRecord] = field(default_factory=list)
    n_own_labels: int = 0
    known: dict[str, str] = field(default_factory=dict)
    initial: list[tuple[str, str]] = field(default_factory=list)
    initial_open: set[str] = field(default_factory=set)
    audits: list[Audit] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)
    given_up: list[Request] = field(default_factory=list)
    n_calculations: int = 0
    caused: int = 0
    consecutive_failures: Counter[str] = field(default_factory=Counter)
    first_failure: dict[str, str] = field(default_factory=dict)
    n_failed: int = 0

    # Trainer
    round: int = -1
    training: Round | None = None
    n_labels_at_start: int = 0
    committee: Committee | None = None
    sampling_model: str | None = None
    sampling_round: int = -1
    failed_rounds: int = 0
    refit: Literal["none", "due", "retry", "running", "done"] = "none"
    energy_shifts_eV: dict[str, float] = field(default_factory=dict)

    # Sampler
    trajectories: list[Trajectory] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    n_runs: int = 0
    n_audits: int = 0
    n_audits_passed: int = 0
    most_audits_in_a_row: int = 0
    recent_runs: list[Run] = field(default_factory=list)
    barren_runs: int = 0

    # Selector
    pool: dict[str, PoolFrame] = field(default_factory=dict)
    pool_hashes: set[str] = field(default_factory=set)
    unscored: dict[str, int] = field(default_factory=dict)
    scored: dict[str, Score] = field(default_factory=dict)
    selected: dict[str, Score] = field(default_factory=dict)
    rescoring: set[str] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)
    chosen_round: int = -1
    new_scores: bool = False
    n_scores: int = 0
    n_choices: int = 0

    # Tester
    sizes: dict[str, Size] = field(default_factory=dict)
    start_frames: list[str] = field(default_factory=list)
    test_files: list[str] = field(default_factory=list)
    chunks_waiting: list[Chunk] = field(default_factory=list)
    baseline_files: list[str] = field(default_factory=list)
    n_baseline_frames: int = 0
    baseline: Round | None = None
    n_baselines: int = 0
    n_random_planned: int = 0
    n_chunks: Counter[str] = field(default_factory=Counter)
    to_evaluate: list[tuple[str, str, int, int]] = field(default_factory=list)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)

    verdict: Verdict | None = None

    @classmethod
    def from_opened(cls, event: Event) -> State:
        """Return the state of a campaign that was just opened.

        Args:
            event: The `opened` event; its values hold `config`, `capacity`, `pool_of`, `start_frames`,
                `initial_frames`, `imported`, `start_model` and `test_files`.
        """
        values: Mapping[str, Any] = event.values
        config = config_from_dict(values["config"])
        if not isinstance(config, ActiveLearningConfig):
            msg = f"The campaign is of kind {config.kind}, which this policy does not steer."
            raise TypeError(msg)
        capacity = dict(values["capacity"])
        state = cls(config, capacity, dict(values["pool_of"]), free=dict(capacity))
        for item in values["imported"]:
            state.labels.append(LabelRecord(item["request"], item["hash"], "imported"))
            state.known[item["hash"]] = item["request"]
        for frame in (*values["start_frames"], *values["initial_frames"]):
            state.sizes[frame["id"]] = Size(frame["n_atoms"], frame["n_electrons"])
        starts = [frame["id"] for frame in values["start_frames"]]
        # Every start structure has a trajectory, however many there are.
        for index in range(max(config.sampling.n_trajectories, len(starts)) if starts else 0):
            frame = starts[index % len(starts)]
            state.trajectories.append(Trajectory(frame, frame))
            state.idle.append(index)
        if len(state.labels) < FEWEST_LABELS:
            state.initial = [(frame["id"], frame["hash"]) for frame in values["initial_frames"]]
        if values["start_model"]:
            state.sampling_model = START_MODEL
            state.refit = "due"
        state.test_files = list(values["test_files"])
        state.start_frames = starts
        return state

    @property
    def seed(self) -> int:
        """The campaign's seed."""
        return self.config.seed

    def running(self, kind: str) -> int:
        """Return how many requests of a kind are open, or stand in line."""
        return self.n_open[kind]

    def of_kind(self, kind: str) -> Iterator[Request]:
        """Yield the requests of a kind that are open, or stand in line."""
        return (r for r in chain(self.open.values(), self.line) if r.kind == kind)

    def find(self, name: str) -> Request:
        """Return a request that is open, or stands in line.

        Raises:
            KeyError: If there is none of that id.
        """
        if name in self.open:
            return self.open[name]
        for request in self.line:
            if request.id == name:
                return request
        raise KeyError(name)

    def begin(self, request: Request) -> None:
        """Give a request its slots."""
        self.open[request.id] = request
        self.n_open[request.kind] += 1
        self.free[request.pool] -= request.slots

    def end(self, request: Request) -> None:
        """Take back the slots of a request that is open, or take it out of the line."""
        if request.id in self.open:
            del self.open[request.id]
            self.free[request.pool] += request.slots
        else:
            self.line.remove(request)
        self.n_open[request.kind] -= 1

    def queue(self, request: Request) -> None:
        """Let a request stand in line for its slots: those in line go before all others."""
        self.line.append(self._placed(request))
        self.n_open[request.kind] += 1

    def first_in_line(self, pool: str) -> Request | None:
        """Return the request that stands longest in line for slots of a pool, or None."""
        return next((request for request in self.line if request.pool == pool), None)

    def may_retry(self, request: Request) -> bool:
        """Whether a request that failed may be tried again.

        Counted anew after so many tries, so that one who goes on after a failure gets as many again.
        """
        return request.attempt % self.config.calculation.max_attempts != 0

    def slots_for(self, kind: str, args: Mapping[str, Any]) -> int:
        """Return how many slots a request takes: reference calculations by the size of their structure.

        Frames of a trajectory have the size of its start structure.
        """
        if kind not in _BY_SIZE:
            return 1
        frame = self.trajectories[args["trajectory"]].start if "trajectory" in args else args["frame"]
        return self.config.calculation.slots_for(*self.sizes[frame])

    def move_to(self, capacity: Mapping[str, int], pool_of: Mapping[str, str]) -> None:
        """Go on with other slots; what is open keeps its place, also where there are fewer slots now."""
        self.capacity, self.pool_of = dict(capacity), dict(pool_of)
        self.place_anew()

    def place_anew(self) -> None:
        """Count slots anew after they, or what calculations take of them, have changed.

        A calculation of several slots for which there is no room now stands in line again, the youngest
        first: the slots that it takes must be there. One of a single slot waits for a worker by itself.
        """
        self.open = {name: self._placed(request) for name, request in self.open.items()}
        self.line = [self._placed(request) for request in self.line]
        self.free = dict(self.capacity)
        for request in self.open.values():
            self.free[request.pool] -= request.slots
        for request in reversed(list(self.open.values())):
            if request.slots > 1 and self.free[request.pool] < 0:
                self.free[request.pool] += request.slots
                self.line.insert(0, self.open.pop(request.id))

    def _placed(self, request: Request) -> Request:
        slots = self.slots_for(request.kind, request.args)
        return replace(request, pool=self.pool_of[request.kind], slots=slots)

    @property
    def baseline_folder(self) -> str:
        """Folder of the present comparison committee; an extended campaign has one more."""
        return "baseline" if self.n_baselines == 0 else f"baseline-{self.n_baselines + 1}"

    @property
    def budget_taken(self) -> bool:
        """Whether the labels that are done or on their way use up `stop.max_labels`."""
        return self.n_own_labels + self.running("calculate") >= self.config.stop.max_labels

    @property
    def budget_spent(self) -> bool:
        """Whether `stop.max_labels` labels were made."""
        return self.n_own_labels >= self.config.stop.max_labels

    @property
    def initial_done(self) -> bool:
        """Whether every initial structure has its label or failed."""
        return not self.initial and not self.initial_open
