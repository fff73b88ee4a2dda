"""Runs an external code: a list of arguments, a folder, a time limit, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceLostError, ReferenceSetupError, TimeLimitError
from fff.external.command import Command
from fff.external.guard import CANNOT_START, guarded
from fff.external.surroundings import environment_of_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Ended", "find_executable", "run", "signal_name"]

_GRACE_S = 2.0
# A launcher has other nodes to tell. It takes no longer than it needs.
_GRACE_OF_LAUNCHER_S = 10.0
_END_WITHIN_S = 30.0
_NOT_FOUND = 127
_BY_SIGNAL = 128
_FIRST_REAL_TIME_SIGNAL = 32


@dataclass(frozen=True)
class Ended:
    """How a code ended.

    Attributes:
        command: What was run.
        exit_code: Its exit code; for a code that a signal killed, minus the number of the signal.
        wall_s: How long it ran.
    """

    command: Command
    exit_code: int
    wall_s: float

    def check(self) -> None:
        """Check that the code was not killed and that what it needs is there; other exit codes pass.

        Raises:
            ReferenceLostError: If a signal killed it.
            ReferenceSetupError: If the command, or one that it calls, cannot be started.
        """
        code = self.command.name
        if number := self._killed_by:
            raise ReferenceLostError(
                f"{code} was killed by {signal_name(number)} after {self.wall_s:.1f} s.",
                hint="SIGKILL without a time limit usually means that the machine ran out of memory.",
                exit_code=self.exit_code,
            )
        if self.exit_code in (CANNOT_START, _NOT_FOUND):
            msg = f"{code}, or a program that it calls, cannot be started (exit code {self.exit_code})."
            raise ReferenceSetupError(msg, hint="Try the command by hand.", exit_code=self.exit_code)

    @property
    def _killed_by(self) -> int:
        """The signal that killed it, or 0: of a rank, `mpiexec` and `srun` say so by 128 and its number."""
        if self.exit_code < 0:
            return -self.exit_code
        number = self.exit_code - _BY_SIGNAL
        # NWChem ends itself by SIGTERM where its input is wrong.
        is_signal = 0 < number < _FIRST_REAL_TIME_SIGNAL and number != signal.SIGTERM
        return number if self.command.launcher and is_signal else 0


def run(
    command: Command,
    folder: Path,
    *,
    environment: Mapping[str, str],
    time_limit_s: float,
    grace_s: float | None = None,
) -> Ended:
    """Run a command in a folder and return how it ended; see `Ended.check`.

    It runs in a process group of its own, without a shell, with standard input empty and output in files.
    When it has ended, at the time limit, or when this process dies, all that it started is killed, whatever
    group or session that is in.

    Args:
        command: What to run.
        folder: Its working directory; this process stays where it is.
        environment: All its environment variables, but for those that the command sets, and for those of a
            batch system or an MPI launcher that describe this process alone.
        time_limit_s: Time after which it is killed.
        grace_s: Time between SIGTERM and SIGKILL at the time limit; when None, what a code needs, and longer
            for one with a launcher.

    Raises:
        ReferenceSetupError: If the executable was not found.
        TimeLimitError: If it took too long.
        OSError: If a file cannot be opened.
    """
    everything = {**environment_of_code(environment), **command.environment}
    words = _words(command, everything.get("PATH"))
    if grace_s is None:
        grace_s = _GRACE_OF_LAUNCHER_S if command.launcher else _GRACE_S
    arguments = guarded(words, owner=os.getpid(), grace_s=grace_s)
    started = time.monotonic()
    with ExitStack() as files:
        stdin = files.enter_context((folder / command.stdin).open("rb"))
        stdout = files.enter_context((folder / command.stdout).open("wb"))
        same = command.stderr == command.stdout
        stderr = stdout if same else files.enter_context((folder / command.stderr).open("wb"))
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=everything,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        process.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        _end(process)
        msg = f"{command.name} took longer than its time limit, {time_limit_s:g} s, and was killed."
        raise TimeLimitError(msg, hint="Raise reference.time_limit_s.") from None
    except BaseException:
        _end(process)
        raise
    return Ended(command, process.returncode, time.monotonic() - started)


def _words(command: Command, path: str | None) -> list[str]:
    words = [find_executable(command, path), *command.arguments[1:]]
    if not command.launcher:
        return words
    launcher = Command(command.launcher, key="site.mpi_launch")
    return [find_executable(launcher, path), *command.launcher[1:], *words]


def find_executable(command: Command, path: str | None = None) -> str:
    """Return the path of a command's executable.

    Args:
        command: The command.
        path: Where to look, as in the environment variable PATH; this process's own when None.

    Raises:
        ReferenceSetupError: If it was not found, or its path depends on where a process stands.
    """
    name = command.arguments[0]
    if os.path.dirname(name) and not os.path.isabs(name):  # noqa: PTH117, PTH120 - Path drops a leading ./
        msg = f"The executable {name} is given by a relative path."
        raise ReferenceSetupError(msg, hint="Give its whole path.", key=command.key, value=name)
    found = shutil.which(name, path=path)
    if found is None:
        raise ReferenceSetupError(
            f"The executable {name} was not found.",
            hint=f"Install it, put it on PATH, or set {command.key}.",
            key=command.key,
            value=name,
        )
    return os.path.abspath(found)  # noqa: PTH100 - resolve() would follow links, and some codes look at their name


def signal_name(number: int) -> str:
    """Return what a signal is called, for example `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        # Those for real-time use have none.
        return f"signal {number}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_WITHIN_S)
        return
    process.kill()
    process.wait()
