"""GFN-xTB and GFN-FF by the program xtb.

Source: xtb, Bannwarth et al., WIREs Comput. Mol. Sci. 11, e1493 (2021), doi:10.1002/wcms.1493; GFN-FF,
Spicher and Grimme, Angew. Chem. Int. Ed. 59, 15665 (2020), doi:10.1002/anie.202004239; implicit solvation
(ALPB), Ehlert et al., J. Chem. Theory Comput. 17, 4250 (2021), doi:10.1021/acs.jctc.1c00471.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.base.units import BOHR_A, HARTREE_eV, HARTREE_PER_BOHR_eV_PER_A
from fff.data.electrons import LAST_XTB_ELEMENT
from fff.external import STDOUT, Command, find_executable, run, tail
from fff.reference.protocol import ReferenceCalculator, bare_structure, check_spin, make_label

if TYPE_CHECKING:
    from ase import Atoms

    from fff.config.reference import XtbCliReference
    from fff.data.records import Label
    from fff.external import Ended, Workplace

__all__ = ["XtbCliMethod", "read_gradient"]

_NOT_IN_SETTINGS = {"time_limit_s", "max_iterations", "command", "keep_files"}
_PARAMETRISATIONS = {"GFN2-xTB": ("--gfn", "2"), "GFN1-xTB": ("--gfn", "1"), "GFN-FF": ("--gfnff",)}
_VERSION_LIMIT_S = 30.0
_ENERGY = re.compile(r"SCF energy =\s*(\S+)")
_NOT_CONVERGED_MARK = ".sccnotconverged"


class XtbCliMethod:
    """Reference method `xtb-cli`: GFN2-xTB, GFN1-xTB or GFN-FF of isolated structures.

    Each calculation is a run of the program in a work directory of its own: xtb takes guesses and topologies
    from what lies there. It runs on as many threads as `OMP_NUM_THREADS` says.

    Args:
        section: The section `reference` of the config.
        workplace: Where it calculates.
    """

    def __init__(self, section: XtbCliReference, workplace: Workplace) -> None:
        self._section = section
        self._workplace = workplace
        self._version: str | None = None

    @property
    def name(self) -> str:
        """Parametrisation and solvent, for example `GFN2-xTB(water)`."""
        solvent = f"({self._section.solvent})" if self._section.solvent else ""
        return self._section.method + solvent

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers, with the program's version; None where it is not installed."""
        if self._version is None:
            with suppress(ReferenceFailure):
                self._version = self._ask_version()
        section = self._section.model_dump(mode="json", exclude=_NOT_IN_SETTINGS)
        return {**section, "version": self._version}

    @property
    def elements(self) -> frozenset[str]:
        """Hydrogen to radon."""
        return frozenset(chemical_symbols[1 : LAST_XTB_ELEMENT + 1])

    def check(self, atoms: Atoms) -> None:
        """Check executable, elements, periodicity and number of electrons.

        Raises:
            ReferenceSetupError: If one of them does not fit.
        """
        find_executable(self._command())
        formula = atoms.get_chemical_formula()
        if atoms.pbc.any():
            raise ReferenceSetupError(
                f"reference.kind is xtb-cli, but {formula} is periodic.",
                hint="Use isolated structures, or another reference.kind (xtb treats cells).",
                key="reference.kind",
                value="xtb-cli",
            )
        if unknown := sorted(set(atoms.get_chemical_symbols()) - self.elements):
            raise ReferenceSetupError(
                f"reference.method is {self._section.method}, which does not know {', '.join(unknown)}.",
                hint="It knows hydrogen to radon; choose another reference.kind.",
                key="reference.method",
                value=self._section.method,
            )
        check_spin(atoms, self._section)

    def calculate(self, atoms: Atoms) -> Label:
        """Return the label of a structure; see `ReferenceMethod.calculate`."""
        started = time.perf_counter()
        atoms = bare_structure(atoms)
        self.check(atoms)
        formula = atoms.get_chemical_formula()
        limit_s = self._workplace.time_limit_s or self._section.time_limit_s
        with self._workplace.directory(keep=self._section.keep_files) as folder:
            (folder / "coord").write_text(_coordinates(atoms))
            ended = run(self._command(*self._options()), folder, environment=os.environ, time_limit_s=limit_s)
            self._check(ended, folder, formula)
            try:
                energy, gradient = read_gradient(_text(folder / "gradient"), len(atoms))
            except ValueError as error:
                msg = f"{self.name} of {formula} gave no readable energy and gradient: {error}."
                raise ReferenceFailure(msg) from error
            forces = -gradient * HARTREE_PER_BOHR_eV_PER_A
            return make_label(atoms, energy * HARTREE_eV, forces, None, time.perf_counter() - started)

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator with these numbers."""
        return ReferenceCalculator(self.calculate)

    def _command(self, *options: str) -> Command:
        return Command((*self._section.command, *options))

    def _options(self) -> list[str]:
        section = self._section
        options: dict[str, Any] = {
            "--chrg": section.charge,
            "--uhf": section.multiplicity - 1,
            "--acc": section.accuracy,
            "--etemp": section.electronic_temperature_K,
            "--iterations": section.max_iterations,
        }
        if section.solvent:
            options["--alpb"] = section.solvent
        given = [word for option, value in options.items() for word in (option, str(value))]
        return ["coord", "--grad", *_PARAMETRISATIONS[section.method], *given]

    def _check(self, ended: Ended, folder: Path, formula: str) -> None:
        """Check that the program says it has ended well.

        Raises:
            NotConvergedError: If it has not converged.
            ReferenceFailure: If it has failed otherwise.
        """
        said = _complaint(tail(folder / STDOUT))
        if (folder / _NOT_CONVERGED_MARK).exists() or "did not converge" in said:
            raise NotConvergedError(
                f"{self.name} of {formula} did not converge.",
                hint="Raise reference.max_iterations or reference.electronic_temperature_K.",
            )
        ended.check()
        if ended.exit_code:
            reason = f": {said}" if said else ""
            msg = f"{self.name} of {formula} ended with exit code {ended.exit_code}{reason}."
            raise ReferenceFailure(msg, exit_code=ended.exit_code)

    def _ask_version(self) -> str | None:
        with tempfile.TemporaryDirectory(prefix="fff-") as folder:
            command = self._command("--version")
            run(command, Path(folder), environment=os.environ, time_limit_s=_VERSION_LIMIT_S)
            found = re.search(r"xtb version (\S+)", tail(Path(folder, STDOUT)))
        return found[1] if found else None


def read_gradient(text: str, n_atoms: int) -> tuple[float, np.ndarray]:
    """Return energy (Hartree) and gradient (Hartree/Bohr, `(n_atoms, 3)`) of a Turbomole gradient file.

    Args:
        text: Its content.
        n_atoms: Number of atoms.

    Raises:
        ValueError: If it is not complete, or holds what is no number.
    """
    lines = text.splitlines()
    found = _ENERGY.search(lines[1]) if len(lines) > 1 else None
    # A name, the energy, positions, gradient, the end.
    if found is None or len(lines) != 2 * n_atoms + 3 or lines[-1].strip() != "$end":
        msg = f"the file of the gradient is incomplete: {len(lines)} lines for {n_atoms} atoms"
        raise ValueError(msg)
    rows = [line.replace("D", "E").split() for line in lines[2 + n_atoms : -1]]
    gradient = np.array(rows, dtype=float).reshape(n_atoms, 3)
    return float(found[1]), gradient


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        msg = f"the file {path.name} is missing"
        raise ValueError(msg) from None


def _coordinates(atoms: Atoms) -> str:
    """Return positions in Turbomole's format: in Bohr, so that no constant of xtb enters."""
    rows = zip(atoms.positions / BOHR_A, atoms.symbols, strict=True)
    lines = [f"{x:.14f} {y:.14f} {z:.14f} {symbol.lower()}" for (x, y, z), symbol in rows]
    return "\n".join(["$coord", *lines, "$end", ""])


def _complaint(output: str) -> str:
    """Return what xtb gives as the innermost reason of an error, else nothing."""
    found = re.findall(r"^-1- (?:\w+: )?(.*\S)", output, re.MULTILINE)
    return found[-1] if found else ""
