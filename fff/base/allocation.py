"""The job of a batch system that this process runs in, and how long it still has."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Allocation", "find_allocation"]

_PATIENCE_S = 20.0
_CLOCK = re.compile(r"(?:(\d{1,6})-)?(?:(?:(\d{1,6}):)?(\d{1,4}):)?(\d{1,9})")
_ENDLESS = {"UNLIMITED", "NOT_SET"}


@dataclass(frozen=True)
class Allocation:
    """A job that this process runs in.

    Attributes:
        batch_system: Slurm or PBS.
        job: What the batch system calls it.
        left_s: How long the job may still run, in seconds; None if it has no end, or nobody says.
        problem: Why the batch system could not say; empty if it did.
    """

    batch_system: str
    job: str
    left_s: float | None = None
    problem: str = ""


class _NoAnswerError(Exception):
    """The batch system did not say when the job ends; the message says why."""


def find_allocation(environment: Mapping[str, str] = os.environ) -> Allocation | None:
    """Return the job that this process runs in, by its environment; None outside of jobs."""
    for batch_system, variable, left_s in (
        ("Slurm", "SLURM_JOB_ID", _left_in_slurm),
        ("PBS", "PBS_JOBID", _left_in_pbs),
    ):
        if job := environment.get(variable):
            try:
                return Allocation(batch_system, job, left_s(job, environment))
            except _NoAnswerError as error:
                return Allocation(batch_system, job, problem=str(error))
    return None


def _left_in_slurm(job: str, environment: Mapping[str, str]) -> float | None:
    # Newer ones say it without being asked.
    if (end := environment.get("SLURM_JOB_END_TIME", "")).isdecimal():
        return max(0.0, float(end) - time.time())
    # The time left, not the end: the clock of the node and its time zone do not matter.
    answer = _ask("squeue", "--noheader", f"--jobs={job}", "--format=%L").split()
    if not answer:
        msg = f"squeue knows no job {job}"
        raise _NoAnswerError(msg)
    return None if answer[0] in _ENDLESS else _clock_s(answer[0], "squeue")


def _left_in_pbs(job: str, _environment: Mapping[str, str]) -> float | None:
    # Not as JSON, which some versions write wrongly where a variable of the job holds a quotation mark.
    answer = _ask("qstat", "-f", job)
    walltime = _field(answer, "Resource_List.walltime")
    if walltime is None:
        return None
    began = _field(answer, "stime") or _field(answer, "start_time")
    if began is None:
        msg = "qstat says no start of the job"
        raise _NoAnswerError(msg)
    try:
        start = time.mktime(time.strptime(began, "%a %b %d %H:%M:%S %Y"))
    except (ValueError, OverflowError) as error:
        msg = f"qstat says that the job began at {began!r}"
        raise _NoAnswerError(msg) from error
    return max(0.0, start + _clock_s(walltime, "qstat") - time.time())


def _field(answer: str, name: str) -> str | None:
    found = re.search(rf"^\s*{re.escape(name)}\s*=\s*(.+?)\s*$", answer, re.MULTILINE)
    return found[1] if found else None


def _clock_s(text: str, program: str) -> float:
    """Return `[[days-]hours:]minutes:seconds`, as batch systems write a time, in seconds."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        msg = f"{program} says {text!r}, which is no time"
        raise _NoAnswerError(msg)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        msg = f"{command[0]} did not answer within {_PATIENCE_S:.0f} s"
        raise _NoAnswerError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"{command[0]} cannot be started: {getattr(error, 'strerror', None) or error}"
        raise _NoAnswerError(msg) from error
    if done.returncode:
        msg = f"{command[0]} failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}"
        raise _NoAnswerError(msg)
    return done.stdout
