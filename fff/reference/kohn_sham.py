"""The part of `dft` that needs PySCF; only what calculates imports it.

PySCF is made faster where it changes no number that matters (ethanol, PBE/def2-SVP, one core: 5.7 s to
2.2 s, forces to 1e-3 meV/Å). Basis functions on the integration grid are kept between cycles, where PySCF
evaluates them anew each time. Points that together hold less than 1e-7 electrons leave the grid. Matrices
are multiplied by NumPy: the OpenBLAS in PySCF's wheel does not know recent processors and takes twice as
long. Fitted integrals are kept for functionals without exact exchange too.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyscf import dft, gto, lib, scf
from pyscf.df.addons import make_auxmol
from pyscf.dft.numint import NumInt
from pyscf.scf.dispersion import parse_dft

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.base.units import HARTREE_eV, HARTREE_PER_BOHR_eV_PER_A

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms
    from jaxtyping import Float

    from fff.config.reference import PyscfReference

__all__ = ["Orbitals", "check_section", "solve"]

_FARTHEST_GUESS_A = 0.2
_SMALL_DENSITY = 1e-7
_POINTS_PER_BLOCK = 36 * 56  # a multiple of what PySCF screens at once; a block then fits the core's cache
_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class Orbitals:
    """A solution, as a guess for the next.

    Attributes:
        atoms: The structure it belongs to.
        coefficients: Occupied orbitals, one array `(n_functions, n_occupied)` per spin.
        occupations: Electrons in each.
    """

    atoms: Atoms
    coefficients: tuple[Float[np.ndarray, "n_functions n_occupied"], ...]
    occupations: tuple[Float[np.ndarray, " n_occupied"], ...]


def check_section(section: PyscfReference, elements: Sequence[str]) -> None:
    """Check functional, basis set and dispersion correction.

    Raises:
        ReferenceSetupError: If PySCF has no such functional, no basis set for an element, or no parameters
            for the dispersion correction.
    """
    if not _is_hartree_fock(section):
        try:
            dft.libxc.parse_xc(parse_dft(section.functional)[0])
        except (KeyError, ValueError, NotImplementedError) as error:
            reason, hint = "which PySCF does not know", "Examples: PBE, B3LYP, wB97X-V, r2SCAN, HF."
            raise _misfit(section, "functional", reason, hint) from error
    if Path(section.basis).is_file():
        reason = "of which there is a file in the current folder, which PySCF would read instead"
        raise _misfit(section, "basis", reason, "Rename the file, or start from another folder.")
    for element in elements:
        try:
            # What is missing is reported below; PySCF would print an advertisement first.
            with warnings.catch_warnings(action="ignore"):
                gto.basis.load(section.basis, element)
        except (gto.basis.BasisNotFoundError, KeyError, OSError) as error:
            reason, hint = f"which has nothing for {element}", "Examples: def2-SVP, def2-TZVP, cc-pVDZ."
            raise _misfit(section, "basis", reason, hint) from error
    if section.dispersion:
        _check_dispersion(section, elements)


def solve(
    section: PyscfReference, atoms: Atoms, guess: Orbitals | None = None
) -> tuple[float, Float[np.ndarray, "n_atoms 3"], Orbitals]:
    """Return total energy (eV), forces (eV/Å) and orbitals of a structure.

    Args:
        section: The section `reference` of the config.
        atoms: An isolated structure.
        guess: Orbitals of a structure nearby; farther ones are not used.

    Raises:
        NotConvergedError: If the cycles end before it has converged.
        ReferenceFailure: If PySCF fails otherwise.
    """
    field = None
    try:
        molecule = _molecule(section, atoms)
        field = _mean_field(section, molecule)
        energy = field.kernel(dm0=_guessed_density(guess, atoms, molecule))
        if not field.converged:
            msg = (
                f"{section.functional}/{section.basis} of {atoms.get_chemical_formula()} did not converge "
                f"in {section.max_cycles} cycles."
            )
            raise NotConvergedError(msg, hint="Raise reference.max_cycles, or check charge and multiplicity.")
        gradient = field.nuc_grad_method().kernel()
    except (RuntimeError, ValueError, KeyError, ArithmeticError, AssertionError) as error:
        if isinstance(error, ReferenceFailure):
            raise
        raise _failure(atoms, error) from error
    finally:
        if field is not None:
            _close_files(field)
    forces = -np.asarray(gradient) * HARTREE_PER_BOHR_eV_PER_A
    return float(energy) * HARTREE_eV, forces, _orbitals(field, atoms)


def _failure(atoms: Atoms, error: Exception) -> ReferenceFailure:
    msg = f"PySCF failed for {atoms.get_chemical_formula()}: {type(error).__name__}: {error}."
    return ReferenceFailure(msg)


def _close_files(field: Any) -> None:
    """Close PySCF's scratch files; it leaves that to the garbage collector, which comes late for cycles."""
    files: list[Any] = [getattr(field, "_chkfile", None)]
    if getattr(field, "with_df", None):
        fits = [field.with_df, *field.with_df._rsh_df.values()]
        files.extend(fit._cderi_to_save for fit in fits)
    for file in files:
        if hasattr(file, "close"):
            file.close()


