"""What a run directory says about its campaign, read once, leniently, and without changing a byte."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.errors import RunDirectoryError
from fff.base.files import inside, read_json
from fff.data.events import CHANGED, OPENED
from fff.data.labels import read_labels
from fff.data.packing import UNPACKABLE, labels_from_bytes
from fff.report.following import Follower
from fff.report.standing import read_standing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jaxtyping import Float

    from fff.data.events import Event
    from fff.data.records import Label
    from fff.data.run_directory import RunDirectory
    from fff.report.standing import Standing

__all__ = [
    "Evaluation",
    "Judged",
    "Prediction",
    "Record",
    "by_source",
    "largest_atomic_error",
    "read_features",
    "read_record",
]

_TEST_FILES = re.compile(r"(testset-.*|given)\.npz")

_UNREADABLE = (*UNPACKABLE, OSError)


@dataclass(frozen=True)
class Evaluation:
    """The error of a committee on the test set.

    Attributes:
        name: `round-003`, or `baseline` for the committee of as many random frames.
        n_labels: Labels that its members drew from; None where nothing says so.
        known_at: When it was trained (Unix time in seconds).
        values: What `force_accuracy` gives.
    """

    name: str
    n_labels: int | None
    known_at: float
    values: Mapping[str, Any]

    @property
    def is_baseline(self) -> bool:
        """Whether it belongs to the comparison with random frames."""
        return self.name.startswith("baseline")


@dataclass(frozen=True)
class Prediction:
    """What a committee says about the test set.

    Attributes:
        name: `round-003`.
        labels: The test structures with what the reference says.
        energy_eV: Mean total energies.
        forces_eV_per_A: Mean forces, one array per structure.
        deviation_eV_per_A: Largest force deviation over the atoms of each structure; NaN where not known.
        features: Of the member that `read_features` reads; without columns where not known.
    """

    name: str
    labels: list[Label]
    energy_eV: Float[np.ndarray, " n_structures"]
    forces_eV_per_A: list[Float[np.ndarray, "n_atoms 3"]]
    deviation_eV_per_A: Float[np.ndarray, " n_structures"]
    features: Float[np.ndarray, "n_structures n_features"]

    @cached_property
    def error_eV_per_A(self) -> Float[np.ndarray, " n_structures"]:
        """The largest error of the force on one atom, per structure."""
        return np.array(
            [
                largest_atomic_error(label, forces)
                for label, forces in zip(self.labels, self.forces_eV_per_A, strict=True)
            ]
        )


@dataclass(frozen=True)
class Judged:
    """A label with what was predicted for it before anything was trained on it.

    Attributes:
        request: Id of the request that asked for it.
        source: `initial`, `audit`, `active`, `control` or `imported`.
        label: The label.
        deviation_eV_per_A: The committee's largest force deviation when it was chosen; NaN where not known.
        error_eV_per_A: Largest error of the predicted force on one atom, predicted by the committee or, of
            an audit, by the member that drove the dynamics; NaN where nothing was predicted.
        temperature_K: Of the dynamics that met it; NaN where not known.
        method: Name of the reference method.
    """

    request: str
    source: str
    label: Label
    deviation_eV_per_A: float
    error_eV_per_A: float
    temperature_K: float
    method: str


@dataclass(frozen=True)
class Record:
    """All that a report is made of.

    Attributes:
        run: The run directory.
        read_at: When it was read (Unix time in seconds).
        standing: Its state, and what `status.json` holds.
        config: The config in force.
        provenance: What `provenance.json` holds.
        events: The events, oldest first.
        judged: The labels, in the order they were added.
        evaluations: Errors on the test set, oldest first.
        prediction: That of the newest committee whose predictions are kept.
        troubles: What could not be read, a sentence each.
    """

    run: RunDirectory
    read_at: float
    standing: Standing
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    events: list[Event] = field(repr=False)
    judged: list[Judged] = field(repr=False)
    evaluations: list[Evaluation]
    prediction: Prediction | None = field(repr=False)
    troubles: list[str]

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a value of the config by its dotted key, or `default` where there is none."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    @property
    def status(self) -> Mapping[str, Any]:
        """What `status.json` holds; empty where it is missing or damaged."""
        return self.standing.status

    @property
    def rounds(self) -> list[Evaluation]:
        """Errors of the campaign's own committees, oldest first."""
        return [evaluation for evaluation in self.evaluations if not evaluation.is_baseline]

    @property
    def baseline(self) -> Evaluation | None:
        """The error of the committee of as many random frames, if there is one: that of the most frames."""
        found = [evaluation for evaluation in self.evaluations if evaluation.is_baseline]
        return max(found, key=lambda evaluation: evaluation.n_labels or 0, default=None)

    def done(self, *kinds: str) -> list[Event]:
        """Return the events of tasks of some kinds that gave a result."""
        return [event for event in self.events if event.kind in kinds and event.outcome == "done"]


