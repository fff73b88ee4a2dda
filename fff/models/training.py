"""Training of one member: loss, loop, when to stop, what comes back."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fff.base.draws import seed_for
from fff.base.errors import TrainingError
from fff.base.ids import settings_hash, sha256_bytes
from fff.data.atomic_energies import sum_atomic_energies
from fff.models.batches import Batch, check_elements, chunks_by_pairs, join, max_pairs, prepare
from fff.models.bootstrap import Split, split_labels
from fff.models.files import HISTORY
from fff.models.force_field import (
    SchNetPackForceField,
    create_force_field,
    load_force_field,
    with_reference_energies,
)
from fff.models.networks import Evaluation, evaluate
from fff.models.optimiser import FlatAdam
from fff.stages import DIAGNOSIS, NonFinite, StageBuilder, State, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fff.data.records import Label
    from fff.models.batches import PreparedStructures
    from fff.models.networks import Network
    from fff.stages import Lifetime

__all__ = ["TrainedMember", "train_member"]

_HISTORY = {
    "epoch": "",
    "wall": "s",
    "learning_rate": "",
    "train_loss": "",
    "validation_score": "",
    "validation_force_mae": "eV/Å",
}

# Part of a checkpoint's identity: to be raised when the loop below makes other numbers of the same state.
_LOOP_VERSION = 1

_LABELS_IN_DIAGNOSIS = 20


@dataclass(frozen=True)
class TrainedMember:
    """What a training gives back.

    Attributes:
        files: `model.json`, `weights.safetensors`, `history.csv`; and `diagnosis.json` where the training
            ended since its numbers were not finite any more.
        summary: Small and JSON-able: `epochs`, `best_epoch`, `steps`, `n_train`, `n_validation`, `wall_s`,
            `stop_reason` (`max-epochs`, `early-stopping`, `learning-rate`, `time-limit`, `non-finite`) and
            `train_force_mae_eV_per_A`, `validation_force_mae_eV_per_A` (None without left-out labels).
    """

    files: dict[str, bytes]
    summary: dict[str, Any]


def train_member(  # noqa: PLR0913 - what a training depends on, all of it
    labels: Sequence[Label],
    *,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
    split_seed: int | None = None,
    reference_energies: Mapping[int, float],
    start: Mapping[str, bytes] | None = None,
    bootstrap: bool = True,
    device: torch.device | str | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    lifetime: Lifetime | None = None,
) -> TrainedMember | None:
    """Train one member of a committee on a draw of the labels.

    On a CPU the same arguments give the same numbers, for one number of threads, in one sitting or in many.

    Args:
        labels: All labels; `split_labels` draws from them.
        model: The config's section `model`; not used for a member that goes on from `start`.
        training: The config's section `training`.
        seed: Of the fresh parameters and the order of batches.
        split_seed: Of the draw of labels; the same for a member in all rounds, so that what it leaves out
            stays left out. `seed` when not given.
        reference_energies: In eV, by atomic number; the same for all members of a round.
        start: Files of the member to go on from.
        bootstrap: Whether to draw labels with replacement.
        device: Where to compute; the first accelerator, else the CPU, when not given.
        progress: Called after each evaluation with a line of the history.
        lifetime: Lets the training outlive its process: it goes on from its newest checkpoint, and its
            history can be read while it grows. Its time limit counts all sittings. None for no files.

    Returns:
        The averaged parameters of the best epoch on the left-out labels, with a summary. None when stopped on
        request; its checkpoint is written.

    Raises:
        TrainingError: If there are no labels, or numbers stopped being finite before a usable state.
        ModelFileError: If `start` is damaged.
        OSError: If it was to stop and the checkpoint could not be written.
        StructureError: If an element is heavier than the network allows.
    """
    began = time.monotonic()
    if not labels:
        msg = "Training needs labels; there are none."
        raise TrainingError(msg)
    elements = sorted({int(z) for label in labels for z in label.atoms.numbers})
    if start is None:
        force_field = create_force_field(
            model, seed=seed, elements=elements, reference_energies=reference_energies, device=device
        )
    else:
        energies = {**dict.fromkeys(elements, 0.0), **reference_energies}
        force_field = with_reference_energies(load_force_field(start, device), energies)
    split = split_labels(labels, seed=seed if split_seed is None else split_seed, bootstrap=bootstrap)
    data = _TrainingData.of(labels, force_field)
    run = _Run(force_field.network, data, split, training, seed=seed, began=began, progress=progress)
    result = (
        StageBuilder()
        .named("The training")
        .identified_by(_identity(data, split, force_field, training, seed) if lifetime else "")
        .steps(run.steps)
        .state(save=run.save, restore=run.restore)
        .writes(run.history)
        .lives(lifetime)
        .build()
        .run()
    )
    if result.status == "stopped":
        return None
    run.finish(result.diagnosis)
    return _pack(force_field, run, result.diagnosis)


def _identity(
    data: _TrainingData,
    split: Split,
    force_field: SchNetPackForceField,
    training: Mapping[str, Any],
    seed: int,
) -> str:
    """Return a hash of all that decides the numbers of a training.

    The untrained force field stands for what made it: settings and seed, or the files of a member, and the
    reference energies. The time limit does not count: with a longer one a training may go on.
    """
    labels = hashlib.blake2b(digest_size=12)
    for label in data.labels:
        labels.update(f"{label.hash} {float(label.energy_eV).hex()}".encode())
        labels.update(np.ascontiguousarray(label.forces_eV_per_A, dtype="<f8").tobytes())
    files = force_field.to_files()
    return settings_hash(
        {
            "loop_version": _LOOP_VERSION,
            "labels": labels.hexdigest(),
            "split": [split.training, split.validation],
            "start": {name: sha256_bytes(content) for name, content in files.items()},
            "training": {key: value for key, value in training.items() if key != "time_limit_s"},
            "seed": seed,
        }
    )


def _pack(force_field: SchNetPackForceField, run: _Run, diagnosis: Mapping[str, Any]) -> TrainedMember:
    split = run.split
    unique = sorted(set(split.training))
    validation = run.measure(split.validation).force_mae if split.validation else None
    summary: dict[str, Any] = {
        "epochs": run.epoch,
        "best_epoch": run.best_epoch,
        "steps": run.optimiser.n_steps,
        "n_train": len(unique),
        "n_validation": len(split.validation),
        "stop_reason": run.stop_reason,
        "train_force_mae_eV_per_A": run.measure(unique).force_mae,
        "validation_force_mae_eV_per_A": validation,
        "wall_s": round(run.wall_s, 3),
    }
    trained = SchNetPackForceField(force_field.network, {**force_field.description, "training": summary})
    files = {**trained.to_files(), HISTORY: run.history.text().encode()}
    if diagnosis:
        files[DIAGNOSIS] = (json.dumps(diagnosis, indent=1, allow_nan=False) + "\n").encode()
    return TrainedMember(files=files, summary=summary)


def _badness(errors: Mapping[str, Any]) -> float:
    worst = float(errors["force_error_eV_per_A"])
    return math.inf if math.isnan(worst) else worst


@dataclass(frozen=True)
class _TrainingData:
    """All labels as tensors; energies without their reference energies, which are far larger."""

    labels: Sequence[Label]
    prepared: PreparedStructures
    energies: torch.Tensor
    forces: list[torch.Tensor]

    @classmethod
    def of(cls, labels: Sequence[Label], force_field: SchNetPackForceField) -> _TrainingData:
        structures = [label.atoms for label in labels]
        check_elements(structures, force_field.elements)
        device = force_field.device
        energies = np.array([label.energy_eV for label in labels])
        energies -= sum_atomic_energies(structures, force_field.reference_energies_eV)
        forces = [label.forces_eV_per_A.astype(np.float32) for label in labels]
        if not (np.isfinite(energies).all() and all(np.isfinite(part).all() for part in forces)):
            msg = "Some labels have energies or forces that are not finite."
            raise TrainingError(msg, hint="Take these labels out.")
        return cls(
            labels=labels,
            prepared=prepare(structures, force_field.cutoff_A, device),
            energies=torch.as_tensor(energies.astype(np.float32), device=device),
            forces=[torch.as_tensor(part, device=device) for part in forces],
        )

    def batch(self, indices: Sequence[int]) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """Return the graph, the energies and the forces of these labels."""
        which = torch.tensor(indices, device=self.energies.device)
        batch = join(self.prepared, indices)
        return batch, self.energies.index_select(0, which), torch.cat([self.forces[i] for i in indices])


@dataclass(frozen=True)
class _Measure:
    """Errors over some labels.

    Attributes:
        score: What epochs are compared by: absolute errors of energies per atom and of force components,
            weighted as in the loss. Squared ones would let the strangest structure left out decide alone.
        force_mae: Mean absolute error of force components in eV/Å.
    """

    score: float
    force_mae: float


@dataclass
class _Run:
    """One training in progress."""

    network: Network
    data: _TrainingData
    split: Split
    settings: Mapping[str, Any]
    seed: int
    began: float
    progress: Callable[[dict[str, Any]], None] | None
    epoch: int = 0
    best_epoch: int = 0
    stop_reason: str = ""

    def __post_init__(self) -> None:
        self.network.requires_grad_(True)
        self.history = Table(HISTORY, _HISTORY)
        self.optimiser = FlatAdam(
            self.network,
            learning_rate=float(self.settings["learning_rate"]),
            gradient_clip=float(self.settings["gradient_clip"]),
            ema_decay=float(self.settings["ema_decay"]),
        )
        self._random = np.random.default_rng(seed_for(self.seed, "batches"))
        # The labels in the order of the present epoch, how many of its batches are done, and their losses.
        self._order = np.zeros(0, dtype=np.int64)
        self._n_done = 0
        self._total = 0.0
        self._best: torch.Tensor | None = None
        self._best_loss = math.inf
        self._last_better = 0
        self._last_cut = 0

    @property
    def wall_s(self) -> float:
        """What the training has taken, in all its sittings."""
        return time.monotonic() - self.began

    def steps(self) -> Iterator[int | NonFinite]:
        """Go through epochs, a batch at a time, until something ends it; see `Stage`."""
        self._sound = self.save()
        while not self.stop_reason:
            if not len(self._order):
                if self.epoch >= int(self.settings["max_epochs"]):
                    self.stop_reason = "max-epochs"
                    return
                self._begin_epoch()
            diagnosis = None
            for indices in self._batches()[self._n_done :]:
                diagnosis = self._learn(indices.tolist())
                if diagnosis is not None:
                    break
                yield self.optimiser.n_steps
            else:
                diagnosis = self._judge()
            if diagnosis is not None:
                self.stop_reason = "non-finite"
                self._put(self._sound)
                yield NonFinite(self.optimiser.n_steps, diagnosis)

    def finish(self, diagnosis: Mapping[str, Any]) -> None:
        """Leave the best averaged parameters in the network.

        Raises:
            TrainingError: If there are none.
        """
        if self._best is None:
            msg = f"The loss was not finite in epoch {self.epoch}, before there was a usable state."
            raise TrainingError(
                msg,
                hint="Lower training.learning_rate, or look for labels with huge forces.",
                epoch=self.epoch,
                diagnosis=dict(diagnosis),
            )
        self.optimiser.load(self._best)
        self.network.requires_grad_(False)

    def save(self) -> State:
        """Return all that the steps to come depend on."""
        arrays = {**self.optimiser.arrays(), "order": self._order}
        if self._best is not None:
            arrays["best"] = self._best.cpu().numpy()
        values = {
            "n_steps": self.optimiser.n_steps,
            "learning_rate": self.optimiser.learning_rate,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self._best_loss if self._best is not None else None,
            "last_better": self._last_better,
            "last_cut": self._last_cut,
            "n_done": self._n_done,
            "total": self._total,
            "random": self._random.bit_generator.state,
            "wall_s": self.wall_s,
        }
        return State(arrays, values)

    def restore(self, state: State) -> None:
        """Go on from a state that another sitting saved; what that one took counts."""
        self._put(state)
        self.began -= state.values["wall_s"]

    def _put(self, state: State) -> None:
        values = state.values
        self.optimiser.restore(state.arrays, n_steps=values["n_steps"], learning_rate=values["learning_rate"])
        self._order = state.arrays["order"]
        best = state.arrays.get("best")
        self._best = None if best is None else torch.as_tensor(best, device=self.optimiser.flat.device)
        self._best_loss = math.inf if values["best_loss"] is None else values["best_loss"]
        self.epoch, self.best_epoch = values["epoch"], values["best_epoch"]
        self._last_better, self._last_cut = values["last_better"], values["last_cut"]
        self._n_done, self._total = values["n_done"], values["total"]
        self._random.bit_generator.state = values["random"]

    def _begin_epoch(self) -> None:
        self.epoch += 1
        self._order = self._random.permutation(np.array(self.split.training))
        self._n_done, self._total = 0, 0.0
        self._sound = self.save()

    def _batches(self) -> list[np.ndarray]:
        """Return the labels of each batch of this epoch."""
        n_batches = math.ceil(len(self._order) / int(self.settings["batch_size"]))
        # Batches of nearly equal size: a last batch of one structure would step as far as a full one.
        return np.array_split(self._order, n_batches)

    def _learn(self, indices: list[int]) -> dict[str, Any] | None:
        """Take one step; without one, return a diagnosis if the loss is not finite."""
        batch, energies, forces = self.data.batch(indices)
        result = evaluate(
            self.network, batch.numbers, batch.first, batch.second, batch.vectors, training=True
        )
        loss = self._loss(batch, result, energies, forces)
        value = float(loss.detach())
        if not math.isfinite(value):
            return self._diagnose("batch", value, indices)
        gradients = torch.autograd.grad(
            loss, self.optimiser.parameters, allow_unused=True, materialize_grads=True
        )
        self.optimiser.step(gradients)
        self._total += value * len(indices)
        self._n_done += 1
        return None

    def _loss(
        self, batch: Batch, result: Evaluation, energies: torch.Tensor, forces: torch.Tensor
    ) -> torch.Tensor:
        """Mean squared errors of energies per atom and of force components, weighted."""
        n_atoms = batch.n_atoms.to(energies.dtype)
        predicted = torch.zeros_like(energies).index_add(0, batch.structure, result.atomic_energies_eV)
        energy_error = ((predicted - energies) / n_atoms).square().mean()
        force_error = (result.forces_eV_per_A - forces).square().mean()
        return self._weight("energy") * energy_error + self._weight("force") * force_error

    def _weight(self, of: str) -> float:
        return float(self.settings[f"{of}_weight"])

    def _judge(self) -> dict[str, Any] | None:
        """End the epoch: evaluate, keep the best, lower the learning rate on a plateau, see whether to go on.

        Returns:
            A diagnosis if something is not finite.
        """
        train_loss = self._total / len(self._order)
        validation = self.split.validation
        with self.optimiser.averaged():
            measure = self.measure(validation) if validation else None
        loss = measure.score if measure else train_loss
        if not (math.isfinite(loss) and bool(torch.isfinite(self.optimiser.average).all())):
            return self._diagnose("epoch", loss, validation)
        # Without left-out labels the last state is as good as any: there is nothing to choose by.
        if loss < self._best_loss or measure is None:
            self._best = self.optimiser.average.clone()
            self.best_epoch = self.epoch
        if loss < self._best_loss:
            self._best_loss = loss
            self._last_better = self.epoch
        self._record(train_loss, measure)
        self._schedule()
        self._order = self._order[:0]
        return None

    def _schedule(self) -> None:
        """Lower the learning rate where due, and say why the training ends where it does."""
        settings = self.settings
        if self.epoch - max(self._last_better, self._last_cut) >= int(settings["plateau_patience"]):
            self.optimiser.learning_rate *= float(settings["plateau_factor"])
            self._last_cut = self.epoch
        if self.epoch - self._last_better >= int(settings["stop_patience"]):
            self.stop_reason = "early-stopping"
        elif self.optimiser.learning_rate < float(settings["min_learning_rate"]):
            self.stop_reason = "learning-rate"
        elif self.wall_s > float(settings["time_limit_s"]):
            self.stop_reason = "time-limit"

    def _record(self, train_loss: float, measure: _Measure | None) -> None:
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "wall_s": self.wall_s,
            "learning_rate": self.optimiser.learning_rate,
            "train_loss": train_loss,
            "validation_score": measure.score if measure else None,
            "validation_force_mae_eV_per_A": measure.force_mae if measure else None,
        }
        self.history.append(*row.values())
        if self.progress:
            self.progress(row)

    def _diagnose(self, found_in: str, loss: float, indices: Sequence[int]) -> dict[str, Any]:
        """Return what a person needs to find out why a loss is not finite, worst labels first."""
        optimiser = self.optimiser
        labels = sorted((self._errors(index) for index in indices), key=_badness, reverse=True)
        return {
            "found_in": found_in,
            "epoch": self.epoch,
            "batch": self._n_done + 1,
            "batches": len(self._batches()),
            "step": optimiser.n_steps,
            "loss": loss,
            "learning_rate": optimiser.learning_rate,
            "last_gradient_norm": float(optimiser.gradient_norm),
            "gradient_clip": optimiser.gradient_clip,
            "largest_parameter": float(optimiser.flat.abs().max()),
            "largest_averaged_parameter": float(optimiser.average.abs().max()),
            "last_finite_epoch": self.history.last,
            "best_epoch": self.best_epoch,
            "labels": labels[:_LABELS_IN_DIAGNOSIS],
        }

    def _errors(self, index: int) -> dict[str, Any]:
        label = self.data.labels[index]
        batch, energies, forces = self.data.batch([index])
        result = evaluate(self.network, batch.numbers, batch.first, batch.second, batch.vectors)
        predicted = result.atomic_energies_eV.sum()
        return {
            "index": index,
            "hash": label.hash,
            "segment": label.segment,
            "formula": str(label.atoms.symbols),
            "max_force_eV_per_A": float(np.linalg.norm(label.forces_eV_per_A, axis=1).max()),
            "energy_error_eV_per_atom": float((predicted - energies[0]).abs()) / len(label.atoms),
            "force_error_eV_per_A": float((result.forces_eV_per_A - forces).abs().max()),
        }

    def measure(self, indices: Sequence[int]) -> _Measure:
        """Return the errors of the network as it is over these labels."""
        energy_absolute, force_absolute, n_components = 0.0, 0.0, 0
        for chunk in chunks_by_pairs(self.data.prepared, indices, max_pairs(self.data.energies.device)):
            batch, energies, forces = self.data.batch(chunk)
            result = evaluate(self.network, batch.numbers, batch.first, batch.second, batch.vectors)
            predicted = torch.zeros_like(energies).index_add(0, batch.structure, result.atomic_energies_eV)
            energy_absolute += float(((predicted - energies) / batch.n_atoms).abs().sum())
            error = result.forces_eV_per_A - forces
            force_absolute += float(error.abs().sum())
            n_components += error.numel()
        force_mae = force_absolute / n_components
        score = self._weight("energy") * energy_absolute / len(indices) + self._weight("force") * force_mae
        return _Measure(score=score, force_mae=force_mae)
