from __future__ import annotations

import json
import subprocess

import pytest
from ase.build import molecule

import fff.campaigns.checking as checking
from fff.base.errors import ReferenceSetupError, RunDirectoryError
from fff.campaigns.checking import costs, labelling, surroundings
from fff.campaigns.checking.costs import Range, estimate_disk, estimate_time, label_range
from fff.campaigns.checking.findings import Known, fine
from fff.campaigns.inputs import Inputs
from fff.config import load_config

LEAST = "structures: [molecule:H2O]\nreference: {kind: xtb}\n"


@pytest.fixture
def known(tmp_path):
    """What is known of a config at first."""

    def make(*overrides, text=LEAST, run_dir=None):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        where = f"run_dir={run_dir or tmp_path / 'runs' / 'x'}"
        return Known(load_config(path, [where, *overrides]), tmp_path / "scratch", 60.0)

    return make


def with_inputs(known, *structures):
    known.inputs = Inputs(known.loaded, list(structures), [], [], "GFN2-xTB")
    return known


def measured(known):
    """Numbers as from the quickstart's campaign."""
    known.label_s = {9: 0.02}
    known.step_s = 0.007
    known.start_s = 8.0
    known.epoch_s = 0.0015
    known.dynamics_s = 0.002
    known.model_bytes = 130_000
    known.free_bytes = 10**10
    return known


def test_a_probe_that_breaks_is_a_finding_and_the_next_one_runs(known, monkeypatch):
    def breaks(_known):
        yield fine("one", "so far so good")
        msg = "a riddle"
        raise ZeroDivisionError(msg)

    def refuses(_known):
        msg = "It is missing."
        raise ReferenceSetupError(msg, hint="Install it.")
        yield

    probes = [
        checking._Probe(name, f"doing {name}", find)
        for name, find in (("one", breaks), ("two", refuses), ("three", lambda _: [fine("three", "there")]))
    ]
    monkeypatch.setattr(checking, "_PROBES", probes)
    told = []
    found = list(checking.check(known().loaded, announce=told.append))
    assert [(f.probe, f.status) for f in found] == [
        ("one", "ok"),
        ("one", "failed"),
        ("two", "failed"),
        ("three", "ok"),
    ]
    assert "ZeroDivisionError: a riddle" in found[1].found
    assert found[2].repair == "Install it."
    assert told == ["doing one", "doing two", "doing three"]


def test_packages_that_are_missing_or_too_old_are_named(known, monkeypatch):
    (found,) = surroundings.find_packages(known())
    assert found.status == "ok"
    assert {"torch", "tblite", "schnetpack"} <= set(found.values["versions"])
    real = surroundings.importlib.metadata.version

    def version(name):
        if name == "tblite":
            raise surroundings.importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(surroundings.importlib.metadata, "version", version)
    (found,) = surroundings.find_packages(known())
    assert found.status == "failed"
    assert "torch is 1.0, but fff needs >=" in found.found
    assert "tblite is not installed" in found.found
    assert found.repair


def test_a_missing_executable_is_refused_and_remembered(known):
    some = known("reference={kind: xtb-cli, command: [no-such-xtb]}")
    with pytest.raises(ReferenceSetupError, match="no-such-xtb was not found"):
        list(surroundings.find_executables(some))
    assert some.lacks_executable
    some = known("reference={kind: ase, calculator: nwchem, parameters: {command: no-such-code PREFIX.nwi}}")
    with pytest.raises(ReferenceSetupError, match="no-such-code was not found"):
        list(surroundings.find_executables(some))
    some = known("reference={kind: ase, calculator: emt}")
    assert [f.status for f in surroundings.find_executables(some)] == ["skipped"]
    assert not some.lacks_executable


