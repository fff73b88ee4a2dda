"""The audit of a trajectory: the driving model against the reference, on the last frame of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float

    from fff.data.records import Frame, Label

__all__ = ["AuditErrors", "audit_errors", "audit_frame"]


@dataclass(frozen=True)
class AuditErrors:
    """The two errors that decide whether a trajectory may go on.

    Attributes:
        energy_eV_per_atom: |E_model - E_reference| / n_atoms; not finite if one of the energies is not.
        force_eV_per_A: Root mean square over all force components; not finite if a force is not.
    """

    energy_eV_per_atom: float
    force_eV_per_A: float

    def pass_audit(self, energy_tolerance_eV_per_atom: float, force_tolerance_eV_per_A: float) -> bool:
        """Return whether both errors are below their tolerances; errors that are not finite never are.

        The energy alone can be right by chance where the forces that drive the trajectory are wrong.
        """
        # A comparison with NaN is false and infinity is below nothing.
        return bool(
            self.energy_eV_per_atom < energy_tolerance_eV_per_atom
            and self.force_eV_per_A < force_tolerance_eV_per_A
        )


def audit_errors(
    energy_model_eV: float,
    energy_reference_eV: float,
    forces_model_eV_per_A: Float[np.ndarray, "n_atoms 3"],
    forces_reference_eV_per_A: Float[np.ndarray, "n_atoms 3"],
) -> AuditErrors:
    """Return the errors of the model that drove a run, not of a newer one, on one frame.

    Args:
        energy_model_eV: Total energy from the model.
        energy_reference_eV: Total energy from the reference method.
        forces_model_eV_per_A: Forces from the model.
        forces_reference_eV_per_A: Forces from the reference method.

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
    return AuditErrors(energy_error, force_error)


def audit_frame(frame: Frame, label: Label, energy_shifts_eV: Mapping[str, float]) -> AuditErrors:
    """Return the errors of the model that drove a run, on its last frame.

    Args:
        frame: The frame, with the model's energy and forces.
        label: The reference's.
        energy_shifts_eV: What the model's energy lacks per atom, by atomic number as text.

    Raises:
        ValueError: If the frame lacks the model's forces.
    """
    if frame.forces_eV_per_A is None:
        msg = "A frame to be audited carries the energy and forces of the model that drove it; this has none."
        raise ValueError(msg)
    shift = sum(energy_shifts_eV.get(str(number), 0.0) for number in frame.atoms.numbers)
    return audit_errors(
        frame.energy_eV + shift, label.energy_eV, frame.forces_eV_per_A, label.forces_eV_per_A
    )
