"""The functions that workers run: one per kind of request, in one module that workers import.

Each takes a `Call` and returns an envelope: outcome, small values, times, worker. Arrays, weights and
frames are read from and written to the run directory; models and training sets come as proxies. Nothing
raises past this border: an exception becomes a failed envelope, and the policy decides what it means.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import io
import json
import math
import os
import platform
import shutil
import threading
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from proxystore.proxy import ProxyResolveError
from proxystore.serialize import SerializationError
from proxystore.store.exceptions import ProxyResolveMissingKeyError

from fff.base.errors import ConfigError, FffError, ModelFileError, StoreLostError
from fff.base.files import inside, write_bytes
from fff.base.ids import sha256_bytes
from fff.base.redaction import redact
from fff.compute.hosts import leased
from fff.data.accuracy import force_accuracy
from fff.data.deviation import force_deviation
from fff.data.frames import FrameStore
from fff.data.packing import UNPACKABLE, labels_from_bytes, labels_to_bytes
from fff.selection import audit_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ase import Atoms
    from jaxtyping import Float

    from fff.compute.parcels import Parcel
    from fff.data.records import Frame, Label
    from fff.models import Committee
    from fff.reference import ReferenceProcess
    from fff.stages import Lifetime

__all__ = [
    "FUNCTIONS",
    "Call",
    "calculate",
    "choose",
    "dynamics",
    "evaluate",
    "overtime_note",
    "reference_dynamics",
    "refit",
    "score",
    "train",
    "train_baseline",
]

FEATURES = "features.npz"
MAPPED_MEMBER = 0
"""The member whose features maps are made of."""
"""File beside the first member of a committee: where it sees the labels it was trained with."""

LARGEST_VALUES = 3_000
"""Bytes of JSON that an envelope carries itself; larger values rest in a file that it names."""

CACHED_MODELS = 4
MESSAGE_LENGTH = 600

FEWEST_MEMBERS = 2
"""Members without which there is no disagreement."""


@dataclass(frozen=True)
class Call:
    """What a task is told.

    Attributes:
        request: Id of the request; files it writes are named after it.
        run_dir: The run directory.
        limit_s: Seconds after which the task hangs, and its worker is killed.
        args: Arguments of the request.
        settings: The sections of the config that this kind of task needs. Where these two are large they are
            empty here and come as the last parcel, with the key `told:<request>`.
        models: Keys of the proxies that come along, in the same order.
        slots: How many slots of its pool the task has for itself.
    """

    request: str
    run_dir: str
    limit_s: float = math.inf
    args: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    slots: int = 1

    def path(self, *parts: str) -> Path:
        """Return a path in the run directory.

        Raises:
            RunDirectoryError: If it would lie outside; what a resumed campaign asks for comes from its files.
        """
        return inside(Path(self.run_dir), Path(*parts))

    @property
    def frames(self) -> FrameStore:
        """The frames of the campaign."""
        return FrameStore(self.path("frames"))


def _task(
    function: Callable[[Call, Sequence[Parcel]], dict[str, Any] | None],
) -> Callable[..., dict[str, Any]]:
    """Wrap a task's function: times, worker, time limit, and every exception as a failure with its class.

    A function that returns None was interrupted, since the campaign stops; asked again, it goes on.
    """

    @functools.wraps(function)
    def run(call: Call, *parcels: Parcel) -> dict[str, Any]:
        started = time.time()
        watchdog = _watch(call)
        try:
            if call.models and call.models[-1].startswith("told:"):
                told = json.loads(parcels[-1]["told.json"])
                call = replace(call, **told, models=call.models[:-1])
            result = function(call, parcels[: len(call.models)])
            values = {} if result is None else _small(call, result)
            outcome = "interrupted" if result is None else "done"
        except Exception as error:  # noqa: BLE001 - the border of a remote task: it becomes an event
            values = _failure(call, error)
            outcome = "failed"
        finally:
            watchdog.cancel()
            faulthandler.cancel_dump_traceback_later()
        return {
            "outcome": outcome,
            "values": values,
            "started": started,
            "ended": time.time(),
            "worker": f"{platform.node()}:{os.getpid()}",
            "device": _device() if function.__name__ in _ON_DEVICE else "cpu",
        }

    return run


_ON_DEVICE = {"train", "train_baseline", "refit", "dynamics", "score", "choose", "evaluate"}


_BACKSTOP_S = 10.0


def overtime_note(call: Call) -> Path:
    """Return the file that says where a task was when its worker was killed for taking too long."""
    return call.path("tasks", f"{call.request}.overtime.txt")


def _watch(call: Call) -> threading.Timer:
    """Kill this worker when the task hangs; whatever its children do, they end with it."""
    timer = threading.Timer(min(call.limit_s, threading.TIMEOUT_MAX), _give_up, [call])
    timer.daemon = True
    timer.start()
    # Code that hangs without letting go of the interpreter lets no thread run; this one needs none.
    if call.limit_s + _BACKSTOP_S < threading.TIMEOUT_MAX:
        faulthandler.dump_traceback_later(call.limit_s + _BACKSTOP_S, exit=True)
    return timer


def _give_up(call: Call) -> None:
    note = overtime_note(call)
    with contextlib.suppress(OSError):
        note.parent.mkdir(exist_ok=True)
        with note.open("w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
    os._exit(1)


def _failure(call: Call, error: Exception) -> dict[str, Any]:
    # What a proxy or a store raises says no more than that it was one.
    cause: BaseException = error
    while isinstance(cause, (ProxyResolveError, SerializationError)) and cause.__cause__ is not None:
        cause = cause.__cause__
    message = (cause.message if isinstance(cause, FffError) else str(cause)) or type(cause).__name__
    hint = f" {cause.hint}" if isinstance(cause, FffError) and cause.hint else ""
    values = {
        "failure_class": _class_of(error),
        "error": type(cause).__name__,
        "message": redact(message + hint)[:MESSAGE_LENGTH],
    }
    trace = call.path("tasks", f"{call.request}.failure.txt")
    try:
        write_bytes(trace, redact("".join(traceback.format_exception(error))).encode())
    except OSError as trouble:
        # On a full disk, which may be the failure itself: the policy must hear of it all the same.
        values["message"] += f" (Its trace could not be written: {trouble.strerror or trouble}.)"
    else:
        values["trace"] = str(trace.relative_to(call.run_dir))
    return values


def _class_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk"
    if isinstance(error, ProxyResolveError):
        return _class_of_missing(error)
    return getattr(error, "failure_class", "retry" if isinstance(error, OSError) else "setup")


def _class_of_missing(error: ProxyResolveError) -> str:
    """Return the class of a task that got no parcel."""
    if isinstance(error.__cause__, ConfigError):
        return "setup"  # a password that is missing stays so
    # It is not there, not yet to be seen from here, or its server is out of reach: the shelf stores it again
    # where it is gone when the request is asked for again. A parcel that is damaged would stay so.
    gone = (ProxyResolveMissingKeyError, FileNotFoundError, StoreLostError)
    return "lost" if isinstance(error.__cause__, gone) else "retry"


def _small(call: Call, values: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(values, allow_nan=False).encode()
    if len(text) <= LARGEST_VALUES:
        return values
    path = call.path("tasks", f"{call.request}.values.json")
    write_bytes(path, text)
    return {"values_file": str(path.relative_to(call.run_dir)), "sha256": sha256_bytes(text)}


def _device() -> str:
    """Return the accelerator that the executor gave this worker, or the processor."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# --- models in a worker ---------------------------------------------------------------------------------

