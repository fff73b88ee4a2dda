"""Errors of predictions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from ase import Atoms

from fff.data.accuracy import force_accuracy
from fff.data.records import Label


def label(forces, energy_eV: float = 0.0, segment: str = "") -> Label:
    forces = np.array(forces, dtype=float)
    return Label(Atoms(f"H{len(forces)}"), energy_eV, forces, segment=segment)


def test_errors_are_over_all_components_of_all_structures():
    labels = [label([[0, 0, 0]]), label([[1, 1, 1], [2, 2, 2]], energy_eV=4.0)]
    predicted = [np.array([[0.3, 0, 0]]), np.array([[1.0, 1, 1], [2, 2, 1.4]])]
    found = force_accuracy(labels, np.array([0.5, 3.0]), predicted)
    assert found["n_structures"] == 2
    assert found["force_mae_meV_per_A"] == pytest.approx(100.0)
    assert found["force_rmse_meV_per_A"] == pytest.approx(1000 * np.sqrt((0.3**2 + 0.6**2) / 9), abs=1e-3)
    assert found["energy_mae_meV_per_atom"] == pytest.approx(500.0)


def test_the_mean_force_is_the_yardstick():
    found = force_accuracy([label([[1, 0, 0], [3, 0, 0]])], np.zeros(1), [np.zeros((2, 3))])
    # The mean force is 2, 0, 0: one component in three is off by 1.
    assert found["mean_force_mae_meV_per_A"] == pytest.approx(1000 / 3, abs=1e-3)


def test_no_label_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        force_accuracy([], np.zeros(0), [])


def noisy(n: int, segment) -> tuple[list[Label], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    # Each stretch has an error of its own.
    sizes = np.repeat(rng.exponential(size=n // 10), 10)
    predicted = [rng.normal(scale=size, size=(3, 3)) for size in sizes]
    return [label(np.zeros((3, 3)), segment=segment(i)) for i in range(n)], predicted


def test_the_interval_holds_the_error_and_is_the_same_for_whoever_asks():
    labels, predicted = noisy(100, lambda i: f"stretch-{i // 10}")
    found = force_accuracy(labels, np.zeros(100), predicted)
    low, high = found["force_mae_interval_meV_per_A"]
    assert low < found["force_mae_meV_per_A"] < high
    assert force_accuracy(labels, np.zeros(100), predicted) == found


def test_frames_of_one_stretch_are_drawn_together():
    def width(segment) -> float:
        labels, predicted = noisy(100, segment)
        low, high = force_accuracy(labels, np.zeros(100), predicted)["force_mae_interval_meV_per_A"]
        return high - low

    assert width(lambda i: f"stretch-{i // 10}") > 1.5 * width(lambda i: f"frame-{i}")
    assert width(lambda i: "") == width(lambda i: f"structure {i}")


def test_one_stretch_has_no_interval():
    labels, predicted = noisy(20, lambda i: "the same")
    assert force_accuracy(labels, np.zeros(20), predicted)["force_mae_interval_meV_per_A"] is None


def test_the_bounds_of_the_interval_are_the_quantiles_of_the_bootstrap():
    labels, predicted = noisy(400, lambda i: f"frame-{i}")
    found = force_accuracy(labels, np.zeros(400), predicted)["force_mae_interval_meV_per_A"]
    means = np.array([np.abs(forces).mean() for forces in predicted]) * 1000
    expected = means.mean() + np.array([-1.96, 1.96]) * means.std() / np.sqrt(400)
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_the_interval_of_many_structures_takes_little_memory():
    labels, predicted = noisy(5000, lambda i: "")
    tracemalloc.start()
    try:
        assert force_accuracy(labels, np.zeros(5000), predicted)["force_mae_interval_meV_per_A"] is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All resamples at once would take 2000 times 5000 times 8 bytes, three times over.
    assert peak < 50e6
