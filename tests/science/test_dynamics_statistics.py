"""Dynamics samples the distributions that it says it samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.harmonic import SpringCalculator
from ase.cluster import Icosahedron

from fff.data.records import Frame
from fff.sampling import DynamicsResult, DynamicsSettings, reference_dynamics, run_dynamics

pytestmark = pytest.mark.science


def run(atoms: Atoms, calculator, *, seed: int = 0, **changes) -> DynamicsResult:
    defaults: dict[str, Any] = {
        "temperature_K": 300.0,
        "thermostat": "langevin",
        "friction_per_fs": 0.02,
        "pressure_GPa": 0.0,
        "check_every": 10,
        "stop_deviation_eV_per_A": math.inf,
        "max_temperature_factor": 10.0,
        "max_force_eV_per_A": 100.0,
        "min_distance_factor": 0.4,
        "time_limit_s": math.inf,
    }
    result = run_dynamics(Frame(atoms), DynamicsSettings(**(defaults | changes)), calculator, seed=seed)
    assert result.reason == "completed"
    return result


def kinetic(frame: Frame) -> float:
    return frame.atoms.get_kinetic_energy()


def test_langevin_samples_kinetic_and_potential_energy_of_a_harmonic_solid():
    # Hydrogen to copper: periods of 28 to 225 fs.
    atoms = Atoms("HOCu" * 10, positions=4.0 * np.indices((5, 6, 1)).reshape(3, -1).T)
    calculator = SpringCalculator(atoms.positions, k=5.0)
    result = run(atoms, calculator, n_steps=4000, timestep_fs=1.0, n_frames=400)
    frames = result.others[40:]
    expected = 1.5 * len(atoms) * units.kB * 300
    # Either energy of 90 classical modes scatters by sqrt(2 / 90) of its mean; 3600 fs at a relaxation time
    # of 50 fs make at least 36 independent samples. Four standard errors.
    tolerance = 4 * math.sqrt(2 / 90 / 36)
    assert np.mean([kinetic(f) for f in frames]) == pytest.approx(expected, rel=tolerance)
    assert np.mean([f.energy_eV for f in frames]) == pytest.approx(expected, rel=tolerance)


def test_fresh_momenta_are_canonical_and_not_scaled():
    atoms = Atoms("CH4", positions=3.0 * np.indices((5, 1, 1)).reshape(3, -1).T)
    calculator = SpringCalculator(atoms.positions, k=5.0)
    energies = [
        kinetic(run(atoms, calculator, n_steps=0, timestep_fs=1.0, n_frames=0, seed=seed).last)
        for seed in range(400)
    ]
    kT = units.kB * 300
    # The sum of 15 squares: mean 7.5 kT, variance 7.5 kT^2, and of the variance's estimate see chi-square.
    assert np.mean(energies) == pytest.approx(7.5 * kT, abs=4 * math.sqrt(7.5 / 400) * kT)
    assert np.var(energies) == pytest.approx(7.5 * kT**2, rel=4 * math.sqrt((2 + 6 / 7.5) / 400))


def test_langevin_keeps_the_temperature_of_a_cluster_in_runs_that_are_continued():
    atoms = Icosahedron("Cu", 2)  # 13 atoms
    frame, temperatures = Frame(atoms), []
    calculator = EMT()
    for seed in range(20):
        settings = {"n_steps": 60, "timestep_fs": 4.0, "n_frames": 6}
        result = run(frame.atoms, calculator, seed=seed, **settings)
        frame = result.last
        if seed >= 2:
            temperatures += [f.atoms.get_temperature() for f in result.others]
    # 39 degrees of freedom; runs of 240 fs are nearly five relaxation times of 50 fs each: 18 of them, taken
    # as two independent samples each.
    assert np.mean(temperatures) == pytest.approx(300, rel=4 * math.sqrt(2 / 39 / 36))


@pytest.mark.parametrize("timestep_fs", [1.0, 4.0])
def test_nve_conserves_energy(timestep_fs):
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    settings = {"thermostat": "nve", "n_steps": 200, "n_frames": 20, "temperature_K": 600.0}
    result = run(atoms, EMT(), timestep_fs=timestep_fs, **settings)
    totals = np.array([kinetic(f) + f.energy_eV for f in result.others])
    # Verlet's error oscillates with the square of the step.
    assert np.ptp(totals) / len(atoms) < 2e-5 * timestep_fs**2
    assert np.ptp([kinetic(f) for f in result.others]) / len(atoms) > 1e-3


def test_test_set_frames_are_at_their_temperature():
    atoms = Atoms("HOC" * 10, positions=4.0 * np.indices((5, 6, 1)).reshape(3, -1).T)
    calculator = SpringCalculator(atoms.positions, k=5.0)
    labels = reference_dynamics(
        atoms,
        calculator,
        temperature_K=500,
        n_frames=100,
        interval_steps=40,
        timestep_fs=1.0,
        equilibration_steps=100,
        seed=0,
    )
    expected = 1.5 * len(atoms) * units.kB * 500
    # 4000 fs at a relaxation time of 200 fs make at least 10 independent samples of 90 modes.
    assert np.mean([label.energy_eV for label in labels]) == pytest.approx(
        expected, rel=4 * math.sqrt(2 / 90 / 10)
    )


@pytest.mark.slow
def test_npt_samples_pressure_and_temperature_of_copper():
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    settings = {"thermostat": "npt", "timestep_fs": 4.0, "n_frames": 40, "friction_per_fs": 0.01}
    result = run(atoms, EMT(), n_steps=400, pressure_GPa=5.0, **settings)
    frames = result.others[10:]
    # Pressures scatter by about sqrt(B kT / V) = 1 GPa in this cell and temperatures by sqrt(2 / 96); a
    # relaxation time of 100 fs makes at least 12 independent samples of 1200 fs.
    pressures = [pressure_GPa(frame) for frame in frames]
    assert np.mean(pressures) == pytest.approx(5.0, abs=4 * 1.0 / math.sqrt(12))
    expected = 1.5 * len(atoms) * units.kB * 300
    assert np.mean([kinetic(f) for f in frames]) == pytest.approx(expected, rel=4 * math.sqrt(2 / 96 / 12))


def pressure_GPa(frame: Frame) -> float:
    again = frame.atoms.copy()
    again.calc = EMT()
    return -np.trace(again.get_stress(voigt=False, include_ideal_gas=True)) / 3 / units.GPa


def test_npt_moves_towards_the_pressure_quickly():
    atoms = bulk("Cu", cubic=True)
    volume = atoms.get_volume()
    settings = {"thermostat": "npt", "timestep_fs": 4.0, "n_frames": 20, "check_every": 2}
    result = run(atoms, EMT(), n_steps=60, pressure_GPa=20.0, **settings)
    # The bulk modulus of EMT copper is 130 GPa: 20 GPa compress it by about 12 %, swings included.
    shrunk = np.mean([1 - f.atoms.get_volume() / volume for f in result.others[8:]])
    assert 0.06 < shrunk < 0.18


def test_cutting_a_run_into_pieces_does_not_still_the_piston():
    atoms = bulk("Cu", cubic=True)
    places = atoms.copy()
    settings = {"thermostat": "npt", "timestep_fs": 2.0, "n_frames": 0, "n_steps": 1}
    momenta = []
    for seed in range(100):
        result = run(places, EMT(), seed=seed, **settings)
        momenta.append(result.last.atoms.get_volume() / places.get_volume() - 1)
    # Volume velocity 3 V p / W with p of variance W kT: a still piston would hardly move in one step.
    reduced_mass = (3 * 4 + 3) * 200.0**2
    expected = 3 * 2.0 / math.sqrt(reduced_mass)
    assert np.std(momenta) == pytest.approx(expected, rel=4 / math.sqrt(2 * 100))