_models: OrderedDict[tuple[str, str], Committee] = OrderedDict()


def _committee(call: Call, index: int, parcels: Sequence[Parcel]) -> Committee:
    """Return the model or committee that came as a proxy, built once per worker."""
    from fff.models import Committee

    key = (call.run_dir, call.models[index])
    if key in _models:
        _models.move_to_end(key)
        return _models[key]
    _models[key] = Committee.from_files(_members(parcels[index]), device=_device())
    while len(_models) > CACHED_MODELS:
        _models.popitem(last=False)
    return _models[key]


def _members(parcel: Parcel) -> list[dict[str, bytes]]:
    """Return the files of each member; a parcel names them `member/file`."""
    members: dict[str, dict[str, bytes]] = {}
    for name, content in parcel.items():
        member, _, file = name.rpartition("/")
        members.setdefault(member, {})[file] = content
    return list(members.values())


# --- Trainer --------------------------------------------------------------------------------------------


def _lifetime(call: Call) -> Lifetime:
    """Return where a long task saves itself, and how it learns that the campaign stops."""
    from fff.stages import Lifetime

    return Lifetime(
        call.path("tasks", f"{call.request}.stage"),
        stop=call.path("tasks", "stopping").exists,
        identity=" ".join(call.models),
    )


def _train(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any] | None:
    from fff.models import train_member

    labels = labels_from_bytes(parcels[0]["labels.npz"])
    energies = json.loads(parcels[0]["reference_energies.json"])
    # A given committee of fewer members serves several.
    given = _members(parcels[1]) if len(parcels) > 1 else []
    start = given[call.args["member"] % len(given)] if given else None
    trained = train_member(
        labels,
        model=dict(call.settings["model"]),
        training=dict(call.settings["training"]),
        seed=call.args["seed"],
        split_seed=call.args["split_seed"],
        reference_energies={int(number): value for number, value in energies.items()},
        start=start,
        device=_device(),
        lifetime=(lifetime := _lifetime(call)),
    )
    if trained is None:
        return None
    directory = call.path("models", call.args["directory"])
    if call.args["member"] == MAPPED_MEMBER:
        _write_features(directory / FEATURES, trained.files, labels)
    for name, content in trained.files.items():
        write_bytes(directory / name, content)
    shutil.rmtree(lifetime.folder, ignore_errors=True)
    return {**trained.summary, "sha256": sha256_bytes(trained.files["weights.safetensors"])}


