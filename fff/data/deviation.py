"""How far the members of a committee disagree about the force on each atom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["force_deviation"]


def force_deviation(
    forces_eV_per_A: Float[np.ndarray, "n_members n_atoms 3"],
) -> Float[np.ndarray, " n_atoms"]:
    r"""Return the standard deviation over members of each atom's force vector, in eV/Å.

    .. math:: \sigma_i = \sqrt{\frac{1}{M} \sum_m |F_{m,i} - \bar F_i|^2}

    One member has no spread: the result is zero then. The largest over the atoms is what guards a
    trajectory: it does not shrink with the size of a system of which only one corner is unknown.

    Args:
        forces_eV_per_A: Forces of every member on the same structure.

    Source:
        Zhang et al., Comput. Phys. Commun. 253, 107206 (2020), doi:10.1016/j.cpc.2020.107206, eq. 3.

    Raises:
        ValueError: If the array has not the shape (n_members, n_atoms, 3) with at least one member.
    """
    forces = np.asarray(forces_eV_per_A, dtype=float)
    if forces.ndim != 3 or forces.shape[0] < 1 or forces.shape[2] != 3:
        msg = f"Forces of a committee have the shape (members, atoms, 3); this array has {forces.shape}."
        raise ValueError(msg)
    spread = forces - forces.mean(axis=0)
    deviation: np.ndarray = np.sqrt((spread**2).sum(axis=2).mean(axis=0))
    return deviation
