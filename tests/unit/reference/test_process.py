"""The child process: killed in time, noticed when it dies, never left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from fff.base.errors import (
    NoSpaceError,
    NotConvergedError,
    ReferenceFailure,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.data.packing import frames_to_bytes
from fff.data.records import Frame, Label
from fff.reference import ReferenceCalculator, ReferenceProcess, make_reference
from fff.reference.child import Answers
from fff.reference.pipes import FAILURE, FIRST_STEP, LABEL, NEXT_STEP, STRUCTURE, failure_from_bytes

# Seconds each, since processes are started or models trained.
pytestmark = pytest.mark.slow

EMT = {"kind": "ase", "calculator": "emt"}
COPPER = bulk("Cu")


@pytest.fixture(scope="module")
def emt():
    """A running child for the tests that do it no harm."""
    with ReferenceProcess(EMT) as reference:
        reference.calculate(COPPER)
        yield reference


@pytest.fixture
def hanging(tmp_path):
    """Settings of an external code that hangs, and the file in which it notes its process id."""
    note = tmp_path / "pid"
    code = tmp_path / "code.sh"
    code.write_text(
        f"#!/bin/sh\necho about to hang >&2\necho $$ > {note}.part && mv {note}.part {note}\nexec sleep 600\n"
    )
    code.chmod(0o755)
    parameters = {"command": f"{code} PREFIX.nwi"}
    return {"kind": "ase", "calculator": "nwchem", "parameters": parameters}, note


def ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_label_is_the_same_as_in_process(emt):
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.1, seed=1)
    rattled.set_momenta(np.ones((4, 3)))
    expected = make_reference(EMT).calculate(rattled)

    label = emt.calculate(rattled)

    assert label.energy_eV == expected.energy_eV
    assert np.array_equal(label.forces_eV_per_A, expected.forces_eV_per_A)
    assert np.array_equal(label.stress_eV_per_A3, expected.stress_eV_per_A3)
    assert label.hash == expected.hash
    assert np.array_equal(label.atoms.get_momenta(), rattled.get_momenta())


def test_a_failure_is_the_same_as_in_process_and_the_child_lives_on(emt):
    pid = emt.pid

    with pytest.raises(ReferenceSetupError, match="Fe") as raised:
        emt.calculate(bulk("Fe"))

    assert raised.value.context["key"] == "reference.calculator"
    assert raised.value.hint
    emt.calculate(COPPER)
    assert emt.pid == pid


def test_hundreds_of_calls_leak_no_file_and_no_memory_of_the_pipes(emt):
    n_before = psutil.Process().num_fds()
    n_child = psutil.Process(emt.pid).num_fds()

    for _ in range(300):
        emt.calculate(COPPER)

    assert psutil.Process().num_fds() == n_before
    assert psutil.Process(emt.pid).num_fds() == n_child


def test_threads_take_turns(emt):
    expected = {n: make_reference(EMT).calculate(bulk("Cu") * (n, 1, 1)).energy_eV for n in range(1, 5)}
    found = {}

    def work(n):
        for _ in range(5):
            found[n] = emt.calculate(bulk("Cu") * (n, 1, 1)).energy_eV

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == expected


def test_a_structure_larger_than_a_pipe_goes_through(emt):
    large = bulk("Cu", cubic=True) * (7, 7, 7)

    assert len(emt.calculate(large).forces_eV_per_A) == 1372


@pytest.mark.slow
def test_a_child_lives_longer_than_the_thread_that_started_it():
    with ReferenceProcess(EMT) as reference:
        thread = threading.Thread(target=reference.calculate, args=(COPPER,))
        thread.start()
        thread.join()
        pid = reference.pid
        time.sleep(1.2)  # longer than the child takes to look for its parent

        reference.calculate(COPPER)

        assert reference.pid == pid


def test_a_killed_child_is_noticed_and_replaced():
    with ReferenceProcess(EMT) as reference:
        reference.calculate(COPPER)
        first = reference.pid
        os.kill(first, signal.SIGKILL)

        with pytest.raises(ReferenceLostError, match="SIGKILL") as raised:
            reference.calculate(COPPER)

        assert raised.value.failure_class == "retry"
        reference.calculate(COPPER)
        assert reference.pid != first


def test_a_hang_ends_at_the_time_limit():
    with ReferenceProcess(EMT, time_limit_s=0.3) as reference:
        reference.time_limit_s = 60
        reference.calculate(COPPER)
        pid = reference.pid
        # Stopped, it answers nothing at all, as code that hangs in C.
        os.kill(pid, signal.SIGSTOP)
        reference.time_limit_s = 0.3
        started = time.monotonic()

        with pytest.raises(TimeLimitError, match=r"reference\.time_limit_s, 0\.3 s") as raised:
            reference.calculate(COPPER)

        assert time.monotonic() - started < 5
        assert raised.value.failure_class == "retry"
        assert ended(pid)
        reference.time_limit_s = 60
        reference.calculate(COPPER)


@pytest.mark.slow
def test_the_time_limit_ends_a_code_keeps_its_files_and_spares_the_child(hanging, tmp_path):
    settings, note = hanging
    with ReferenceProcess(settings, time_limit_s=2.0, work_dir=tmp_path / "tasks") as reference:
        with pytest.raises(TimeLimitError, match=r"its time limit, 2 s") as raised:
            reference.calculate(molecule("H2"), name="label-00012")

        assert ended(int(note.read_text()))
        kept = tmp_path / "tasks" / "failed-label-00012-1"
        assert raised.value.context["work_dir"] == str(kept)
        assert str(kept) in raised.value.message
        assert (kept / "nwchem.nwi").exists()
        pid = reference.pid
        with pytest.raises(TimeLimitError):
            reference.calculate(molecule("H2"), name="label-00013")
        assert reference.pid == pid
    assert [path.name for path in sorted((tmp_path / "tasks").iterdir())] == [
        "failed-label-00012-1",
        "failed-label-00013-1",
    ]


@pytest.mark.slow
def test_a_child_that_does_not_end_its_code_is_killed_with_it_and_the_files_stay(
    hanging, tmp_path, monkeypatch
):
    monkeypatch.setattr("fff.reference.process._MARGIN_S", 0.5)
    settings, note = hanging
    with ReferenceProcess(settings, time_limit_s=1.0, work_dir=tmp_path / "tasks") as reference:

        def stop():
            while not note.exists():
                time.sleep(0.02)
            # Stopped, it ends nothing, as code that hangs in C.
            os.kill(reference.pid, signal.SIGSTOP)

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(TimeLimitError, match=r"reference\.time_limit_s, 1 s, and was killed") as raised:
            reference.calculate(molecule("H2"), name="label-00012")
        thread.join()

        assert reference.pid is None
    assert ended(int(note.read_text()))
    kept = tmp_path / "tasks" / "failed-label-00012-1"
    assert raised.value.context["work_dir"] == str(kept)
    assert f"Its files are in {kept}. Last lines: about to hang" in raised.value.message
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == [kept.name]


@pytest.mark.slow
def test_what_a_library_started_in_a_session_of_its_own_is_killed_at_the_limit_too(tmp_path, monkeypatch):
    monkeypatch.setattr("fff.reference.process._MARGIN_S", 0.5)
    code = tmp_path / "dftd3"
    # ASE runs this one by itself.
    code.write_text(f"#!/bin/sh\nsetsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' &\nwait\n")
    code.chmod(0o755)
    settings = {"kind": "ase", "calculator": "dftd3", "parameters": {"command": str(code)}}
    with ReferenceProcess(settings, time_limit_s=2.0) as reference, pytest.raises(TimeLimitError):
        reference.calculate(molecule("H2"))

    assert ended(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_the_files_of_a_child_that_was_killed_stay(hanging, tmp_path):
    settings, note = hanging
    with ReferenceProcess(settings, work_dir=tmp_path / "tasks") as reference:

        def kill():
            while not note.exists():
                time.sleep(0.02)
            os.kill(reference.pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(ReferenceLostError, match="SIGKILL") as raised:
            reference.calculate(molecule("H2"), name="label-00012")
        thread.join()
    assert ended(int(note.read_text()))
    assert raised.value.context["work_dir"] == str(tmp_path / "tasks" / "failed-label-00012-1")
    assert raised.value.context["exit_code"] == -signal.SIGKILL


@pytest.mark.slow
def test_what_a_killed_process_was_calculating_is_kept_by_the_next(hanging, tmp_path):
    settings, note = hanging
    code = PARENT.replace(
        "ReferenceProcess(settings)", "ReferenceProcess(settings, work_dir=Path(sys.argv[3]))"
    )
    root = tmp_path / "tasks"
    parent = subprocess.Popen(
        [sys.executable, "-c", "from pathlib import Path\n" + code, json.dumps(settings), "busy", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    with parent:
        while not note.exists():
            time.sleep(0.02)
        parent.kill()
    assert ended(int(note.read_text()))
    (left,) = root.iterdir()
    assert left.name.startswith("running-calculation-")

    with ReferenceProcess(EMT, work_dir=root) as reference:
        reference.calculate(COPPER)

    assert [path.name for path in root.iterdir()] == ["failed-calculation-1"]
    assert "about to hang" in (root / "failed-calculation-1" / "stderr.txt").read_text()


@pytest.mark.slow
def test_without_a_work_dir_failed_ones_stay_among_the_temporary_files(hanging, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with ReferenceProcess(hanging[0], time_limit_s=1.5) as reference, pytest.raises(TimeLimitError) as raised:
        reference.calculate(molecule("H2"), name="label-00012")
    (kept,) = (tmp_path / "tmp").iterdir()
    assert kept.name == "fff-failed-label-00012-1"
    assert raised.value.context["work_dir"] == str(kept)


def test_dynamics_has_a_name_too(hanging, tmp_path):
    settings, _ = hanging
    with ReferenceProcess(settings, time_limit_s=1.5, work_dir=tmp_path / "tasks") as reference:
        calculator = reference.ase_calculator(name="test-0001")
        with pytest.raises(TimeLimitError, match=r"failed-test-0001-1"):
            calculator.label_of(molecule("H2"))


def test_the_section_has_a_time_limit_of_its_own():
    assert ReferenceProcess({**EMT, "time_limit_s": 7.5}).time_limit_s == 7.5


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt, which shells have ignored by what they start in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_call_does_not_leave_its_answer_to_the_next(hanging):
    settings, note = hanging
    reference = ReferenceProcess(settings)
    main = threading.main_thread().ident

    def interrupt():
        while not note.exists():
            time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        reference.calculate(molecule("H2"))
    thread.join()

    assert reference.pid is None
    assert ended(int(note.read_text()))


def test_closing_ends_the_child_and_removes_its_folder():
    reference = ReferenceProcess(EMT)
    reference.calculate(COPPER)
    pid, folder = reference.pid, reference._child.folder
    assert Path(folder).is_dir()

    reference.close()
    reference.close()

    assert ended(pid)
    assert not Path(folder).exists()


@pytest.mark.slow
def test_a_forgotten_process_is_cleared_away():
    reference = ReferenceProcess(EMT)
    reference.calculate(COPPER)
    pid = reference.pid

    del reference

    assert ended(pid)


@pytest.mark.slow
def test_settings_that_do_not_fit_show_in_the_error():
    with (
        ReferenceProcess({"kind": "emt"}) as reference,
        pytest.raises(ReferenceLostError, match="ConfigError"),
    ):
        reference.calculate(COPPER)


@pytest.fixture
def talkative(tmp_path):
    """Settings whose library writes to the standard output that it inherits, then fails."""
    # ASE runs this code by itself.
    code = tmp_path / "dftd3"
    code.write_text("#!/bin/sh\necho chatter from a library >&2\nexit 3\n")
    code.chmod(0o755)
    return {"kind": "ase", "calculator": "dftd3", "parameters": {"command": str(code)}}


def test_what_a_library_prints_stays_out_of_the_protocol(talkative):
    with ReferenceProcess(talkative) as reference:
        for _ in range(3):
            with pytest.raises(ReferenceFailure, match="returned an error: 3"):
                reference.calculate(molecule("H2"))

        assert b"chatter" in os.pread(reference._child.log.fileno(), 1000, 0)


@pytest.mark.slow
def test_a_long_log_is_cut(monkeypatch, talkative):
    monkeypatch.setattr("fff.reference.process._LONG_LOG_BYTES", 10)
    with ReferenceProcess(talkative) as reference:
        for _ in range(2):
            with pytest.raises(ReferenceFailure, match="returned an error: 3"):
                reference.calculate(molecule("H2"))

            assert os.fstat(reference._child.log.fileno()).st_size == 0


@pytest.mark.slow
def test_not_converged_crosses_as_what_it_is():
    with ReferenceProcess({"kind": "xtb", "max_iterations": 1}) as reference:
        with pytest.raises(NotConvergedError):
            reference.calculate(molecule("H2O"))
        with pytest.raises(ReferenceFailure):
            reference.calculate(Atoms("H2", np.full((2, 3), np.nan)))


class Broken:
    """A method with a defect: what it raises is no failure of a calculation."""

    def __init__(self, error):
        self.error = error
        self.n_runs = 0

    def calculate(self, atoms):
        raise self.error

    def ase_calculator(self):
        self.n_runs += 1
        return ReferenceCalculator(self.calculate)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_the_structures_fault(number):
    error = OSError(number, os.strerror(number))
    answer, payload = Answers(Broken(error))(STRUCTURE, frames_to_bytes([Frame(COPPER)]))
    failure = failure_from_bytes(payload)
    assert answer == FAILURE
    assert type(failure) is NoSpaceError
    assert failure.failure_class == "disk"


@pytest.mark.parametrize("kind", [STRUCTURE, FIRST_STEP, NEXT_STEP])
@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), MemoryError("900 GB"), TypeError("no")])
def test_whatever_a_method_raises_is_answered_as_a_failure_of_the_structure(kind, error):
    answer, payload = Answers(Broken(error))(kind, frames_to_bytes([Frame(COPPER)]))
    failure = failure_from_bytes(payload)
    assert answer == FAILURE
    assert type(failure) is ReferenceFailure
    assert failure.failure_class == "structure"
    assert f"{type(error).__name__}: {error}" in failure.message


def test_dynamics_goes_on_from_the_last_step_until_another_begins():
    class Counting:
        def __init__(self):
            self.runs = []

        def ase_calculator(self):
            steps = []
            self.runs.append(steps)

            def label(atoms):
                steps.append(atoms)
                return Label(atoms, 0.0, np.zeros((len(atoms), 3)))

            return ReferenceCalculator(label)

    method = Counting()
    answers = Answers(method)
    for kind in (FIRST_STEP, NEXT_STEP, NEXT_STEP, FIRST_STEP, NEXT_STEP):
        assert answers(kind, frames_to_bytes([Frame(COPPER)]))[0] == LABEL
    assert [len(steps) for steps in method.runs] == [3, 2]


def test_the_calculator_for_dynamics_asks_for_a_first_step_then_for_next_ones(emt, monkeypatch):
    asked = []
    exchange = emt._exchange
    monkeypatch.setattr(emt, "_exchange", lambda kind, *rest: (asked.append(kind), exchange(kind, *rest))[1])
    first, second = emt.ase_calculator(), emt.ase_calculator()
    expected = emt.calculate(COPPER)
    for calculator in (first, first, second, first):
        assert calculator.label_of(COPPER).energy_eV == expected.energy_eV
    emt.calculate(COPPER)
    first.label_of(COPPER)
    assert asked == [STRUCTURE, FIRST_STEP, NEXT_STEP, FIRST_STEP, FIRST_STEP, STRUCTURE, NEXT_STEP]


def test_a_failed_step_of_dynamics_is_the_same_as_in_process(emt):
    iron = bulk("Fe")
    iron.calc = emt.ase_calculator()
    with pytest.raises(ReferenceSetupError, match="Fe"):
        iron.get_potential_energy()


@pytest.mark.slow
def test_a_step_of_dynamics_starts_from_the_orbitals_of_the_step_before():
    section = {"kind": "pyscf", "functional": "HF", "basis": "sto-3g", "density_fitting": False}
    here = molecule("H2O")
    near = here.copy()
    near.positions[0, 2] += 0.01
    calculator = make_reference(section).ase_calculator()
    expected = [calculator.label_of(atoms).energy_eV for atoms in (here, near)]
    with ReferenceProcess(section) as reference:
        calculator = reference.ase_calculator()
        found = [calculator.label_of(atoms).energy_eV for atoms in (here, near)]
        alone = reference.calculate(near).energy_eV
    # To the last bit the same as with the orbitals kept; alone it comes to the same by another way.
    assert found == pytest.approx(expected, abs=1e-10)
    assert alone == pytest.approx(expected[1], abs=1e-5)
    assert abs(alone - expected[1]) > 1e-10


PARENT = """
import json, os, signal, sys, threading
from ase.build import molecule, bulk
from fff.reference import ReferenceProcess

