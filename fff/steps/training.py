"""A committee, or one model, trained on given labels, outside a campaign."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.cores import cores_found
from fff.base.draws import seed_for, uniform
from fff.base.errors import ConfigError, RunDirectoryError, StructureError
from fff.base.files import read_json, write_bytes, write_json
from fff.base.ids import sha256_bytes, sha256_file
from fff.data.accuracy import force_accuracy
from fff.data.packing import labels_to_bytes
from fff.data.provenance import collect_provenance
from fff.models.files import HISTORY, WEIGHTS, read_description, read_member
from fff.models.reference_energies import fit_reference_energies
from fff.models.start import read_start_model, take_architecture
from fff.report.drawing import write_drawing
from fff.report.learning import draw_error_over_labels, draw_histories, read_history
from fff.steps.members import Job, train_members
from fff.steps.outputs import taken
from fff.steps.predicting import open_committee, predict
from fff.steps.sharing import are_useful_for, shared_by
from fff.steps.sources import with_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fff.config import LoadedConfig
    from fff.data.records import Label
    from fff.steps.interruption import Interruption
    from fff.steps.sources import NamedLabels

__all__ = ["TRAINED", "Trained", "train_committee"]

TRAINED = "trained.json"
"""File of a training's folder: its settings, and the hashes of the structures it was given."""

COMMITTEE = "committee.json"
"""File of a training's folder: its members, and how far they disagree on their own labels."""

_LEAST_LABELS = 2
_FEW_LABELS = 10
"""A member that is trained on fewer is hardly better than chance."""

_CHECKPOINTS = "checkpoints"
_MOST_JUDGED = 1000
"""Labels on which the deviation of a new committee is looked at, at most."""


@dataclass
class Trained:
    """What a training gave.

    Attributes:
        folder: Where everything is.
        n_labels: How many labels there were.
        members: Summary of each member, see `TrainedMember`.
        test: Errors of the committee on the test set, see `force_accuracy`; None without one.
        by_size: The same by the number of labels.
        figures: Pictures that were written.
        warnings: Why the models may be worth little, as sentences.
        is_stopped: Whether it was stopped; nothing but the members that are done is there then.
        n_done: Members that are done, of `n_jobs`.
        n_jobs: Members that there are to be.
    """

    folder: Path
    n_labels: int
    members: list[dict[str, Any]] = field(default_factory=list)
    test: dict[str, Any] | None = None
    by_size: dict[int, dict[str, Any]] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    is_stopped: bool = False
    n_done: int = 0
    n_jobs: int = 0


@dataclass(frozen=True)
class _Plan:
    """What is to be trained: jobs by the number of labels, and all that decides their numbers."""

    folder: Path
    labels: NamedLabels
    test: NamedLabels | None
    by_size: dict[int, list[Job]]
    told: dict[str, Any]

    @property
    def jobs(self) -> list[Job]:
        return [job for jobs in self.by_size.values() for job in jobs]

    @property
    def labels_file(self) -> Path:
        return self.folder / _CHECKPOINTS / "labels.npz"


def train_committee(
    sources: Sequence[str],
    loaded: LoadedConfig,
    folder: Path,
    *,
    n_members: int,
    test: str | None = None,
    sizes: Sequence[int] = (),
    tell: Callable[[int, int, str], None],
    interruption: Interruption,
) -> Trained:
    """Train members on labels, evaluate them, and write all of it to a folder.

    Args:
        sources: Files, databases or run directories with labels.
        loaded: The config; its sections `model` and `training` and its seed count.
        folder: Where it goes. A training that was left there goes on; another one is refused.
        n_members: Members of the committee. A single one is trained on all labels but a tenth, which tells
            when to stop; those of a committee each on a draw with replacement.
        test: Labels that nothing is trained on.
        sizes: Also train on so many of the labels, for the error over their number.
        tell: Told of epochs done, of epochs at most, and what happened last.
        interruption: Asked whether to stop.

    Raises:
        FffError: If labels, model or settings cannot be used, the folder holds something else, or a training
            gives no model.
    """
    plan = _plan(sources, loaded, folder, n_members=n_members, test=test, sizes=sizes)
    with taken(folder):
        _open(plan, loaded.config.seed)
        trained = Trained(folder, len(plan.labels.labels), n_jobs=len(plan.jobs))
        interruption.wait_for = ": a checkpoint of each training is written"
        n_processes = _n_processes(len(plan.jobs))
        with shared_by(n_processes, at_most=_useful_threads(plan)):
            tracker = _Epochs(plan.jobs, int(plan.told["training"]["max_epochs"]), tell)
            train_members(
                plan.jobs,
                n_processes=n_processes,
                tell=tracker,
                is_asked_to_stop=interruption.is_asked,
            )
        trained.n_done = sum(job.is_done for job in plan.jobs)
        if trained.n_done < trained.n_jobs:
            trained.is_stopped = True
            return trained
        _conclude(plan, trained, tracker.predicting)
        shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    return trained


