"""What travels with requests and comes back with results: frames, models, labels, training sets."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fff.base.files import inside, write_json
from fff.base.ids import settings_hash, sha256_bytes
from fff.compute.tasks import MESSAGE_LENGTH, Call, overtime_note
from fff.data.packing import labels_from_bytes, labels_to_bytes
from fff.models import fit_reference_energies
from fff.steering.records import LOST, MAX_LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set
    from pathlib import Path

    from colmena.models import Result
    from proxystore.proxy import Proxy

    from fff.compute.parcels import Parcel
    from fff.compute.stores import ModelShelf
    from fff.config import ActiveLearningConfig
    from fff.data.labels import LabelStore
    from fff.data.records import Label
    from fff.data.run_directory import RunDirectory
    from fff.reference import ReferenceMethod
    from fff.steering.records import Request

__all__ = ["Cargo", "note_committee"]

LARGEST_TOLD = 1_000
"""Bytes of JSON that a message carries itself; more arguments and settings travel as a parcel."""

SETTINGS = {
    "train": ("model", "training"),
    "train-baseline": ("model", "training"),
    "dynamics": ("sampling",),
    "choose": ("selection",),
    "calculate": ("reference",),
    "reference-dynamics": ("reference", "test"),
}
"""Sections of the config that a kind of task is told."""

_WORKERS_LOST = "ManagerLost("
"""How Colmena tells Parsl's error for all tasks of a block; that of one worker alone is a `WorkerLost`."""

_SPARE = 1.1
_SPARE_S = 300.0
# Tasks that have a time limit of their own end in order; what is left then hangs.


class TrainingSets(Protocol):
    """What a policy says about training sets."""

    def training_set(self, n: int) -> Sequence[str]:
        """Return the ids of the first `n` labels."""
        ...

    def baseline_files(self) -> Sequence[str]:
        """Return the files with the random frames of the comparison."""
        ...


