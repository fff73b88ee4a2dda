"""GFN-xTB by tblite.

Source: GFN2-xTB, Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019), doi:10.1021/acs.jctc.8b01176;
GFN1-xTB, Grimme et al., J. Chem. Theory Comput. 13, 1989 (2017), doi:10.1021/acs.jctc.7b00118.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.base.units import BOHR_A, HARTREE_eV, HARTREE_PER_BOHR_eV_PER_A, kB_eV_PER_K
from fff.data.electrons import LAST_XTB_ELEMENT
from fff.reference.protocol import ReferenceCalculator, bare_structure, check_spin, make_label

if TYPE_CHECKING:
    from ase import Atoms
    from tblite.interface import Calculator

    from fff.config.reference import XtbReference
    from fff.data.records import Label

__all__ = ["XtbMethod"]

_KEPT = 16


class XtbMethod:
    """Reference method `xtb`: GFN2-xTB or GFN1-xTB, isolated or periodic.

    Of a periodic structure it samples the centre of the Brillouin zone only: take cells that are large.

    The parametrised Hamiltonian of a composition is kept, which saves a third of the time of a small
    molecule; each calculation starts from the same guess, so labels do not depend on their order.

    Args:
        section: The section `reference` of the config.
    """

    def __init__(self, section: XtbReference) -> None:
        self._section = section
        self._kept: OrderedDict[bytes, Calculator] = OrderedDict()

    @property
    def name(self) -> str:
        """The parametrisation."""
        return self._section.method

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers."""
        return self._section.model_dump(mode="json", exclude={"time_limit_s", "max_iterations"})

    @property
    def elements(self) -> frozenset[str]:
        """Hydrogen to radon."""
        return frozenset(chemical_symbols[1 : LAST_XTB_ELEMENT + 1])

    def check(self, atoms: Atoms) -> None:
        """Check library, elements, cell and number of electrons.

        Raises:
            ReferenceSetupError: If one of them does not fit.
        """
        _import_tblite()
        unknown = sorted(set(atoms.get_chemical_symbols()) - self.elements)
        if unknown:
            msg = f"reference.method is {self.name}, which does not know the element {', '.join(unknown)}."
            raise ReferenceSetupError(
                msg,
                hint="It knows hydrogen to radon; choose another reference.kind.",
                key="reference.method",
                value=self.name,
            )
        if atoms.pbc.any() and atoms.cell.rank < 3:
            msg = f"{atoms.get_chemical_formula()} is periodic, but its cell has no volume."
            raise ReferenceSetupError(msg, hint="Give the structure three cell vectors, or make it isolated.")
        check_spin(atoms, self._section)

    def calculate(self, atoms: Atoms) -> Label:
        """Return the label of a structure; see `ReferenceMethod.calculate`."""
        started = time.perf_counter()
        atoms = bare_structure(atoms)
        self.check(atoms)
        key = atoms.numbers.tobytes() + atoms.pbc.tobytes()
        # Taken out while in use: after a failure its state is not to be trusted.
        calculator = self._kept.pop(key, None)
        try:
            calculator = self._placed(calculator, atoms)
            result = calculator.singlepoint()
            energy = float(result["energy"]) * HARTREE_eV
            forces = -np.asarray(result["gradient"]) * HARTREE_PER_BOHR_eV_PER_A
            stress = None
            if atoms.pbc.all():
                virial = np.asarray(result["virial"]) * HARTREE_eV / atoms.get_volume()
                stress = virial.ravel()[[0, 4, 8, 5, 2, 1]]
        except RuntimeError as error:
            raise _failure(atoms, error) from error
        label = make_label(atoms, energy, forces, stress, time.perf_counter() - started)
        self._kept[key] = calculator
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return label

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator with these numbers."""
        return ReferenceCalculator(self.calculate)

    def _placed(self, calculator: Calculator | None, atoms: Atoms) -> Calculator:
        positions = atoms.positions / BOHR_A
        lattice = atoms.cell.array / BOHR_A
        if calculator is None:
            return self._new_calculator(atoms, positions, lattice)
        calculator.update(positions=positions, lattice=lattice)
        return calculator

    def _new_calculator(self, atoms: Atoms, positions: Any, lattice: Any) -> Calculator:
        calculator: Calculator = _import_tblite()(
            self.name,
            atoms.numbers,
            positions,
            float(self._section.charge),
            self._section.multiplicity - 1,
            lattice,
            atoms.pbc,
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", self._section.accuracy)
        calculator.set("max-iter", self._section.max_iterations)
        kT = self._section.electronic_temperature_K * kB_eV_PER_K / HARTREE_eV
        calculator.set("temperature", kT)
        return calculator


def _import_tblite() -> type[Calculator]:
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        msg = f"reference.kind is xtb, but tblite cannot be imported: {error}."
        raise ReferenceSetupError(
            msg, hint="Install it: pip install tblite.", key="reference.kind", value="xtb"
        ) from error
    return Calculator


def _failure(atoms: Atoms, error: RuntimeError) -> ReferenceFailure:
    formula = atoms.get_chemical_formula()
    if "not converged" in str(error):
        return NotConvergedError(
            f"GFN-xTB of {formula} did not converge: {error}.",
            hint="Raise reference.max_iterations or reference.electronic_temperature_K.",
        )
    return ReferenceFailure(f"GFN-xTB of {formula} failed: {error}.")