def _plan(
    sources: Sequence[str],
    loaded: LoadedConfig,
    folder: Path,
    *,
    n_members: int,
    test: str | None,
    sizes: Sequence[int],
) -> _Plan:
    starts: list[Path] = []
    if loaded.config.model.start:
        model = read_start_model(loaded.config.model.start)
        loaded, starts = take_architecture(loaded, model), model.members
    config = loaded.config
    labels = with_sources(sources)
    tested = with_sources([test]) if test is not None else None
    _check(labels.labels, tested.labels if tested else [], sizes)
    order = sorted(range(len(labels.labels)), key=lambda i: uniform(config.seed, "subset", i))
    told = {
        "model": config.model.model_dump(mode="json", exclude={"start"}),
        "training": config.training.model_dump(mode="json", exclude={"time_limit_s"}),
        "seed": config.seed,
        "n_members": n_members,
        "labels": _digest(labels.labels),
        "start": [sha256_file(start / WEIGHTS) for start in starts],
    }
    by_size = {}
    for size in dict.fromkeys([len(order), *sizes]):
        # All labels in the order they were given; of fewer a random part, larger ones holding the smaller.
        chosen = sorted(order[:size])
        where = folder if size == len(order) else folder / "sizes" / f"{size:06d}"
        energies = fit_reference_energies([labels.labels[i] for i in chosen])
        by_size[size] = [
            Job(
                folder=where / f"member-{member}",
                checkpoints=folder / _CHECKPOINTS / f"{size:06d}-member-{member}",
                labels=folder / _CHECKPOINTS / "labels.npz",
                chosen=chosen,
                model=config.model.model_dump(mode="json"),
                training=config.training.model_dump(mode="json"),
                seed=seed_for(config.seed, "train", 0, member, 1),
                split_seed=seed_for(config.seed, "split", member),
                is_drawn=n_members > 1,
                reference_energies=energies,
                start=starts[member % len(starts)] if starts else None,
                number=member,
            )
            for member in range(n_members)
        ]
    return _Plan(folder, labels, tested, by_size, told)


def _check(labels: Sequence[Label], test: Sequence[Label], sizes: Sequence[int]) -> None:
    if len(labels) < _LEAST_LABELS:
        msg = f"There is {len(labels)} label to train on; there must be at least {_LEAST_LABELS}."
        raise StructureError(msg, hint="Give more labels.")
    if sizes and not test:
        msg = "`--sizes` asks for the error over the number of labels, but there is no test set."
        raise ConfigError(msg, hint="Name one with --test.", key="--sizes", value=list(sizes))
    for size in sizes:
        if not _LEAST_LABELS <= size <= len(labels):
            msg = f"`--sizes` names {size}; it must be between {_LEAST_LABELS} and the {len(labels)} labels."
            raise ConfigError(msg, hint="Give smaller sizes, or more labels.", key="--sizes", value=size)
    if shared := {label.hash for label in labels} & {label.hash for label in test}:
        what = "structure" if len(shared) == 1 else "structures"
        msg = f"`--test` shares {len(shared)} {what} with the labels; a test set is never trained on."
        hint = "Keep them apart, for example `fff train file.xyz@:900 --test file.xyz@900:`."
        raise ConfigError(msg, hint=hint, key="--test", value=None)


def _digest(labels: Sequence[Label]) -> str:
    return sha256_bytes(labels_to_bytes(labels))


def _open(plan: _Plan, seed: int) -> None:
    """Make the folder, or see that it holds this training.

    Raises:
        RunDirectoryError: If it holds anything else.
    """
    path = plan.folder / TRAINED
    if path.is_file():
        _check_same(path, plan.told)
    else:
        left = {each.name for each in plan.folder.iterdir()} if plan.folder.is_dir() else set()
        if left - {_CHECKPOINTS}:
            msg = f"{plan.folder} is there already and holds no training; nothing is ever overwritten."
            hint = "Choose another place with --output, or move it away."
            raise RunDirectoryError(msg, hint=hint, path=str(plan.folder))
        provenance = collect_provenance(seed=seed, inputs=plan.labels.files)
        structures = [label.hash for label in plan.labels.labels]
        write_json(
            path,
            {"schema_version": 1, **plan.told, "structures": structures, "provenance": provenance},
        )
    if any(not job.is_done for job in plan.jobs):
        write_bytes(plan.labels_file, labels_to_bytes(plan.labels.labels))


def _check_same(path: Path, told: dict[str, Any]) -> None:
    try:
        found = read_json(path)
        other = [key for key, value in told.items() if found[key] != value]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{path} is damaged: {error}."
        raise RunDirectoryError(msg, hint="Choose another place with --output.", path=str(path)) from error
    if other:
        msg = f"{path.parent} holds another training, which differs in: {', '.join(other)}."
        hint = "Choose another place with --output, or the settings that it was begun with."
        raise RunDirectoryError(msg, hint=hint, path=str(path.parent))


def _n_processes(n_jobs: int) -> int:
    """Return how many members to train at a time: one for each accelerator, else for each core."""
    import torch

    return max(1, min(n_jobs, torch.cuda.device_count() or cores_found()))