def _is_hartree_fock(section: PyscfReference) -> bool:
    return section.functional.upper() == "HF"


def _molecule(section: PyscfReference, atoms: Atoms) -> Any:
    symbols = atoms.get_chemical_symbols()
    return gto.M(
        atom=list(zip(symbols, atoms.positions.tolist(), strict=True)),
        unit="Angstrom",
        basis=section.basis,
        ecp=_core_potentials(section.basis, set(symbols)),
        charge=section.charge,
        spin=section.multiplicity - 1,
        verbose=0,
        max_memory=section.max_memory_MB,
    )


def _core_potentials(basis: str, elements: set[str]) -> dict[str, str]:
    """Return which elements need the basis set's effective core potential; PySCF adds none by itself."""
    return {element: basis for element in elements if _has_core_potential(basis, element)}


@cache
def _has_core_potential(basis: str, element: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            return bool(gto.basis.load_ecp(basis, element))
    except (gto.basis.BasisNotFoundError, KeyError, OSError):
        return False


def _mean_field(section: PyscfReference, molecule: Any) -> Any:
    restricted = section.multiplicity == 1
    if _is_hartree_fock(section):
        field = scf.RHF(molecule) if restricted else scf.UHF(molecule)
    else:
        field = dft.RKS(molecule) if restricted else dft.UKS(molecule)
        field.xc = section.functional
        field.grids.level = section.grid_level
        field.small_rho_cutoff = _SMALL_DENSITY
        field._numint = _KeptNumInt(0.5 * section.max_memory_MB)
    if section.density_fitting:
        field = field.density_fit()
        _keep_fitted_integrals(field, 0.25 * section.max_memory_MB)
    if section.dispersion:
        field.disp = section.dispersion
    field.conv_tol = section.convergence_eV / HARTREE_eV
    field.max_cycle = section.max_cycles
    field.max_memory = section.max_memory_MB
    field.chkfile = None
    return field


def _keep_fitted_integrals(field: Any, budget_MB: float) -> None:
    """Calculate the fitted integrals once if they fit, where PySCF would do so only for exact exchange."""
    n_pairs = field.mol.nao * (field.mol.nao + 1) // 2
    n_auxiliary = make_auxmol(field.mol, field.with_df.auxbasis).nao
    if 8 * n_pairs * n_auxiliary / _BYTES_PER_MB < budget_MB:
        field.with_df.build()


def _ddot(a: Any, b: Any, alpha: float = 1, c: Any = None, beta: float = 0) -> Any:
    """Return alpha a b + beta c, in the memory of `c` if it is given: `pyscf.lib.ddot` by NumPy."""
    if c is None or beta == 0:
        product = np.matmul(a, b, out=c)
        if alpha != 1:
            product *= alpha
        return product
    if beta != 1:
        c *= beta
    c += a @ b if alpha == 1 else alpha * (a @ b)
    return c


# `lib.dot` looks it up in the module, the numerical integration in the package.
lib.numpy_helper.ddot = lib.ddot = _ddot


class _KeptNumInt(NumInt):  # type: ignore[misc] # PySCF has no types
    """Numerical integration that keeps the basis functions of the last grid, where they fit.

    Args:
        budget_MB: Memory that they may take.
    """

    def __init__(self, budget_MB: float) -> None:
        super().__init__()
        self._budget_MB = budget_MB
        self._kept_for: tuple[Any, int] = (None, -1)
        self._kept: list[tuple[Any, ...]] = []

    def block_loop(
        self,
        mol: Any,
        grids: Any,
        nao: int | None = None,
        deriv: int = 0,
        max_memory: float = 2000,
        **options: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield (functions, mask, weights, points) block by block, as PySCF's own does."""
        options.setdefault("blksize", _POINTS_PER_BLOCK)
        coords, kept_deriv = self._kept_for
        if coords is not None and coords is grids.coords and kept_deriv == deriv and self._kept:
            yield from self._kept
            return
        blocks = super().block_loop(mol, grids, nao, deriv, max_memory, **options)
        n_components = (deriv + 1) * (deriv + 2) * (deriv + 3) // 6
        size_MB = 8 * n_components * mol.nao * len(grids.weights) / _BYTES_PER_MB
        # Second derivatives are for the gradient, which asks once.
        if deriv > 1 or size_MB > self._budget_MB:
            yield from blocks
            return
        kept = []
        for functions, *rest in blocks:
            # PySCF fills the same buffer for the next block.
            kept.append((functions.copy(order="K"), *rest))
            yield kept[-1]
        self._kept_for, self._kept = (grids.coords, deriv), kept


def _guessed_density(guess: Orbitals | None, atoms: Atoms, molecule: Any) -> Any:
    """Return the density of the guess, its orbitals made orthonormal where the atoms are now, or None."""
    if guess is None or not np.array_equal(guess.atoms.numbers, atoms.numbers):
        return None
    if np.abs(guess.atoms.positions - atoms.positions).max() > _FARTHEST_GUESS_A:
        return None
    overlap = molecule.intor_symmetric("int1e_ovlp")
    densities = []
    for coefficients, occupations in zip(guess.coefficients, guess.occupations, strict=True):
        # Löwdin: the orthonormal orbitals nearest to the old ones.
        values, vectors = np.linalg.eigh(coefficients.T @ overlap @ coefficients)
        orthonormal = coefficients @ (vectors / np.sqrt(values)) @ vectors.T
        densities.append((orthonormal * occupations) @ orthonormal.T)
    return densities[0] if len(densities) == 1 else np.array(densities)


def _orbitals(field: Any, atoms: Atoms) -> Orbitals:
    coefficients = np.atleast_3d(field.mo_coeff) if field.mo_coeff.ndim == 3 else field.mo_coeff[None]
    occupations = np.atleast_2d(field.mo_occ)
    occupied = [n > 0 for n in occupations]
    return Orbitals(
        atoms=atoms,
        coefficients=tuple(c[:, o] for c, o in zip(coefficients, occupied, strict=True)),
        occupations=tuple(n[o] for n, o in zip(occupations, occupied, strict=True)),
    )


def _check_dispersion(section: PyscfReference, elements: Sequence[str]) -> None:
    try:
        from pyscf.dispersion import dftd3, dftd4
    except ImportError as error:
        reason = f"but pyscf-dispersion cannot be imported ({error})"
        raise _misfit(section, "dispersion", reason, "Install it: pip install pyscf-dispersion.") from error
    functional = "hf" if _is_hartree_fock(section) else parse_dft(section.functional)[0]
    # Atoms in a row: only the parameters are looked up.
    row = gto.M(
        atom=[(element, (0.0, 0.0, 3.0 * i)) for i, element in enumerate(elements)],
        basis={},
        spin=None,
        verbose=0,
    )
    try:
        if section.dispersion == "d4":
            dftd4.DFTD4Dispersion(row, xc=functional)
        else:
            dftd3.DFTD3Dispersion(row, xc=functional, version=section.dispersion)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = f"which has no parameters for {section.functional} ({error})"
        raise _misfit(
            section, "dispersion", reason, "Set it to null, or choose another functional."
        ) from error


def _misfit(section: PyscfReference, key: str, reason: str, hint: str) -> ReferenceSetupError:
    value = getattr(section, key)
    return ReferenceSetupError(
        f"reference.{key} is {value}, {reason}.", hint=hint, key=f"reference.{key}", value=value
    )
