from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator

from fff.base.errors import StructureError
from fff.data.packing import frames_from_bytes, frames_to_bytes
from fff.data.records import Frame
from fff.sampling import DynamicsSettings, run_dynamics


def spoil(after: int, key: str, value: float):
    """Change one number of every evaluation after the given one; evaluation k belongs to step k."""

    def change(n, results):
        if n >= after:
            if key == "forces":
                results["forces"][0, 0] = value
            else:
                results[key] = value

    return change


def test_a_run_without_trouble_makes_all_its_steps(start, settings, springs):
    result = run_dynamics(start, settings(), springs(), seed=1)
    assert (result.reason, result.steps, result.last.step) == ("completed", 40, 40)
    assert math.isnan(result.max_deviation_eV_per_A)


def test_a_step_costs_one_evaluation(start, settings, springs):
    calculator = springs()
    run_dynamics(start, settings(n_steps=40), calculator, seed=1)
    assert calculator.n_evaluations == 41


def test_frames_carry_the_numbers_of_their_own_geometry(start, settings, springs):
    result = run_dynamics(start, settings(n_frames=10), springs(), seed=1)
    for frame in [*result.others, result.last]:
        again = frame.atoms.copy()
        again.calc = springs()
        assert frame.energy_eV == again.get_potential_energy()
        assert np.array_equal(frame.forces_eV_per_A, again.get_forces())
        assert frame.atoms.calc is None
        assert frame.atoms.has("momenta")


def test_same_seed_same_trajectory(start, settings, springs):
    one, two, other = (
        run_dynamics(start, settings(), springs(), seed=seed, deviation=lambda _: 0.5) for seed in (7, 7, 8)
    )
    pack = [frames_to_bytes([*r.others, r.last]) for r in (one, two, other)]
    assert pack[0] == pack[1]
    assert pack[0] != pack[2]


def test_a_run_can_be_cut_in_two(start, settings, springs):
    whole = run_dynamics(start, settings(n_steps=40, thermostat="nve"), springs(), seed=1)
    half = run_dynamics(start, settings(n_steps=20, thermostat="nve"), springs(), seed=1)
    (half_last,) = frames_from_bytes(frames_to_bytes([half.last]))
    rest = run_dynamics(half_last, settings(n_steps=20, thermostat="nve"), springs(), seed=99)
    assert np.allclose(rest.last.atoms.positions, whole.last.atoms.positions, rtol=0, atol=1e-12)
    assert np.allclose(rest.last.atoms.get_momenta(), whole.last.atoms.get_momenta(), rtol=0, atol=1e-12)


def test_a_langevin_run_keeps_the_momenta_it_is_given(atoms, settings, springs):
    atoms.set_momenta(np.full((6, 3), 0.5))
    result = run_dynamics(Frame(atoms), settings(n_steps=0), springs(), seed=1)
    assert (result.last.atoms.get_momenta() == 0.5).all()


def test_momenta_of_a_relaxation_are_drawn_anew(atoms, settings, springs):
    atoms.set_momenta(np.zeros((6, 3)))
    result = run_dynamics(Frame(atoms), settings(n_steps=0), springs(), seed=1)
    assert result.last.atoms.get_temperature() > 50


def test_the_start_frame_is_not_changed(start, settings, springs):
    before = start.atoms.copy()
    run_dynamics(start, settings(), springs(), seed=1)
    assert start.atoms == before
    assert not start.atoms.has("momenta")
    assert start.atoms.calc is None


@pytest.mark.parametrize("n_frames", [0, 1, 3, 10, 100])
def test_others_are_few_ordered_and_neither_start_nor_last(n_frames, start, settings, springs):
    result = run_dynamics(start, settings(n_frames=n_frames), springs(), seed=1)
    steps = [frame.step for frame in result.others]
    assert len(steps) == min(n_frames, 39)
    assert steps == sorted(set(steps))
    assert not {0, 40} & set(steps)


