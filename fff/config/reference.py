"""Section `reference`: the method that makes labels, by `kind`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from fff.base.errors import ConfigError
from fff.config.section import Positive, PositiveInt, Section

__all__ = ["AseReference", "PyscfReference", "ReferenceSection", "XtbCliReference", "XtbReference"]

_TIME_LIMIT = "Time after which a calculation is killed and tried again."
_KEEP_FILES = (
    "Keep the files of external codes in RUN_DIR/tasks also where a calculation ended well; those of "
    "one that failed always stay."
)
_CHARGE = "Total charge of every structure, in elementary charges."
_MULTIPLICITY = "Spin multiplicity of every structure: 1 + number of unpaired electrons."


# fmt: off
Solvent = Literal[
    "acetone", "acetonitrile", "aniline", "benzaldehyde", "benzene", "ch2cl2", "chcl3", "cs2", "dioxane",
    "dmf", "dmso", "ethanol", "ether", "ethylacetate", "furane", "hexadecane", "hexane", "methanol",
    "nitromethane", "octanol", "phenol", "thf", "toluene", "water", "woctanol",
]
# fmt: on
CommandWords = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=100)]


class XtbReference(Section):
    """Tight binding with tblite: fractions of a second per structure, elements up to radon."""

    kind: Literal["xtb"] = Field(description="GFN-xTB, by tblite.")
    method: Literal["GFN2-xTB", "GFN1-xTB"] = Field(
        "GFN2-xTB", description="Parametrisation, that is the tight-binding method or force field."
    )
    charge: int = Field(0, description=_CHARGE)
    multiplicity: PositiveInt = Field(1, description=_MULTIPLICITY)
    accuracy: float = Field(
        1.0, ge=1e-4, le=1000, description="Numerical accuracy as xtb counts it: smaller is tighter."
    )
    max_iterations: PositiveInt = Field(
        250, description="Self-consistency cycles after which a calculation counts as not converged."
    )
    electronic_temperature_K: Positive = Field(
        300.0, description="Temperature of the electrons, which smears their occupation."
    )
    time_limit_s: Positive = Field(3600.0, description=_TIME_LIMIT)


class XtbCliReference(XtbReference):
    """The command line of xtb, an external code: also its force field and implicit solvents; no cells."""

    kind: Literal["xtb-cli"] = Field(description="GFN-xTB or GFN-FF, by the program xtb.")  # type: ignore[assignment] # each kind has its own
    method: Literal["GFN2-xTB", "GFN1-xTB", "GFN-FF"] = Field(  # type: ignore[assignment] # one more
        "GFN2-xTB", description="Parametrisation, that is the tight-binding method or force field."
    )
    solvent: Solvent | None = Field(None, description="Implicit solvent (ALPB); null: none.")
    command: CommandWords = Field(
        ["xtb"], description="The executable, with arguments in front of fff's own if need be."
    )
    keep_files: bool = Field(False, description=_KEEP_FILES)


class PyscfReference(Section):
    """Density functional theory or Hartree-Fock with PySCF, isolated structures only."""

    kind: Literal["pyscf"] = Field(description="Density functional theory, by PySCF.")
    functional: str = Field(
        "PBE",
        min_length=1,
        description="Functional as PySCF names it, as PBE or B3LYP; or HF for Hartree-Fock.",
    )
    # A name: PySCF would evaluate text and files that it takes for basis sets.
    basis: str = Field(
        "def2-SVP",
        min_length=1,
        pattern=r"^[\w+*(),.@ -]+$",
        description="Basis set as PySCF names it, as def2-SVP or cc-pVDZ.",
    )
    charge: int = Field(0, description=_CHARGE)
    multiplicity: PositiveInt = Field(1, description=_MULTIPLICITY)
    density_fitting: bool = Field(
        True,
        description=(
            "Approximate Coulomb integrals with an auxiliary basis: faster, and forces change by about "
            "1 meV/Å."
        ),
    )
    dispersion: Literal["d3bj", "d4"] | None = Field(None, description="Dispersion correction; null: none.")
    grid_level: int = Field(
        3, ge=0, le=9, description="Fineness of the functional's integration grid: higher is finer."
    )
    max_cycles: PositiveInt = Field(
        100, description="Self-consistency cycles after which a calculation counts as not converged."
    )
    convergence_eV: Positive = Field(
        1e-6, description="Change of energy at which a calculation has converged."
    )
    max_memory_MB: Positive = Field(4000.0, description="Memory that PySCF may take, for each worker.")
    time_limit_s: Positive = Field(3600.0, description=_TIME_LIMIT)


class AseReference(Section):
    """Any calculator that ASE knows by name."""

    kind: Literal["ase"] = Field(description="A calculator of ASE.")
    calculator: str = Field(
        min_length=1, description="Name of the calculator as ASE knows it, as emt, lj, nwchem or espresso."
    )
    parameters: dict[str, Any] = Field(
        default={},
        description="Keyword arguments of the calculator, in its own names and units; paths are absolute.",
    )
    keep_files: bool = Field(False, description=_KEEP_FILES)
    time_limit_s: Positive = Field(3600.0, description=_TIME_LIMIT)

    def check(self) -> None:
        """Check that the parameters are what workers, the log and a copy of the config can hold.

        Raises:
            ConfigError: If one is neither text, finite number, true, false nor null, nor made of these.
        """
        _check_plain(self.parameters, "reference.parameters")


def _check_plain(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_plain(part, f"{key}.{name}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            _check_plain(part, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"`{key}` is {value}; it must be a finite number.", hint="Give a number.", key=key, value=None
        )
    elif not isinstance(value, str | int | float | None) or not _is_writable(value):
        msg = f"`{key}` is {value!r:.80}; it must be a text, a number, true, false, null, or made of these."
        raise ConfigError(msg, hint="Put texts, and dates, in quotes.", key=key, value=None)


def _is_writable(value: Any) -> bool:
    """Whether a text has no half of a character, which YAML can express and no file can hold."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


ReferenceSection = Annotated[
    XtbReference | PyscfReference | AseReference | XtbCliReference, Field(discriminator="kind")
]
