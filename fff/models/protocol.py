"""What every force field promises, whichever package its network comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from jaxtyping import Float

__all__ = ["ForceField", "Predictions"]


@dataclass(frozen=True)
class Predictions:
    """What one force field says about several structures.

    Attributes:
        energy_eV: Total energies, atomic reference energies included.
        forces_eV_per_A: One array per structure.
        stress_eV_per_A3: Voigt stress (xx, yy, zz, yz, xz, xy), NaN for structures without a volume that is
            periodic in all directions; None when not asked for.
        features: Mean over atoms of the scalar representation; None when not asked for.
    """

    energy_eV: Float[np.ndarray, " n_structures"]
    forces_eV_per_A: list[Float[np.ndarray, "n_atoms 3"]]
    stress_eV_per_A3: Float[np.ndarray, "n_structures 6"] | None = None
    features: Float[np.ndarray, "n_structures n_features"] | None = None


class ForceField(Protocol):
    """A trained (or fresh) force field.

    `tests/contracts/test_force_field_contract.py` holds every implementation to this: energies extensive,
    forces the negative gradient, invariance under rotation, translation and permutation, the same numbers
    alone and in a batch, and the same numbers after `to_files` and loading.
    """

    @property
    def description(self) -> Mapping[str, Any]:
        """What `model.json` holds: kind, hyper-parameters, elements, reference energies, training."""

    @property
    def cutoff_A(self) -> float:
        """Distance beyond which atoms do not see each other."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    @property
    def reference_energies_eV(self) -> dict[int, float]:
        """Energy of each element that is not left to the network, by atomic number."""

    def predict(
        self, structures: Sequence[Atoms], *, stress: bool = False, features: bool = False
    ) -> Predictions:
        """Return energies and forces of `structures`, isolated or periodic, of any sizes.

        Raises:
            StructureError: If an element is not one of the model's.
        """

    def md_calculator(self, *, skin_A: float) -> Calculator:
        """Return an ASE calculator with the numbers of `predict` that is fast along dynamics.

        Args:
            skin_A: How much farther than the cutoff its pair list reaches.
        """

    def to_files(self) -> dict[str, bytes]:
        """Return the files `model.json` and `weights.safetensors`."""
