"""Dynamics with a model: what is written, what ends it, and how it goes on."""

import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

from fff.base.errors import ConfigError, RunDirectoryError, StructureError
from fff.data.records import Frame
from fff.report.motion import read_motion
from fff.steps.dynamics import Course, move
from fff.steps.settings import load_settings

pytestmark = pytest.mark.slow


class StopsAtOnce:
    wait_for, at_once = "", None

    def is_asked(self):
        return True


def far_apart():
    """Return water with its atoms far apart, where two models agree that there is hardly a force."""
    atoms = molecule("H2O")
    atoms.positions *= 1.8
    return atoms


def run(model, output, interruption, *overrides, steps=40, every=5, driver="mean", source="molecule:H2O"):
    return move(
        model,
        source,
        # A model that was never trained lets atoms come close.
        load_settings(None, ["sampling.min_distance_factor=0.1", *overrides], {}),
        output,
        course=Course(steps, every, driver),
        tell=lambda *_: None,
        interruption=interruption,
    )


@pytest.mark.parametrize("driver", ["mean", "first"])
def test_every_written_frame_has_energy_forces_and_deviation(untrained, tmp_path, never_asked, driver):
    moved = run(untrained, tmp_path / "md.traj", never_asked, "sampling.thermostat=nve", driver=driver)
    assert (moved.state, moved.reason, moved.steps) == ("finished", "completed", 40)
    frames = read(tmp_path / "md.traj", ":")
    assert [atoms.info["step"] for atoms in frames] == list(range(0, 41, 5))
    table = read_motion(tmp_path / "md.csv")
    assert table["step"].tolist() == [atoms.info["step"] for atoms in frames]
    energies = [atoms.get_potential_energy() for atoms in frames]
    assert table["potential_energy"] == pytest.approx(np.array(energies), rel=1e-11)
    assert table["deviation"] == pytest.approx([a.info["deviation_eV_per_A"] for a in frames], rel=1e-9)
    assert moved.max_deviation_eV_per_A == pytest.approx(table["deviation"].max())
    # Constant energy is constant.
    assert np.ptp(table["total_energy"]) < 0.05 * np.ptp(table["potential_energy"]) + 1e-4
    assert moved.drift_eV_per_atom_ps is not None
    assert (tmp_path / "md.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["md.csv", "md.json", "md.png", "md.traj"]


def test_the_mean_force_drives_and_the_first_member_if_asked(untrained, tmp_path, never_asked):
    import fff

    for driver, path in (("mean", untrained), ("first", untrained / "member-0")):
        run(untrained, tmp_path / f"{driver}.traj", never_asked, driver=driver)
        last = read(tmp_path / f"{driver}.traj", "-1")
        forces = last.get_forces()
        last.calc = fff.calculator(path, device="cpu")
        assert forces == pytest.approx(last.get_forces(), abs=1e-5)


def test_a_run_that_is_over_is_told_again_and_another_is_refused(untrained, tmp_path, never_asked):
    first = run(untrained, tmp_path / "md.traj", never_asked)
    before = (tmp_path / "md.traj").read_bytes()
    assert run(untrained, tmp_path / "md.traj", never_asked) == first
    with pytest.raises(RunDirectoryError, match="differs in: n_steps"):
        run(untrained, tmp_path / "md.traj", never_asked, steps=50)
    assert (tmp_path / "md.traj").read_bytes() == before


def test_a_named_start_is_known_by_its_name_and_a_file_by_what_it_holds(
    untrained, tmp_path, never_asked, monkeypatch
):
    random = np.random.default_rng(0)

    def packed(source, **_):
        # As of relaxing with several threads: never quite the same.
        atoms = molecule("H2O")
        atoms.rattle(1e-9, rng=random)
        return [atoms]

    with monkeypatch.context() as patched:
        patched.setattr("fff.steps.dynamics.load_structures", packed)
        first = run(untrained, tmp_path / "a.traj", never_asked, source="cluster:H2O:1")
        assert run(untrained, tmp_path / "a.traj", never_asked, source="cluster:H2O:1") == first
        with pytest.raises(RunDirectoryError, match="differs in: structure"):
            run(untrained, tmp_path / "a.traj", never_asked, source="cluster:H2O:2")
    start = tmp_path / "start.traj"
    write(start, far_apart())
    run(untrained, tmp_path / "b.traj", never_asked, source=str(start))
    write(start, molecule("H2O"))
    with pytest.raises(RunDirectoryError, match="differs in: structure"):
        run(untrained, tmp_path / "b.traj", never_asked, source=str(start))


def test_somebodys_file_is_left_alone(untrained, tmp_path, never_asked):
    (tmp_path / "md.traj").write_text("mine")
    with pytest.raises(RunDirectoryError, match="nothing is ever overwritten"):
        run(untrained, tmp_path / "md.traj", never_asked)
    assert (tmp_path / "md.traj").read_text() == "mine"


@pytest.mark.parametrize("name", ["md.traj", "md.xyz"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    untrained, tmp_path, never_asked, monkeypatch, name
):
    run(untrained, tmp_path / "whole" / name, never_asked)
    with monkeypatch.context() as patched:
        patched.setattr("fff.stages.stage._BETWEEN_LOOKS_s", 0.0)
        stopped = run(untrained, tmp_path / "cut" / name, StopsAtOnce())
        assert stopped.state == "stopped"
        assert run(untrained, tmp_path / "cut" / name, StopsAtOnce()).steps < 40
    # Killed with more frames on the disk than the checkpoint knows of.
    from fff.steps.trajectory import TrajectoryFile

    trajectory = TrajectoryFile(tmp_path / "cut" / name)
    trajectory.last = 1
    trajectory.append(Frame(molecule("H2O"), 0.0, np.zeros((3, 3))), {"step": -1})
    trajectory.close()
    with (tmp_path / "cut" / "md.csv").open("a") as table:
        table.write("7,30,15.0,1,2,3,4\n8,3")
    moved = run(untrained, tmp_path / "cut" / name, never_asked)
    assert moved.state == "finished"
    assert (tmp_path / "cut" / "md.csv").read_text() == (tmp_path / "whole" / "md.csv").read_text()
    for a, b in zip(read(tmp_path / "cut" / name, ":"), read(tmp_path / "whole" / name, ":"), strict=True):
        assert (a.positions == b.positions).all()
        assert (a.get_momenta() == b.get_momenta()).all()
        assert a.info == b.info


def test_it_ends_where_the_committee_disagrees_and_says_at_which_step(untrained, tmp_path, never_asked):
    write(tmp_path / "start.xyz", far_apart())
    start = str(tmp_path / "start.xyz")
    run(untrained, tmp_path / "free.traj", never_asked, steps=200, every=2, source=start)
    deviation = read_motion(tmp_path / "free.csv")["deviation"]
    limit = float(deviation[0] + deviation.max()) / 2
    assert limit > deviation[0]
    option = f"sampling.stop_deviation_eV_per_A={limit}"
    moved = run(untrained, tmp_path / "md.traj", never_asked, option, steps=200, every=2, source=start)
    ended = 2 * int(np.argmax(deviation > limit))
    assert (moved.state, moved.reason) == ("ended-early", "deviation")
    assert f"ended at step {ended} of 200" in moved.sentence
    # The frame that the model does not know is the last one written.
    assert read(tmp_path / "md.traj", "-1").info["step"] == ended


def test_a_start_that_the_model_does_not_know_is_refused(untrained, tmp_path, never_asked):
    with pytest.raises(StructureError, match="on the start"):
        run(untrained, tmp_path / "md.traj", never_asked, "sampling.stop_deviation_eV_per_A=1e-9")


def test_momenta_of_a_file_are_kept(untrained, tmp_path, never_asked):
    atoms = molecule("H2O")
    atoms.set_momenta(np.full((3, 3), 0.5))
    write(tmp_path / "start.traj", atoms)
    run(untrained, tmp_path / "md.traj", never_asked, source=str(tmp_path / "start.traj"))
    assert read(tmp_path / "md.traj", "0").get_momenta() == pytest.approx(0.5)


def test_one_structure_one_temperature(untrained, tmp_path, never_asked):
    write(tmp_path / "two.traj", [molecule("H2O"), molecule("H2O")])
    with pytest.raises(StructureError, match="holds 2 structures"):
        run(untrained, tmp_path / "md.traj", never_asked, source=str(tmp_path / "two.traj"))
    with pytest.raises(ConfigError, match="2 temperatures"):
        run(untrained, tmp_path / "md.traj", never_asked, "sampling.temperature_K=[300, 400]")


def test_the_threshold_is_that_of_the_training_the_campaign_or_the_user(untrained, tmp_path, never_asked):
    def threshold(folder, *overrides, name):
        return run(folder, tmp_path / name, never_asked, *overrides, steps=1).threshold

    copy = tmp_path / "copy"
    for file in untrained.rglob("*"):
        if file.is_file():
            target = copy / "models" / file.relative_to(untrained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert (
        threshold(copy / "models", name="a.traj").source == "the default of sampling.stop_deviation_eV_per_A"
    )
    (copy / "events.jsonl").write_text("")
    (copy / "config.yaml").write_text(
        "structures: [molecule:H2O]\nreference: {kind: xtb}\nsampling: {stop_deviation_eV_per_A: 1.5}\n"
    )
    assert threshold(copy / "models", name="b.traj").value_eV_per_A == 1.5
    (copy / "models" / "trained.json").write_text("{}")
    told = {"deviation_on_labels_eV_per_A": {"p99": 0.5}}
    (copy / "models" / "committee.json").write_text(json.dumps(told))
    found = threshold(copy / "models", name="c.traj")
    assert found.value_eV_per_A == 1.0
    assert "training labels" in found.source
    given = threshold(copy / "models", "sampling.stop_deviation_eV_per_A=9", name="d.traj")
    assert (given.value_eV_per_A, given.source) == (9.0, "sampling.stop_deviation_eV_per_A from -o")
    assert threshold(copy / "models" / "member-0", name="e.traj").value_eV_per_A is None