settings, how = json.loads(sys.argv[1]), sys.argv[2]
reference = ReferenceProcess(settings)

def work():
    if how == "busy":
        threading.Thread(target=lambda: reference.calculate(molecule("H2")), daemon=True).start()
        while reference.pid is None:
            pass
    else:
        reference.calculate(bulk("Cu"))
    print(reference.pid, flush=True)
    sys.stdin.read()

if how == "daemonic":
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    process.join()
else:
    work()
"""


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ("busy", "killed"),
        pytest.param("idle", "killed", marks=pytest.mark.slow),
        pytest.param("idle", "ends", marks=pytest.mark.slow),
        pytest.param("daemonic", "killed", marks=pytest.mark.slow),
        pytest.param("daemonic", "ends", marks=pytest.mark.slow),
    ],
)
def test_a_child_dies_with_its_parent_and_leaves_no_file(hanging, tmp_path, how, end):
    settings, note = hanging
    settings = settings if how == "busy" else EMT
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, json.dumps(settings), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with parent:
        child = int(parent.stdout.readline())
        while how == "busy" and not note.exists():
            time.sleep(0.02)
        assert psutil.pid_exists(child)

        if end == "killed":
            # A daemonic process may stand between; neither the child nor its guard is touched.
            psutil.Process(child).parent().parent().kill()
        parent.stdin.close()

    assert ended(child)
    if how == "busy":
        assert ended(int(note.read_text()))
    end = time.monotonic() + 10
    while list(temporary.iterdir()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not list(temporary.iterdir())


def test_the_temporary_files_of_one_killed_with_its_guard_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ReferenceProcess(EMT) as reference:
        reference.calculate(COPPER)
        mine = Path(reference._child.folder)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    left = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    kept = [mine, tmp_path / f"fff-reference-000000-{process.pid}-x", tmp_path / "fff-reference-x"]
    for folder in (left, *kept):
        folder.mkdir()

    with ReferenceProcess(EMT) as reference:
        reference.calculate(COPPER)

    assert sorted(tmp_path.iterdir()) == sorted(kept)