def _write_features(path: Path, files: Mapping[str, bytes], labels: Sequence[Label]) -> None:
    """Write the features that one model gives to labels, for maps: those of two models are not comparable.

    `structures` holds the hashes of the labels' structures, `features` one row for each, `features_member`
    which member they are of.
    """
    from fff.models import Committee

    try:
        prediction = Committee.from_files([files], device=_device()).predict(
            [label.atoms for label in labels], features=True
        )
    except ModelFileError:
        return  # nothing that the campaign needs
    _write_npz(
        path,
        structures=_hashes(labels),
        features_member=np.array(MAPPED_MEMBER),
        features=np.asarray(prediction.features, dtype="f4"),
    )


def _hashes(labels: Sequence[Label]) -> np.ndarray:
    return np.array([label.hash for label in labels], dtype="S")


@_task
def train(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any] | None:
    """Train one member and write it to `models/`; values: its summary and the sha256 of its weights.

    Beside the first member lies `features.npz`, see `_write_features`.
    """
    return _train(call, parcels)


@_task
def train_baseline(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any] | None:
    """Train one member of the comparison committee, exactly as `train` does."""
    return _train(call, parcels)


@_task
def refit(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any]:
    """Fit the given model's reference energies to the first labels; values: `shifts_eV` per element."""
    from fff.models import refit_reference_energies

    labels = labels_from_bytes(parcels[0]["labels.npz"])
    model = _committee(call, 1, parcels).members[0]
    before = model.reference_energies_eV
    after = refit_reference_energies(model, labels)
    return {"shifts_eV": {str(z): energy - before.get(z, 0.0) for z, energy in after.items()}}


# --- Sampler --------------------------------------------------------------------------------------------


