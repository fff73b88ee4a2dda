"""SchNetPack force fields: one member, a committee of them, their training, and calculators for ASE.

The names below are loaded when first asked for, so that code which only handles files of models does not
wait for torch and SchNetPack (several seconds).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fff.models.calculators import CommitteeCalculator, MDCalculator, open_calculator
    from fff.models.committee import Committee, CommitteePrediction
    from fff.models.force_field import (
        SchNetPackForceField,
        create_force_field,
        load_force_field,
        with_reference_energies,
    )
    from fff.models.protocol import ForceField, Predictions
    from fff.models.reference_energies import fit_reference_energies, refit_reference_energies
    from fff.models.training import TrainedMember, train_member

__all__ = [
    "Committee",
    "CommitteeCalculator",
    "CommitteePrediction",
    "ForceField",
    "MDCalculator",
    "Predictions",
    "SchNetPackForceField",
    "TrainedMember",
    "create_force_field",
    "fit_reference_energies",
    "load_force_field",
    "open_calculator",
    "refit_reference_energies",
    "train_member",
    "with_reference_energies",
]

_HOMES = {
    "Committee": "committee",
    "CommitteeCalculator": "calculators",
    "CommitteePrediction": "committee",
    "ForceField": "protocol",
    "MDCalculator": "calculators",
    "Predictions": "protocol",
    "SchNetPackForceField": "force_field",
    "TrainedMember": "training",
    "create_force_field": "force_field",
    "fit_reference_energies": "reference_energies",
    "load_force_field": "force_field",
    "open_calculator": "calculators",
    "refit_reference_energies": "reference_energies",
    "train_member": "training",
    "with_reference_energies": "force_field",
}


def __getattr__(name: str) -> Any:
    """Import the module that holds `name` and return it (PEP 562)."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