def read_record(run: RunDirectory) -> Record:
    """Read a run directory; what is missing or damaged is a line in `troubles`.

    Raises:
        RunDirectoryError: If there is no campaign in it, or something in it is no file where one belongs.
    """
    if not run.is_opened:
        msg = f"There is no campaign in {run.path}."
        raise RunDirectoryError(msg, hint="Give the folder that holds events.jsonl.", path=str(run.path))
    run.check()
    troubles: list[str] = []
    # Before the log: what ended between the two is then in the log at least.
    standing = read_standing(run)
    troubles += standing.notes
    follower = Follower(run.events)
    events = follower.read()
    if not events:
        why = follower.troubles[0] if follower.troubles else "It is empty."
        msg = f"No event can be read from {run.events}: {why}"
        raise RunDirectoryError(msg, hint="Restore the file from a copy.", path=str(run.path))
    troubles += _few(follower.troubles, "lines of events.jsonl")
    evaluations = _evaluations(events)
    return Record(
        run=run,
        read_at=time.time(),
        standing=standing,
        config=_config(events),
        provenance=_read_object(run.provenance, troubles),
        events=events,
        judged=_judged(run, events, troubles),
        evaluations=evaluations,
        prediction=_prediction(run, evaluations, troubles),
        troubles=troubles,
    )


def largest_atomic_error(label: Label, forces_eV_per_A: Float[np.ndarray, "n_atoms 3"]) -> float:
    """Return the largest error of the force on one atom, in eV/Å."""
    return float(np.linalg.norm(forces_eV_per_A - label.forces_eV_per_A, axis=1).max())


def _read_object(path: Path, troubles: list[str]) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        troubles.append(f"There is no {path.name}.")
        return {}
    except (OSError, ValueError) as error:
        troubles.append(f"{path.name} cannot be read: {str(error).rstrip('.')}.")
        return {}
    if not isinstance(content, dict):
        troubles.append(f"{path.name} holds no JSON object.")
        return {}
    return content


def _few(troubles: list[str], what: str, most: int = 3) -> list[str]:
    more = len(troubles) - most
    return troubles if more <= 0 else [*troubles[:most], f"So are {more} more {what}."]


def _config(events: list[Event]) -> Mapping[str, Any]:
    """Return the config in force: that of the beginning, or of the last change."""
    config: Any = {}
    for event in events:
        if event.kind in {OPENED, CHANGED}:
            config = event.values.get("config", config)
    return config if isinstance(config, dict) else {}


def _evaluations(events: list[Event]) -> list[Evaluation]:
    n_drawn: dict[str, int] = {}
    trained_at: dict[str, float] = {}
    found: dict[str, Evaluation] = {}
    for event in events:
        if event.outcome == "failed":
            continue
        if event.kind in {"train", "train-baseline"}:
            key = event.request.rpartition("-m")[0].removeprefix("train-")
            # What a member drew and what it left out are together all that it was given.
            counts = [event.values.get(name) for name in ("n_train", "n_validation")]
            n_labels = sum(count for count in counts if isinstance(count, int))
            n_drawn[key] = max(n_drawn.get(key, 0), n_labels)
            trained_at[key] = max(trained_at.get(key, 0.0), event.times.get("ended", 0.0))
        elif event.kind == "evaluate":
            name = event.request.removeprefix("evaluate-")
            key = name.replace("round-", "r")
            at = trained_at.get(key) or event.times.get("ended", 0.0)
            found[name] = Evaluation(name, n_drawn.get(key), at, event.values)
    return list(found.values())


# --- labels ---------------------------------------------------------------------------------------------


def _judged(run: RunDirectory, events: list[Event], troubles: list[str]) -> list[Judged]:
    if not run.labels.exists():
        troubles.append("There is no labels.db.")
        return []
    try:
        rows, damaged = read_labels(run.labels)
    except RunDirectoryError as error:
        troubles.append(error.message)
        return []
    troubles += _few(damaged, "rows of labels.db")
    temperatures = _temperatures(events)
    return [_judge(row, temperatures) for row in rows]


def _judge(row: Mapping[str, Any], temperatures: Mapping[str, float]) -> Judged:
    label: Label = row["label"]
    forces = np.asarray(row.get("predicted_forces"))
    known = forces.shape == label.forces_eV_per_A.shape
    deviation = row.get("deviation", np.nan)
    return Judged(
        request=row["request"],
        source=str(row.get("source", "unknown")),
        label=label,
        deviation_eV_per_A=deviation if isinstance(deviation, float) else np.nan,
        error_eV_per_A=largest_atomic_error(label, forces) if known else np.nan,
        temperature_K=temperatures.get(label.hash, np.nan),
        method=str(row.get("method", "")),
    )