@_task
def dynamics(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any] | None:
    """Run dynamics with the sampling model; values: reason, steps, temperature, last frame, others."""
    from fff.sampling import DynamicsSettings, run_dynamics

    sampling = call.settings["sampling"]
    member = _committee(call, 0, parcels).members[0]
    asked = None
    if len(call.models) > 1:
        asked = functools.partial(_largest_deviation, _committee(call, 1, parcels))
    settings = DynamicsSettings.from_section(
        sampling, n_steps=call.args["n_steps"], temperature_K=call.args["temperature_K"]
    )
    result = run_dynamics(
        call.frames.read(call.args["frame"]),
        settings,
        member.md_calculator(skin_A=sampling["skin_A"]),
        seed=call.args["seed"],
        deviation=asked,
        lifetime=(lifetime := _lifetime(call)),
    )
    if result is None:
        return None
    frames = [*result.others, result.last]
    ids = call.frames.write(call.request, frames)
    shutil.rmtree(lifetime.folder, ignore_errors=True)
    described = [_describe(frame_id, frame) for frame_id, frame in zip(ids, frames, strict=True)]
    return {
        "reason": result.reason,
        "steps": result.steps,
        "temperature_K": call.args["temperature_K"],
        "last": described[-1],
        "others": described[:-1],
    }


def _largest_deviation(committee: Committee, atoms: Atoms) -> float:
    """Return the largest force deviation in eV/Å; NaN, which ends a run, where fewer than two give numbers.

    The threshold is one of forces, whatever frames are chosen by.
    """
    prediction = committee.predict([atoms])
    forces = prediction.forces_eV_per_A[0][prediction.is_finite[:, 0]]
    # One member has no spread: it would seem to be sure of everything.
    return float(force_deviation(forces).max()) if len(forces) >= FEWEST_MEMBERS else float("nan")


def _describe(frame_id: str, frame: Frame) -> dict[str, Any]:
    return {"id": frame_id, "hash": frame.hash, "deviation": _finite(frame.deviation_eV_per_A)}


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


# --- Selector -------------------------------------------------------------------------------------------


@_task
def score(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any]:
    """Score a chunk on all members; values: `deviations`, those that frames are chosen by.

    A frame counts where the first member, whose features it is compared by, and at least one other give
    finite numbers, and by the members that do; any other has the deviation None and costs only itself.

    Writes `scores/<request>.npz`, NaN where there are no numbers: `deviation` (of the kind that
    `selection.deviation` names), `max_force_deviation` (eV/Å, whatever the kind), `features`, `energy_eV` of
    the members that `members_used` names, and `forces_eV_per_A`, mean over the members that count, of all
    frames one after the other (`n_atoms` of each).

    Raises:
        ModelFileError: If the first member, or all but one, fail altogether.
    """
    from fff.selection import deviations

    frames = call.frames.read_many(call.args["frames"])
    prediction = _committee(call, 0, parcels).predict([frame.atoms for frame in frames], features=True)
    if prediction.features is None or len(prediction.members_used) < FEWEST_MEMBERS:
        msg = f"Scoring needs the committee's first member and one more; failed: {prediction.failures}."
        raise ModelFileError(msg, hint="Look at the models' folders.", path="")
    chosen_by, max_force = np.full(len(frames), np.nan), np.full(len(frames), np.nan)
    mean_forces = [np.full(forces.shape[1:], np.nan) for forces in prediction.forces_eV_per_A]
    has_features = np.isfinite(prediction.features).all(axis=1)
    for i, finite in enumerate(prediction.is_finite.T):
        if has_features[i] and finite.sum() >= FEWEST_MEMBERS:
            forces = prediction.forces_eV_per_A[i][finite]
            found = deviations(prediction.energy_eV[finite, i], forces)
            chosen_by[i] = found.of_kind(call.settings["deviation"])
            max_force[i] = found.max_force_eV_per_A
            mean_forces[i] = forces.mean(axis=0)
    _write_npz(
        call.path("scores", f"{call.request}.npz"),
        deviation=chosen_by,
        max_force_deviation=max_force,
        features=prediction.features,
        members_used=np.array(prediction.members_used),
        energy_eV=prediction.energy_eV,
        n_atoms=np.array([len(forces) for forces in mean_forces]),
        forces_eV_per_A=np.concatenate(mean_forces),
    )
    return {"deviations": [_finite(value) for value in chosen_by]}