def test_others_are_spread_over_the_whole_run(start, settings, springs):
    result = run_dynamics(start, settings(n_steps=1000, n_frames=4), springs(), seed=1)
    assert [frame.step for frame in result.others] == [250, 500, 750, 990]


def test_frames_come_from_checks_if_there_are_enough(start, settings, springs):
    result = run_dynamics(start, settings(n_frames=3), springs(), seed=1, deviation=lambda _: 0.5)
    assert [frame.step for frame in result.others] == [10, 20, 30]
    assert [frame.deviation_eV_per_A for frame in [*result.others, result.last]] == [0.5] * 4


def test_frames_between_checks_fill_up_and_their_deviation_is_unknown(start, settings, springs):
    result = run_dynamics(start, settings(n_frames=7), springs(), seed=1, deviation=lambda _: 0.5)
    known = {frame.step: frame.deviation_eV_per_A for frame in result.others}
    assert list(known) == [5, 10, 15, 20, 25, 30, 35]
    assert [math.isnan(value) for value in known.values()] == [True, False] * 3 + [True]


def test_the_committee_is_asked_at_every_check_and_at_the_end(start, settings, springs):
    asked = []
    result = run_dynamics(
        start,
        settings(n_steps=25),
        springs(),
        seed=1,
        deviation=lambda a: asked.append(a.positions.copy()) or 0.1,
    )
    assert len(asked) == 3
    assert np.array_equal(asked[-1], result.last.atoms.positions)
    assert result.steps == 25


def test_what_the_committee_does_to_its_structure_moves_nothing(start, settings, springs):
    def vandal(atoms):
        atoms.positions += 100.0
        atoms.calc = Calculator()
        return 0.1

    undisturbed = run_dynamics(start, settings(), springs(), seed=1)
    disturbed = run_dynamics(start, settings(), springs(), seed=1, deviation=vandal)
    assert disturbed.last.atoms == undisturbed.last.atoms
    assert disturbed.last.atoms.calc is None


def test_a_run_ends_where_the_committee_disagrees(start, settings, springs):
    values = iter([0.3, 1.9, 2.1, 0.1])
    result = run_dynamics(start, settings(), springs(), seed=1, deviation=lambda _: next(values))
    assert (result.reason, result.steps) == ("deviation", 20)
    assert result.last.deviation_eV_per_A == 1.9
    assert [(frame.step, frame.deviation_eV_per_A) for frame in result.others] == [(10, 0.3), (30, 2.1)]
    assert result.max_deviation_eV_per_A == 2.1


def test_the_frame_of_disagreement_is_kept_even_if_only_one_may_be(start, settings, springs):
    values = iter([0.3, 1.9, 2.1])
    result = run_dynamics(start, settings(n_frames=1), springs(), seed=1, deviation=lambda _: next(values))
    assert [frame.deviation_eV_per_A for frame in result.others] == [2.1]


def test_disagreement_at_the_first_check_leaves_the_start_frame_to_go_on_from(start, settings, springs):
    result = run_dynamics(start, settings(), springs(), seed=1, deviation=lambda _: 5.0)
    assert (result.reason, result.steps) == ("deviation", 0)
    assert np.array_equal(result.last.atoms.positions, start.atoms.positions)
    assert result.last.energy_eV == 0.0
    assert [frame.step for frame in result.others] == [10]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_deviation_that_is_no_number_ends_the_run_and_its_frame_is_not_kept(
    value, start, settings, springs
):
    values = iter([0.3, value])
    result = run_dynamics(start, settings(), springs(), seed=1, deviation=lambda _: next(values))
    assert (result.reason, result.steps, result.max_deviation_eV_per_A) == ("non-finite", 10, 0.3)
    assert [frame.step for frame in result.others] == [19]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("forces", 31.0, "force"),
        ("forces", -1e100, "force"),
        ("forces", math.nan, "non-finite"),
        ("forces", math.inf, "non-finite"),
        ("energy", math.nan, "non-finite"),
        ("energy", -math.inf, "non-finite"),
    ],
)
def test_a_broken_evaluation_ends_the_run_and_the_frame_before_it_is_kept(
    key, value, reason, start, settings, springs
):
    result = run_dynamics(start, settings(), springs(spoil(27, key, value)), seed=1)
    assert (result.reason, result.steps) == (reason, 20)
    assert [frame.step for frame in result.others] == [10, 26]
    undisturbed = run_dynamics(start, settings(n_steps=26, check_every=1, n_frames=0), springs(), seed=1)
    assert result.others[-1].atoms == undisturbed.last.atoms
    for frame in [*result.others, result.last]:
        assert np.abs(frame.forces_eV_per_A).max() < 30
        assert math.isfinite(frame.energy_eV)


