"""Training of one member: loss, loop, when to stop, what comes back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fff.base.draws import seed_for
from fff.base.errors import TrainingError
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
from fff.models.reference_energies import sum_reference_energies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fff.data.records import Label
    from fff.models.batches import PreparedStructures
    from fff.models.networks import Network

__all__ = ["TrainedMember", "train_member"]

_HISTORY_NAMES = ("epoch", "wall", "learning_rate", "train_loss", "validation_score", "validation_force_mae")
_HISTORY_UNITS = ("", "s", "", "", "", "eV/Å")


@dataclass(frozen=True)
class TrainedMember:
    """What a training gives back.

    Attributes:
        files: `model.json`, `weights.safetensors`, `history.csv`.
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
) -> TrainedMember:
    """Train one member of a committee on a draw of the labels.

    On a CPU the same arguments give the same numbers, for one number of threads.

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

    Returns:
        The averaged parameters of the best epoch on the left-out labels, with a summary.

    Raises:
        TrainingError: If there are no labels, or numbers stopped being finite before a usable state.
        ModelFileError: If `start` is damaged.
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
    run.train()
    return _pack(force_field, run, began)


def _pack(force_field: SchNetPackForceField, run: _Run, began: float) -> TrainedMember:
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
        "wall_s": round(time.monotonic() - began, 3),
    }
    trained = SchNetPackForceField(force_field.network, {**force_field.description, "training": summary})
    rows = [_HISTORY_NAMES, _HISTORY_UNITS, *(tuple(row.values()) for row in run.history)]
    history = "".join(",".join(_cell(value) for value in row) + "\n" for row in rows)
    return TrainedMember(files={**trained.to_files(), HISTORY: history.encode()}, summary=summary)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _TrainingData:
    """All labels as tensors; energies without their reference energies, which are far larger."""

    prepared: PreparedStructures
    energies: torch.Tensor
    forces: list[torch.Tensor]

    @classmethod
    def of(cls, labels: Sequence[Label], force_field: SchNetPackForceField) -> _TrainingData:
        structures = [label.atoms for label in labels]
        check_elements(structures, force_field.elements)
        device = force_field.device
        energies = np.array([label.energy_eV for label in labels])
        energies -= sum_reference_energies(structures, force_field.reference_energies_eV)
        forces = [label.forces_eV_per_A.astype(np.float32) for label in labels]
        if not (np.isfinite(energies).all() and all(np.isfinite(part).all() for part in forces)):
            msg = "Some labels have energies or forces that are not finite."
            raise TrainingError(msg, hint="Take these labels out.")
        return cls(
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
    stop_reason: str = "max-epochs"
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network.requires_grad_(True)
        self.optimiser = FlatAdam(
            self.network,
            learning_rate=float(self.settings["learning_rate"]),
            gradient_clip=float(self.settings["gradient_clip"]),
            ema_decay=float(self.settings["ema_decay"]),
        )
        self._best: torch.Tensor | None = None
        self._best_loss = math.inf
        self._last_better = 0
        self._last_cut = 0

    def train(self) -> None:
        """Go through epochs until something ends it; leaves the best averaged parameters in the network."""
        random = np.random.default_rng(seed_for(self.seed, "batches"))
        order = np.array(self.split.training)
        while self.epoch < int(self.settings["max_epochs"]):
            self.epoch += 1
            loss = self._epoch(random.permutation(order))
            if not self._judge(loss):
                break
        if self._best is None:
            msg = f"The loss was not finite in epoch {self.epoch}, before there was a usable state."
            raise TrainingError(
                msg,
                hint="Lower training.learning_rate, or look for labels with huge forces.",
                epoch=self.epoch,
            )
        self.optimiser.load(self._best)
        self.network.requires_grad_(False)

    def _epoch(self, order: np.ndarray) -> float:
        """Take one step per batch and return the mean loss; NaN as soon as one is not finite."""
        total = 0.0
        size = int(self.settings["batch_size"])
        n_batches = math.ceil(len(order) / size)
        # Batches of nearly equal size: a last batch of one structure would step as far as a full one.
        for indices in np.array_split(order, n_batches):
            batch, energies, forces = self.data.batch(indices.tolist())
            result = evaluate(
                self.network, batch.numbers, batch.first, batch.second, batch.vectors, training=True
            )
            loss = self._loss(batch, result, energies, forces)
            value = float(loss.detach())
            if not math.isfinite(value):
                return math.nan
            gradients = torch.autograd.grad(
                loss, self.optimiser.parameters, allow_unused=True, materialize_grads=True
            )
            self.optimiser.step(gradients)
            total += value * len(indices)
        return total / len(order)

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

    def _judge(self, train_loss: float) -> bool:
        """Evaluate, keep the best, lower the learning rate on a plateau; return whether to go on."""
        if not math.isfinite(train_loss):
            self.stop_reason = "non-finite"
            return False
        with self.optimiser.averaged():
            measure = self.measure(self.split.validation) if self.split.validation else None
        loss = measure.score if measure else train_loss
        if not math.isfinite(loss):
            self.stop_reason = "non-finite"
            return False
        # Without left-out labels the last state is as good as any: there is nothing to choose by.
        if loss < self._best_loss or measure is None:
            self._best = self.optimiser.average.clone()
            self.best_epoch = self.epoch
        if loss < self._best_loss:
            self._best_loss = loss
            self._last_better = self.epoch
        self._record(train_loss, measure)
        return self._schedule()

    def _schedule(self) -> bool:
        """Lower the learning rate where due, and return whether to go on."""
        settings = self.settings
        if self.epoch - max(self._last_better, self._last_cut) >= int(settings["plateau_patience"]):
            self.optimiser.learning_rate *= float(settings["plateau_factor"])
            self._last_cut = self.epoch
        if self.epoch - self._last_better >= int(settings["stop_patience"]):
            self.stop_reason = "early-stopping"
        elif self.optimiser.learning_rate < float(settings["min_learning_rate"]):
            self.stop_reason = "learning-rate"
        elif time.monotonic() - self.began > float(settings["time_limit_s"]):
            self.stop_reason = "time-limit"
        else:
            return True
        return False

    def _record(self, train_loss: float, measure: _Measure | None) -> None:
        row: dict[str, Any] = {
            "epoch": self.epoch,
            "wall_s": time.monotonic() - self.began,
            "learning_rate": self.optimiser.learning_rate,
            "train_loss": train_loss,
            "validation_score": measure.score if measure else None,
            "validation_force_mae_eV_per_A": measure.force_mae if measure else None,
        }
        self.history.append(row)
        if self.progress:
            self.progress(row)

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
