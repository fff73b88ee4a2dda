"""Where a campaign stands, by its files: what `status.json` says, and whether anybody is there to keep it."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fff.base.files import read_json
from fff.data.run_lock import is_held

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.data.run_directory import RunDirectory

__all__ = ["STALE_AFTER_S", "Standing", "number", "numbers", "part", "read_standing"]

type State = Literal["starting", "running", "left", "stopped", "failed", "finished"]

STALE_AFTER_S = 30.0
"""A process that is there and has not renewed the status for so long (s) is worth a remark."""

START_S = 15.0
"""A process renews its lock and the status in one go; a lock so much newer (s) is that of a new one."""

GONE = "the process that ran it is gone without a last word: it was killed, or its machine went down"


@dataclass(frozen=True)
class Standing:
    """Where a campaign stands.

    Attributes:
        state: That of `status.json`, or where that cannot be true any more: `starting`, a process is there
            and has written nothing so far; `left`, the status says running and no process is there.
        reason: Why it is in that state.
        resumable: Whether `fff resume` goes on.
        status: What `status.json` holds; empty where there is none.
        notes: What is out of order, a sentence each.
    """

    state: State
    reason: str
    resumable: bool
    status: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether a process works on it."""
        return self.state in {"starting", "running"}

    def to_json(self) -> dict[str, Any]:
        """Return the content of `status.json`, with the state as it is."""
        about = {"state": self.state, "reason": self.reason, "resumable": self.resumable}
        status = {**self.status, **about, "schema_version": 1, "notes": list(self.notes)}
        status["stopped_by"] = self.status.get("stopped_by") if self.state == "stopped" else None
        if not self.is_alive:
            status["eta_s"] = None
        return {"schema_version": 1, **status}

    def how_to_go_on(self, folder: Path) -> str:
        """Return the command that suits this state, as it is typed in the present folder."""
        here = Path.cwd()
        inside = folder.is_relative_to(here) and folder != here
        where = shlex.quote(str(folder.relative_to(here) if inside else folder))
        if self.is_alive:
            return f"fff stop {where}"
        if self.state == "finished":
            return f"fff report {where}"
        return f"fff resume {where}"


def read_standing(run: RunDirectory) -> Standing:
    """Return where the campaign of a run directory stands; nothing is written."""
    # The lock first: a process that ends meanwhile has written its last words before it gives it back.
    held = is_held(run.lock)
    status, notes = _read_status(run.status)
    recorded: Any = status.get("state")
    reason = str(status.get("reason") or "")
    is_over = recorded in {"finished", "stopped", "failed"}
    newer_s = _modified(run.lock) - _modified(run.status)
    if held and recorded is not None and newer_s > (0.0 if is_over else START_S):
        return Standing("starting", "a process has taken it up again", True, status, notes)
    if is_over:
        return Standing(recorded, reason, recorded != "finished", status, notes)
    if not held:
        return Standing("left", GONE, True, status, notes)
    if recorded != "running":
        return Standing("starting", "no status was written yet", True, status, notes)
    updated = number(status, "updated")
    age_s = time.time() - updated if updated is not None else 0.0
    if age_s > STALE_AFTER_S:
        what = f"The status is {age_s:.0f} s old, though a process is there: it, or its disk, is held up."
        notes = (*notes, what)
    return Standing("running", reason, True, status, notes)


def _read_status(path: Path) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    try:
        status = read_json(path)
    except FileNotFoundError:
        return {}, ()
    except OSError as error:
        return {}, (f"{path.name} cannot be read: {error.strerror or error}.",)
    except (ValueError, RecursionError):
        return {}, (f"{path.name} is damaged; it is written anew by the process that goes on.",)
    if not isinstance(status, dict):
        return {}, (f"{path.name} is damaged; it is written anew by the process that goes on.",)
    if status.get("schema_version") != 1:
        version = status.get("schema_version")
        return {}, (f"{path.name} has schema version {version}; this fff reads 1.",)
    return status, ()


def part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section of a file that is only watched; empty where it is none, as in older ones."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def numbers(values: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return the numbers of a section of a file that is only watched."""
    section = part(values, name)
    return {key: value for key in section if (value := number(section, key)) is not None}


def number(values: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a file that is only watched; None where there is none."""
    value = values.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
