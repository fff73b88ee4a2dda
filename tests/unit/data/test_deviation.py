from __future__ import annotations

import numpy as np
import pytest

from fff.data.deviation import force_deviation


def test_it_is_the_root_mean_square_distance_from_the_mean_force():
    forces = np.zeros((2, 2, 3))
    forces[:, 1] = [[3.0, 4.0, 0.0], [-3.0, -4.0, 0.0]]
    np.testing.assert_allclose(force_deviation(forces), [0.0, 5.0])


def test_it_does_not_depend_on_the_frame_of_reference():
    forces = np.random.default_rng(0).normal(size=(4, 5, 3))
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    np.testing.assert_allclose(force_deviation(forces @ turn), force_deviation(forces))
    np.testing.assert_allclose(force_deviation(forces + 1.0), force_deviation(forces))


def test_one_member_has_no_spread():
    assert force_deviation(np.ones((1, 4, 3))).tolist() == [0.0] * 4


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 4, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="members, atoms, 3"):
        force_deviation(np.zeros(shape))
