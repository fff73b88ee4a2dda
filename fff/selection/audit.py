"""The audit of a trajectory: the driving model against the reference, on the last frame of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["AuditVerdict", "audit_verdict"]


@dataclass(frozen=True)
class AuditVerdict:
    """Whether a trajectory may go on, and the two errors that decided it.

    Attributes:
        passed: Whether both errors are below their tolerances.
        energy_error_eV_per_atom: |E_model - E_reference| / n_atoms; not finite if one of the energies is not.
        force_error_eV_per_A: Root mean square over all force components; not finite if a force is not.
    """

    passed: bool
    energy_error_eV_per_atom: float
    force_error_eV_per_A: float


def audit_verdict(
    energy_model_eV: float,
    energy_reference_eV: float,
    forces_model_eV_per_A: Float[np.ndarray, "n_atoms 3"],
    forces_reference_eV_per_A: Float[np.ndarray, "n_atoms 3"],
    energy_tolerance_eV_per_atom: float,
    force_tolerance_eV_per_A: float,
) -> AuditVerdict:
    """Return the verdict on one frame. Numbers that are not finite never pass.

    Both errors must be below their tolerances: the energy alone can be right by chance where the forces that
    drive the trajectory are wrong.

    Args:
        energy_model_eV: Total energy from the model that drove the run, not from a newer one.
        energy_reference_eV: Total energy from the reference method.
        forces_model_eV_per_A: Forces from the same model.
        forces_reference_eV_per_A: Forces from the reference method.
        energy_tolerance_eV_per_atom: Bound on the energy error.
        force_tolerance_eV_per_A: Bound on the force error.

    Raises:
        ValueError: If the two force arrays are not of one shape (n_atoms, 3) with at least one atom.
    """
    model = np.asarray(forces_model_eV_per_A, dtype=float)
    reference = np.asarray(forces_reference_eV_per_A, dtype=float)
    if model.shape != reference.shape or model.ndim != 2 or model.shape[0] < 1 or model.shape[1] != 3:
        msg = (
            "An audit compares forces of one shape (n_atoms, 3); "
            f"the model's have {model.shape}, the reference's {reference.shape}."
        )
        raise ValueError(msg)
    with np.errstate(invalid="ignore", over="ignore"):
        energy_error = float(abs(np.float64(energy_model_eV) - np.float64(energy_reference_eV)) / len(model))
        force_error = float(np.sqrt(np.mean((model - reference) ** 2)))
    # A comparison with NaN is false and infinity is below nothing, so neither passes.
    passed = energy_error < energy_tolerance_eV_per_atom and force_error < force_tolerance_eV_per_A
    return AuditVerdict(passed, energy_error, force_error)
