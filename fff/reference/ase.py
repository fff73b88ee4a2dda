"""Any calculator that ASE knows by name, built-in or an external code."""

from __future__ import annotations

import difflib
import time
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
from fff.external import parse_command
from fff.reference.launching import check_code_can_use, launch_unless_self_starting, parameters_with_launch
from fff.reference.outside import (
    Outside,
    has_not_converged,
    is_configured_by_ase,
    runs_code,
    without_blanks,
)
from fff.reference.protocol import ReferenceCalculator, bare_structure, make_label

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

    from fff.config.reference import AseReference
    from fff.data.records import Label
    from fff.external import Workplace

__all__ = ["AseMethod"]


_SETUP = (NotImplementedError, CalculatorSetupError, FileNotFoundError)
# Places and commands change no number. They are one calculation's, or one machine's.
_OWN_PLACES = ("directory", "label", "restart", "profile")
_NOT_IN_SETTINGS = {"command", "perm", "scratch", "memory", *_OWN_PLACES}


class AseMethod:
    """Reference method `ase`: a calculator of ASE by its registered name.

    Codes that exchange files get a work directory for each calculation; ASE writes their input and reads
    their results, and `fff.external` runs them, but for the few that ASE can only run by itself: those of
    cp2k, vasp, castep, lammps and some others. Where the site has a launch line, it goes before
    the command of every code that MPI can start, see `fff.reference.launching`. Energies are those that the
    forces belong to (with electronic smearing: the free energy).

    Args:
        section: The section `reference` of the config.
        workplace: Where external codes calculate.
    """

    def __init__(self, section: AseReference, workplace: Workplace) -> None:
        self._section = section
        self._workplace = workplace
        self._calculator: Any = None

    @property
    def name(self) -> str:
        """The registered name of the calculator."""
        return self._section.calculator

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes the numbers."""
        settings = self._section.model_dump(mode="json", exclude={"time_limit_s", "keep_files"})
        parameters = settings["parameters"]
        settings["parameters"] = {
            key: value for key, value in parameters.items() if key not in _NOT_IN_SETTINGS
        }
        return settings

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
        # A new one each time: what it remembers of the structure before must not colour this one, not even in
        # the order of a sum, as a neighbour list does.
        self._calculator = self._new_calculator()
        check_code_can_use(self.name, self._workplace.launch, is_run_here=runs_code(self._calculator))
        if not self._writes_files(self._calculator):
            return self._solve(atoms, started)
        with (
            self._workplace.directory(keep=self._section.keep_files) as folder,
            without_blanks(folder) as plain,
        ):
            return self._solve(atoms, started, self._send_to(plain), folder)

    def ase_calculator(self) -> ReferenceCalculator:
        """Return an ASE calculator with these numbers."""
        return ReferenceCalculator(self.calculate)

    def _solve(
        self, atoms: Atoms, started: float, outside: Outside | None = None, folder: Path | None = None
    ) -> Label:
        work = atoms.copy()
        work.calc = self._calculator
        try:
            # Forces first: a code that is asked for the energy alone would run a second time for them.
            forces = work.get_forces(apply_constraint=False)
            results = dict(getattr(self._calculator, "results", {}))
            energy = results.get("free_energy") or work.get_potential_energy()
        except Exception as error:
            # What a failed calculation leaves behind must not colour the next one.
            self._calculator = None
            raise self._failure(error, atoms.get_chemical_formula(), outside, folder) from error
        stress = results.get("stress") if atoms.pbc.all() else None
        return make_label(atoms, energy, forces, stress, time.perf_counter() - started)

    def _failure(
        self, error: Exception, formula: str, outside: Outside | None, folder: Path | None
    ) -> ReferenceFailure:
        """Return what an exception means: the structure's fault, that of the set-up, or as it says itself."""
        if isinstance(error, ReferenceFailure):
            return type(error)(f"{formula}: {error.message}", hint=error.hint, **error.context)
        has_run = outside is not None and outside.has_run
        if isinstance(error, _SETUP) and not has_run:
            return self._misfit(str(error))
        said = folder is not None and has_not_converged(folder, self.name, failed=True)
        if said or isinstance(error, SCFError):
            return NotConvergedError(f"{self.name} of {formula} did not converge: {error}.")
        return ReferenceFailure(f"{self.name} of {formula} failed: {type(error).__name__}: {error}.")

    def _prepare(self) -> None:
        if self._calculator is not None:
            return
        calculator = self._new_calculator()
        if self._writes_files(calculator):
            self._check_places(calculator)
        if runs_code(calculator):
            Outside(calculator)
        self._calculator = calculator

    def _writes_files(self, calculator: Any) -> bool:
        return self.name not in builtin and hasattr(calculator, "directory")

    def _send_to(self, folder: Path) -> Outside | None:
        """Have the calculator work in a folder; return what runs its code, if not ASE itself."""
        if not runs_code(self._calculator):
            self._calculator.directory = str(folder)
            return None
        outside = Outside(self._calculator, launch_unless_self_starting(self.name, self._workplace.launch))
        outside.go_to(folder, time_limit_s=self._workplace.time_limit_s or self._section.time_limit_s)
        return outside

    def _check_places(self, calculator: Any) -> None:
        parameters = self._section.parameters
        for key in _OWN_PLACES:
            if key in parameters and (key != "label" or "/" in str(parameters[key])):
                hint = "Leave it out: each calculation has a folder of its own, which `keep_files` keeps."
                raise self._misfit(f"reference.parameters.{key} is given", hint)
        if "command" in parameters and is_configured_by_ase(calculator):
            hint = f"Give the command in section [{self.name}] of ASE's configuration file."
            raise self._misfit("it does not take reference.parameters.command", hint)

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
            calculator = kind(
                **parameters_with_launch(name, self._section.parameters, self._workplace.launch)
            )
        except ImportError as error:
            raise self._misfit(f"it cannot be imported: {error}", "Install what it needs.") from error
        except (CalculatorSetupError, BadConfiguration) as error:
            raise self._misfit(
                str(error), "Tell ASE where the code is: see its page on configuration."
            ) from error
        except (TypeError, ValueError, KeyError, NotImplementedError, OSError) as error:
            raise self._misfit(f"its parameters do not fit: {error}", "See reference.parameters.") from error
        return calculator

    def _check_parameters(self, kind: Any) -> None:
        """Refuse shell syntax in commands, and keys that some calculators would silently ignore.

        Some calculators of ASE start their code themselves, through a shell.
        """
        for key, value in self._section.parameters.items():
            if "command" in key and isinstance(value, str):
                parse_command(value, f"reference.parameters.{key}")
        if self.name not in ("emt", "lj", "morse"):
            return
        known = kind.default_parameters
        for key in self._section.parameters:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(sorted(known))}."
                raise self._misfit(f"it has no parameter {key}", hint)

    def _misfit(self, reason: str, hint: str = "") -> ReferenceSetupError:
        return ReferenceSetupError(
            f"reference.calculator is {self.name}, but {reason}.",
            hint=hint or "Choose another reference.calculator, or other structures.",
            key="reference.calculator",
            value=self.name,
        )