@_task
def choose(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any]:
    """Choose frames from those scored by the present committee; values: `frames`, most informative first."""
    from fff.selection import make_rule

    candidates: Mapping[str, Sequence[Any]] = call.args["candidates"]
    # Chunks, not frames: each file is opened once, and what was predicted stays in it.
    tables = {
        request: _read_npz(call.path("scores", f"{request}.npz"), "features", "deviation")
        for request in dict.fromkeys(request for request, _ in candidates.values())
    }
    features = np.array([tables[request]["features"][row] for request, row in candidates.values()])
    scores = np.array([tables[request]["deviation"][row] for request, row in candidates.values()])
    taken: Any = np.zeros((0, features.shape[1]))
    if call.args["taken"]:
        frames = call.frames.read_many(call.args["taken"])
        predicted = _committee(call, 0, parcels).first.predict([f.atoms for f in frames], features=True)
        taken = np.asarray(predicted.features)
        # Nothing can be told to be near a frame on which the model fails.
        taken = taken[np.isfinite(taken).all(axis=1)]
    order = make_rule(call.settings["selection"])(scores, features, taken, call.args["n"], call.args["seed"])
    names = list(candidates)
    return {"frames": [names[index] for index in order]}


@_task
def evaluate(call: Call, parcels: Sequence[Parcel]) -> dict[str, Any]:
    """Measure a committee's mean prediction on the test set.

    Values: those of `force_accuracy`, and `members_used`: a member that fails on one of the structures counts
    for none, since a mean over other members from structure to structure is no committee's.

    Writes `scores/<request>.npz`, for reports: `structures` (hashes), `n_atoms`, `members_used`, `energy_eV`
    of those members, `forces_eV_per_A`, their mean, and `force_deviation_eV_per_A` (NaN where there is one
    member), of all atoms one structure after the other, and `features` of the member `features_member`, the
    one that `features.npz` is of: NaN where it gives none, without columns where it is not in the committee.

    Raises:
        ModelFileError: If no member gives finite numbers for all of them.
    """
    labels = [
        label for file in call.args["files"] for label in labels_from_bytes(call.path(file).read_bytes())
    ]
    place = _place_of(MAPPED_MEMBER, call.models[0])
    prediction = _committee(call, 0, parcels).predict(
        [label.atoms for label in labels], features=place is not None, features_of=place or 0
    )
    is_sound = prediction.is_finite.all(axis=1)
    if not is_sound.any():
        n_failed = (~prediction.is_finite).sum(axis=1).tolist()
        msg = (
            f"No member gives finite numbers for all {len(labels)} test structures; the members "
            f"{prediction.members_used} fail on {n_failed} of them."
        )
        raise ModelFileError(msg, hint="Look at the test structures, and at the models.", path="")
    energy = prediction.energy_eV[is_sound]
    forces = [forces[is_sound] for forces in prediction.forces_eV_per_A]
    mean_forces = [of_members.mean(axis=0) for of_members in forces]
    errors = force_accuracy(labels, energy.mean(axis=0), mean_forces)
    used = [member for member, sound in zip(prediction.members_used, is_sound, strict=True) if sound]
    # Energies are large, and their differences count; forces are what single precision is enough for.
    _write_npz(
        call.path("scores", f"{call.request}.npz"),
        structures=_hashes(labels),
        n_atoms=np.array([len(label.atoms) for label in labels]),
        members_used=np.array(used),
        energy_eV=energy,
        forces_eV_per_A=np.concatenate(mean_forces).astype("f4"),
        force_deviation_eV_per_A=np.concatenate([_deviation_of_atoms(part) for part in forces]).astype("f4"),
        features_member=np.array(MAPPED_MEMBER),
        features=np.full((len(labels), 0), np.nan, "f4")
        if prediction.features is None
        else prediction.features.astype("f4"),
    )
    return {**errors, "members_used": used}


