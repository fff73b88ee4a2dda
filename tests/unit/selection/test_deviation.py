from __future__ import annotations

import math

import numpy as np
import pytest

from fff.selection import deviations


def test_deviations_are_standard_deviations_over_members():
    forces = np.zeros((2, 3, 3))
    forces[0, 1] = [3.0, 0.0, 4.0]
    result = deviations(np.array([1.0, 7.0]), forces)
    assert result.max_force_eV_per_A == pytest.approx(2.5)
    assert result.mean_force_eV_per_A == pytest.approx(2.5 / 3)
    assert result.energy_eV_per_atom == pytest.approx(3.0 / 3)


def test_members_that_agree_have_no_deviation():
    result = deviations(np.full(4, -3.0), np.ones((4, 2, 3)))
    assert (result.max_force_eV_per_A, result.mean_force_eV_per_A, result.energy_eV_per_atom) == (0, 0, 0)


def test_rotating_all_members_changes_nothing():
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(4, 5, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    one, two = (deviations(np.zeros(4), f) for f in (forces, forces @ rotation))
    assert one.max_force_eV_per_A == pytest.approx(two.max_force_eV_per_A, rel=1e-12)
    assert one.mean_force_eV_per_A == pytest.approx(two.mean_force_eV_per_A, rel=1e-12)


def test_large_total_energies_keep_their_spread():
    result = deviations(np.array([-1e6, -1e6 + 2e-3]), np.zeros((2, 1, 3)))
    assert result.energy_eV_per_atom == pytest.approx(1e-3, rel=1e-6)


def test_the_kinds_of_the_config_are_known():
    result = deviations(np.array([0.0, 2.0]), np.array([np.zeros((2, 3)), [[2.0, 0, 0], [0, 0, 0]]]))
    assert result.of_kind("max-force") == 1.0
    assert result.of_kind("mean-force") == 0.5
    assert result.of_kind("energy") == 0.5
    with pytest.raises(ValueError, match="max-force, mean-force, energy"):
        result.of_kind("stress")


@pytest.mark.parametrize(
    ("energies", "forces", "message"),
    [
        (np.zeros(1), np.zeros((1, 2, 3)), "at least 2 members"),
        (np.zeros(2), np.zeros((2, 0, 3)), "1 atom"),
        (np.zeros(3), np.zeros((2, 2, 3)), "shape"),
        (np.zeros(2), np.zeros((2, 3)), "shape"),
        (np.zeros(2), np.zeros((2, 3, 2)), "shape"),
        (np.array([0.0, math.nan, 0.0]), np.zeros((3, 2, 3)), r"members \[1\] are not"),
        (np.zeros(2), np.array([np.zeros((1, 3)), [[0, math.inf, 0]]]), r"members \[1\] are not"),
    ],
)
def test_what_has_no_deviation_is_refused(energies, forces, message):
    with pytest.raises(ValueError, match=message):
        deviations(energies, forces)
