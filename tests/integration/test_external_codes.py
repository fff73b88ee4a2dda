"""External codes as a campaign uses them: in a child process, two at once, failing, hanging, out of space."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from ase.build import molecule
from ruamel.yaml import YAML

from fff.base.errors import (
    NoSpaceError,
    NotConvergedError,
    ReferenceFailure,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.reference import ReferenceProcess
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

WATER = molecule("H2O")
XTB = {"kind": "xtb-cli", "method": "GFN2-xTB"}


def needs(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def nwchem(command="nwchem PREFIX.nwi > PREFIX.nwo", **parameters):
    """The reference of the preset, with another command."""
    preset = YAML(typ="safe").load(ROOT / "configs" / "water-nwchem.yaml")["reference"]
    return {**preset, "parameters": {**preset["parameters"], "command": command, **parameters}}


@pytest.fixture
def tasks(tmp_path):
    """A folder for work directories, with a blank in its name."""
    return tmp_path / "my runs" / "tasks"


@pytest.fixture
def script(tmp_path):
    """Write an executable script, and return a reference that runs it in the place of xtb."""

    def write(text, **section):
        path = tmp_path / "my xtb"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return {**XTB, "command": [str(path)], **section}

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def processes_in(folder):
    """Return the processes whose working directory is in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def gone(folder, within_s=10.0):
    end = time.monotonic() + within_s
    while processes_in(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return not processes_in(folder)


# --- the programs themselves -------------------------------------------------------------------------------


@needs("xtb")
def test_xtb_calculates_water_and_keeps_its_files_where_asked(tasks):
    with ReferenceProcess({**XTB, "keep_files": True}, work_dir=tasks) as reference:
        label = reference.calculate(WATER, name="label-00001")
    assert label.energy_eV == pytest.approx(-137.9678, abs=1e-3)
    assert names(tasks) == ["label-00001-1"]
    assert {"coord", "gradient", "stdout.txt"} <= set(names(tasks / "label-00001-1"))


@needs("xtb")
def test_xtb_that_does_not_converge_keeps_its_files_and_the_child(tasks):
    with ReferenceProcess({**XTB, "max_iterations": 1}, work_dir=tasks) as reference:
        with pytest.raises(NotConvergedError) as raised:
            reference.calculate(WATER, name="label-00001")
        assert psutil.pid_exists(reference.pid)
    assert raised.value.failure_class == "structure"
    assert raised.value.context["work_dir"] == str(tasks / "failed-label-00001-1")
    assert names(tasks) == ["failed-label-00001-1"]
    assert "did not converge" in (tasks / "failed-label-00001-1" / "stdout.txt").read_text()


@needs("xtb")
def test_two_processes_calculate_in_the_same_folder_at_once(tasks):
    section = {**XTB, "keep_files": True}

    def work(i):
        with ReferenceProcess(section, work_dir=tasks) as reference:
            return [reference.calculate(WATER, name="label-00001").energy_eV for _ in range(4)]

    with ThreadPoolExecutor(2) as pool:
        found = [energy for energies in pool.map(work, range(2)) for energy in energies]
    assert found == pytest.approx([found[0]] * 8)
    assert names(tasks) == sorted(f"label-00001-{n}" for n in range(1, 9))


@needs("nwchem")
@pytest.mark.slow
def test_nwchem_calculates_water(tasks):
    with ReferenceProcess(nwchem(), work_dir=tasks) as reference:
        label = reference.calculate(WATER, name="label-00001")
    assert label.energy_eV == pytest.approx(-2075.57, abs=0.1)
    assert label.forces_eV_per_A.shape == (3, 3)
    assert names(tasks) == []


@needs("nwchem")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "kind", "said"),
    [
        ({"dft": {"xc": "xpbe96 cpbe96", "iterations": 2}}, NotConvergedError, "did not converge"),
        ({"basis": "no-such-basis"}, ReferenceFailure, "nwchem ended with exit code"),
        ({"theory": "no-such-theory"}, ReferenceFailure, "nwchem"),
    ],
)
def test_nwchem_that_fails_says_why_and_keeps_its_files(tasks, parameters, kind, said):
    with (
        ReferenceProcess(nwchem(**parameters), work_dir=tasks) as reference,
        pytest.raises(kind, match=said) as raised,
    ):
        reference.calculate(WATER, name="label-00001")
    assert type(raised.value) is kind
    folder = tasks / "failed-label-00001-1"
    assert f"Its files are in {folder}." in raised.value.message
    assert (folder / "nwchem.nwi").exists()
    assert names(tasks) == [folder.name]


