"""What every reference method promises, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.data.electrons import find_spin_problem
from fff.data.records import Label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fff.config import PyscfReference, XtbReference

__all__ = ["ReferenceCalculator", "ReferenceMethod", "bare_structure", "check_spin", "make_label"]


@runtime_checkable
class ReferenceMethod(Protocol):
    """A method that labels structures with energy and forces.

    Making one imports nothing heavy and cannot fail; `check` says whether it can run here.
    """

    @property
    def name(self) -> str:
        """How people call it, for example `GFN2-xTB` or `PBE/def2-SVP`."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers, JSON-able; limits of time, memory and cycles are not among it."""

    @property
    def elements(self) -> frozenset[str] | None:
        """The elements it knows, or None where that depends on more than the element."""

    def check(self, atoms: Atoms) -> None:
        """Check whether a structure can be calculated, without calculating it.

        Raises:
            ReferenceSetupError: If library, executable, an option or an element is missing or does not fit.
        """

    def calculate(self, atoms: Atoms) -> Label:
        """Return energy (eV), forces (eV/Å) and, for periodic structures where known, stress (eV/Å³).

        The label does not depend on what was calculated before. Its structure has elements, positions,
        cell, periodicity and momenta of `atoms`, and nothing else.

        Raises:
            NotConvergedError: If it did not converge, or gave numbers that are not finite.
            ReferenceSetupError: As `check` does.
            ReferenceFailure: If it failed otherwise.
        """

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator for dynamics; it raises what `calculate` raises.

        Steps of dynamics may start from the solution of the step before, so its numbers agree with those
        of `calculate` only to the convergence threshold.
        """


class ReferenceCalculator(Calculator):
    """An ASE calculator whose numbers come from a reference method.

    Args:
        label: Function that labels a structure, usually the `calculate` of a reference method.

    Attributes:
        label_of: The same function.
    """

    name = "reference"
    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, label: Callable[[Atoms], Label]) -> None:
        super().__init__()
        self.label_of = label

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` with energy, forces and stress where known; raises as the method does."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            msg = "A reference calculator needs a structure to calculate."
            raise ValueError(msg)
        label = self.label_of(self.atoms)
        self.results = {
            "energy": label.energy_eV,
            "free_energy": label.energy_eV,
            "forces": label.forces_eV_per_A,
        }
        if label.stress_eV_per_A3 is not None:
            self.results["stress"] = label.stress_eV_per_A3


def bare_structure(atoms: Atoms) -> Atoms:
    """Return elements, positions, cell, periodicity and momenta alone: no constraint, charge or calculator.

    What does not count for the hash of a structure must not change its label.

    Raises:
        ReferenceFailure: If there is no atom, or a position is not finite.
    """
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        msg = f"The structure {atoms.get_chemical_formula() or 'without atoms'} cannot be calculated."
        raise ReferenceFailure(msg, hint="Every structure needs atoms at finite positions.")
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if atoms.has("momenta"):
        bare.set_momenta(atoms.get_momenta(), apply_constraint=False)
    return bare


def make_label(
    atoms: Atoms, energy_eV: float, forces_eV_per_A: Any, stress_eV_per_A3: Any, wall_s: float
) -> Label:
    """Return the label of a bare structure.

    Raises:
        NotConvergedError: If a number is not finite, or the forces are not `(n_atoms, 3)`.
    """
    forces = np.array(forces_eV_per_A, dtype=float)
    stress = None if stress_eV_per_A3 is None else np.array(stress_eV_per_A3, dtype=float)
    finite = np.isfinite(energy_eV) and np.isfinite(forces).all()
    if (
        not finite
        or forces.shape != (len(atoms), 3)
        or (stress is not None and not np.isfinite(stress).all())
    ):
        msg = f"The calculation of {atoms.get_chemical_formula()} gave numbers that are not finite."
        raise NotConvergedError(msg, hint="The structure is set aside; look at it for atoms too close.")
    return Label(
        atoms=atoms,
        energy_eV=float(energy_eV),
        forces_eV_per_A=forces,
        stress_eV_per_A3=stress,
        wall_s=wall_s,
    )


def check_spin(atoms: Atoms, section: XtbReference | PyscfReference) -> None:
    """Check that a structure can have the charge and multiplicity of a method.

    Raises:
        ReferenceSetupError: If it cannot.
    """
    if problem := find_spin_problem(atoms, atoms.get_chemical_formula(), section):
        raise ReferenceSetupError(problem.message, hint=problem.hint, key=problem.key, value=problem.value)
