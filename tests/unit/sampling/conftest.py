"""Calculators that break when told, and the settings of a short run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from fff.data.records import Frame
from fff.sampling import DynamicsSettings


class Springs(Calculator):
    """Atoms tied to places, in one array that is written over; `change` may spoil the n-th evaluation."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(
        self, places: np.ndarray, change: Callable[[int, dict[str, Any]], None] | None = None
    ) -> None:
        super().__init__()
        self.places = places.copy()
        self.change = change or (lambda n, results: None)
        self.n_evaluations = 0
        self.buffer = np.zeros_like(self.places)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        shift = self.atoms.positions - self.places
        self.buffer[:] = -2.0 * shift
        self.results = {"energy": float((shift**2).sum()), "forces": self.buffer, "stress": np.zeros(6)}
        self.change(self.n_evaluations, self.results)
        self.n_evaluations += 1


@pytest.fixture
def atoms() -> Atoms:
    return Atoms("CHOHCO", positions=3.0 * np.indices((2, 3, 1)).reshape(3, -1).T)


@pytest.fixture
def start(atoms) -> Frame:
    return Frame(atoms)


@pytest.fixture
def springs(atoms) -> Callable[..., Springs]:
    return lambda change=None: Springs(atoms.positions, change)


@pytest.fixture
def settings() -> Callable[..., DynamicsSettings]:
    defaults: dict[str, Any] = {
        "n_steps": 40,
        "temperature_K": 300.0,
        "thermostat": "langevin",
        "timestep_fs": 0.5,
        "friction_per_fs": 0.01,
        "pressure_GPa": 0.0,
        "check_every": 10,
        "stop_deviation_eV_per_A": 2.0,
        "max_temperature_factor": 10.0,
        "max_force_eV_per_A": 30.0,
        "min_distance_factor": 0.6,
        "n_frames": 3,
        "time_limit_s": 60.0,
    }
    return lambda **changes: DynamicsSettings(**(defaults | changes))