@needs("nwchem", "mpirun")
@pytest.mark.slow
def test_the_time_limit_ends_every_process_that_mpirun_started(tasks):
    command = "mpirun --allow-run-as-root --oversubscribe -np 2 nwchem PREFIX.nwi > PREFIX.nwo"
    benzene = molecule("C6H6")
    with ReferenceProcess(nwchem(command), time_limit_s=4.0, work_dir=tasks) as reference:
        seen = []

        def look():
            end = time.monotonic() + 4
            while len(seen) < 3 and time.monotonic() < end:
                seen[:] = processes_in(tasks)
                time.sleep(0.05)

        thread = threading.Thread(target=look)
        thread.start()
        with pytest.raises(TimeLimitError, match="its time limit, 4 s") as raised:
            reference.calculate(benzene, name="label-00001")
        thread.join()
        assert len(seen) >= 3  # mpirun and its two
        assert not processes_in(tasks)
        assert reference.pid is not None
    assert raised.value.failure_class == "retry"
    assert (tasks / "failed-label-00001-1" / "nwchem.nwo").stat().st_size > 0


# --- what goes wrong ---------------------------------------------------------------------------------------

IN_A_SESSION = "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.1; done' &"


@pytest.mark.parametrize(
    ("text", "kind", "failure_class", "said"),
    [
        ("echo 'no licence' >&2; exit 3", ReferenceFailure, "structure", "exit code 3"),
        ("exit 0", ReferenceFailure, "structure", "the file gradient is missing"),
        ("echo '$grad' > gradient", ReferenceFailure, "structure", "incomplete"),
        ("kill -KILL $$", ReferenceLostError, "retry", "killed by SIGKILL"),
        ("no-such-program", ReferenceSetupError, "setup", "cannot be started"),
        ("echo x | cat > /dev/full || exit 1", NoSpaceError, "disk", "full"),
        ("head -c 100000000 /dev/zero | tr '\\0' x; exit 3", ReferenceFailure, "structure", "exit code 3"),
        (f"{IN_A_SESSION} exit 3", ReferenceFailure, "structure", "exit code 3"),
    ],
    ids=["exit", "nothing", "half", "signal", "missing", "full", "talkative", "session"],
)
def test_every_failure_has_its_class_its_files_and_leaves_no_process(
    script, tasks, text, kind, failure_class, said
):
    with ReferenceProcess(script(text), work_dir=tasks) as reference:
        with pytest.raises(kind, match=said) as raised:
            reference.calculate(WATER, name="label-00001")
        assert gone(tasks)
    assert type(raised.value) is kind
    assert raised.value.failure_class == failure_class
    assert len(raised.value.message) < 1500
    assert raised.value.context["work_dir"] == str(tasks / "failed-label-00001-1")
    assert names(tasks) == ["failed-label-00001-1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "exec sleep 600",
        "trap '' TERM; while :; do sleep 0.1; done",
        f"{IN_A_SESSION} wait",
        f"({IN_A_SESSION}) ; exec sleep 600",
    ],
    ids=["hangs", "deaf", "session", "orphan"],
)
def test_whatever_hangs_ends_at_the_time_limit(script, tasks, text):
    section = script("echo still here >&2; " + text)
    with ReferenceProcess(section, time_limit_s=0.7, work_dir=tasks) as reference:
        with pytest.raises(TimeLimitError) as raised:
            reference.calculate(WATER, name="label-00001")
        assert not processes_in(tasks)
        pid = reference.pid
        with pytest.raises(TimeLimitError):
            reference.calculate(WATER, name="label-00001")
        assert reference.pid == pid
    assert f"{tasks / 'failed-label-00001-1'}. Last lines: still here" in raised.value.message
    assert names(tasks) == ["failed-label-00001-1", "failed-label-00001-2"]


@pytest.mark.slow
def test_a_killed_child_takes_its_code_along_from_every_session(script, tasks):
    with ReferenceProcess(script(f"{IN_A_SESSION} wait"), work_dir=tasks) as reference:

        def kill():
            while len(processes_in(tasks)) < 3:
                time.sleep(0.05)
            os.kill(reference.pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(ReferenceLostError, match="failed-label-00001-1"):
            reference.calculate(WATER, name="label-00001")
        thread.join()
        assert gone(tasks)
    assert names(tasks) == ["failed-label-00001-1"]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system with room for 64 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("only who may mount can have a small disk")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_said_to_be_full_and_later_ones_are_sound(small_disk, script):
    section = script("cat /dev/zero > big || exit 1")
    with ReferenceProcess(section, work_dir=small_disk) as reference:
        with pytest.raises(NoSpaceError, match="is full, or a quota is used up") as raised:
            reference.calculate(WATER, name="label-00001")
        assert raised.value.failure_class == "disk"
        # Now there is no room to begin with.
        with pytest.raises(NoSpaceError):
            reference.calculate(WATER, name="label-00002")
        shutil.rmtree(Path(raised.value.context["work_dir"]))
        Path(section["command"][0]).write_text("#!/bin/sh\nexit 5\n")
        with pytest.raises(ReferenceFailure, match="exit code 5"):
            reference.calculate(WATER, name="label-00003")
