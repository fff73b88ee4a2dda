"""The two records that travel between layers: a frame (sampled) and a label (calculated)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fff.base.ids import structure_hash

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float

__all__ = ["Frame", "Label"]


@dataclass(frozen=True)
class Frame:
    """A structure met by a sampler, with what the driving model said about it.

    Attributes:
        atoms: The structure, momenta included where there are any; no calculator.
        energy_eV: Total energy from the driving model; NaN when there was none.
        forces_eV_per_A: Forces from the driving model, or None.
        deviation_eV_per_A: Committee deviation when it was met; NaN when no committee was asked.
        step: Step of its run (0 for a structure that no run made).
    """

    atoms: Atoms
    energy_eV: float = float("nan")
    forces_eV_per_A: Float[np.ndarray, "n_atoms 3"] | None = None
    deviation_eV_per_A: float = float("nan")
    step: int = 0

    @property
    def hash(self) -> str:
        """The hash of the structure."""
        return structure_hash(self.atoms)


@dataclass(frozen=True)
class Label:
    """A structure with its reference energy and forces.

    Attributes:
        atoms: The structure, without calculator.
        energy_eV: Total energy.
        forces_eV_per_A: Forces.
        stress_eV_per_A3: Voigt stress (xx, yy, zz, yz, xz, xy), or None where it is not known.
        segment: Labels of one segment are correlated; a bootstrap draws segments, never single labels.
        wall_s: What the calculation took; NaN when not known.
    """

    atoms: Atoms
    energy_eV: float
    forces_eV_per_A: Float[np.ndarray, "n_atoms 3"] = field(repr=False)
    stress_eV_per_A3: Float[np.ndarray, "6"] | None = field(default=None, repr=False)
    segment: str = ""
    wall_s: float = float("nan")

    @property
    def hash(self) -> str:
        """The hash of the structure."""
        return structure_hash(self.atoms)
