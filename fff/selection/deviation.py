"""How far the members of a committee disagree about a structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fff.data.deviation import force_deviation

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["Deviations", "deviations"]


@dataclass(frozen=True)
class Deviations:
    """The deviations of one structure.

    Attributes:
        max_force_eV_per_A: Largest force deviation of an atom.
        mean_force_eV_per_A: Mean of the atoms' force deviations.
        energy_eV_per_atom: Standard deviation of the total energy over members, per atom.
    """

    max_force_eV_per_A: float
    mean_force_eV_per_A: float
    energy_eV_per_atom: float

    def of_kind(self, kind: str) -> float:
        """Return the one that the config's key `selection.deviation` names.

        Raises:
            ValueError: If `kind` is not `max-force`, `mean-force` or `energy`.
        """
        values = {
            "max-force": self.max_force_eV_per_A,
            "mean-force": self.mean_force_eV_per_A,
            "energy": self.energy_eV_per_atom,
        }
        if kind not in values:
            msg = f"A deviation is one of {', '.join(values)}; it was {kind!r}."
            raise ValueError(msg)
        return values[kind]


def deviations(
    energies_eV: Float[np.ndarray, " n_members"], forces_eV_per_A: Float[np.ndarray, "n_members n_atoms 3"]
) -> Deviations:
    r"""Return the standard deviations over the members of a committee on one structure.

    .. math:: \sigma_i = \sqrt{\tfrac{1}{M} \sum_m |F_{m,i} - \bar F_i|^2} \qquad
              \sigma_E = \tfrac{1}{N} \sqrt{\tfrac{1}{M} \sum_m (E_m - \bar E)^2}

    These are raw spreads with 1/M, not calibrated uncertainties.

    Args:
        energies_eV: Total energy from each member.
        forces_eV_per_A: Forces from each member.

    Source:
        Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), doi:10.1016/j.cpc.2020.107206 (forces).

    Raises:
        ValueError: If there are fewer than two members or no atom, or a shape or a number is wrong.
    """
    energies = np.asarray(energies_eV, dtype=float)
    forces = np.asarray(forces_eV_per_A, dtype=float)
    if energies.ndim != 1 or forces.ndim != 3 or forces.shape[::2] != (len(energies), 3):
        msg = (
            "A committee's energies have the shape (members,) and its forces (members, atoms, 3); "
            f"these have {energies.shape} and {forces.shape}."
        )
        raise ValueError(msg)
    n_members, n_atoms, _ = forces.shape
    if n_members < 2 or n_atoms < 1:
        msg = f"A deviation needs at least 2 members and 1 atom; there are {n_members} and {n_atoms}."
        raise ValueError(msg)
    if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
        bad = np.flatnonzero(~(np.isfinite(energies) & np.isfinite(forces).all(axis=(1, 2)))).tolist()
        msg = f"A deviation needs finite energies and forces; those of the members {bad} are not."
        raise ValueError(msg)
    per_atom = force_deviation(forces)
    return Deviations(
        max_force_eV_per_A=float(per_atom.max()),
        mean_force_eV_per_A=float(per_atom.mean()),
        energy_eV_per_atom=float(energies.std()) / n_atoms,
    )
