"""Reference calculations in a child process that a time limit can kill, even where it hangs in C."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ase.calculators.names import builtin

from fff.base.errors import ReferenceFailure, ReferenceLostError, TimeLimitError
from fff.base.ids import sha256_bytes
from fff.data.packing import frames_to_bytes, labels_from_bytes
from fff.data.records import Frame
from fff.external import Workplace, guarded, is_alive, last_lines, signal_name
from fff.reference.launching import check_method_can_use
from fff.reference.pipes import (
    FAILURE,
    FIRST_STEP,
    NEXT_STEP,
    SETTINGS,
    STRUCTURE,
    WORK,
    failure_from_bytes,
    read_message,
    write_message,
)
from fff.reference.protocol import ReferenceCalculator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from fff.data.records import Label
    from fff.external import Launch

__all__ = ["ReferenceProcess"]

_START_LIMIT_S = 300.0
_MARGIN_S = 30.0
# What a guard within the child's needs to end a code; a child alone takes no time.
_GRACE_S = 15.0
_END_WITHIN_S = 40.0
_LAST_LINES = 12
_LAST_BYTES = 8000
_LONG_LOG_BYTES = 1_000_000


@dataclass
class _Child:
    """A running child.

    Attributes:
        process: Its guard, which kills it and all that it started.
        log: What it wrote to its standard error (and, redirected, to its standard output).
        folder: Where it puts temporary files.
        pid: Its process id; 0 until it is ready.
    """

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    folder: str
    pid: int = 0


class ReferenceProcess:
    """A warm child process that labels structures within a time limit.

    It starts at the first calculation and stays, so that libraries load once. A calculation that takes too
    long is killed with all that it started, in whatever session; the next one gets a new child where the
    old one was lost. The child dies with this process, whatever ends it, and leaves no temporary file. Calls
    from several threads take turns.

    External codes calculate in work directories below `work_dir`: those of failed calculations stay there,
    and their path is in the failure's message. Without it they run among the child's temporary files, and
    failed ones stay where the system's temporary files are.

    Args:
        settings: The section `reference` of the config, as JSON.
        time_limit_s: Time for one calculation; loading the libraries does not count. The section's own
            limit when None.
        work_dir: Folder for the work directories of external codes; made when needed.

    Example:
        >>> from ase.build import molecule
        >>> with ReferenceProcess({"kind": "xtb"}) as reference:
        ...     print(f"{reference.calculate(molecule('H2O')).energy_eV:.2f} eV")
        -137.97 eV
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        time_limit_s: float | None = None,
        work_dir: Path | None = None,
    ) -> None:
        self.settings = dict(settings)
        self.time_limit_s = float(
            settings.get("time_limit_s", 3600.0) if time_limit_s is None else time_limit_s
        )
        self.work_dir = work_dir
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._dynamics: object = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def __enter__(self) -> ReferenceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None while there is none that is ready."""
        return (self._child and self._child.pid) or None

    def calculate(self, atoms: Atoms, name: str = "", launch: Launch | None = None) -> Label:
        """Return the label of a structure; see `ReferenceMethod.calculate`.

        Args:
            atoms: The structure.
            name: What work directories are named after, for example the id of the request.
            launch: Where the ranks of an external code run; alone on this machine when None.

        Raises:
            ReferenceSetupError: If the method cannot use several slots, among others.
            TimeLimitError: If it takes longer than the limit; it is killed.
            ReferenceLostError: If the child dies; its last lines are in the message.
            ReferenceFailure: If the calculation fails; the same class as in-process.
        """
        return self._label(atoms, self._work(name, launch), None)

    def ase_calculator(self, name: str = "", launch: Launch | None = None) -> ReferenceCalculator:
        """Return an ASE calculator for one run of dynamics; see `ReferenceMethod.ase_calculator`.

        It raises what `calculate` raises. Its first step starts from nothing that was calculated before; so
        does a step after the child was lost, or after another calculator's.

        Args:
            name: What work directories are named after.
            launch: Where the ranks of an external code run; alone on this machine when None.
        """
        dynamics = object()
        work = self._work(name, launch)
        return ReferenceCalculator(lambda atoms: self._label(atoms, work, dynamics))

    def _work(self, name: str, launch: Launch | None) -> dict[str, Any]:
        check_method_can_use(self.settings, launch)
        return {"name": name, "launch": launch and launch.as_json()}

    def _label(self, atoms: Atoms, work: Mapping[str, Any], dynamics: object) -> Label:
        """Return the label of a structure: alone, or as a step of the dynamics that `dynamics` stands for."""
        request = frames_to_bytes([Frame(atoms)])
        with self._lock:
            kind = STRUCTURE
            if dynamics is not None:
                kind = NEXT_STEP if dynamics is self._dynamics else FIRST_STEP
            try:
                label = self._exchange(kind, request, work, atoms)
            except ReferenceFailure:
                raise
            except BaseException:
                # Interrupted between question and answer: the answer must not meet the next question.
                self._stop()
                raise
            if dynamics is not None:
                self._dynamics = dynamics
            return label

    def close(self) -> None:
        """Kill the child, if there is one; a later calculation would start another."""
        with self._lock:
            self._stop()

    def _exchange(self, question: bytes, request: bytes, work: Mapping[str, Any], atoms: Atoms) -> Label:
        child = self._child or self._start()
        told = json.dumps({**work, "time_limit_s": self.time_limit_s}).encode()
        deadline = time.monotonic() + self.time_limit_s
        if _runs_code(self.settings):
            # The child ends the code at the limit, and itself stays warm; killing it is for where that fails.
            deadline += _MARGIN_S
        try:
            self._tell(child, WORK, told, deadline)
            self._tell(child, question, request, deadline)
            kind, reply = self._hear(child, deadline)
        except TimeoutError as error:
            kept = self._stop()
            msg = (
                f"The calculation of {atoms.get_chemical_formula()} took longer than "
                f"reference.time_limit_s, {self.time_limit_s:g} s, and was killed.{_evidence(kept)}"
            )
            raise TimeLimitError(msg, hint="Raise reference.time_limit_s.", **_places(kept)) from error
        if os.fstat(child.log.fileno()).st_size > _LONG_LOG_BYTES:
            child.log.truncate(0)
        if kind == FAILURE:
            raise failure_from_bytes(reply)
        return labels_from_bytes(reply)[0]

    def _start(self) -> _Child:
        folder = _new_folder()
        workplace = self._workplace(folder)
        workplace.set_aside()
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        # The child writes at the end, wherever this process reads or cuts.
        flags = fcntl.fcntl(log.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(log.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)
        command = [sys.executable, "-P", "-m", "fff.reference.child"]
        process = subprocess.Popen(
            guarded(command, owner=os.getpid(), grace_s=_GRACE_S, scratch=folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            env={**os.environ, "TMPDIR": folder},
            # Some calculators of ASE leave files where they stand; and no folder of anybody's is searched.
            cwd=folder,
            start_new_session=True,
        )
        child = _Child(process, log, folder)
        self._child = child
        self._finalizer = weakref.finalize(self, _end, child)
        assert process.stdin is not None  # noqa: S101 - for the type checker: it was asked for above
        os.set_blocking(process.stdin.fileno(), False)
        self._set_up(child, workplace)
        return child

    def _set_up(self, child: _Child, workplace: Workplace) -> None:
        settings = {"section": self.settings, "workplace": workplace.as_json()}
        deadline = time.monotonic() + _START_LIMIT_S
        try:
            self._tell(child, SETTINGS, json.dumps(settings).encode(), deadline)
            child.pid = int(self._hear(child, deadline)[1])
        except TimeoutError as error:
            self._stop()
            msg = f"A reference process did not start within {_START_LIMIT_S:g} s."
            raise TimeLimitError(msg, hint="Look at the load of the machine and its file system.") from error

    def _workplace(self, folder: str) -> Workplace:
        if self.work_dir is not None:
            return Workplace(self.work_dir.resolve())
        return Workplace(Path(folder), Path(tempfile.gettempdir()).resolve(), prefix="fff-")

    def _tell(self, child: _Child, kind: bytes, payload: bytes, deadline: float) -> None:
        assert child.process.stdin is not None  # noqa: S101 - for the type checker
        try:
            write_message(child.process.stdin.fileno(), kind, payload, deadline=deadline)
        except BrokenPipeError:
            raise self._lost(child) from None

    def _hear(self, child: _Child, deadline: float) -> tuple[bytes, bytes]:
        assert child.process.stdout is not None  # noqa: S101 - for the type checker
        try:
            reply = read_message(child.process.stdout.fileno(), deadline=deadline)
        except EOFError:
            reply = None
        if reply is None:
            raise self._lost(child)
        return reply

    def _lost(self, child: _Child) -> ReferenceLostError:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=5)
        code = child.process.poll()
        lines = _last_lines(child.log)
        kept = self._stop()
        how = "closed its pipe" if code is None else f"died with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal_name(-code)}"
        return ReferenceLostError(
            f"The process of the reference calculation {how}. Its last lines: {lines or 'none'}"
            f"{_evidence(kept)}",
            hint="SIGKILL without a time limit usually means that the machine ran out of memory.",
            exit_code=code,
            **_places(kept),
        )

    def _stop(self) -> list[Path]:
        """Kill the child, if there is one, and return the work directories of what it was calculating."""
        kept = []
        if self._child is not None and self._child.pid:
            # Before it ends: its temporary files go with it.
            kept = self._workplace(self._child.folder).set_aside(self._child.pid)
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer = None
        self._child = None
        self._dynamics = None
        return kept


def _new_folder() -> str:
    """Make a folder for temporary files, and remove those of processes that were killed with their guards."""
    # Short, for sockets: with the host, in case that several share the place.
    prefix = f"fff-reference-{sha256_bytes(socket.gethostname().encode())[:6]}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")


def _runs_code(settings: Mapping[str, Any]) -> bool:
    kind = settings.get("kind")
    return kind == "xtb-cli" or (kind == "ase" and settings.get("calculator") not in builtin)


def _end(child: _Child) -> None:
    """Kill a child and all that it started, and free all that it held."""
    process = child.process
    process.terminate()
    try:
        process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, child.log):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    shutil.rmtree(child.folder, ignore_errors=True)


def _places(kept: list[Path]) -> dict[str, str]:
    return {"work_dir": str(kept[0])} if kept else {}


def _evidence(kept: list[Path]) -> str:
    if not kept:
        return ""
    lines = last_lines(kept[0])
    return f" Its files are in {kept[0]}." + (f" Last lines: {lines}" if lines else "")


def _last_lines(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    start = max(0, size - _LAST_BYTES)
    text = os.pread(log.fileno(), size - start, start).decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
