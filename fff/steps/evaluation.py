"""A model on labelled structures: its errors, per element and per source, and what its deviation is worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.errors import FffError, StructureError
from fff.base.files import read_json, write_json, write_text
from fff.config import load_config
from fff.data.accuracy import force_accuracy
from fff.data.atomic_energies import fit_atomic_energies, sum_atomic_energies
from fff.data.label_rows import read_rows
from fff.models.files import find_members
from fff.report.agreement import agreement_of
from fff.report.drawing import Column, columns_to_csv, write_drawing
from fff.report.parity import draw_parity, errors_by_element
from fff.steps.outputs import free_folder, taken
from fff.steps.predicting import open_committee, predict
from fff.steps.sources import LABELS, with_sources
from fff.steps.training import TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fff.data.records import Label
    from fff.steps.predicting import Predicted
    from fff.steps.sources import NamedLabels

__all__ = ["Evaluated", "evaluate_model"]

meV = 1000.0  # noqa: N816 - the unit's own spelling
_LEVELS_TO_RUN = 4


@dataclass(frozen=True)
class Evaluated:
    """How wrong a model is on labelled structures.

    Attributes:
        n_members: Members of the committee.
        errors: On all structures; see `force_accuracy`, with `energy_rmse_meV_per_atom`, and
            `energy_mae_shifted_meV_per_atom`: what is left where the energy of each element is shifted.
        by_element: Force errors by element; see `errors_by_element`.
        by_source: As `errors`, by where the labels come from.
        agreement: How the deviation ranks the errors; None for one model, or few structures.
        n_trained_on: Structures that the model was given in its training; None where that is not known, as of
            a model that was fine-tuned from another one.
        s_per_structure: Time of a prediction by all members.
        folder: Where the figure and the numbers are.
    """

    n_members: int
    errors: dict[str, Any]
    by_element: dict[str, dict[str, float | int]]
    by_source: dict[str, dict[str, Any]]
    agreement: dict[str, Any] | None
    n_trained_on: int | None
    s_per_structure: float
    folder: Path


def evaluate_model(
    model: Path, sources: Sequence[str], folder: Path, *, tell: Callable[[int, int, str], None]
) -> Evaluated:
    """Evaluate a model on labelled structures; write a parity figure and the numbers of each structure.

    Args:
        model: A run directory, a round's or a member's folder, or that of a training.
        sources: Files, databases or run directories with labels.
        folder: Where figure and numbers go; made when absent.
        tell: Told how many structures are done, of how many, and what happened last.

    Raises:
        FffError: If the model or the labels cannot be used.
        OSError: If the folder cannot be written.
    """
    with taken(folder):
        # Another process may have filled it since it was chosen.
        return _evaluate(model, sources, free_folder(folder, folder), tell)


def _evaluate(
    model: Path, sources: Sequence[str], folder: Path, tell: Callable[[int, int, str], None]
) -> Evaluated:
    committee = open_committee(model)
    named = with_sources(sources)
    labels = named.labels
    if not labels:
        msg = "There is no label to evaluate the model on."
        raise StructureError(msg, hint="Give a file with at least one.")
    predicted = predict(committee, labels, tell)
    energies, forces = predicted.energy_eV, predicted.forces_eV_per_A
    evaluated = Evaluated(
        n_members=len(committee),
        errors={
            **_errors(labels, predicted, range(len(labels))),
            "energy_mae_shifted_meV_per_atom": _shifted_error(labels, energies),
        },
        by_element=errors_by_element(labels, forces),
        by_source={
            source: _errors(labels, predicted, [i for i, name in enumerate(named.sources) if name == source])
            for source in dict.fromkeys(named.sources)
        },
        agreement=_agreement(labels, predicted),
        n_trained_on=_n_trained_on(find_members(model)[0], labels),
        s_per_structure=predicted.wall_s / len(labels),
        folder=folder,
    )
    title = f"{model} on {len(labels)} structures"
    write_drawing(draw_parity(labels, energies, forces, title=title), folder)
    write_text(folder / "structures.csv", columns_to_csv(list(_structure_columns(named, predicted))))
    write_json(folder / "evaluation.json", {"schema_version": 1, **_plain(asdict(evaluated))})
    return evaluated


def _errors(labels: Sequence[Label], predicted: Predicted, chosen: Sequence[int]) -> dict[str, Any]:
    part = [labels[i] for i in chosen]
    energies = predicted.energy_eV[list(chosen)]
    errors = force_accuracy(part, energies, [predicted.forces_eV_per_A[i] for i in chosen])
    per_atom = _energy_errors(part, energies)
    return {**errors, "energy_rmse_meV_per_atom": round(meV * float(np.sqrt((per_atom**2).mean())), 3)}


def _energy_errors(labels: Sequence[Label], energies: np.ndarray) -> np.ndarray:
    """Return the errors of the energies in eV per atom, with their signs."""
    return np.array(
        [
            (energy - label.energy_eV) / len(label.atoms)
            for label, energy in zip(labels, energies, strict=True)
        ]
    )


def _shifted_error(labels: Sequence[Label], energies: np.ndarray) -> float:
    structures = [label.atoms for label in labels]
    errors = np.array([label.energy_eV for label in labels]) - energies
    left = errors - sum_atomic_energies(structures, fit_atomic_energies(structures, errors))
    n_atoms = np.array([len(atoms) for atoms in structures])
    return round(meV * float(np.abs(left / n_atoms).mean()), 3)


def _largest_errors(labels: Sequence[Label], predicted: Predicted) -> np.ndarray:
    """Return the largest error of an atomic force in each structure, in eV/Å."""
    pairs = zip(predicted.forces_eV_per_A, labels, strict=True)
    return np.array([np.linalg.norm(forces - label.forces_eV_per_A, axis=1).max() for forces, label in pairs])


def _agreement(labels: Sequence[Label], predicted: Predicted) -> dict[str, Any] | None:
    found = agreement_of(predicted.deviation_eV_per_A, _largest_errors(labels, predicted))
    return None if found is None else asdict(found)


def _n_trained_on(member: Path, labels: Sequence[Label]) -> int | None:
    """Return how many labels are of structures that a member was given in its training; None if not known."""
    for folder in list(member.resolve().parents)[:_LEVELS_TO_RUN]:
        try:
            if (folder / TRAINED).is_file():
                told = read_json(folder / TRAINED)
                known, are_all = {str(structure) for structure in told["structures"]}, not told["start"]
            elif (folder / "events.jsonl").is_file():
                known, are_all = _known_to_campaign(folder, member)
            else:
                continue
        except (OSError, ValueError, KeyError, TypeError, FffError):
            return None
        n_known = sum(label.hash in known for label in labels)
        # What the model knew that it was fine-tuned from, nobody says.
        return n_known if n_known or are_all else None
    return None


def _known_to_campaign(run: Path, member: Path) -> tuple[set[str], bool]:
    """Return the structures that the committees of a campaign were trained on, and whether these are all."""
    if member.resolve().parent.name.startswith("baseline"):
        # The random frames of the comparison are no labels.
        return set(), False
    known = {row.structure for row in read_rows(run / LABELS)}
    try:
        return known, load_config(run / "config.yaml").config.model.start is None
    except FffError:
        return known, False


def _structure_columns(named: NamedLabels, predicted: Predicted) -> Iterator[Column]:
    labels = named.labels
    pairs = list(zip(predicted.forces_eV_per_A, labels, strict=True))
    yield Column("structure", "", list(range(len(labels))))
    yield Column("source", "", named.sources)
    yield Column("formula", "", [label.atoms.get_chemical_formula() for label in labels])
    yield Column("reference_energy", "eV", [f"{label.energy_eV:.6f}" for label in labels])
    yield Column("predicted_energy", "eV", [f"{energy:.6f}" for energy in predicted.energy_eV])
    yield Column("energy_error", "meV/atom", (meV * _energy_errors(labels, predicted.energy_eV)).tolist())
    maes = [float(np.abs(forces - label.forces_eV_per_A).mean()) * meV for forces, label in pairs]
    yield Column("force_mae", "meV/Å", maes)
    yield Column("largest_force_error", "meV/Å", (meV * _largest_errors(labels, predicted)).tolist())
    yield Column("deviation", "meV/Å", (meV * predicted.deviation_eV_per_A).tolist())


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "folder": str(values["folder"])}
