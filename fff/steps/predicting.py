"""What a committee says about many labelled structures, a part of them at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fff.base.errors import ModelFileError
from fff.data.deviation import force_deviation
from fff.models.files import find_members, read_member
from fff.steps.sharing import threads_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jaxtyping import Float

    from fff.data.records import Label
    from fff.models import Committee, CommitteePrediction

__all__ = ["Predicted", "open_committee", "predict"]

_MOST_ATOMS = 20_000
_MOST_STRUCTURES = 200


@dataclass(frozen=True)
class Predicted:
    """Predictions for labelled structures, in their order.

    Attributes:
        energy_eV: Mean total energy over the members.
        forces_eV_per_A: Mean forces over the members, one array per structure.
        deviation_eV_per_A: The largest deviation of an atomic force over the atoms; NaN for a single member.
        wall_s: What the predictions took.
    """

    energy_eV: Float[np.ndarray, " n_structures"]
    forces_eV_per_A: list[Float[np.ndarray, "n_atoms 3"]]
    deviation_eV_per_A: Float[np.ndarray, " n_structures"]
    wall_s: float


def open_committee(path: Path) -> Committee:
    """Return the committee at a path; every member must be sound.

    Raises:
        ModelFileError: If no model is there, or one is damaged.
    """
    from fff.models import Committee
    from fff.models.loading import load_model

    return Committee([load_model(read_member(member)) for member in find_members(path)])


def predict(
    committee: Committee, labels: Sequence[Label], tell: Callable[[int, int, str], None]
) -> Predicted:
    """Predict structures in parts that fit into memory.

    Args:
        committee: The committee.
        labels: The structures; at least one.
        tell: Told how many are done, of how many, and what happened last.

    Raises:
        StructureError: If a structure has an element that the committee was not trained on.
        ModelFileError: If a member fails, or gives numbers that are not finite: the mean of the others, from
            part to part, would be no committee's.
    """
    from fff.models.batches import check_elements

    check_elements([label.atoms for label in labels], committee.members[0].description["elements"])
    with threads_for(max(sum(len(label.atoms) for label in part) for part in _parts(labels))):
        return _predict(committee, labels, tell)


def _predict(
    committee: Committee, labels: Sequence[Label], tell: Callable[[int, int, str], None]
) -> Predicted:
    # The first prediction of a process takes longer than a hundred others.
    committee.predict([labels[0].atoms])
    began = time.monotonic()
    energies, forces, deviations = [], [], []
    for part in _parts(labels):
        found = committee.predict([label.atoms for label in part])
        _check_all_answered(found, part)
        energies.append(found.energy_eV.mean(axis=0))
        forces += [each.mean(axis=0) for each in found.forces_eV_per_A]
        deviations += [
            float(force_deviation(each).max()) if len(each) > 1 else np.nan for each in found.forces_eV_per_A
        ]
        tell(len(forces), len(labels), "")
    return Predicted(np.concatenate(energies), forces, np.array(deviations), time.monotonic() - began)


def _check_all_answered(found: CommitteePrediction, part: Sequence[Label]) -> None:
    for index, why in found.failures.items():
        msg = f"Member {index} of the committee could not predict {len(part)} structures: {why}"
        raise ModelFileError(msg, hint="Where memory ran out, leave room for it, and begin again.", path="")
    if not found.is_finite.all():
        row, place = np.argwhere(~found.is_finite)[0]
        formula = part[place].atoms.get_chemical_formula()
        msg = f"Member {found.members_used[row]} of the committee gives no finite numbers for a {formula}."
        raise ModelFileError(msg, hint="Train it again, or leave such structures out.", path="")


def _parts(labels: Sequence[Label]) -> Iterator[Sequence[Label]]:
    begin, n_atoms = 0, 0
    for index, label in enumerate(labels):
        is_full = n_atoms + len(label.atoms) > _MOST_ATOMS or index - begin >= _MOST_STRUCTURES
        if index > begin and is_full:
            yield labels[begin:index]
            begin, n_atoms = index, 0
        n_atoms += len(label.atoms)
    yield labels[begin:]
