"""The lock of a run directory: one process at a time, and a dead one is not in the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from fff.base.errors import CampaignError, RunDirectoryError
from fff.data import run_lock
from fff.data.run_lock import RunLock, _Holder, is_held

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from fff.data.run_lock import RunLock
RunLock(Path(sys.argv[1])).take()
print("taken", flush=True)
time.sleep(60)
"""
COMPETE = """
import sys
from pathlib import Path
from fff.base.errors import RunDirectoryError
from fff.data.run_lock import RunLock
print("ready", flush=True)
for line in sys.stdin:
    try:
        RunLock(Path(line.strip()) / "lock").take()
        print("won", flush=True)
    except RunDirectoryError:
        print("refused", flush=True)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Return a process that runs Python code, once it has said its first word."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline().strip()
    return process


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    """Another process, which holds the lock."""
    process = started(HOLD, str(path))
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def soon(monkeypatch):
    """A process of which nothing can be seen counts as dead after a moment."""
    monkeypatch.setattr(run_lock, "DEAD_AFTER_S", 0.2)
    monkeypatch.setattr(run_lock, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(run_lock, "REFRESH_EVERY_S", 0.0)


def write(path: Path, holder: _Holder, *, age_s: float = 0.0) -> None:
    path.write_text(json.dumps(asdict(holder)) + "\n")
    then = time.time() - age_s
    os.utime(path, (then, then))


def elsewhere() -> _Holder:
    """Return a process on another machine."""
    return _Holder("far-away", 4711, "other-boot pid:[1] 99", "0" * 16)


def nobody() -> _Holder:
    """Return a process of this machine that lives no more."""
    mine = _Holder.me()
    return replace(mine, process=f"{mine.process.rpartition(' ')[0]} 1", token="0" * 16)


def of(path: Path) -> int:
    return json.loads(path.read_text())["pid"]


def only_the_lock(path: Path) -> bool:
    return [file.name for file in path.parent.iterdir()] == [path.name]


# --- one at a time --------------------------------------------------------------------------------------


def test_a_lock_names_its_process_and_goes_when_it_is_released(path):
    lock = RunLock(path)
    lock.take()
    assert of(path) == os.getpid()
    assert path.stat().st_mode & 0o777 == 0o644
    assert is_held(path)
    assert only_the_lock(path)
    lock.release()
    lock.release()
    assert not path.exists()
    assert not is_held(path)


def test_a_second_process_is_refused_at_once(path, holder):
    before = path.read_text()
    began = time.monotonic()
    with pytest.raises(RunDirectoryError, match=f"taken: process {holder.pid} on ") as caught:
        RunLock(path, pytest.fail).take()
    assert time.monotonic() - began < 1
    assert f"fff stop {path.parent}" in caught.value.hint
    assert path.read_text() == before
    assert is_held(path)
    assert only_the_lock(path)


def test_one_process_cannot_take_a_lock_twice(path):
    RunLock(path).take()
    with pytest.raises(RunDirectoryError, match=f"process {os.getpid()}"):
        RunLock(path).take()


def test_the_lock_of_another_is_not_released(path, holder):
    RunLock(path).release()
    assert of(path) == holder.pid


# --- a dead process -------------------------------------------------------------------------------------


def test_the_lock_of_a_killed_process_is_not_in_the_way(path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    said: list[str] = []
    assert not is_held(path)
    RunLock(path, said.append).take()
    assert of(path) == os.getpid()
    (line,) = said
    assert re.fullmatch(rf"The lock of process {holder.pid} on \S+, which has died, was removed\.", line)
    assert only_the_lock(path)


def test_the_lock_of_a_killed_process_that_nobody_took_note_of_is_not_in_the_way(path, holder):
    holder.send_signal(signal.SIGKILL)
    # Not waited for, it stays in the table of processes.
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not is_held(path)
    RunLock(path).take()
    assert of(path) == os.getpid()


def test_a_process_that_was_given_the_id_of_a_dead_one_is_not_taken_for_it(path):
    # This process lives and has the id, but began at another time.
    write(path, nobody())
    assert nobody().pid == os.getpid()
    assert not is_held(path)
    RunLock(path).take()
    assert json.loads(path.read_text())["token"] != "0" * 16


@pytest.mark.parametrize(
    "change",
    [lambda parts: ["another-boot", *parts[1:]], lambda parts: [parts[0], "pid:[123]", parts[2]]],
    ids=["boot", "container"],
)
def test_a_process_that_cannot_be_seen_from_here_is_not_looked_up(path, monkeypatch, change):
    mine = _Holder.me()
    process = " ".join(change(mine.process.split(" ")))
    write(path, replace(mine, process=process, token="0"), age_s=run_lock.DEAD_AFTER_S + 1)
    monkeypatch.setattr(_Holder, "lives", lambda self: pytest.fail("nobody can tell"))
    RunLock(path).take()
    assert json.loads(path.read_text())["token"] != "0"


# --- another machine ------------------------------------------------------------------------------------


def test_a_process_elsewhere_that_shows_that_it_lives_keeps_its_lock(path, soon, monkeypatch):
    monkeypatch.setattr(run_lock, "DEAD_AFTER_S", 10.0)
    write(path, elsewhere())
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert is_held(path)
        with pytest.raises(RunDirectoryError, match="taken: process 4711 on far-away works on it"):
            RunLock(path).take()
    finally:
        stop.set()
        thread.join()
    assert of(path) == 4711


def test_a_process_elsewhere_that_stays_silent_loses_its_lock(path, soon):
    # By a clock that is a little ahead: the whole time is waited, however slow this machine is.
    write(path, elsewhere(), age_s=-5)
    said: list[str] = []
    began = time.monotonic()
    RunLock(path, said.append).take()
    assert 0.1 < time.monotonic() - began < 5
    assert of(path) == os.getpid()
    assert "process 4711 on far-away, which holds the lock" in said[0]
    assert "process 4711 on far-away, which has died, was removed" in said[1]


def test_a_lock_that_has_been_silent_for_long_is_taken_at_once(path):
    write(path, elsewhere(), age_s=run_lock.DEAD_AFTER_S + 1)
    assert not is_held(path)
    began = time.monotonic()
    RunLock(path).take()
    assert time.monotonic() - began < 1


def test_a_lock_from_the_future_is_waited_for_no_longer_than_any(path, soon):
    write(path, elsewhere(), age_s=-1e6)
    began = time.monotonic()
    RunLock(path).take()
    assert time.monotonic() - began < 5


def test_a_lock_that_goes_while_it_is_waited_for_is_free(path, soon):
    write(path, elsewhere())
    thread = threading.Timer(0.05, path.unlink)
    thread.start()
    RunLock(path).take()
    thread.join()
    assert of(path) == os.getpid()


# --- what is no lock ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\0", b"{}", b"[]", b"null", b"12345\r\n", b'{"host": "a", "pid": "x"}', b"[" * 100_000],
    ids=["empty", "garbage", "no keys", "list", "null", "a pid", "no pid", "nested"],
)
def test_a_lock_that_says_nothing_is_in_the_way_for_a_while_only(path, soon, content):
    path.write_bytes(content)
    assert is_held(path)
    said: list[str] = []
    RunLock(path, said.append).take()
    assert of(path) == os.getpid()
    assert "an unknown process" in said[0]
    assert only_the_lock(path)


def test_a_folder_in_the_place_of_the_lock_is_refused(path):
    path.mkdir()
    (path / "somebody's").touch()
    with pytest.raises(RunDirectoryError, match="is a folder, where the lock") as caught:
        RunLock(path).take()
    assert caught.value.hint == "Move it away."
    assert (path / "somebody's").exists()
    assert only_the_lock(path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    lock = RunLock(tmp_path / "missing" / "lock")
    with pytest.raises(RunDirectoryError, match="cannot be written: No such file or directory") as caught:
        lock.take()
    assert "--run-dir" in caught.value.hint


def test_a_full_disk_leaves_nothing(path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(RunDirectoryError, match="cannot be written: No space left on device"):
        RunLock(path).take()
    assert list(path.parent.iterdir()) == []


# --- signs of life --------------------------------------------------------------------------------------


def test_a_refresh_touches_the_lock_now_and_then(path, monkeypatch):
    lock = RunLock(path)
    lock.take()
    os.utime(path, (1.0, 1.0))
    lock.refresh()
    assert path.stat().st_mtime == 1.0
    monkeypatch.setattr(run_lock, "REFRESH_EVERY_S", 0.0)
    lock.refresh()
    assert path.stat().st_mtime > time.time() - 60


def test_a_lock_that_was_tidied_up_is_made_again(path, soon):
    lock = RunLock(path)
    lock.take()
    path.unlink()
    lock.refresh()
    assert of(path) == os.getpid()
    lock.refresh()
    lock.release()
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b"\xff garbage"], ids=["another process", "garbage"])
def test_one_whose_lock_was_taken_over_notices_and_leaves_it(path, soon, content):
    lock = RunLock(path)
    lock.take()
    if content is None:
        write(path, elsewhere())
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(CampaignError, match="Another process has taken over"):
        lock.refresh()
    lock.release()
    assert path.read_bytes() == before


# --- many at the same time ------------------------------------------------------------------------------


def test_of_many_that_find_a_dead_lock_exactly_one_gets_it(tmp_path):
    processes = [started(COMPETE) for _ in range(4)]
    try:
        for number in range(20):
            folder = tmp_path / f"run-{number}"
            folder.mkdir()
            write(folder / "lock", nobody())
            for process in processes:
                process.stdin.write(f"{folder}\n")
            for process in processes:
                process.stdin.flush()
            answers = [process.stdout.readline().strip() for process in processes]
            assert sorted(answers) == ["refused"] * 3 + ["won"]
            winner = processes[answers.index("won")]
            assert of(folder / "lock") == winner.pid
            assert only_the_lock(folder / "lock")
    finally:
        for process in processes:
            process.communicate()


def test_one_that_looked_before_a_lock_was_taken_over_leaves_the_new_one(path):
    write(path, nobody())
    late = RunLock(path)
    seen = path.read_text()
    RunLock(path).take()
    taken = path.read_text()
    late._remove(seen)
    assert path.read_text() == taken
    # Also where the file system cannot lock.
    late._move_away(seen)
    assert path.read_text() == taken
    assert only_the_lock(path)
