"""Where a campaign stands: `status.json` for programs, and a line a minute for people without a terminal."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from fff.base.files import write_json
from fff.data.lines import describe_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fff.data.run_directory import RunDirectory

__all__ = ["Pace", "StatusWriter", "StoppedBy"]

type StoppedBy = Literal["walltime", "signal", "stop-file", "redis"]
"""What stopped a campaign that stopped: a script goes on by itself after a walltime only."""

WRITE_EVERY_S = 2.0
SAY_EVERY_S = 60.0

FEWEST_LABELS = 5
"""Labels from which a pace may be told."""


class Pace:
    """Tells how long the labels that are still to be made will take, by those that were made last.

    Labels come in bursts, with a training in between: the pace is taken over the labels of the last two
    rounds, and up to now, so that it falls while no label comes. It is not known before one round has ended
    since the first committee, or the start of this sitting: a burst alone promises too much.
    """

    def __init__(self) -> None:
        self._made: deque[tuple[float, int]] = deque()
        self._first_round: int | None = None

    def per_label_s(self, snapshot: Mapping[str, Any]) -> float | None:
        """Take in where the campaign is now, and return the seconds a label takes; None if not known yet."""
        if snapshot["round"] is None:
            return None
        if self._first_round is None:
            self._first_round = snapshot["round"]
        now, done = time.monotonic(), snapshot["labels"]["done"]
        if not self._made or self._made[-1][1] != done:
            self._made.append((now, done))
        window = max(2 * snapshot["retrain"]["every"], FEWEST_LABELS)
        while len(self._made) > 1 and done - self._made[1][1] >= window:
            self._made.popleft()
        since, first = self._made[0]
        is_known = snapshot["round"] > self._first_round and done - first >= FEWEST_LABELS
        return (now - since) / (done - first) if is_known else None


class StatusWriter:
    """Keeps `status.json` current, and lets people see it.

    Args:
        run: The run directory.
        say: Prints a line for people.
        started: When the campaign began, in Unix seconds; now when None.
        show: Shows what the run directory holds, on a terminal; called all the time. None to say a line a
            minute instead.
    """

    def __init__(
        self,
        run: RunDirectory,
        say: Callable[[str], None],
        *,
        started: float | None = None,
        show: Callable[[], None] | None = None,
    ) -> None:
        self.run = run
        self._say = say
        self._show = show
        self._pace = Pace()
        self._sitting = time.time()
        self.started = self._sitting if started is None else started
        self._written = -WRITE_EVERY_S
        self._said = time.monotonic()

    def update(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Write and show what is due; `snapshot` is asked only then."""
        now = time.monotonic()
        if now - self._written >= WRITE_EVERY_S:
            current = snapshot()
            status = self.write(current, state="running", reason="", resumable=True)
            self._written = now
            if self._show is None and now - self._said >= SAY_EVERY_S:
                self._said = now
                self._say(describe_status(status))
        if self._show is not None:
            self._show()

    def write(
        self,
        snapshot: Mapping[str, Any],
        *,
        state: str,
        reason: str,
        resumable: bool,
        stopped_by: StoppedBy | None = None,
    ) -> dict[str, Any]:
        """Replace `status.json`, and return what it holds."""
        per_label_s = self._pace.per_label_s(snapshot) if state == "running" else None
        status = {
            "schema_version": 1,
            "state": state,
            "reason": reason,
            "resumable": resumable,
            "stopped_by": stopped_by,
            **snapshot,
            "workers": snapshot["usage"]["busy_fraction"],
            "started": self.started,
            "sitting_started": self._sitting,
            "updated": time.time(),
            "label_s": None if per_label_s is None else round(per_label_s, 3),
            "eta_s": _eta_s(snapshot["labels"], per_label_s),
        }
        # Rewritten every two seconds: a power cut may cost the last of them.
        write_json(self.run.status, status, sync=state != "running")
        return status


def _eta_s(labels: Mapping[str, Any], per_label_s: float | None) -> float | None:
    """Return the seconds until the last label; None too when it is made, and what follows takes its time."""
    left = labels["target"] - labels["done"]
    return None if per_label_s is None or left <= 0 else round(per_label_s * left, 1)
