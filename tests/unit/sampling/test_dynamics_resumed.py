"""A run that was killed goes on with exactly the numbers it would have had."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from fff.data.packing import frames_to_bytes
from fff.data.records import Frame
from fff.models.calculators import CommitteeCalculator, MDCalculator
from fff.models.committee import Committee
from fff.models.force_field import create_force_field
from fff.sampling import dynamics, run_dynamics
from fff.stages import Lifetime

# Seconds each, since processes are started or models trained.
pytestmark = pytest.mark.slow

MODEL = {"representation": "painn", "n_features": 8, "n_layers": 2, "cutoff_A": 3.5, "n_radial": 6}
SKIN_A = 0.3
# Evaluation n is of step n - 1, so that the last checkpoint is of step n - 2.
DIES_AT = [4, 9, 13, 16, 22, 31, 41]


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


class Mortal:
    """What a calculator needs to die at an evaluation, and to tell at which ones its list was made anew."""

    left = 0
    pairs = None

    def calculate(self, *arguments, **named):
        self.left -= 1
        if not self.left:
            raise KilledError
        super().calculate(*arguments, **named)
        self.builds = [*getattr(self, "builds", []), self.pairs.n_builds if self.pairs else 0]


class MortalMember(Mortal, MDCalculator):
    """One member that dies when told."""


class MortalCommittee(Mortal, CommitteeCalculator):
    """A committee that dies when told."""


@pytest.fixture(scope="module")
def members():
    return [
        create_force_field(MODEL, seed=seed, elements=[29], reference_energies={29: -5.0}, device="cpu")
        for seed in (3, 4)
    ]


@pytest.fixture(scope="module")
def start() -> Frame:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=4)
    return Frame(atoms)


@pytest.fixture
def lenient(settings):
    """Settings under which an untrained model may go its way."""
    given = {
        "temperature_K": 2500.0,
        "timestep_fs": 2.0,
        "max_temperature_factor": 1e3,
        "max_force_eV_per_A": 1e3,
        "min_distance_factor": 0.1,
        "stop_deviation_eV_per_A": 1e9,
        "n_frames": 7,
    }
    return lambda thermostat="langevin", **changes: settings(**given | {"thermostat": thermostat} | changes)


def _packed(result) -> tuple:
    frames = frames_to_bytes([*result.others, result.last])
    return frames, result.reason, result.steps, repr(result.max_deviation_eV_per_A)


def _spread(atoms: Atoms) -> float:
    """Stands for a committee's deviation: a number that depends on all positions."""
    return float(np.abs(np.sin(atoms.positions)).sum())


def _run(start, told, calculator, *, dies_at=0, **given):
    calculator.left = dies_at
    return run_dynamics(start, told, calculator, **{"seed": 5, "deviation": _spread, **given})


def _kill(*arguments, **given):
    with pytest.raises(KilledError):
        _run(*arguments, **given)


@pytest.mark.parametrize("dies_at", DIES_AT)
@pytest.mark.parametrize("thermostat", ["langevin", "nve", "npt"])
def test_a_run_killed_at_any_step_goes_on_with_the_same_numbers(
    thermostat, dies_at, members, start, lenient, tmp_path
):
    told = lenient(thermostat)
    whole = _run(start, told, MortalMember(members[0], skin_A=SKIN_A))
    assert (whole.reason, len(whole.others)) == ("completed", 7)
    lifetime = Lifetime(tmp_path, interval_s=0.0)
    _kill(start, told, MortalMember(members[0], skin_A=SKIN_A), dies_at=dies_at, lifetime=lifetime)
    last = max(int(path.name.split("-")[1]) for path in tmp_path.iterdir())
    # With a stress there are two evaluations of the start.
    assert last == dies_at - (3 if thermostat == "npt" else 2)
    again = MortalMember(members[0], skin_A=SKIN_A)
    assert _packed(_run(start, told, again, lifetime=lifetime)) == _packed(whole)
    assert len(again.builds) == 40 - last + (2 if thermostat == "npt" else 1)


def test_the_steps_of_the_test_above_are_between_two_lists_and_at_new_ones(members, start, lenient):
    calculator = MortalMember(members[0], skin_A=SKIN_A)
    _run(start, lenient(), calculator)
    is_new = np.diff(calculator.builds) > 0
    assert 0 < is_new.sum() < 20
    assert {bool(is_new[dies_at - 3]) for dies_at in DIES_AT} == {True, False}


def test_a_run_can_be_killed_again_and_again(members, start, lenient, tmp_path):
    lifetime = Lifetime(tmp_path, interval_s=0.0)
    for _ in range(6):
        _kill(start, lenient(), MortalMember(members[0], skin_A=SKIN_A), dies_at=7, lifetime=lifetime)
    resumed = _run(start, lenient(), MortalMember(members[0], skin_A=SKIN_A), lifetime=lifetime)
    assert _packed(resumed) == _packed(_run(start, lenient(), MortalMember(members[0], skin_A=SKIN_A)))


