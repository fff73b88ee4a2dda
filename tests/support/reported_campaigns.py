"""Run directories for reports: small, made by hand in milliseconds, with everything a report can show."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.build import molecule

from fff.config import config_from_dict
from fff.data.accuracy import force_accuracy
from fff.data.events import Event, EventLog
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.records import Label
from fff.data.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

STARTED = 1.7e9
N_ROUNDS = 3
N_TEST = 12
SETTINGS = {
    "name": "ethanol",
    "structures": ["molecule:CH3CH2OH"],
    "reference": {"kind": "xtb"},
    "sampling": {"temperature_K": [300.0, 600.0]},
    "training": {"retrain_every": 8},
    "stop": {"max_labels": 24},
    "site": {"kind": "laptop", "n_workers": 2},
}


class ReportedCampaign:
    """A finished campaign's files. Change them, then have the report written.

    Args:
        path: The run directory.
        **settings: Sections of the config that differ from `SETTINGS`.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.run = RunDirectory(path)
        path.mkdir(parents=True)
        self._random = np.random.default_rng(5)
        self._now = STARTED
        self._n_events = 0
        config = config_from_dict({**SETTINGS, **settings}).model_dump(mode="json")
        self.run.config.write_text(json.dumps(config))
        self.log(
            Event(
                0,
                "opened",
                values={"config": config, "capacity": {"shared": 2}},
                times={"started": STARTED},
            )
        )
        self.test = [self.label(segment=f"testset-{i // 4}") for i in range(N_TEST)]
        self._write("test/testset-0000.npz", labels_to_bytes(self.test))
        self.labels: list[Label] = []
        for number in range(N_ROUNDS):
            for _ in range(8):
                self._add_label(number)
            self._add_round(number)
        self._add_evaluation("baseline", 24, 0.15)
        self.write_status()
        provenance = {
            "schema_version": 1,
            "seed": 0,
            "host": "here",
            "versions": {"fff": "0.1.0"},
            "resumed": [],
        }
        self.run.provenance.write_text(json.dumps(provenance))

    def label(self, segment: str = "start") -> Label:
        """Return another label of ethanol."""
        atoms = molecule("CH3CH2OH")
        atoms.positions += self._random.normal(0, 0.05, atoms.positions.shape)
        forces = self._random.normal(0, 1.0, atoms.positions.shape)
        return Label(atoms, -310.0 + self._random.normal(), forces, segment=segment, wall_s=0.5)

    def log(self, event: Event) -> None:
        """Append an event."""
        with EventLog(self.run.events) as log:
            log.append(event)
        self._n_events += 1

    def task(
        self, kind: str, request: str, took_s: float = 1.0, outcome: str = "done", **values: Any
    ) -> None:
        """Append the event of a task on one of two workers."""
        queued, started = self._now, self._now + 0.1
        self._now = started + took_s
        times = {"queued": queued, "started": started, "ended": self._now}
        worker = f"here:{100 + self._n_events % 2}"
        self.log(
            Event(self._n_events, kind, request, 1, outcome, values, times, worker, "cpu")  # type: ignore[arg-type]
        )

    def fail(self, message: str, trace: str) -> None:
        """Have a calculation fail."""
        values = {
            "failure_class": "structure",
            "error": "NotConvergedError",
            "message": message,
            "trace": trace,
        }
        self.task("calculate", f"label-9{self._n_events:04d}", 1.0, "failed", **values)

    def write_status(self, state: str = "finished", reason: str = "24 labels were made") -> None:
        """Replace the status."""
        usage = {"held_back_slot_s": 1.0}
        status = {"schema_version": 1, "state": state, "reason": reason, "updated": self._now, "usage": usage}
        self.run.status.write_text(json.dumps(status))

    def _add_label(self, number: int) -> None:
        index = len(self.labels)
        label = self.label(f"segment-{index}")
        self.labels.append(label)
        request, source = f"label-{index:05d}", ("initial", "audit", "active")[min(index // 4, 1 + index % 2)]
        told: dict[str, Any] = {}
        audit: dict[str, Any] = {}
        if source != "initial":
            temperature_K = (300.0, 600.0)[index % 4 // 2]
            last = {"id": f"dynamics-{index}:0", "hash": label.hash, "deviation": 0.3}
            self.task("dynamics", f"dynamics-{index}", 2.0, reason="completed", steps=20 + index,
                      temperature_K=temperature_K, last=last, others=[])  # fmt: skip
            noise = self._random.normal(0, 0.3, label.forces_eV_per_A.shape)
            told = {
                "deviation": float(np.abs(noise).mean()),
                "predicted_forces": label.forces_eV_per_A + noise,
                "predicted_energy_eV": np.full(2, label.energy_eV),
                "trajectory": "t001",
                "round": number,
            }
            if source == "audit":
                audit = {"energy_error": 0.004 * (1 + index % 3), "force_error": 0.2}
        self.task("calculate", request, 0.5, file="x", wall_s=0.5, **audit)
        with LabelStore(self.run.labels) as store:
            store.add(request, label, source=source, method="GFN2-xTB", **told)

    def _add_round(self, number: int) -> None:
        n_labels = len(self.labels)
        for member in range(2):
            self.task("train", f"train-r{number:03d}-m{member}", 5.0, n_train=n_labels - 4, n_validation=4)
        folder = f"models/round-{number:03d}/member-0"
        hashes = np.array([label.hash for label in self.labels], dtype="S")
        self._write_npz(
            f"{folder}/features.npz",
            structures=hashes,
            features_member=np.array(0),
            features=self._random.normal(size=(n_labels, 6)),
        )
        self._add_evaluation(f"round-{number:03d}", n_labels, 0.4 / (1 + number))

    def _add_evaluation(self, name: str, n_labels: int, error: float) -> None:
        forces = [label.forces_eV_per_A + self._random.normal(0, error, (9, 3)) for label in self.test]
        energy = np.array([label.energy_eV + 0.05 for label in self.test])
        if name == "baseline":
            self.task("train-baseline", "train-baseline-m0", 5.0, n_train=n_labels - 4, n_validation=4)
        self._write_npz(
            f"scores/evaluate-{name}.npz",
            structures=np.array([label.hash for label in self.test], dtype="S"),
            n_atoms=np.full(len(self.test), 9),
            members_used=np.array([0, 1]),
            energy_eV=np.stack([energy, energy]),
            forces_eV_per_A=np.concatenate(forces).astype("f4"),
            force_deviation_eV_per_A=self._random.uniform(0.1, 0.5, 9 * len(self.test)).astype("f4"),
            features_member=np.array(0),
            features=self._random.normal(size=(len(self.test), 6)).astype("f4"),
        )
        values = force_accuracy(self.test, energy, forces)
        self.task("evaluate", f"evaluate-{name}", 0.2, **values, members_used=[0, 1])

    def _write_npz(self, name: str, **arrays: Any) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self._write(name, buffer.getvalue())

    def _write(self, name: str, content: bytes) -> None:
        path = self.run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
