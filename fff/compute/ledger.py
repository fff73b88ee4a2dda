"""The ledger of jobs: what was submitted to a batch system, until it is over for certain.

A steering process that is killed cannot cancel its jobs. Those that wait would start, find nobody, and cost
time; the next sitting cancels them by what the ledger tells.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from fff.base.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["LEDGER", "cancel_jobs", "note_job"]

LEDGER = "jobs.jsonl"
"""Its name, in the folder `parsl` of the run directory."""

_PATIENCE_S = 20.0
_COMMANDS = {"slurm": "scancel", "pbs": "qdel"}
_ID = re.compile(r"\d{1,20}(\[\d*\])?(\.[\w.-]{1,200})?")
# What is said of jobs that have ended before.
_OVER = re.compile(r"invalid job id|unknown job|already complet|has finished|not found", re.IGNORECASE)

_log = logging.getLogger(__name__)


def note_job(ledger: Path, batch_system: str, job: str) -> None:
    """Write down that a job was submitted.

    Args:
        ledger: The file.
        batch_system: `slurm` or `pbs`.
        job: What the batch system calls it.
    """
    entry = {"kind": batch_system, "job": job, "folder": str(ledger.parent), "submitted": time.time()}
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def cancel_jobs(folder: Path) -> list[str]:
    """Cancel the jobs that the ledger of a folder names, and return their ids; those that have ended pass.

    The ledger stays where the batch system did not answer: a later call tries again.

    Args:
        folder: The folder `parsl` of the run directory.
    """
    ledger = folder / LEDGER
    try:
        lines = ledger.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    jobs: dict[str, list[str]] = {}
    for line in lines:
        if (found := _read(line, folder)) is not None:
            jobs.setdefault(found[0], []).append(found[1])
    if all([_is_cancelled(batch_system, ids) for batch_system, ids in jobs.items()]):  # noqa: C419 - each is tried
        ledger.unlink(missing_ok=True)
    return [job for ids in jobs.values() for job in ids]


def _read(line: str, folder: Path) -> tuple[str, str] | None:
    """Return batch system and id of a job; None for half a line, a copy's, or what no job is called."""
    try:
        entry: Mapping[str, Any] = json.loads(line)
        batch_system, job, where = entry["kind"], entry["job"], entry["folder"]
    except (ValueError, KeyError, TypeError):
        return None
    # A copy of a run directory must not cancel the jobs of the one it was copied from.
    if where != str(folder) or batch_system not in _COMMANDS or not _ID.fullmatch(str(job)):
        return None
    return str(batch_system), str(job)


def _is_cancelled(batch_system: str, ids: list[str]) -> bool:
    """Cancel jobs, and return whether none of them is there any more."""
    command = shutil.which(_COMMANDS[batch_system])
    if command is None:
        reason = f"there is no {_COMMANDS[batch_system]} here"
    else:
        try:
            ended = subprocess.run(
                [command, *ids], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        else:
            said = [line for line in ended.stderr.splitlines() if line.strip() and not _OVER.search(line)]
            if ended.returncode == 0 or (ended.stderr.strip() and not said):
                return True
            reason = " ".join(said) or f"exit code {ended.returncode}"
    _log.warning("Jobs %s may be in the queue still: %s.", ", ".join(ids), redact(reason.rstrip(".")))
    return False