@pytest.mark.parametrize(
    ("devices", "site", "status", "says"),
    [
        ([], "{kind: laptop}", "ok", "none"),
        ([], "{kind: workstation, n_gpus: 1}", "failed", "asks for accelerator 0, but there are none"),
        (["0"], "{kind: workstation, n_gpus: 1}", "ok", "used: 0"),
        (["0"], "{kind: workstation, accelerators: ['0', '3']}", "failed", "asks for accelerator 3"),
        (["0"], "{kind: workstation, accelerators: [GPU-abc]}", "ok", "used: GPU-abc"),
        (["0"], "{kind: laptop}", "warning", "leaves them idle"),
    ],
)
def test_accelerators_are_compared_with_those_that_the_site_asks_for(
    devices, site, status, says, known, monkeypatch
):
    there = [{"id": x, "name": "NVIDIA X", "uuid": "abcdef", "memory_GB": 80.0} for x in devices]
    monkeypatch.setattr(surroundings, "_devices", lambda: there)
    (found,) = surroundings.find_accelerators(known(f"site={site}"))
    assert (found.status, bool(found.repair)) == (status, status != "ok")
    assert says in found.found


def test_a_torch_that_cannot_be_imported_is_a_finding(known, monkeypatch):
    def broken():
        raise subprocess.CalledProcessError(
            1, "python", stderr="Traceback\nOSError: libcudart.so not found\n"
        )

    monkeypatch.setattr(surroundings, "_devices", broken)
    (found,) = surroundings.find_accelerators(known())
    assert found.status == "failed"
    assert "libcudart.so not found" in found.found


def test_more_memory_than_there_is_is_a_warning(known):
    (found,) = surroundings.find_memory(known("reference={kind: pyscf, max_memory_MB: 1e9}"))
    assert found.status == "warning"
    assert "-o reference.max_memory_MB=" in found.repair
    (found,) = surroundings.find_memory(known("site.n_workers=900"))
    assert "more than there are cores" in found.found


def test_a_place_that_can_be_written_is_tried_and_left_as_it_was(known, tmp_path):
    some = known()
    before = sorted(tmp_path.rglob("*"))
    found = [
        *surroundings.find_run_dir(some),
        *surroundings.find_locks(some),
        *surroundings.find_clock(some),
    ]
    assert [f.status for f in found] == ["ok", "ok", "ok"]
    assert some.free_bytes
    assert sorted(tmp_path.rglob("*")) == sorted({*before, tmp_path / "some.yaml"})


def test_a_place_that_cannot_be_written_is_refused_and_nothing_more_is_tried_there(known, tmp_path):
    (tmp_path / "file").touch()
    some = known(run_dir=tmp_path / "file" / "x")
    with pytest.raises(RunDirectoryError, match="is a file"):
        list(surroundings.find_run_dir(some))
    assert [f.status for f in surroundings.find_locks(some)] == ["skipped"]
    assert [f.status for f in surroundings.find_clock(some)] == ["skipped"]
    assert [f.status for f in estimate_disk(some)] == ["skipped"]


