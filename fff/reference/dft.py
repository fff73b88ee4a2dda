"""Kohn-Sham density functional theory and Hartree-Fock by PySCF, for isolated structures."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fff.base.errors import ReferenceSetupError
from fff.reference.protocol import ReferenceCalculator, bare_structure, check_spin, make_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from fff.config.reference import PyscfReference
    from fff.data.records import Label
    from fff.reference.kohn_sham import Orbitals

__all__ = ["PyscfMethod"]

_NOT_IN_SETTINGS = {"time_limit_s", "max_memory_MB", "max_cycles"}
_CONFIG_VARIABLE = "PYSCF_CONFIG_FILE"


class PyscfMethod:
    """Reference method `pyscf`: RKS or UKS (RHF or UHF for the functional HF), energies and forces.

    PySCF runs on as many threads as `OMP_NUM_THREADS` said when it was first imported.

    Args:
        section: The section `reference` of the config.
    """

    def __init__(self, section: PyscfReference) -> None:
        self._section = section
        self._fitting: set[frozenset[str]] = set()

    @property
    def name(self) -> str:
        """Functional, dispersion correction and basis set, for example `PBE-D4/def2-SVP`."""
        dispersion = f"-{self._section.dispersion.upper()}" if self._section.dispersion else ""
        return f"{self._section.functional}{dispersion}/{self._section.basis}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers."""
        return self._section.model_dump(mode="json", exclude=_NOT_IN_SETTINGS)

    @property
    def elements(self) -> frozenset[str] | None:
        """None: it depends on the basis set; `check` looks there."""
        return None

    def check(self, atoms: Atoms) -> None:
        """Check library, functional, basis set, dispersion correction, periodicity, number of electrons.

        Raises:
            ReferenceSetupError: If one of them does not fit.
        """
        if atoms.pbc.any():
            raise ReferenceSetupError(
                f"reference.kind is pyscf, but {atoms.get_chemical_formula()} is periodic.",
                hint="Use isolated structures, or another reference.kind (xtb, ase).",
                key="reference.kind",
                value="pyscf",
            )
        check_spin(atoms, self._section)
        elements = frozenset(atoms.get_chemical_symbols())
        if elements not in self._fitting:
            _import_kohn_sham().check_section(self._section, sorted(elements))
            self._fitting.add(elements)

    def calculate(self, atoms: Atoms) -> Label:
        """Return the label of a structure; see `ReferenceMethod.calculate`."""
        return self._solve(atoms, None)[0]

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator; a step that moved little starts from the orbitals of the step before."""
        last: Orbitals | None = None

        def follow(atoms: Atoms) -> Label:
            nonlocal last
            label, last = self._solve(atoms, last)
            return label

        return ReferenceCalculator(follow)

    def _solve(self, atoms: Atoms, guess: Orbitals | None) -> tuple[Label, Orbitals]:
        started = time.perf_counter()
        atoms = bare_structure(atoms)
        self.check(atoms)
        energy, forces, orbitals = _import_kohn_sham().solve(self._section, atoms, guess)
        return make_label(atoms, energy, forces, None, time.perf_counter() - started), orbitals


def _import_kohn_sham() -> Any:
    try:
        with _own_configuration():
            from fff.reference import kohn_sham
    except ImportError as error:
        msg = f"reference.kind is pyscf, but PySCF cannot be imported: {error}."
        raise ReferenceSetupError(
            msg, hint="Install it: pip install pyscf.", key="reference.kind", value="pyscf"
        ) from error
    return kohn_sham


@contextmanager
def _own_configuration() -> Iterator[None]:
    """Let PySCF execute `pyscf_configuration.py` on import, and no other file.

    By itself it executes `.pyscf_conf.py` in the current folder, which may be anybody's, or in the home
    folder. Both could change numbers without a trace in `settings`.
    """
    before = os.environ.get(_CONFIG_VARIABLE)
    os.environ[_CONFIG_VARIABLE] = str(Path(__file__).with_name("pyscf_configuration.py"))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CONFIG_VARIABLE]
        else:
            os.environ[_CONFIG_VARIABLE] = before