def _useful_threads(plan: _Plan) -> int | None:
    """Return how many threads a training has a use for; None for any number."""
    n_atoms = np.mean([len(label.atoms) for label in plan.labels.labels])
    return None if are_useful_for(n_atoms * int(plan.told["training"]["batch_size"])) else 1


class _Epochs:
    """Counts the epochs of all members, those of fewer labels as parts; one that is done has done all."""

    def __init__(self, jobs: Sequence[Job], max_epochs: int, tell: Callable[[int, int, str], None]) -> None:
        self._most = max(len(job.chosen) for job in jobs)
        # What was made before must not look like what is made in the first second of this time.
        self._done = {
            job.checkpoints: self._work(job, max_epochs if job.is_done else _epochs_before(job))
            for job in jobs
        }
        self._total = round(sum(self._work(job, max_epochs) for job in jobs))
        self._max_epochs = max_epochs
        self._tell = tell
        self._count("")

    def __call__(self, job: Job, row: dict[str, Any] | None) -> None:
        name = f"{job.folder.name} ({len(job.chosen)} labels)"
        if row is None:
            self._done[job.checkpoints] = self._work(job, self._max_epochs)
            self._count(f"{name} is done")
            return
        self._done[job.checkpoints] = self._work(job, row["epoch"])
        error = row["validation_force_mae_eV_per_A"]
        told = "" if error is None else f": {1000 * error:.1f} meV/Å"
        self._count(f"{name}, epoch {row['epoch']}{told}")

    def predicting(self, done: int, total: int, _last: str) -> None:
        """Say how far the predictions after the last epoch are."""
        self._count(f"all are done; predictions: {done} of {total} structures")

    def _work(self, job: Job, n_epochs: int) -> float:
        return n_epochs * len(job.chosen) / self._most

    def _count(self, last: str) -> None:
        self._tell(round(sum(self._done.values())), self._total, last)


def _epochs_before(job: Job) -> int:
    """Return the epochs that a training had made when it was stopped or killed."""
    try:
        rows = read_history(job.checkpoints / HISTORY)
    except (OSError, ValueError):
        return 0
    return int(rows[-1]["epoch"] or 0) if rows else 0


def _conclude(plan: _Plan, trained: Trained, tell: Callable[[int, int, str], None]) -> None:
    """Evaluate the committees and write what came out."""
    main = next(iter(plan.by_size.values()))
    trained.members = [read_description(read_member(job.folder))["training"] for job in main]
    histories = {job.folder.name: read_history(job.folder / HISTORY) for job in main}
    trained.figures.append(write_drawing(draw_histories(histories), plan.folder))
    values: dict[str, Any] = {"schema_version": 1, "members": [job.folder.name for job in main]}
    if len(main) > 1:
        values["deviation_on_labels_eV_per_A"] = _deviation(plan, tell)
    if plan.test is not None:
        for size, jobs in plan.by_size.items():
            committee = open_committee(jobs[0].folder.parent)
            predicted = predict(committee, plan.test.labels, tell)
            errors = force_accuracy(plan.test.labels, predicted.energy_eV, predicted.forces_eV_per_A)
            trained.by_size[size] = errors
        trained.test = next(iter(trained.by_size.values()))
        values["test"] = {str(size): errors for size, errors in sorted(trained.by_size.items())}
    if len(trained.by_size) > 1:
        trained.figures.append(
            write_drawing(draw_error_over_labels(trained.by_size, n_members=len(main)), plan.folder)
        )
    write_json(plan.folder / COMMITTEE, values)
    tested = [] if plan.test is None else plan.test.labels
    trained.warnings = list(_warnings(plan.labels.labels, tested, trained.members))


def _warnings(
    labels: Sequence[Label], test: Sequence[Label], members: Sequence[dict[str, Any]]
) -> Iterator[str]:
    fewest = min(member["n_train"] for member in members)
    if fewest < _FEW_LABELS:
        who = "The model is" if len(members) == 1 else "A member is"
        what = "label" if fewest == 1 else "labels"
        yield (
            f"{who} trained on {fewest} {what} only, without those left out: below {_FEW_LABELS} it hardly "
            "learns anything. Give more labels."
        )
    compositions = {label.atoms.get_chemical_formula() for label in labels}
    if len(compositions) == 1 and {label.atoms.get_chemical_formula() for label in test} - compositions:
        yield (
            f"All labels are of {compositions.pop()}: energies of other compositions, which the test set "
            "holds, are shifted by what one composition cannot tell, the energies of single atoms."
        )


def _deviation(plan: _Plan, tell: Callable[[int, int, str], None]) -> dict[str, float | int]:
    """Return how far the members disagree on the labels they were trained with: their ground."""
    labels = plan.labels.labels
    chosen = sorted(range(len(labels)), key=lambda i: uniform(0, "deviation", i))[:_MOST_JUDGED]
    found = predict(open_committee(plan.folder), [labels[i] for i in chosen], tell).deviation_eV_per_A
    return {
        "n_labels": len(chosen),
        "median": round(float(np.median(found)), 6),
        "p99": round(float(np.quantile(found, 0.99)), 6),
        "max": round(float(found.max()), 6),
    }