@pytest.mark.parametrize("n_frames", [1, 2, 10])
def test_a_run_that_breaks_right_after_a_check_returns_each_frame_once(n_frames, start, settings, springs):
    result = run_dynamics(start, settings(n_frames=n_frames), springs(spoil(21, "energy", math.nan)), seed=1)
    steps = [frame.step for frame in [*result.others, result.last]]
    assert result.steps == 20
    assert len(set(steps)) == len(steps)


def test_a_first_evaluation_with_too_large_forces_leaves_the_start_frame(start, settings, springs):
    result = run_dynamics(start, settings(), springs(spoil(0, "forces", 31.0)), seed=1)
    assert (result.reason, result.steps, result.others) == ("force", 0, [])
    assert np.array_equal(result.last.atoms.positions, start.atoms.positions)
    assert result.last.forces_eV_per_A[0, 0] == 31.0


def test_a_first_evaluation_that_is_no_number_leaves_the_start_frame_without_numbers(
    atoms, settings, springs
):
    stale = Frame(atoms, energy_eV=-1.0, forces_eV_per_A=np.ones((6, 3)), step=400)
    result = run_dynamics(stale, settings(), springs(spoil(0, "forces", math.nan)), seed=1)
    assert (result.reason, result.steps, result.others) == ("non-finite", 0, [])
    assert math.isnan(result.last.energy_eV)
    assert result.last.forces_eV_per_A is None


def test_a_structure_that_heats_up_ends_the_run(atoms, settings, springs):
    calculator = springs()
    atoms.positions += 0.5
    result = run_dynamics(
        Frame(atoms), settings(thermostat="nve", max_temperature_factor=1.0, n_steps=100), calculator, seed=1
    )
    assert result.reason == "temperature"
    limit = 300 * (1 + 3 * math.sqrt(2 / 18))
    assert result.last.atoms.get_temperature() <= limit
    assert all(frame.atoms.get_temperature() <= limit for frame in result.others)


