"""Trajectories grow and are cut; nothing of a frame is lost."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from fff.base.errors import ConfigError
from fff.data.records import Frame
from fff.steps.trajectory import TrajectoryFile


def frame(step):
    random = np.random.default_rng(step)
    atoms = bulk("Cu", cubic=True)
    atoms.positions += random.normal(size=(4, 3)) / 3
    atoms.set_momenta(random.normal(size=(4, 3)))
    return Frame(atoms, random.normal(), random.normal(size=(4, 3)), 0.1, step)


def write(path, steps, through=0):
    trajectory = TrajectoryFile(path)
    assert trajectory.open(path.parent, through)
    for step in steps:
        trajectory.append(frame(step), {"step": step, "deviation_eV_per_A": 1 / (step + 3)})
    trajectory.save()
    trajectory.close()
    return trajectory


def test_every_bit_of_a_frame_is_in_a_traj_file(tmp_path):
    write(tmp_path / "a.traj", [0, 1])
    first, second = read(tmp_path / "a.traj", ":")
    expected = frame(1)
    assert (second.positions == expected.atoms.positions).all()
    assert (second.get_momenta() == expected.atoms.get_momenta()).all()
    assert (second.get_forces() == expected.forces_eV_per_A).all()
    assert second.get_potential_energy() == expected.energy_eV
    assert second.info == {"step": 1, "deviation_eV_per_A": 0.25}
    assert second.pbc.all()
    assert first.info["step"] == 0


@pytest.mark.parametrize("name", ["a.traj", "a.xyz", "a.extxyz"])
def test_a_trajectory_that_is_cut_and_gone_on_with_is_that_of_one_run(tmp_path, name):
    write(tmp_path / name, range(6))
    write(tmp_path / name, range(4, 8), through=4)
    write(tmp_path / f"whole-{name}", range(8))
    cut, whole = read(tmp_path / name, ":"), read(tmp_path / f"whole-{name}", ":")
    assert [atoms.info["step"] for atoms in cut] == list(range(8))
    for a, b in zip(cut, whole, strict=True):
        assert (a.positions == b.positions).all()
        assert (a.get_forces() == b.get_forces()).all()
        assert a.info == b.info
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_begins_anew_begins_an_empty_file(tmp_path):
    write(tmp_path / "a.traj", range(3))
    write(tmp_path / "a.traj", [9])
    assert read(tmp_path / "a.traj", ":")[0].info["step"] == 9


def test_frames_that_are_missing_are_told(tmp_path):
    write(tmp_path / "a.traj", range(3))
    assert not TrajectoryFile(tmp_path / "a.traj").open(tmp_path, 5)


def test_an_ending_that_says_no_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.pdb"):
        TrajectoryFile(tmp_path / "a.pdb")
