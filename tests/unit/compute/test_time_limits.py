"""A task that hangs: its worker is killed, and a note says where it was. Workers are real processes here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fff.compute import tasks
from fff.compute.tasks import Call, overtime_note

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PRELUDE = """
import sys, threading, time
from fff.compute import tasks
from fff.compute.tasks import Call

def on_time(call, parcels):
    return {"answer": 42}

def sleeps_too_long(call, parcels):
    time.sleep(60)

def counts_in_c(call, parcels):
    return {"sum": sum(range(10**13))}

def swallows_everything(call, parcels):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

def hangs_in_a_thread(call, parcels):
    thread = threading.Thread(target=sleeps_too_long, args=(call, parcels))
    thread.start()
    thread.join()

call = Call("label-00007", sys.argv[1], limit_s=float(sys.argv[3]))
tasks._BACKSTOP_S = float(sys.argv[4])
envelope = tasks._task(globals()[sys.argv[2]])(call)
time.sleep(float(sys.argv[5]))
print(envelope["outcome"], envelope["values"], flush=True)
"""


def worker(
    run_dir: Path, function: str, *, limit_s: float = 0.2, backstop_s: float = 30.0, rest_s: float = 0.0
) -> subprocess.CompletedProcess[str]:
    """Have a process carry out one task with a time limit."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE, str(run_dir), function, str(limit_s), str(backstop_s), str(rest_s)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("function", ["sleeps_too_long", "swallows_everything"])
def test_a_worker_whose_task_hangs_is_killed_and_the_note_says_where_it_was(tmp_path, function):
    done = worker(tmp_path, function)
    assert done.returncode == 1
    assert done.stdout == ""
    note = tmp_path / "tasks" / "label-00007.overtime.txt"
    assert overtime_note(Call("label-00007", str(tmp_path))) == note
    assert f"in {function}" in note.read_text()
    assert [path.name for path in note.parent.iterdir()] == [note.name]


def test_the_note_shows_all_threads(tmp_path):
    assert worker(tmp_path, "hangs_in_a_thread").returncode == 1
    note = (tmp_path / "tasks" / "label-00007.overtime.txt").read_text()
    assert "in hangs_in_a_thread" in note
    assert "in sleeps_too_long" in note


def test_code_that_does_not_let_go_of_the_interpreter_is_killed_too(tmp_path):
    started = time.monotonic()
    done = worker(tmp_path, "counts_in_c", backstop_s=0.3)
    assert time.monotonic() - started < 25
    assert done.returncode == 1
    assert done.stdout == ""
    # No Python code can run, so the traceback goes to where the worker's errors go.
    assert "Timeout" in done.stderr
    assert "in counts_in_c" in done.stderr


def test_a_worker_is_killed_where_no_note_can_be_written(tmp_path):
    (tmp_path / "tasks").touch()
    done = worker(tmp_path, "sleeps_too_long")
    assert done.returncode == 1
    assert done.stdout == ""
    assert (tmp_path / "tasks").is_file()


def test_a_task_that_ends_in_time_leaves_nothing_that_could_kill_its_worker(tmp_path):
    done = worker(tmp_path, "on_time", limit_s=0.3, backstop_s=0.0, rest_s=0.6)
    assert (done.returncode, done.stdout) == (0, "done {'answer': 42}\n")
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize("limit_s", [float("inf"), 1e12, 0.5])
def test_no_thread_is_left_when_a_task_has_ended(tmp_path, limit_s):
    before = set(threading.enumerate())
    for fails in (False, True):

        def function(call: Call, parcels, fails=fails):
            assert len(set(threading.enumerate()) - before) == 1
            if fails:
                raise ValueError
            return {}

        envelope = tasks._task(function)(Call("a", str(tmp_path), limit_s=limit_s))
        assert envelope["outcome"] == ("failed" if fails else "done"), envelope
    end = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    assert set(threading.enumerate()) == before
