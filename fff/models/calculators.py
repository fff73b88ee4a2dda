"""ASE calculators: one member on a fast path for dynamics, and a committee with its deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)

from fff.data.atomic_energies import sum_atomic_energies
from fff.data.deviation import force_deviation
from fff.models.batches import check_elements
from fff.models.committee import Committee
from fff.models.files import find_members, read_member
from fff.models.force_field import SchNetPackForceField, voigt_stress
from fff.models.loading import load_model
from fff.models.neighbours import find_pairs
from fff.models.networks import evaluate
from fff.stages import Resumable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["CommitteeCalculator", "MDCalculator", "open_calculator"]


class PairTensors:
    """The pairs of one structure on the device, found anew only when atoms moved far enough.

    The list reaches `skin_A` beyond the cutoff; as long as no atom moved more than half of that, no pair
    within the cutoff is missing from it. Each step picks the pairs within the cutoff, so that the numbers are
    those of a list made afresh.

    Args:
        cutoff_A: Cutoff of the model.
        skin_A: How much farther the list reaches.
        device: Where the tensors are.
    """

    def __init__(self, cutoff_A: float, skin_A: float, device: torch.device) -> None:
        self.cutoff_A = cutoff_A
        self.skin_A = skin_A
        self.device = device
        self.n_builds = 0
        self.numbers = torch.zeros(0, dtype=torch.int64)
        self._numbers = np.zeros(0, dtype=int)
        self._cell = np.zeros((3, 3))
        self._pbc = np.zeros(3, dtype=bool)
        self._positions = np.zeros((0, 3))
        self._first = self._second = torch.zeros(0, dtype=torch.int64)
        self._shift = torch.zeros(0, 3, dtype=torch.float64)

    def same_system(self, atoms: Atoms) -> bool:
        """Whether elements, cell and periodicity are those of the present list."""
        return (
            np.array_equal(self._numbers, atoms.numbers)
            and np.array_equal(self._cell, atoms.cell.array)
            and np.array_equal(self._pbc, atoms.pbc)
        )

    def update(self, atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return first atom, second atom and vector (Å, float32) of each pair within the cutoff."""
        positions = atoms.positions
        if not self.same_system(atoms) or self._moved_too_far(positions):
            self.build(atoms)
        place = torch.as_tensor(positions, device=self.device)
        vectors = place.index_select(0, self._second) - place.index_select(0, self._first)
        vectors += self._shift
        kept = (vectors.square().sum(1) < self.cutoff_A**2).nonzero().squeeze(1)
        if len(kept) == len(vectors):
            return self._first, self._second, vectors.float()
        return (
            self._first.index_select(0, kept),
            self._second.index_select(0, kept),
            vectors.index_select(0, kept).float(),
        )

    @property
    def origin(self) -> Atoms:
        """The structure that the list was made for."""
        return Atoms(self._numbers, self._positions, cell=self._cell, pbc=self._pbc)

    def _moved_too_far(self, positions: np.ndarray) -> bool:
        step = positions - self._positions
        # "Not below" and not "above": positions that are not numbers must not pass as unmoved.
        return not float((step * step).sum(axis=1).max()) < 0.25 * self.skin_A**2

    def build(self, atoms: Atoms) -> None:
        """Make the list anew for these positions."""
        pairs = find_pairs(atoms, self.cutoff_A + self.skin_A)
        self._numbers = atoms.numbers.copy()
        self._cell = atoms.cell.array.copy()
        self._pbc = atoms.pbc.copy()
        self._positions = atoms.positions.copy()
        self.numbers = torch.as_tensor(self._numbers.astype(np.int64), device=self.device)
        self._first = torch.as_tensor(pairs.first, device=self.device)
        self._second = torch.as_tensor(pairs.second, device=self.device)
        self._shift = torch.as_tensor(pairs.shift_A.reshape(-1, 3), device=self.device)
        self.n_builds += 1


