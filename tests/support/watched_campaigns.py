"""Run directories to be watched: played campaigns whose events have times and workers, and their status."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fff.data.events import EventLog
from fff.data.run_directory import RunDirectory
from fff.steering.status import StatusWriter
from tests.support.playing_campaigns import Game

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fff.steering.records import Request

__all__ = ["WatchedCampaign"]


class WatchedCampaign:
    """A campaign that is played on two workers, a task a second, and writes what a watcher reads.

    Args:
        path: The run directory.
        began: When it begins (Unix time in seconds).
        **options: Those of `Game`.
    """

    def __init__(self, path: Path, *, began: float, **options: Any) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.run = RunDirectory(path)
        self.game = Game(pools=2, **options)
        self.now = self.began = began
        self._n_logged = 0
        self._since: dict[str, float] = {}
        self._log("")

    def play(self, until: Callable[[Game], Any] = lambda game: False) -> WatchedCampaign:
        """Finish the oldest open request, a second each, until `until` or until nothing is open."""
        while self.game.open and not until(self.game):
            self.finish(self.game.open[0])
        return self

    def finish(self, request: Request, **values: Any) -> None:
        """Have a task give its result."""
        self.now += 1.0
        self.game.finish(request, **values)
        self._log(request.id)

    def fail(self, request: Request, message: str) -> None:
        """Have a task fail for its structure."""
        self.now += 1.0
        self.game.fail(request, message, "structure")
        self._log(request.id)

    def write_status(self, state: str = "running", reason: str = "", **changes: Any) -> None:
        """Write where it stands, as the process that runs it does."""
        flights = [
            {
                "request": request.id,
                "kind": request.kind,
                "pool": request.pool,
                "attempt": request.attempt,
                "since": self._since[request.id],
            }
            for request in self.game.open
        ]
        usage = {"elapsed_s": self.now - self.began, "busy_fraction": {"shared": 0.75}, "by_kind": {}}
        snapshot = {**self.game.policy.snapshot(), "in_flight": flights, "usage": usage, **changes}
        writer = StatusWriter(self.run, print, started=self.began)
        writer._sitting = self.began
        writer.write(snapshot, state=state, reason=reason, resumable=state != "finished")

    def _log(self, request: str) -> None:
        with EventLog(self.run.events) as log:
            for event in self.game.events[self._n_logged :]:
                times = {"started": self.began}
                if event.request:
                    times = {"queued": self.now - 1.0, "started": self.now - 0.9, "ended": self.now}
                log.append(
                    replace(event, times=times, worker=f"vm:{1 + event.seq % 2}" if event.request else "")
                )
        self._n_logged = len(self.game.events)
        self._since.pop(request, None)
        for open_ in self.game.open:
            self._since.setdefault(open_.id, self.now)