class Cargo:
    """Loads and unloads requests. Nothing here is done under the Thinker's lock; any thread may call.

    Args:
        run: The run directory.
        config: The config.
        shelf: Holds what travels as proxies.
        labels: The labels; this process is their only writer.
        policy: Knows what the training sets consist of.
        method: The reference method; rows of the database carry its name and the hash of its settings.
        hashes: Hashes of the members so far, by folder; new ones are added.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: ActiveLearningConfig,
        shelf: ModelShelf,
        labels: LabelStore,
        policy: TrainingSets,
        method: ReferenceMethod,
        hashes: dict[str, str],
    ) -> None:
        self.run = run
        self._config = config.model_dump(mode="json")
        self._shelf = shelf
        self._labels = labels
        self._policy = policy
        self._live: frozenset[str] = frozenset()
        self._live_seq = -1
        self._live_lock = threading.Lock()
        self._hashes = hashes
        self._method = method

    def load(self, request: Request) -> tuple[Call, list[Proxy[Parcel]]]:
        """Return what the task is told, and proxies of all that it names."""
        keys = list(request.models)
        told = {"args": dict(request.args), "settings": self._settings(request.kind)}
        text = json.dumps(told).encode()
        if len(text) > LARGEST_TOLD:
            told = {"args": {}, "settings": {}}
            keys.append(f"told:{request.id}")
        proxies = [self._shelf.acquire(key, self._maker(key, text)) for key in keys]
        call = Call(
            request=request.id,
            run_dir=str(self.run.path),
            models=tuple(keys),
            slots=request.slots,
            limit_s=self._limit_s(request),
            **told,
        )
        return call, proxies

    def unload(self, request: Request, values: Mapping[str, Any], outcome: str) -> None:
        """Bring the data of a result to rest, before its event is written."""
        if outcome == "done":
            if request.kind == "calculate":
                self._keep_label(request, values)
            elif request.kind == "train":
                self.note_model(request, values)

    def note_model(self, request: Request, values: Mapping[str, Any]) -> None:
        """Remember the hash of a member: rows of the database say which one drove the dynamics."""
        self._hashes[request.args["directory"]] = f"sha256:{values['sha256']}"

    def explain_loss(self, request: Request, call: Call, result: Result) -> dict[str, Any]:
        """Return the envelope of a task that gave none: its worker died, was killed, or is out of reach."""
        failure_class, message = self._find_loss(request, call, result)
        return {
            "outcome": "failed",
            "values": {
                "failure_class": failure_class,
                "error": "LostTask",
                "message": message[:MESSAGE_LENGTH],
            },
        }

    def _find_loss(self, request: Request, call: Call, result: Result) -> tuple[str, str]:
        """Return the failure class of a task that gave no result, and a sentence about it."""
        note = overtime_note(call)
        # One that an earlier attempt has left says nothing about this one.
        if note.is_file() and note.stat().st_mtime > (result.timestamp.created or 0.0):
            return "retry", (
                f"{call.request} did not end within {call.limit_s:.0f} s, so its worker was killed; "
                f"{note.relative_to(self.run.path)} says where it was."
            )
        if result.failure_info is None:
            return "retry", "The task ended without a result."
        exception = result.failure_info.exception
        if not exception.startswith(_WORKERS_LOST):
            return "retry", exception
        n_losses = request.losses + 1
        if n_losses < MAX_LOSSES:
            return LOST, f"The workers that ran {request.id} went away with it: {exception}."
        return LOST, (
            f"{request.id} was lost {n_losses} times in a row with the workers that ran it: it never ended "
            f"within a block. Is the `walltime` of its nodes long enough? The last loss: {exception}."
        )

    def release(self, call: Call) -> None:
        """Note that a request has ended: what it named may go unless others need it."""
        for key in call.models:
            self._shelf.release(key)

    def read_values(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of an envelope, from the file that holds them when they were many.

        Raises:
            ValueError: If that file is not what the worker wrote.
        """
        values = dict(envelope["values"])
        if "values_file" not in values:
            return values
        path = inside(self.run.path, values["values_file"])
        data = path.read_bytes()
        if sha256_bytes(data) != values["sha256"]:
            msg = f"The file {path} was changed after the worker wrote it."
            raise ValueError(msg)
        path.unlink()
        return dict(json.loads(data))

    def set_live(self, live: Set[str], seq: int) -> None:
        """Let go what later requests cannot name any more, and name the present committee on disk.

        Args:
            live: Keys that later requests may name.
            seq: Sequence number of the event after which this is so; news older than the last is no news.
        """
        with self._live_lock:
            if seq <= self._live_seq:
                return
            self._live_seq = seq
            self._shelf.keep(live)
            for key in live - self._live:
                note_committee(self.run, key)
            self._live = frozenset(live)

    def _settings(self, kind: str) -> dict[str, Any]:
        settings = {section: self._config[section] for section in SETTINGS.get(kind, ())}
        if kind == "score":
            settings["deviation"] = self._config["selection"]["deviation"]
        if "reference" in settings:
            settings["mpi_launch"] = self._config["site"]["mpi_launch"]
        return settings

    def _limit_s(self, request: Request) -> float:
        """Return after how many seconds a task hangs rather than works."""
        reference_s = float(self._config["reference"]["time_limit_s"])
        if request.kind == "calculate":
            return reference_s + _SPARE_S
        if request.kind == "reference-dynamics":
            test = self._config["test"]
            steps = test["equilibration_steps"] + request.args["n_frames"] * test["interval_steps"]
            return float(steps * reference_s + _SPARE_S)
        section = {"train": "training", "train-baseline": "training", "dynamics": "sampling"}
        limit_s = float(self._config[section.get(request.kind, "selection")]["time_limit_s"])
        return _SPARE * limit_s + _SPARE_S

    def _maker(self, key: str, told: bytes) -> Callable[[], Parcel]:
        kind, _, rest = key.partition(":")
        if kind == "told":
            return lambda: {"told.json": told}
        if kind == "labels":
            return lambda: self._training_parcel(self._read_labels(int(rest)))
        if kind == "baseline":
            return lambda: self._training_parcel(self._read_baseline(int(rest)))
        return lambda: read_models(self.run.models, member_folders(key))

    def _read_labels(self, n: int) -> list[Label]:
        return self._labels.read(self._policy.training_set(n))

    def _read_baseline(self, n: int) -> list[Label]:
        labels: list[Label] = []
        for file in sorted(self._policy.baseline_files()):
            labels += labels_from_bytes(inside(self.run.path, file).read_bytes())
        return labels[:n]

    def _training_parcel(self, labels: Sequence[Label]) -> Parcel:
        # Fitted once per round: the same for all members.
        energies = {str(z): energy for z, energy in fit_reference_energies(labels).items()}
        return {
            "labels.npz": labels_to_bytes(labels),
            "reference_energies.json": json.dumps(energies).encode(),
        }

    def _keep_label(self, request: Request, values: Mapping[str, Any]) -> None:
        path = inside(self.run.path, values["file"])
        (label,) = labels_from_bytes(path.read_bytes())
        args = request.args
        driver = args.get("model", "")
        self._labels.add(
            request.id,
            label,
            source=args["source"],
            method=self._method.name,
            settings=settings_hash(self._method.settings),
            segment=args["segment"],
            wall_s=values["wall_s"],
            trajectory=f"t{args['trajectory']:03d}" if "trajectory" in args else None,
            round=args["round"] if args["round"] >= 0 else None,
            model=self._hashes.get(_directory(driver)) or driver or None,
            **self._prediction(args),
        )
        path.unlink()

    def _prediction(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was predicted before the label was known: by the committee, or by the driving model."""
        if args.get("score"):
            file, row = args["score"]
            with np.load(inside(self.run.scores, f"{file}.npz"), allow_pickle=False) as score:
                ends = np.cumsum(score["n_atoms"])
                return {
                    # Whatever it was chosen by: one quantity in the whole database.
                    "deviation": float(score["max_force_deviation"][row]),
                    "predicted_energy_eV": score["energy_eV"][:, row],
                    "predicted_forces": score["forces_eV_per_A"][
                        ends[row] - score["n_atoms"][row] : ends[row]
                    ],
                    "features": score["features"][row],
                }
        if args["source"] == "audit":
            frame = self.run.frames.read(args["frame"])
            return {
                "deviation": args["deviation"],
                "predicted_energy_eV": frame.energy_eV,
                "predicted_forces": frame.forces_eV_per_A,
            }
        return {}


def note_committee(run: RunDirectory, key: str) -> None:
    """Name the committee of a key on disk as the present one; other keys mean nothing here."""
    if key.startswith("committee:"):
        write_json(run.committee, {"schema_version": 1, "members": member_folders(key)})


def member_folders(key: str) -> list[str]:
    """Return the folders under `models/` that a key names.

    Example:
        >>> member_folders("committee:round-003:0-2")
        ['round-003/member-0', 'round-003/member-2']
        >>> member_folders("start")
        ['start']
    """
    if key == "start":
        return ["start"]
    _, folder, members = key.split(":")
    return [f"{folder}/member-{member}" for member in members.split("-")]


def read_models(models: Path, folders: Sequence[str]) -> Parcel:
    """Return the files of several members; the folder of a given model is read with all its members."""
    parcel: Parcel = {}
    for folder in folders:
        found = sorted(inside(models, folder).rglob("model.json"))
        for description in found:
            for file in (description, description.with_name("weights.safetensors")):
                parcel[str(file.relative_to(models))] = file.read_bytes()
    return parcel


def _directory(key: str) -> str:
    return member_folders(key)[0] if key.startswith("member:") else ""