class MDCalculator(Calculator):
    """Energy, forces and stress of one member, with nothing done twice between steps of dynamics.

    Args:
        force_field: The member.
        skin_A: How much farther than the cutoff the pair list reaches; it is made anew when an atom moved
            more than half of this.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE has it

    def __init__(self, force_field: SchNetPackForceField, *, skin_A: float = 0.5) -> None:
        super().__init__()
        self._member = force_field
        self.pairs = PairTensors(force_field.cutoff_A, skin_A, force_field.device)
        self._reference_eV = 0.0
        self._seen = np.full((0, 3), np.nan)
        self._stress_asked = False

    def resume_arrays(self) -> dict[str, np.ndarray]:
        """Return the structure that the pair list was made for; see `fff.stages.Resumable`.

        The order of the pairs, and so of sums over them, is that of the atoms then: a list made anew in the
        middle of a trajectory would change the last bits, and after a while all of them.
        """
        origin = self.pairs.origin
        return {**origin.arrays, "cell": origin.cell.array, "pbc": origin.pbc}

    def resume_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Make the list again that a calculator of this member had when it returned `arrays`."""
        if len(arrays["numbers"]):
            origin = Atoms(**dict(arrays))
            self._adopt(origin)
            self.pairs.build(origin)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what changed since the last calculation; ASE's own check costs more than a small network."""
        del tol
        if not self.pairs.same_system(atoms) or self._seen.shape != atoms.positions.shape:
            return list(all_changes)
        return [] if np.array_equal(self._seen, atoms.positions) else ["positions"]

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a result, calculating what is not there yet.

        Raises:
            PropertyNotImplementedError: For a property a force field has not, and for the stress of a
                structure that is not periodic in three directions.
        """
        atoms = self._present(atoms)
        if name not in self.implemented_properties or (name == "stress" and not atoms.pbc.all()):
            msg = f"A force field gives no {name} for this structure."
            raise PropertyNotImplementedError(msg)
        if self.check_state(atoms) or name not in self.results:
            if not allow_calculation:
                return None
            self.calculate(atoms, [name])
        value = self.results[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def _present(self, atoms: Atoms | None) -> Atoms:
        chosen = self.atoms if atoms is None else atoms
        if chosen is None:
            msg = "The calculator has seen no structure yet; give it one."
            raise CalculatorSetupError(msg)
        return chosen

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`: energy (eV), forces (eV/Å) and, if asked and periodic, stress (eV/Å³)."""
        del system_changes
        atoms = self._present(atoms)
        if not self.pairs.same_system(atoms):
            self._adopt(atoms)
        # Dynamics at constant pressure asks for forces, then for stress: the second question costs nothing.
        self._stress_asked |= "stress" in properties
        stress = self._stress_asked and bool(atoms.pbc.all())
        if np.isfinite(atoms.positions).all():
            self.results = self._ask(atoms, stress=stress)
        else:
            # Dynamics that blew up is ended by the guards of the sampler, which look at the numbers.
            self.results = _no_numbers(len(atoms), stress=stress)
        self.results["free_energy"] = self.results["energy"]
        self._seen = atoms.positions.copy()
        self.atoms = atoms

    def _adopt(self, atoms: Atoms) -> None:
        """Take on another system."""
        check_elements([atoms], self._member.elements)
        energies = sum_atomic_energies([atoms], self._member.reference_energies_eV)
        self._reference_eV = float(energies[0])

    def _ask(self, atoms: Atoms, *, stress: bool) -> dict[str, Any]:
        first, second, vectors = self.pairs.update(atoms)
        result = evaluate(self._member.network, self.pairs.numbers, first, second, vectors)
        answer: dict[str, Any] = {
            "energy": float(result.atomic_energies_eV.sum(dtype=torch.float64)) + self._reference_eV,
            "forces": result.forces_eV_per_A.cpu().numpy().astype(float),
        }
        if stress:
            gradient = (vectors.double().T @ result.vector_gradient.double()).cpu().numpy()
            answer["stress"] = voigt_stress(gradient[None], [atoms])[0]
        return answer


def _no_numbers(n_atoms: int, *, stress: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"energy": np.nan, "forces": np.full((n_atoms, 3), np.nan)}
    if stress:
        answer["stress"] = np.full(6, np.nan)
    return answer


class CommitteeCalculator(Calculator):
    """Mean energy, forces and stress of a committee, and how far its members disagree.

    `results["deviation"]` is the largest deviation of an atomic force over the atoms (eV/Å);
    `results["deviations"]` holds `max_force` and `mean_force` (eV/Å) and `energy_per_atom` (eV).

    A single member has no deviation: it is NaN, not 0, which would mean certainty.

    Args:
        committee: The committee; its members may be of different kinds.
        skin_A: As for `MDCalculator`.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE has it

    def __init__(self, committee: Committee, *, skin_A: float = 0.5) -> None:
        super().__init__()
        self.committee = committee
        self._calculators = [member.md_calculator(skin_A=skin_A) for member in committee.members]

    def resume_arrays(self) -> dict[str, np.ndarray]:
        """Return what the members' calculators remember; see `MDCalculator.resume_arrays`."""
        return {
            f"{index}.{name}": array
            for index, each in enumerate(self._calculators)
            if isinstance(each, Resumable)
            for name, array in each.resume_arrays().items()
        }

    def resume_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Let the members' calculators remember what those of the same committee returned."""
        for index, each in enumerate(self._calculators):
            start = f"{index}."
            own = {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}
            if isinstance(each, Resumable):
                each.resume_from(own)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`: energy (eV), forces (eV/Å), the deviations and, if asked and periodic, stress."""
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            msg = "The calculator has seen no structure yet; give it one."
            raise CalculatorSetupError(msg)
        energies = np.array([each.get_property("energy", atoms) for each in self._calculators])
        forces = np.stack([each.get_property("forces", atoms) for each in self._calculators])
        deviation = force_deviation(forces) if len(forces) > 1 else np.full(len(atoms), np.nan)
        spread = energies.std() if len(energies) > 1 else np.nan
        self.results = {
            "energy": float(energies.mean()),
            "free_energy": float(energies.mean()),
            "forces": forces.mean(axis=0),
            "deviation": float(deviation.max()),
            "deviations": {
                "max_force": float(deviation.max()),
                "mean_force": float(deviation.mean()),
                "energy_per_atom": float(spread / len(atoms)),
            },
        }
        if "stress" in properties and atoms.pbc.all():
            stress = [each.get_property("stress", atoms) for each in self._calculators]
            self.results["stress"] = np.mean(stress, axis=0)


def open_calculator(
    path: Path, device: torch.device | str | None = None, *, skin_A: float = 0.5
) -> CommitteeCalculator:
    """Return a calculator for the committee at `path`.

    Args:
        path: A run directory, a round's folder or a member's folder.
        device: Where it computes; the first accelerator, else the CPU, when not given.
        skin_A: As for `MDCalculator`.

    Raises:
        ModelFileError: If no model is there, or one is damaged.
    """
    members = [load_model(read_member(member), device) for member in find_members(path)]
    return CommitteeCalculator(Committee(members), skin_A=skin_A)
