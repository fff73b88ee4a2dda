"""Processes that never outlive what they work for.

SIGKILL on the steering process leaves a task server, Parsl's interchange and its workers running: nothing
tells them, and a busy worker never looks. Four small tools, all from the Linux kernel, close the gap:

* `die_with_parent`: the kernel kills the calling process when its parent dies.
* `follow` (command ``lifetime.py follow COMMAND…``): the same for a program that cannot call it itself. The
  interchange starts through it.
* `guard` (command ``lifetime.py guard COMMAND…``): runs a program, watches a process that need not be its
  parent (shells lie in between), and when that process, the program or the guard's own time ends, kills
  every descendant, also those with a session of their own. Parsl's worker pools start through it.
* `attend` (command ``lifetime.py attend COMMAND…``): the same on a node that does not know that process: it
  lives as long as its parent, which the batch system has started. In the end it takes away the locks that the
  workers shared (`fff.compute.hosts`).

This file is run by path, without site-packages: it must import nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = [
    "LEASES_VARIABLE",
    "OWNER_VARIABLE",
    "adopt_orphans",
    "die_with_parent",
    "follow",
    "guard",
    "is_supported",
    "kill_descendants",
    "wrap",
]

OWNER_VARIABLE = "FFF_TASK_SERVER"
"""Environment variable with the process id that `follow` and `guard` live and die with."""

LEASES_VARIABLE = "FFF_SLOT_LEASES"
"""Environment variable with the folder of the locks on a block's slots, which its job script makes."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_REAP_EVERY_MS = 10_000
_DEAD = 128 + signal.SIGKILL


def is_supported() -> bool:
    """Return whether this system can do what this module is for: Linux since 5.3."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


def die_with_parent(parent: int | None = None) -> bool:
    """Have the kernel kill this process (SIGKILL) as soon as its parent dies; survives exec, not fork.

    The "parent" is the *thread* that started this process: start processes that use this from a thread
    that lives as long as they may.

    Args:
        parent: Process id of the parent, where the caller knows it; if that process has died before this
            call, the present one exits at once.

    Returns:
        Whether the system can do it; elsewhere than on Linux nothing happens.

    Source:
        Linux man page prctl(2), PR_SET_PDEATHSIG.
    """
    if not is_supported():
        return False
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(_DEAD)
    return True


def adopt_orphans() -> bool:
    """Become the parent of all descendants whose own parent dies, so that none is lost sight of.

    Returns:
        Whether the system can do it; elsewhere than on Linux nothing happens.

    Source:
        Linux man page prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    if not is_supported():
        return False
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return True


def wrap(mode: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` under a mode of this file; as it is where not supported."""
    if not is_supported():
        return list(command)
    # -I -S: no site-packages, no user settings; it starts in 20 ms instead of seconds.
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), mode, *command]


def follow(owner: int, command: Sequence[str]) -> NoReturn:
    """Become `command`, and die with `owner`, which must be the parent."""
    die_with_parent(owner)
    os.execvp(command[0], list(command))  # noqa: S606 - no shell is the point


def guard(owner: int, command: Sequence[str]) -> int:
    """Run `command` until it ends or `owner` dies, leave no descendant behind, and return the exit status.

    SIGTERM ends everything in the same way.

    Args:
        owner: Process whose death ends everything.
        command: What to run.

    Returns:
        The exit status of the command; 137 if it was killed because the owner died.
    """
    signal.signal(signal.SIGTERM, _stop)
    adopt_orphans()
    try:
        owner_fd = os.pidfd_open(owner)
    except ProcessLookupError:
        return _DEAD
    me = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(me)
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is the point
    try:
        return _watch(owner_fd, child)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_descendants()


def kill_descendants() -> None:
    """Kill every descendant, whatever session it is in; this process must have called `adopt_orphans`."""
    # Killing the direct children makes their children ours, until none is left: no race can hide one.
    while True:
        children = _children(os.getpid())
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.005)


def _watch(owner_fd: int, child: int) -> int:
    poller = select.poll()
    child_fd = os.pidfd_open(child)
    poller.register(owner_fd, select.POLLIN)
    poller.register(child_fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll(_REAP_EVERY_MS)}
        # Orphans of the workers become ours; without this they would stay as zombies for weeks.
        for pid, status in _reap():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        if owner_fd in ready:
            return _DEAD


def _reap() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    return ended


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # The name, in brackets, may hold brackets too; the parent is the second field behind it.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


def remove_leases(folder: Path) -> None:
    """Remove the folder of the locks on a block's slots, and nothing that another may have put there."""
    # The folder's name comes from the environment, where anything may stand.
    with contextlib.suppress(OSError):
        for lock in [*folder.glob("slot-*"), folder / "turn"]:
            lock.unlink(missing_ok=True)
        folder.rmdir()


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the signature of a handler
    sys.exit(128 + signum)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}) failed: {os.strerror(code)}")


def _main(arguments: Sequence[str]) -> int:
    mode, *command = arguments
    if mode == "attend":
        try:
            return guard(os.getppid(), command)
        finally:
            if leases := os.environ.get(LEASES_VARIABLE):
                remove_leases(Path(leases))
    owner = int(os.environ[OWNER_VARIABLE])
    if mode == "follow":
        follow(owner, command)
    return guard(owner, command)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