def _temperatures(events: list[Event]) -> dict[str, float]:
    """Return the temperature at which each structure was met, by its hash."""
    found: dict[str, float] = {}
    config: Any = {}
    for event in events:
        if event.kind in {OPENED, CHANGED}:
            config = event.values.get("config", config)
        if event.kind != "dynamics" or event.outcome == "failed":
            continue
        temperature = event.values.get("temperature_K", _only_temperature(config))
        if isinstance(temperature, int | float):
            for frame in (*event.values.get("others", ()), event.values.get("last")):
                if isinstance(frame, dict):
                    found[str(frame.get("hash"))] = float(temperature)
    return found


def _only_temperature(config: Any) -> float | None:
    """Return the temperature of all runs, where there is one; older campaigns do not note that of each."""
    given = config.get("sampling", {}).get("temperature_K") if isinstance(config, dict) else None
    given = given if isinstance(given, list) else [given]
    return given[0] if len(given) == 1 else None


# --- predictions ----------------------------------------------------------------------------------------


def _prediction(run: RunDirectory, evaluations: list[Evaluation], troubles: list[str]) -> Prediction | None:
    own = [evaluation for evaluation in evaluations if not evaluation.is_baseline]
    if not own:
        return None
    test = _test_labels(run, troubles)
    why = ""
    for evaluation in reversed(own):
        try:
            found = _read_prediction(run, evaluation.name, test)
        except _UNREADABLE as error:
            why = (
                why
                or f"What {evaluation.name} predicted for the test set cannot be read: {_first_line(error)}."
            )
            continue
        if why:
            troubles.append(f"{why} Shown instead: {evaluation.name}.")
        return found
    troubles.append(why)
    return None


def _first_line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is not there, as in campaigns made before fff kept it"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _test_labels(run: RunDirectory, troubles: list[str]) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    paths = sorted(run.test.iterdir()) if run.test.is_dir() else []
    for path in paths:
        if not _TEST_FILES.fullmatch(path.name):
            continue
        try:
            labels |= {label.hash: label for label in labels_from_bytes(path.read_bytes())}
        except _UNREADABLE as error:
            troubles.append(f"The test structures in test/{path.name} cannot be read: {_first_line(error)}.")
    return labels


def _read_prediction(run: RunDirectory, name: str, test: Mapping[str, Label]) -> Prediction:
    path = inside(run.path, f"scores/evaluate-{name}.npz")
    # Opened here: NumPy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        kept = {key: arrays[key] for key in arrays.files}
    ends = np.cumsum(kept["n_atoms"])
    parts = [slice(int(end - n), int(end)) for end, n in zip(ends, kept["n_atoms"], strict=True)]
    hashes = [structure.decode() for structure in kept["structures"]]
    rows = [row for row, structure in enumerate(hashes) if structure in test]
    if not rows:
        msg = "none of its structures is in test/"
        raise ValueError(msg)
    deviation = kept["force_deviation_eV_per_A"]
    # Without the number of the member they are those of the first to arrive: of any one.
    features = kept["features"] if kept.get("features_member") == 0 else kept["features"][:, :0]
    return Prediction(
        name=name,
        labels=[test[hashes[row]] for row in rows],
        energy_eV=kept["energy_eV"].mean(axis=0)[rows],
        forces_eV_per_A=[kept["forces_eV_per_A"][parts[row]].astype(float) for row in rows],
        deviation_eV_per_A=np.array([deviation[parts[row]].max() for row in rows], dtype=float),
        features=features[rows].astype(float),
    )


def read_features(record: Record) -> tuple[str, dict[str, Float[np.ndarray, " n_features"]]] | None:
    """Return the newest round whose member 0 left its features, and those by hash of the structure.

    Features of two models are not comparable, so these are of one.
    """
    trained = {event.request for event in record.done("train")}
    rounds = sorted(
        {request.rpartition("-m")[0].removeprefix("train-r") for request in trained}, reverse=True
    )
    for number in rounds:
        # Another try of a member that was given up may have left its file.
        if f"train-r{number}-m0" not in trained:
            continue
        try:
            path = inside(record.run.path, f"models/round-{number}/member-0/features.npz")
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                hashes, features = arrays["structures"], arrays["features"].astype(float)
        except _UNREADABLE:
            continue
        rows = zip(hashes, features, strict=True)
        return f"round-{number}", {name.decode(): row for name, row in rows if np.isfinite(row).all()}
    return None


def by_source(judged: list[Judged]) -> dict[str, list[Judged]]:
    """Return labels by where they came from, in the order in which sources are told of."""
    found: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        found[item.source].append(item)
    known = [source for source in ("imported", "initial", "audit", "active", "control") if source in found]
    return {source: found[source] for source in [*known, *sorted(set(found) - set(known))]}