def test_a_folder_with_other_things_in_it_is_refused_and_an_empty_one_is_fine(known, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    assert [f.status for f in surroundings.find_run_dir(known(run_dir=folder))] == ["ok"]
    (folder / "thesis.tex").touch()
    with pytest.raises(RunDirectoryError, match=r"thesis\.tex"):
        list(surroundings.find_run_dir(known(run_dir=folder)))


@pytest.mark.parametrize(
    ("sampled", "tested", "status"),
    [("[300, 500]", "[300]", "warning"), ("[300, 500]", "[300, 500]", "ok"), ("[300]", "[400]", "ok")],
)
def test_a_test_set_that_is_calmer_than_the_dynamics_is_a_warning(known, sampled, tested, status):
    some = known(f"sampling.temperature_K={sampled}", f"test.temperatures_K={tested}")
    found = {f.probe: f for f in labelling.find_inputs(some)}["test set"]
    assert found.status == status
    assert ("reaches 500 K" in found.found) == (status == "warning")


def test_the_estimate_of_the_quickstart_holds_the_time_that_it_took(known):
    text = (checking.Path(__file__).resolve().parents[3] / "configs" / "quickstart.yaml").read_text()
    some = measured(with_inputs(known("site.n_workers=2", text=text), molecule("CH3CH2OH")))
    found = list(estimate_time(some))
    assert {f.status for f in found} == {"ok"}
    by_part = {f.values["part"]: f.values for f in found}
    # Two cores took 122 s; the workers 31 s with labels, 158 s with training, 14 s with dynamics.
    assert by_part["total"]["low_s"] < 122 < by_part["total"]["high_s"]
    assert by_part["labels"]["low_s"] == pytest.approx(31, rel=0.2)
    assert by_part["training"]["low_s"] < 158 <= by_part["training"]["high_s"] * 1.1
    assert by_part["dynamics"]["low_s"] < 14 < by_part["dynamics"]["high_s"]
    assert "4,120 steps" in found[0].found
    json.dumps([dict(f.values) for f in found])


def test_dynamics_may_take_as_little_as_its_shortest_runs(known):
    some = measured(with_inputs(known("sampling.min_steps=20", "sampling.n_steps=200"), molecule("H2O")))
    found = next(f for f in estimate_time(some) if f.values["part"] == "dynamics")
    assert " runs of 20 to 800 steps" in found.found
    assert found.values["high_s"] == pytest.approx(40 * found.values["low_s"])


def test_without_what_was_measured_there_is_no_estimate(known):
    assert [f.status for f in estimate_time(known())] == ["skipped"]


def test_the_cost_of_a_label_grows_as_measured_or_between_bounds_that_are_told(known):
    assert label_range({9: 1.0}, [9, 9]) == Range(1.0, 1.0)
    assert label_range({10: 1.0}, [10, 20]) == Range(1.5, 4.5)
    assert label_range({10: 1.0, 20: 4.0}, [20]).low == pytest.approx(4.0)
    some = measured(with_inputs(known(), molecule("H2O"), molecule("CH3CH2OH")))
    some.label_s = {3: 1.0}
    assert "to the power of 1 to 3" in next(iter(estimate_time(some))).found


def of_several_slots(known):
    text = "structures: [molecule:H2O]\nreference: {kind: ase, calculator: nwchem}\n"
    site = "site={kind: laptop, n_workers: 5, mpi_launch: 'mpiexec -n {ranks}'}"
    table = "calculation={size_by: atoms, nodes_by_size: [[0, 1], [9, 2]]}"
    return measured(with_inputs(known(site, table, text=text), molecule("CH3CH2OH")))


def test_the_work_of_a_label_counts_all_its_slots_and_those_that_it_leaves_idle(known):
    some, plain = (
        of_several_slots(known),
        measured(with_inputs(known("site.n_workers=5"), molecule("CH3CH2OH"))),
    )
    some.label_slots = {9: 2}
    (labels, *_, total), (plain_labels, *_, plain_total) = map(list, map(estimate_time, (some, plain)))
    assert labels.values["low_s"] == pytest.approx(2 * plain_labels.values["low_s"])
    assert "one takes up to 2 slots, whose times are added;" in labels.found
    assert "slots" not in plain_labels.found
    # Of five slots two calculations fill four.
    more_s = labels.values["high_s"] / 4 - plain_labels.values["high_s"] / 5
    assert total.values["high_s"] - plain_total.values["high_s"] == pytest.approx(more_s)


def test_a_label_timed_on_one_slot_is_told_to_be_so_where_a_campaign_takes_several(known):
    assert "timed on one, and taken to be" in next(iter(estimate_time(of_several_slots(known)))).found


def test_a_label_is_timed_with_the_slots_and_cores_of_a_worker(known, monkeypatch):
    monkeypatch.setattr("fff.compute.sites.cores_found", lambda: 10)
    some = of_several_slots(known)
    launch = labelling._launch(some, molecule("CH3CH2OH"))
    assert (launch.slots, launch.cores, some.label_slots) == (2, 2, {9: 2})


def test_a_range_is_told_in_one_unit_where_both_ends_have_it():
    assert str(Range(5.0, 30.0)) == "5.0 to 30 s"
    assert str(Range(90.0, 300.0)) == "90 s to 5 min"
    assert str(Range(2.0, 2.0)) == "2.0 s"


def test_too_little_disk_is_a_failure_and_little_a_warning(known):
    some = measured(with_inputs(known(), molecule("H2O")))
    need = costs._need_bytes(some)
    for free, status in ((need - 1, "failed"), (2 * need, "warning"), (100 * need, "ok")):
        some.free_bytes = free
        (found,) = estimate_disk(some)
        assert found.status == status