class Attraction(Calculator):
    """Two atoms that pull each other with a constant force."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        super().calculate(atoms, properties, system_changes)
        d = self.atoms.positions[1] - self.atoms.positions[0]
        unit = d / np.linalg.norm(d)
        self.results = {"energy": float(np.linalg.norm(d)), "forces": np.array([unit, -unit])}


def test_atoms_that_come_too_close_end_the_run(settings):
    pair = Atoms("HH", positions=[[0, 0, 0], [0, 0, 0.74]])
    pair.set_momenta(np.full((2, 3), 1e-12))
    run = settings(thermostat="nve", n_steps=100, check_every=2, max_temperature_factor=1e6)
    result = run_dynamics(Frame(pair), run, Attraction(), seed=1)
    assert result.reason == "distance"
    assert 0 < result.steps < 100
    closest = min(f.atoms.get_distance(0, 1) for f in [*result.others, result.last])
    assert 0.6 * 0.62 <= closest < 0.5


def test_a_pair_that_is_short_in_the_start_structure_is_meant_to_be(settings):
    pair = Atoms("HH", positions=[[0, 0, 0], [0, 0, 0.35]])
    calculator = Attraction()
    result = run_dynamics(Frame(pair), settings(n_steps=2, check_every=1), calculator, seed=1)
    assert result.reason == "completed"


def test_what_the_calculator_raises_is_passed_on(start, settings, springs):
    class ModelLostError(Exception):
        pass

    def change(n, results):
        if n == 5:
            raise ModelLostError

    with pytest.raises(ModelLostError):
        run_dynamics(start, settings(), springs(change), seed=1)


def test_a_calculator_that_computes_only_what_is_asked_is_asked_for_the_energy(atoms, settings):
    class Lazy(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
            super().calculate(atoms, properties, system_changes)
            values = {"energy": 1.0, "forces": np.zeros((6, 3))}
            self.results.update({name: values[name] for name in properties})

    result = run_dynamics(Frame(atoms), settings(n_steps=5), Lazy(), seed=1)
    assert result.last.energy_eV == 1.0


def test_a_single_atom_runs(settings):
    class Free(Calculator):
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
            super().calculate(atoms, properties, system_changes)
            self.results = {"energy": 0.0, "forces": np.zeros((1, 3))}

    for thermostat in ("langevin", "nve"):
        result = run_dynamics(Frame(Atoms("Ar")), settings(thermostat=thermostat), Free(), seed=1)
        assert result.reason == "completed"


def test_constant_pressure_needs_a_periodic_structure(start, settings, springs):
    with pytest.raises(StructureError, match="periodic in all directions"):
        run_dynamics(start, settings(thermostat="npt"), springs(), seed=1)


def test_constant_pressure_moves_the_cell_and_frames_keep_theirs(atoms, settings, springs):
    atoms.set_cell([6, 9, 3])
    atoms.pbc = True
    result = run_dynamics(Frame(atoms), settings(thermostat="npt"), springs(), seed=1)
    volumes = {frame.atoms.get_volume() for frame in [Frame(atoms), *result.others, result.last]}
    assert len(volumes) == 5
    assert np.allclose(result.last.atoms.cell.lengths() / [6, 9, 3], result.last.atoms.cell.lengths()[0] / 6)


@pytest.mark.parametrize("array", ["positions", "momenta"])
def test_a_start_that_is_not_finite_is_refused(array, atoms, settings, springs):
    atoms.set_momenta(np.ones((6, 3)))
    atoms.arrays[array][2, 1] = math.nan
    with pytest.raises(StructureError, match="not finite"):
        run_dynamics(Frame(atoms), settings(), springs(), seed=1)


@pytest.mark.parametrize(
    "change",
    [
        {"n_steps": -1},
        {"n_frames": -1},
        {"check_every": 0},
        {"temperature_K": 0.0},
        {"timestep_fs": math.nan},
        {"friction_per_fs": 0.0},
        {"thermostat": "berendsen"},
    ],
)
def test_settings_without_sense_are_refused_by_name(change, settings):
    with pytest.raises(ValueError, match=next(iter(change))):
        settings(**change)


def test_settings_come_from_a_config_section(settings):
    section = {name: value for name, value in vars(settings()).items() if name != "n_steps"}
    section |= {"temperature_K": [300.0, 500.0], "n_parallel": 4, "n_steps": 200}
    made = DynamicsSettings.from_section(section, n_steps=40, temperature_K=300.0)
    assert made == settings()


@pytest.mark.parametrize("package", ["sampling", "selection"])
def test_the_package_imports_without_torch(package):
    check = f"import sys, fff.{package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_run_that_takes_too_long_ends_at_a_check_and_keeps_its_frames(start, settings, springs):
    result = run_dynamics(start, settings(time_limit_s=1e-9), springs(), seed=1)
    assert result.reason == "time-limit"
    assert result.steps == 10
    assert result.last.step == 10
