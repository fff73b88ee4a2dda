"""The child process: killed in time, noticed when it dies, never left behind."""

from __future__ import annotations

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
    code.write_text(f"#!/bin/sh\necho $$ > {note}.part && mv {note}.part {note}\nexec sleep 600\n")
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


def test_the_time_limit_kills_what_the_child_started(hanging):
    settings, note = hanging
    with ReferenceProcess(settings, time_limit_s=2.0) as reference, pytest.raises(TimeLimitError):
        reference.calculate(molecule("H2"))

    assert ended(int(note.read_text()))


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
    assert not list(temporary.iterdir())
