"""Campaigns as the command line knows them: one is opened, new or where it was left, and carried out."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from fff.base.errors import FffError, RunDirectoryError
from fff.base.files import read_json
from fff.campaigns.inputs import load_inputs
from fff.campaigns.restoring import find_lost
from fff.campaigns.resuming import read_resumption
from fff.campaigns.sitting import Outcome, Sitting, last_line
from fff.compute.exchange import find_redis
from fff.compute.sites import make_site
from fff.config import load_config
from fff.data.run_directory import RunDirectory
from fff.data.run_lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fff.campaigns.inputs import Inputs
    from fff.campaigns.resuming import Resumption
    from fff.config import LoadedConfig

__all__ = ["Campaign", "Outcome", "look_at", "open_campaign"]


def look_at(run: RunDirectory, loaded: LoadedConfig, *, accept_changes: bool = False) -> Resumption:
    """Return how the campaign of a run directory goes on; nothing is written.

    Raises:
        FffError: If it cannot go on: its log, its labels or what it was opened with are damaged, its config
            differs.
    """
    run.check()
    resumption = read_resumption(run, loaded, accept_changes=accept_changes)
    # Before anything is written: what cannot be made again is missed now.
    resumption.lost = [request.id for request, _ in find_lost(run, resumption.replay)]
    if not run.config.exists():
        resumption.notes.append("config.yaml is missing; it is written anew.")
        return resumption
    try:
        load_config(run.config)
    except FffError:
        resumption.notes.append("config.yaml is damaged, and left alone: events.jsonl has what is in force.")
    return resumption


@contextlib.contextmanager
def open_campaign(
    loaded: LoadedConfig, *, accept_changes: bool = False, say: Callable[[str], None] = print
) -> Iterator[Campaign]:
    """Give the campaign of a config: a new one, or the one that its run directory holds. Both are checked.

    Of a new one nothing is written yet. The run directory belongs to this process until the block ends.

    Args:
        loaded: The config; `run_dir` says where.
        accept_changes: Whether to take changes of the config that a campaign in progress can take.
        say: Prints a line for people.

    Raises:
        FffError: If config, inputs or run directory cannot be used; nothing has been run then.
        KeyboardInterrupt: If SIGINT or SIGTERM came before the campaign was running.
    """
    run = RunDirectory(loaded.run_dir)
    make_site(loaded.config.site).check_here(run.path)
    find_redis(loaded.config.redis)
    lock = RunLock(run.lock, say)
    with _Signals() as signals:
        is_opened = run.is_opened
        inputs = None if is_opened else load_inputs(loaded)
        if is_opened:
            run.check()  # before the lock is taken, which lies in it too
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"The run directory {run.path} cannot be made: {error.strerror}."
            raise RunDirectoryError(msg, hint="Choose another with --run-dir.", path=str(run.path)) from error
        lock.take()
        try:
            if inputs is not None and run.is_opened:
                msg = f"Another process began a campaign in {run.path} while this one checked its inputs."
                raise RunDirectoryError(msg, hint="Run the same command again.", path=str(run.path))
            resumption = None if inputs is not None else look_at(run, loaded, accept_changes=accept_changes)
            yield Campaign(run, lock, signals, inputs=inputs, resumption=resumption)
        finally:
            lock.release()


@dataclass
class Campaign:
    """A campaign that is about to begin or to go on; `open_campaign` makes it.

    Attributes:
        run: Its run directory.
        inputs: What a new campaign begins with; None for one that goes on.
        resumption: What a campaign goes on with; None for a new one.
    """

    run: RunDirectory
    _lock: RunLock
    _signals: _Signals
    inputs: Inputs | None = None
    resumption: Resumption | None = None

    @property
    def loaded(self) -> LoadedConfig:
        """Its config."""
        if self.inputs is not None:
            return self.inputs.loaded
        assert self.resumption is not None  # noqa: S101 - for the type checker: one of the two is there
        return self.resumption.loaded

    def carry_out(
        self,
        *,
        say: Callable[[str], None] = print,
        show: Callable[[], None] | None = None,
        walltime_end: float | None = None,
    ) -> Outcome:
        """Run the campaign to its end, or until it is stopped.

        Args:
            say: Prints a line for people.
            show: Shows what the run directory holds, on a terminal; called about twice a second, from one
                thread. None to say a line a minute instead.
            walltime_end: When this process must be over, on the clock `time.monotonic` (s); None for never.
        """
        sitting = Sitting(
            self.run,
            self.loaded.config,
            self.inputs or self.resumption,
            say,
            refresh_lock=self._lock.refresh,
            show=show,
            walltime_end=math.inf if walltime_end is None else walltime_end,
        )
        if self.resumption is not None and self.resumption.is_over:
            return self._already_over(self.resumption, sitting)
        self._signals.stop = sitting.stop
        return sitting.carry_out()

    def _already_over(self, resumption: Resumption, sitting: Sitting) -> Outcome:
        report = f"Report: {self.run.report}" if self.run.report.is_file() else ""
        if self.run.store.exists() or _is_unfinished(self.run):
            # Its last process was killed between its last event and its last words.
            outcome = sitting.conclude()
            if outcome.state != "finished":
                return outcome
            report = outcome.report
        verdict = resumption.policy.verdict
        reason = verdict.reason if verdict else ""
        table = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            table = (self.run.path / "summary.txt").read_text(encoding="utf-8")
        if resumption.lost:
            names = ", ".join(resumption.lost)
            reason = f"{reason.rstrip('.')}; the files of {names} are missing or damaged since"
        more = f"{reason}. To go on, ask for more with -o stop.max_labels=N"
        return Outcome("finished", last_line(self.run, "finished", more), table, report)


def _is_unfinished(run: RunDirectory) -> bool:
    """Whether the status of a finished campaign says otherwise."""
    try:
        return bool(read_json(run.status)["state"] != "finished")
    except (OSError, ValueError, TypeError, KeyError):
        return False


class _Signals:
    """Lets Ctrl-C and SIGTERM stop the campaign, and a second one stop it at once.

    Attributes:
        stop: Called with the reason, and whether at once; before there is a campaign to be stopped, a signal
            interrupts what is being done.
    """

    def __init__(self) -> None:
        self.stop: Callable[[str, bool], None] | None = None
        self._count = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; a campaign run from another keeps the program's own.
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._previous = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self.stop is None:
            raise KeyboardInterrupt
        self.stop(f"{signal.Signals(number).name} was received", self._count > 1)
