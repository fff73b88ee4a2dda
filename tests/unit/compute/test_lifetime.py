from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fff.compute.lifetime import LEASES_VARIABLE, OWNER_VARIABLE, die_with_parent, is_supported, wrap

pytestmark = pytest.mark.skipif(not is_supported(), reason="the kernel's part is there on Linux only")

# A program with a child, and a child in a session of its own; says who they are.
FAMILY = "sleep 600 & echo $!; setsid sleep 600 & echo $!; echo $$; wait"


def gone(pid, within_s=5.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def owner():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def start(owner):
    started = []

    def run(mode, *command, owner_pid=None):
        environment = os.environ | {OWNER_VARIABLE: str(owner_pid or owner.pid)}
        process = subprocess.Popen(wrap(mode, command), stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def pids(process, n):
    return [int(process.stdout.readline()) for _ in range(n)]


def test_a_guard_leaves_nothing_when_the_owner_is_killed(start, owner):
    guard = start("guard", "bash", "-c", FAMILY)
    family = pids(guard, 3)
    os.kill(owner.pid, signal.SIGKILL)
    assert guard.wait(5) == 137
    assert all(gone(pid) for pid in family)


def test_a_guard_leaves_nothing_when_the_program_ends_and_passes_its_status_on(start):
    guard = start("guard", "bash", "-c", "setsid sleep 600 & echo $!; exit 7")
    (orphan,) = pids(guard, 1)
    assert guard.wait(5) == 7
    assert gone(orphan)


def test_a_guard_leaves_nothing_when_it_is_terminated(start):
    guard = start("guard", "bash", "-c", FAMILY)
    family = pids(guard, 3)
    guard.terminate()
    assert guard.wait(5) == 128 + signal.SIGTERM
    assert all(gone(pid) for pid in family)


def test_the_program_dies_with_a_guard_that_is_killed(start):
    guard = start("guard", "bash", "-c", "echo $$; exec sleep 600")
    (program,) = pids(guard, 1)
    guard.kill()
    assert gone(program)


def test_a_program_killed_by_a_signal_shows_in_the_status(start):
    assert start("guard", "bash", "-c", "kill -KILL $$").wait(5) == 137


def test_a_guard_of_an_owner_that_is_gone_starts_nothing(start):
    process = subprocess.Popen(["true"])
    process.wait()
    guard = start("guard", "echo", "started", owner_pid=process.pid)
    assert guard.wait(5) == 137
    assert guard.stdout.read() == ""


def test_a_follower_is_the_program_and_dies_with_its_parent(start):
    follower = start("follow", "sleep", "600", owner_pid=os.getpid())
    end = time.monotonic() + 5
    while psutil.Process(follower.pid).name() != "sleep":
        assert time.monotonic() < end
        time.sleep(0.01)
    code = (
        "import os, subprocess, sys, time; os.environ[sys.argv[1]] = str(os.getpid());"
        "print(subprocess.Popen(sys.argv[2:]).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, OWNER_VARIABLE, *wrap("follow", ["sleep", "600"])],
        stdout=subprocess.PIPE,
        text=True,
    )
    (pid,) = pids(parent, 1)
    time.sleep(0.3)
    assert psutil.Process(pid).name() == "sleep"
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pid)


def test_a_follower_of_somebody_else_than_its_parent_ends_at_once(start, owner):
    assert start("follow", "sleep", "600", owner_pid=owner.pid).wait(5) == 137


def test_a_process_that_lost_its_parent_before_it_could_say_so_ends():
    child = os.fork()
    if child == 0:
        die_with_parent(os.getpid())  # nobody is the parent of itself
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 137


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_the_locks_of_a_block_go_with_it_and_nothing_else(start, tmp_path, monkeypatch, is_cancelled):
    kept, leases = tmp_path / "kept", tmp_path / "leases"
    for folder in (kept, leases):
        folder.mkdir()
        for name in ("turn", "slot-0"):
            (folder / name).touch()
    (kept / "notes").touch()
    for folder in (leases, kept, tmp_path / "nowhere"):
        monkeypatch.setenv(LEASES_VARIABLE, str(folder))
        block = start("attend", "bash", "-c", "echo 1; sleep 600" if is_cancelled else "echo 1")
        pids(block, 1)
        if is_cancelled:
            block.terminate()
        block.wait(timeout=60)
    assert not leases.exists()
    assert [path.name for path in kept.iterdir()] == ["notes"]
