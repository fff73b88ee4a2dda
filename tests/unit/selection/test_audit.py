from __future__ import annotations

import math

import numpy as np
import pytest

from fff.selection import audit_errors

FORCES = np.arange(12.0).reshape(4, 3)


def errors(energy=-10.0, forces=FORCES, reference=FORCES):
    return audit_errors(energy, -10.0, forces, reference)


def passes(**case):
    return errors(**case).pass_audit(0.01, 0.5)


def test_errors_below_both_tolerances_pass():
    result = errors(energy=-10.039, forces=FORCES + 0.49)
    assert result.pass_audit(0.01, 0.5)
    assert result.energy_eV_per_atom == pytest.approx(0.039 / 4)
    assert result.force_eV_per_A == pytest.approx(0.49)


@pytest.mark.parametrize("energy", [-10.041, -9.959])
def test_an_energy_error_above_its_tolerance_fails(energy):
    assert not passes(energy=energy)


def test_a_force_error_above_its_tolerance_fails_although_the_energy_is_right():
    assert not passes(forces=FORCES + 0.51)


def test_the_force_error_is_the_root_mean_square_over_components():
    forces = FORCES.copy()
    forces[2, 1] += 1.2
    assert errors(forces=forces).force_eV_per_A == pytest.approx(1.2 / math.sqrt(12))


def test_an_error_as_large_as_its_tolerance_fails():
    assert not audit_errors(1.0, 0.0, FORCES, FORCES).pass_audit(0.25, 0.5)
    assert not audit_errors(0.0, 0.0, FORCES + 0.5, FORCES).pass_audit(0.25, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tolerance", [0.5, math.inf])
def test_numbers_that_are_not_finite_never_pass(value, tolerance):
    broken = FORCES.copy()
    broken[1, 1] = value
    for energy, energy_reference, forces, reference in [
        (value, 0.0, FORCES, FORCES),
        (0.0, value, FORCES, FORCES),
        (value, value, FORCES, FORCES),
        (0.0, 0.0, broken, FORCES),
        (0.0, 0.0, FORCES, broken),
        (0.0, 0.0, broken, broken),
    ]:
        result = audit_errors(energy, energy_reference, forces, reference)
        assert not result.pass_audit(tolerance, tolerance)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (12,), (1, 3)])
def test_forces_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"one shape \(n_atoms, 3\)"):
        errors(forces=np.zeros(shape))


def test_no_atoms_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        errors(forces=np.zeros((0, 3)), reference=np.zeros((0, 3)))
