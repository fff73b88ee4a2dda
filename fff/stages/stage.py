"""The one place that runs a stage: checkpoints, stopping, tables, and numbers that are not finite."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from fff.base.files import write_json
from fff.stages.checkpoints import Checkpoint, Checkpoints, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fff.stages.tables import Growing

__all__ = ["DIAGNOSIS", "Lifetime", "NonFinite", "Resumable", "Stage", "StageResult", "Status"]

DIAGNOSIS = "diagnosis.json"
"""What a stage that met numbers which are not finite leaves in its folder."""

# `stop` may look at a file on a network file system.
_BETWEEN_LOOKS_s = 1.0

_log = logging.getLogger(__name__)

Status = Literal["finished", "stopped", "non-finite"]


@dataclass(frozen=True)
class Lifetime:
    """What lets a long loop outlive its process.

    Attributes:
        folder: Where its checkpoints and tables are. It belongs to one loop alone, and stays when that has
            finished: whoever asked for the results removes it once they are written.
        interval_s: Seconds between two checkpoints: what a kill can cost.
        keep: How many checkpoints are kept.
        stop: Asked about once a second whether to stop; None if nobody ever wants that.
        identity: Of whatever decides the numbers and cannot be seen by the loop, like the parameters of the
            model that drives dynamics; a checkpoint made with another one is not gone on from.

    Raises:
        ValueError: If the interval is negative or no checkpoint is to be kept.
    """

    folder: Path
    interval_s: float = 60.0
    keep: int = 2
    stop: Callable[[], bool] | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        """Refuse what would fail at the first checkpoint."""
        if not self.interval_s >= 0 or self.keep < 1:
            msg = (
                "Checkpoints need an interval of 0 s or more, and one at least must be kept; these were "
                f"{self.interval_s} s and {self.keep}."
            )
            raise ValueError(msg)


@runtime_checkable
class Resumable(Protocol):
    """Something a stage leans on that remembers more than its inputs, down to the last bit of its numbers."""

    def resume_arrays(self) -> dict[str, np.ndarray]:
        """Return what it remembers."""

    def resume_from(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Remember this instead."""


@dataclass(frozen=True)
class NonFinite:
    """What a stage yields, as the last of its steps, where its numbers are not finite any more.

    Attributes:
        step: The last step with finite numbers, whose state the stage has gone back to.
        diagnosis: What a person needs to find out why; JSON-able, but for numbers that are not finite.
    """

    step: int
    diagnosis: Mapping[str, Any]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes:
        status: `finished`, `stopped` (on request; its checkpoint is written) or `non-finite`.
        step: The last step made, with finite numbers.
        resumed_from: The step it went on from; None if it began anew.
        diagnosis: What was written to `diagnosis.json`; empty but for `non-finite`.
    """

    status: Status
    step: int
    resumed_from: int | None
    diagnosis: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A loop with its life; `StageBuilder` makes one.

    Attributes:
        name: What messages call it.
        identity: Hash of everything that decides its numbers.
        steps: Returns a generator that goes on from the present state and yields the number of each step once
            it is made, when the state is a whole one.
        save: Returns the present state.
        restore: Makes a saved state the present one.
        tables: What it writes while it runs.
        lifetime: None for a life in memory alone.
    """

    name: str
    identity: str
    steps: Callable[[], Iterator[int | NonFinite]]
    save: Callable[[], State]
    restore: Callable[[State], None]
    tables: Sequence[Growing]
    lifetime: Lifetime | None

    def run(self) -> StageResult:
        """Go on from the newest sound checkpoint, or begin, and run until the end or a request to stop.

        A checkpoint that cannot be written costs nothing but its own use: it is reported, and the stage goes
        on. Only on a request to stop is it an error, since the request counts on it.

        Raises:
            OSError: If the checkpoint of a stage that is to stop cannot be written.
            Exception: Whatever the steps raise is passed on.
        """
        if self.lifetime is None:
            return self._run_in_memory()
        return _Sitting(self, self.lifetime).run()

    def _run_in_memory(self) -> StageResult:
        step = 0
        for made in self.steps():
            if isinstance(made, NonFinite):
                return StageResult("non-finite", made.step, None, _plain(made.diagnosis))
            step = made
        return StageResult("finished", step, None, {})