def _place_of(member: int, key: str) -> int | None:
    """Return where a committee, whose key names its members in order of arrival, lists one of them."""
    listed = key.rpartition(":")[2].split("-")
    return listed.index(str(member)) if str(member) in listed else None


def _deviation_of_atoms(forces: Float[np.ndarray, "n_members n_atoms 3"]) -> Float[np.ndarray, " n_atoms"]:
    return force_deviation(forces) if len(forces) >= FEWEST_MEMBERS else np.full(forces.shape[1], np.nan)


# --- Calculator -----------------------------------------------------------------------------------------

_references: dict[str, ReferenceProcess] = {}


def _reference(call: Call) -> ReferenceProcess:
    """Return this worker's warm child process for the reference method."""
    from fff.reference import ReferenceProcess

    settings = dict(call.settings["reference"])
    key = json.dumps([call.run_dir, settings], sort_keys=True)
    if key not in _references:
        _references[key] = ReferenceProcess(
            settings, time_limit_s=settings["time_limit_s"], work_dir=call.path("tasks")
        )
    return _references[key]


@_task
def calculate(call: Call, _parcels: Sequence[Parcel]) -> dict[str, Any]:
    """Label one frame; values: the file of the label and, for an audit, the errors of the driving model.

    The main process moves the label into `labels.db`; the errors are energy (eV/atom, absolute) and force
    (eV/Å, root mean square over components).
    """
    frame = call.frames.read(call.args["frame"])
    file = call.path("tasks", f"{call.request}.npz")
    label = _calculated_before(file, frame)
    if label is None:
        with leased(call.slots, call.settings["mpi_launch"]) as launch:
            label = _reference(call).calculate(frame.atoms, call.request, launch)
        write_bytes(file, labels_to_bytes([label]))
    values = {"file": str(file.relative_to(call.run_dir)), "wall_s": round(label.wall_s, 4)}
    if call.args["source"] == "audit":
        errors = audit_frame(frame, label, call.args["energy_shifts_eV"])
        values |= {"energy_error": errors.energy_eV_per_atom, "force_error": errors.force_eV_per_A}
    return values


_UNREADABLE = (*UNPACKABLE, OSError)


def _calculated_before(file: Path, frame: Frame) -> Label | None:
    """Return the label that a worker wrote before the campaign was killed, or None.

    The main process takes such a file away as soon as its label is in the database.
    """
    try:
        (label,) = labels_from_bytes(file.read_bytes())
    except _UNREADABLE:
        return None
    return label if label.hash == frame.hash else None


@_task
def reference_dynamics(call: Call, _parcels: Sequence[Parcel]) -> dict[str, Any] | None:
    """Run dynamics driven by the reference itself; values: the file with the labels, under `test/`."""
    from fff.sampling import reference_dynamics as run

    test = call.settings["test"]
    with leased(call.slots, call.settings["mpi_launch"]) as launch:
        labels = run(
            call.frames.read(call.args["frame"]).atoms,
            _reference(call).ase_calculator(call.request, launch),
            temperature_K=call.args["temperature_K"],
            n_frames=call.args["n_frames"],
            interval_steps=test["interval_steps"],
            timestep_fs=test["timestep_fs"],
            equilibration_steps=test["equilibration_steps"],
            seed=call.args["seed"],
            lifetime=(lifetime := _lifetime(call)),
        )
    if labels is None:
        return None
    labels = [replace(label, segment=call.request) for label in labels]
    file = call.path("test", f"{call.request}.npz")
    write_bytes(file, labels_to_bytes(labels))
    shutil.rmtree(lifetime.folder, ignore_errors=True)
    return {"file": str(file.relative_to(call.run_dir)), "n_frames": len(labels)}


def _write_npz(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def _read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "train": train,
    "train-baseline": train_baseline,
    "refit": refit,
    "dynamics": dynamics,
    "score": score,
    "choose": choose,
    "evaluate": evaluate,
    "calculate": calculate,
    "reference-dynamics": reference_dynamics,
}
"""The function of each kind of request."""
