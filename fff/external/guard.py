"""Runs a command and leaves nothing of it behind: `guard.py OWNER GRACE_S SCRATCH COMMAND…`.

A code may start processes in groups and sessions of their own, as `mpirun` does, and a killed process tells
nobody what it had started. So a guard stands between: it adopts whatever the command leaves parentless, and
when the command has ended, when the owner (its parent) dies, or when it is told to stop (SIGTERM), it kills
all that is left, removes the folder SCRATCH if one is named, and ends as the command did.

This file is run by path, without site-packages: it must import nothing but the standard library. Outside
Linux, where orphans cannot be adopted, it kills the process group of the command.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CANNOT_START", "guarded"]

CANNOT_START = 126
"""Exit code of a command that exists but cannot be started, as shells give it."""

_LOOK_EVERY_S = 0.2
# The last two by Python itself; what is ignored would stay so in the command.
_CHANGED = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
_KILL_WITHIN_S = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def guarded(command: Sequence[str], *, owner: int, grace_s: float = 0.0, scratch: str = "") -> list[str]:
    """Return the command that runs `command` under guard.

    Args:
        command: What to run.
        owner: Process that starts the guard, and whose death ends everything.
        grace_s: Time between SIGTERM and SIGKILL, when the command has to end.
        scratch: Folder that is removed at the end, or an empty text.
    """
    # -I -S: no site-packages, no user settings; it starts in 20 ms instead of seconds.
    this = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*this, str(owner), str(grace_s), scratch, *command]


def _main(owner: int, grace_s: float, scratch: str, command: Sequence[str]) -> NoReturn:
    wakeup, alarm = os.pipe()
    for end in (wakeup, alarm):
        os.set_blocking(end, False)
    told: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    # Become the parent of all descendants whose own parent dies.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _start(command)
    status = None
    while status is None and not told and os.getppid() == owner:
        _sleep(wakeup, _LOOK_EVERY_S)
        status = _reap().get(child)
    if status is None and grace_s:
        status = _ask_to_end(child, wakeup, grace_s)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _kill_all(child)
    if scratch:
        import shutil

        shutil.rmtree(scratch, ignore_errors=True)
    _end_as(-signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status))


def _start(command: Sequence[str]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        # Should the guard itself be killed, at least the command goes with it.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in _CHANGED:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}.\n")
        sys.stderr.flush()
    os._exit(CANNOT_START)


def _ask_to_end(child: int, wakeup: int, grace_s: float) -> int | None:
    """Send SIGTERM to the child, and to what it leaves parentless, and return how the child ended.

    By it `mpiexec` and `srun` end what they run on other nodes, which nobody here can kill: of an `srun` that
    is killed together with its helper the ranks go on for as long as the job lasts. A guard within this one
    ends in the same way.
    """
    _ask(os.killpg, child)
    asked, status = {child}, None
    deadline = time.monotonic() + grace_s
    while (left_s := deadline - time.monotonic()) > 0:
        status = _reap().get(child, status)
        if not _has_children():
            break
        for pid in set(_children()) - asked:
            asked.add(pid)
            _ask(os.kill, pid)
        _sleep(wakeup, min(left_s, _LOOK_EVERY_S))
    return status


def _ask(send: Callable[[int, int], None], target: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        send(target, signal.SIGTERM)
        # One that was stopped would never hear of it.
        send(target, signal.SIGCONT)


def _kill_all(child: int) -> None:
    """Kill every descendant, whatever session it is in."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    # Killing the direct children makes their children ours, until none is left: no race can hide one.
    deadline = time.monotonic() + _KILL_WITHIN_S
    while time.monotonic() < deadline:
        _reap()
        if not _has_children():
            return
        for pid in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _end_as(code: int) -> NoReturn:
    """End with an exit code or, where it is negative, by that signal, so that the owner sees it."""
    if code < 0:
        import resource

        # One core file, that of the command, is enough.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _sleep(wakeup: int, seconds: float) -> None:
    select.select([wakeup], [], [], seconds)
    with contextlib.suppress(BlockingIOError):
        os.read(wakeup, 4096)


def _reap() -> dict[int, int]:
    """Return the wait status of every child that has ended, adopted ones too."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = status
    return ended


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    if not sys.platform.startswith("linux"):
        return []
    me, found = os.getpid(), []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and there are many
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold brackets too; the parent is the second field behind it.
                fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == me:
                    found.append(int(entry))
    return found


def _prctl(option: int, value: int) -> None:
    """Set a property of this process, on Linux.

    Source:
        Linux man page prctl(2), PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