class _Sitting:
    """One stage in one process, from its newest checkpoint to its end or the next stop."""

    def __init__(self, stage: Stage, lifetime: Lifetime) -> None:
        self._stage = stage
        self._lifetime = lifetime
        self._identity = f"{stage.identity} {lifetime.identity}".strip()
        self._checkpoints = Checkpoints(lifetime.folder, lifetime.keep)
        self._is_reported = False

    def run(self) -> StageResult:
        resumed_from = self._resume()
        step = resumed_from or 0
        stop = self._lifetime.stop
        if stop is not None and stop():
            return StageResult("stopped", step, resumed_from, {})
        now = time.monotonic()
        next_look, next_write = now + _BETWEEN_LOOKS_s, now + self._lifetime.interval_s
        due = min(next_look, next_write)
        for made in self._stage.steps():
            if isinstance(made, NonFinite):
                return self._end_non_finite(made, resumed_from)
            step = made
            # One look at the clock is all that a step pays.
            now = time.monotonic()
            if now < due:
                continue
            if now >= next_look:
                if stop is not None and stop():
                    self._write(step)
                    return StageResult("stopped", step, resumed_from, {})
                next_look = now + _BETWEEN_LOOKS_s
            if now >= next_write:
                self._try_to(partial(self._write, step), "checkpoint")
                next_write = time.monotonic() + self._lifetime.interval_s
            due = min(next_look, next_write)
        return StageResult("finished", step, resumed_from, {})

    def _resume(self) -> int | None:
        """Restore the newest sound checkpoint, cut the tables behind it, and return its step."""
        stage, folder = self._stage, self._lifetime.folder
        checkpoint = self._checkpoints.newest(self._identity)
        if checkpoint is not None:
            stage.restore(checkpoint.state)
            _log.info("%s goes on from step %d in %s.", stage.name, checkpoint.step, folder)
        for table in stage.tables:
            through = checkpoint.tables.get(table.name, 0) if checkpoint is not None else 0
            self._try_to(partial(self._open, table, through), table.name)
        return checkpoint.step if checkpoint is not None else None

    def _open(self, table: Growing, through: int) -> None:
        if not table.open(self._lifetime.folder, through):
            _log.warning("%s in %s lacks rows up to %d.", table.name, self._lifetime.folder, through)

    def _write(self, step: int) -> None:
        """Write a checkpoint; the rows it counts on first.

        Arrays that are not finite are never one: the next step of the stage will tell why.
        """
        stage = self._stage
        state = stage.save()
        broken = [name for name, array in state.arrays.items() if not np.isfinite(array).all()]
        if broken:
            _log.warning(
                "%s has no checkpoint of step %d: not finite: %s", stage.name, step, ", ".join(broken)
            )
            return
        for table in stage.tables:
            table.save()
        numbers = {table.name: table.last for table in stage.tables}
        self._checkpoints.write(Checkpoint(self._identity, step, state, numbers))

    def _end_non_finite(self, made: NonFinite, resumed_from: int | None) -> StageResult:
        diagnosis = _plain(made.diagnosis)
        self._try_to(partial(self._write, made.step), "checkpoint")
        self._try_to(partial(write_json, self._lifetime.folder / DIAGNOSIS, diagnosis), DIAGNOSIS)
        return StageResult("non-finite", made.step, resumed_from, diagnosis)

    def _try_to(self, write: Callable[[], None], what: str) -> None:
        """Write, or report once that it failed: a stage with a full disk can still finish."""
        try:
            write()
        except OSError as error:
            if not self._is_reported:
                folder, name = self._lifetime.folder, self._stage.name
                _log.warning(
                    "%s goes on although its %s cannot be written to %s: %s", name, what, folder, error
                )
            self._is_reported = True
        else:
            self._is_reported = False


def _plain(value: Any) -> Any:
    """Return `value` with numbers that JSON has no word for as text."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
