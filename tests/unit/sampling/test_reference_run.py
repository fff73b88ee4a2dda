from __future__ import annotations

import math

import numpy as np
import pytest

from fff.base.errors import NotConvergedError
from fff.sampling import reference_dynamics
from fff.stages import Lifetime

RUN = {
    "temperature_K": 300.0,
    "n_frames": 4,
    "interval_steps": 5,
    "timestep_fs": 0.5,
    "equilibration_steps": 10,
}


def test_labels_are_the_numbers_of_the_reference(atoms, springs):
    labels = reference_dynamics(atoms, springs(), **RUN, seed=1)
    assert len(labels) == 4
    for label in labels:
        again = label.atoms.copy()
        again.calc = springs()
        assert label.energy_eV == again.get_potential_energy()
        assert np.array_equal(label.forces_eV_per_A, again.get_forces())
        assert label.atoms.calc is None
        assert not label.atoms.has("momenta")


def test_no_label_costs_an_evaluation_of_its_own(atoms, springs):
    calculator = springs()
    reference_dynamics(atoms, calculator, **RUN, seed=1)
    assert calculator.n_evaluations == 1 + 10 + 4 * 5


def test_same_seed_same_labels_whatever_momenta_the_start_has(atoms, springs):
    moving = atoms.copy()
    moving.set_momenta(np.full((6, 3), 9.0))
    one, two, other = (
        reference_dynamics(structure, springs(), **RUN, seed=seed)
        for structure, seed in ((atoms, 1), (moving, 1), (atoms, 2))
    )
    assert [label.hash for label in one] == [label.hash for label in two]
    assert not {label.hash for label in one} & {label.hash for label in other}


def test_no_frames_cost_nothing(atoms, springs):
    calculator = springs()
    assert reference_dynamics(atoms, calculator, **(RUN | {"n_frames": 0}), seed=1) == []
    assert calculator.n_evaluations == 0


@pytest.mark.parametrize("key", ["energy", "forces"])
def test_numbers_that_are_not_finite_are_no_label(key, atoms, springs):
    def change(n, results):
        if n == 20:
            results[key] = results[key] * math.nan

    with pytest.raises(NotConvergedError, match="not finite"):
        reference_dynamics(atoms, springs(change), **RUN, seed=1)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("evaluation", [1, 5, 10, 11, 14, 16, 17, 29])
def test_a_run_killed_at_any_step_goes_on_with_the_same_labels(evaluation, atoms, springs, tmp_path):
    def kill(n, results):
        if n == evaluation:
            raise KilledError

    whole = reference_dynamics(atoms, springs(), **RUN, seed=1)
    lifetime = Lifetime(tmp_path / "stage", interval_s=0.0)
    with pytest.raises(KilledError):
        reference_dynamics(atoms, springs(kill), **RUN, seed=1, lifetime=lifetime)
    calculator = springs()
    labels = reference_dynamics(atoms, calculator, **RUN, seed=1, lifetime=lifetime)
    assert [label.hash for label in labels] == [label.hash for label in whole]
    assert [label.energy_eV for label in labels] == [label.energy_eV for label in whole]
    for label, other in zip(labels, whole, strict=True):
        assert np.array_equal(label.forces_eV_per_A, other.forces_eV_per_A)
        assert not label.atoms.has("momenta")
    # The step that was lost, those to come, and the forces that the first of them begins with.
    assert calculator.n_evaluations <= 31 - evaluation + 1


def test_a_run_that_is_to_stop_gives_nothing_back_and_goes_on_later(atoms, springs, tmp_path):
    whole = reference_dynamics(atoms, springs(), **RUN, seed=1)
    stopping = Lifetime(tmp_path / "stage", stop=lambda: True)
    assert reference_dynamics(atoms, springs(), **RUN, seed=1, lifetime=stopping) is None
    labels = reference_dynamics(atoms, springs(), **RUN, seed=1, lifetime=Lifetime(tmp_path / "stage"))
    assert [label.hash for label in labels] == [label.hash for label in whole]