def test_a_run_that_a_committee_drives_goes_on(members, start, lenient, tmp_path):
    told, lifetime = lenient(n_steps=24), Lifetime(tmp_path, interval_s=0.0)
    whole = _run(start, told, MortalCommittee(Committee(members), skin_A=SKIN_A))
    _kill(start, told, MortalCommittee(Committee(members), skin_A=SKIN_A), dies_at=15, lifetime=lifetime)
    resumed = _run(start, told, MortalCommittee(Committee(members), skin_A=SKIN_A), lifetime=lifetime)
    assert _packed(resumed) == _packed(whole)


@pytest.mark.parametrize("thermostat", ["langevin", "npt"])
def test_a_calculator_that_remembers_nothing_needs_nothing(thermostat, atoms, settings, springs, tmp_path):
    atoms.set_cell([6, 9, 3])
    atoms.pbc = True
    start, told = Frame(atoms), settings(thermostat=thermostat)

    def die(n, results):
        if n == 24:
            raise KilledError

    lifetime = Lifetime(tmp_path, interval_s=0.0)
    _kill(start, told, springs(die), lifetime=lifetime)
    assert _packed(_run(start, told, springs(), lifetime=lifetime)) == _packed(_run(start, told, springs()))


@pytest.mark.parametrize("ends_by", ["deviation", "non-finite", "force"])
def test_a_run_that_ends_early_ends_as_early_when_it_was_killed_before(
    ends_by, start, members, lenient, tmp_path
):
    told = lenient(check_every=2, **({"max_force_eV_per_A": 0.05} if ends_by == "force" else {}))

    def deviation(atoms):
        is_late = abs(atoms.positions - start.atoms.positions).max() > 0.35
        return {"deviation": 1e10, "non-finite": np.nan}.get(ends_by, 1.0) if is_late else _spread(atoms)

    whole = _run(start, told, MortalMember(members[0], skin_A=SKIN_A), deviation=deviation)
    assert whole.reason == ends_by
    assert whole.steps >= 8
    lifetime = Lifetime(tmp_path, interval_s=0.0)
    given = {"deviation": deviation, "lifetime": lifetime}
    _kill(start, told, MortalMember(members[0], skin_A=SKIN_A), dies_at=6, **given)
    resumed = _run(start, told, MortalMember(members[0], skin_A=SKIN_A), **given)
    assert _packed(resumed) == _packed(whole)


def test_a_run_that_is_to_stop_gives_nothing_back_and_goes_on_later(
    atoms, settings, springs, tmp_path, monkeypatch
):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("fff.stages.stage.time", SimpleNamespace(monotonic=lambda: clock.now))

    def a_quarter(n, results):
        clock.now += 0.25

    lifetime = Lifetime(tmp_path, stop=lambda: clock.now > 5.0)
    assert _run(Frame(atoms), settings(), springs(a_quarter), lifetime=lifetime) is None
    # Evaluation n is of step n, and the clock is looked at every second.
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("checkpoint-000000023-")
    resumed = _run(Frame(atoms), settings(), springs(), lifetime=Lifetime(tmp_path))
    assert _packed(resumed) == _packed(_run(Frame(atoms), settings(), springs()))


def test_the_time_limit_counts_all_sittings(start, members, lenient, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dynamics, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def ten_seconds(atoms):
        clock.now += 10.0
        return 0.5

    told, lifetime = lenient(time_limit_s=25.0), Lifetime(tmp_path, interval_s=0.0)
    given = {"deviation": ten_seconds, "lifetime": lifetime}
    _kill(start, told, MortalMember(members[0], skin_A=SKIN_A), dies_at=24, **given)
    clock.now = 1_000_000.0
    resumed = _run(start, told, MortalMember(members[0], skin_A=SKIN_A), **given)
    assert (resumed.reason, resumed.steps) == ("time-limit", 30)


@pytest.mark.parametrize("change", ["seed", "settings", "positions", "momenta", "masses", "model", "wait"])
def test_a_checkpoint_serves_the_same_run_only(change, atoms, settings, springs, tmp_path, caplog):
    atoms.set_momenta(np.full((6, 3), 0.1))
    steps: list[int] = []

    def die(n, results):
        if n == 24:
            raise KilledError

    lifetime = Lifetime(tmp_path, interval_s=0.0, identity="model-1")
    _kill(Frame(atoms), settings(), springs(die), lifetime=lifetime)
    other = atoms.copy()
    if change in {"positions", "momenta"}:
        other.arrays[change][0, 0] += 1e-12
    elif change == "masses":
        other.set_masses([2.0, *atoms.get_masses()[1:]])
    changes = {"settings": {"friction_per_fs": 0.011}, "wait": {"time_limit_s": 1e9}}.get(change, {})
    if change == "model":
        lifetime = Lifetime(tmp_path, interval_s=0.0, identity="model-2")
    calculator = springs(lambda n, results: steps.append(n))
    _run(Frame(other), settings(**changes), calculator, seed=6 if change == "seed" else 5, lifetime=lifetime)
    goes_on = change == "wait"
    assert (len(steps) < 41) is goes_on
    assert ("passed over" in caplog.text) is not goes_on
