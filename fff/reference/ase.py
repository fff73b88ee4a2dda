"""Any calculator that ASE knows by name, built-in or an external code."""

from __future__ import annotations

import difflib
import shlex
import shutil
import tempfile
import time
import weakref
from typing import TYPE_CHECKING, Any

from ase.calculators.calculator import (
    BadConfiguration,
    CalculatorSetupError,
    SCFError,
    external_calculators,
    get_calculator_class,
)
from ase.calculators.names import builtin, names

from fff.base.errors import NotConvergedError, ReferenceFailure, ReferenceSetupError
from fff.reference.protocol import ReferenceCalculator, bare_structure, make_label

if TYPE_CHECKING:
    from ase import Atoms

    from fff.config.reference import AseReference
    from fff.data.records import Label

__all__ = ["AseMethod"]


class AseMethod:
    """Reference method `ase`: a calculator of ASE by its registered name.

    Codes that exchange files work in a temporary folder unless `directory` is among the parameters. Energies
    are those that the forces belong to (with electronic smearing: the free energy).

    Args:
        section: The section `reference` of the config.
    """

    def __init__(self, section: AseReference) -> None:
        self._section = section
        self._calculator: Any = None
        self._folder: str | None = None

    @property
    def name(self) -> str:
        """The registered name of the calculator."""
        return self._section.calculator

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers."""
        return self._section.model_dump(mode="json", exclude={"time_limit_s"})

    @property
    def elements(self) -> frozenset[str] | None:
        """None, but for EMT: most calculators say so only when asked to calculate."""
        if self.name != "emt":
            return None
        from ase.calculators.emt import parameters

        return frozenset(parameters)

    def check(self, atoms: Atoms) -> None:
        """Check name, parameters, executable and, where they are known, elements.

        Raises:
            ReferenceSetupError: If one of them does not fit.
        """
        self._prepare()
        unknown = sorted(set(atoms.get_chemical_symbols()) - self.elements) if self.elements else []
        if unknown:
            raise self._misfit(f"it does not know the element {', '.join(unknown)}")

    def calculate(self, atoms: Atoms) -> Label:
        """Return the label of a structure; see `ReferenceMethod.calculate`."""
        started = time.perf_counter()
        atoms = bare_structure(atoms)
        self.check(atoms)
        work = atoms.copy()
        work.calc = self._calculator
        try:
            # Forces first: a code that is asked for the energy alone would run a second time for them.
            forces = work.get_forces(apply_constraint=False)
            results = dict(getattr(self._calculator, "results", {}))
            energy = results.get("free_energy") or work.get_potential_energy()
        except SCFError as error:
            msg = f"{self.name} of {atoms.get_chemical_formula()} did not converge: {error}."
            raise NotConvergedError(msg) from error
        except (NotImplementedError, CalculatorSetupError, FileNotFoundError) as error:
            raise self._misfit(str(error)) from error
        except Exception as error:
            # What a failed calculation leaves behind must not colour the next one.
            self._calculator = None
            msg = f"{self.name} of {atoms.get_chemical_formula()} failed: {type(error).__name__}: {error}."
            raise ReferenceFailure(msg) from error
        stress = results.get("stress") if atoms.pbc.all() else None
        return make_label(atoms, energy, forces, stress, time.perf_counter() - started)

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator with these numbers."""
        return ReferenceCalculator(self.calculate)

    def _prepare(self) -> None:
        if self._calculator is not None:
            return
        calculator = self._new_calculator()
        writes_files = self.name not in builtin and hasattr(calculator, "directory")
        if writes_files and "directory" not in self._section.parameters:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix=f"fff-{self.name}-")
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            calculator.directory = self._folder
        self._calculator = calculator

    def _new_calculator(self) -> Any:
        name = self.name
        if name not in names and name not in external_calculators:
            near = difflib.get_close_matches(name, names, n=1)
            raise self._misfit(
                "ASE has no calculator of that name", f"Did you mean {near[0]}?" if near else ""
            )
        try:
            kind = get_calculator_class(name)
            self._check_parameters(kind)
            calculator = kind(**self._section.parameters)
        except ImportError as error:
            raise self._misfit(f"it cannot be imported: {error}", "Install what it needs.") from error
        except (CalculatorSetupError, BadConfiguration) as error:
            raise self._misfit(
                str(error), "Tell ASE where the code is: see its page on configuration."
            ) from error
        except (TypeError, ValueError, KeyError, NotImplementedError, OSError) as error:
            raise self._misfit(f"its parameters do not fit: {error}", "See reference.parameters.") from error
        self._check_executable(calculator)
        return calculator

    def _check_parameters(self, kind: Any) -> None:
        """Refuse what these would silently ignore; most others take anything, rightly."""
        if self.name not in ("emt", "lj", "morse"):
            return
        known = kind.default_parameters
        for key in self._section.parameters:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(sorted(known))}."
                raise self._misfit(f"it has no parameter {key}", hint)

    def _check_executable(self, calculator: Any) -> None:
        command = getattr(getattr(calculator, "profile", None), "command", None)
        if not isinstance(command, str):
            return
        words = [word for word in shlex.split(command) if "=" not in word]
        if words and shutil.which(words[0]) is None:
            raise self._misfit(
                f"its executable {words[0]} was not found",
                f"Install it, put it on PATH, or set reference.parameters.command (now: {command}).",
            )

    def _misfit(self, reason: str, hint: str = "") -> ReferenceSetupError:
        return ReferenceSetupError(
            f"reference.calculator is {self.name}, but {reason}.",
            hint=hint or "Choose another reference.calculator, or other structures.",
            key="reference.calculator",
            value=self.name,
        )
