"""A sitting: a campaign from the start of a process to its last line, which may be one of several."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from fff.base.errors import CampaignError, FffError, RunDirectoryError, SiteError
from fff.base.files import read_json, write_json, write_text
from fff.base.ids import settings_hash
from fff.base.redaction import redact
from fff.campaigns.opening import open_run
from fff.campaigns.restoring import find_lost, is_as_before
from fff.campaigns.resuming import Resumption, answer_from_database
from fff.compute.exchange import Exchange, remove_leftovers
from fff.compute.server import start_server, stop_server, why_it_ended
from fff.compute.sites import make_site
from fff.compute.tasks import FUNCTIONS
from fff.compute.watching import POOLS
from fff.config import config_to_yaml
from fff.data.events import CHANGED, OPENED, Event, EventLog
from fff.data.labels import LabelStore
from fff.data.provenance import collect_provenance
from fff.reference import make_reference
from fff.report.summary import write_summary
from fff.steering.active_learning.policy import POLICY_VERSION
from fff.steering.cargo import Cargo, note_committee
from fff.steering.records import Agent
from fff.steering.replay import replay
from fff.steering.status import StatusWriter
from fff.steering.thinker import CampaignThinker, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fff.campaigns.inputs import Inputs
    from fff.compute.server import TaskServer
    from fff.compute.sites import Site
    from fff.config import ActiveLearningConfig
    from fff.data.run_directory import RunDirectory
    from fff.steering.records import Request
    from fff.steering.replay import Replay
    from fff.steering.status import StoppedBy

__all__ = ["LEAST_WALLTIME_S", "Outcome", "Sitting", "last_line"]

type State = Literal["finished", "stopped", "failed"]

logger = logging.getLogger(__name__)

CLOSING_S = 5.0
"""How long the task server may take to close, in seconds."""

LAST_WORDS_S = 10.0
"""How long the end may take besides, killing what is left and writing the summary among it, in seconds."""

REPORT_S = 60.0
"""Time that must be left of a walltime, in seconds, for a finished campaign to write its report itself."""

LEAST_WALLTIME_S = 60.0
"""A shorter walltime, in seconds, would be over before the first workers are there."""

MAX_RESTARTS = 3
"""Task servers that may be lost in a row, without an event in between, before the campaign stops."""

EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


@dataclass(frozen=True)
class Outcome:
    """How a sitting ended.

    Attributes:
        state: finished, stopped or failed.
        message: The last line for people.
        table: The summary table, for people.
        report: The line that says where the report is; empty if none was due.
    """

    state: State
    message: str
    table: str = ""
    report: str = ""

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.state]


class Sitting:
    """Carries a campaign out, new or where it was left.

    Args:
        run: The run directory; its lock is held.
        config: The config to go on with.
        beginning: The inputs of a new campaign, or how one goes on.
        say: Prints a line for people.
        refresh_lock: Shows that this process lives; called about twice a second.
        show: Shows what the run directory holds, on a terminal; called about twice a second. None to say a
            line a minute instead.
        walltime_end: When this process must be over, on the clock `time.monotonic` (s); infinity for never.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: ActiveLearningConfig,
        beginning: Inputs | Resumption | None,
        say: Callable[[str], None],
        *,
        refresh_lock: Callable[[], None],
        show: Callable[[], None] | None = None,
        walltime_end: float,
    ) -> None:
        self.run = run
        self._config = config
        self._beginning = beginning
        self._say = say
        self._refresh_lock = refresh_lock
        self._site = make_site(config.site)
        self._walltime_end = walltime_end
        self._last_task_end = walltime_end - CLOSING_S - LAST_WORDS_S
        self._stop_at = self._last_task_end - config.stop.grace_s
        self._usage = Usage(self._site.pools)
        self._hashes: dict[str, str] = {}
        self._show = show
        self._status: StatusWriter | None = None
        self._thinker: CampaignThinker | None = None
        self._exchange: Exchange | None = None
        self._stopped: tuple[str, bool] | None = None
        self._stopped_by: StoppedBy | None = None

    def stop(self, reason: str, at_once: bool) -> None:
        """Stop: nothing new is begun, what runs gets its grace unless `at_once`. Safe in a signal handler."""
        self._stopped = (reason, at_once)
        self._stopped_by = self._stopped_by or "signal"
        if self._thinker is not None:
            self._thinker.stop(reason, grace_s=0.0 if at_once else self._config.stop.grace_s)

    def carry_out(self) -> Outcome:
        """Carry the campaign out and return how this sitting ended."""
        with _logging_to(self.run):
            found: Replay | None = None
            try:
                # A log that is there and empty says that what lies beside it is a campaign's beginning.
                with EventLog(self.run.events) as log:
                    found = self._go_on(log) if isinstance(self._beginning, Resumption) else self._begin(log)
                self._sit(found, self._status_writer(found))
            except RunDirectoryError as error:
                if self._thinker is None:
                    logger.warning("%s %s", error.message, error.hint)
                    raise  # nothing was begun: what is wrong must be put right first
                logger.exception("The campaign could not be carried on.")
                state, reason = _failure(error)
            except (OSError, FffError) as error:
                logger.exception("The campaign could not be carried on.")
                state, reason = _failure(error)
            else:
                state, reason = self._judge(found)
            return self._last_words(found, state, reason)

    def conclude(self) -> Outcome:
        """Do for a finished campaign what its last process was killed before it did."""
        assert isinstance(self._beginning, Resumption)  # noqa: S101 - for the type checker
        found = self._beginning.replay
        assert found.policy.verdict is not None  # noqa: S101 - for the type checker
        with _logging_to(self.run):
            shutil.rmtree(self.run.store, ignore_errors=True)
            remove_leftovers(self._config.redis, _identity(self.run, found))
            self._count_tasks(found)
            try:
                for key in found.policy.live_models:
                    note_committee(self.run, key)
            except OSError as error:
                logger.exception("The campaign could not be concluded.")
                return self._last_words(found, *_failure(error))
            return self._last_words(found, "finished", found.policy.verdict.reason)

    def _begin(self, log: EventLog) -> Replay:
        """Write all that a new campaign begins with, its first event last."""
        assert self._beginning is not None  # noqa: S101 - for the type checker
        assert not isinstance(self._beginning, Resumption)  # noqa: S101 - for the type checker
        values = open_run(self.run, self._config, self._beginning) | {
            "capacity": self._site.pools,
            "pool_of": {kind: self._site.pool_of(kind) for kind in FUNCTIONS},
            "policy_version": POLICY_VERSION,
        }
        event = Event(0, OPENED, values=values, times={"started": time.time()})
        found = replay([event], self.run.events)
        log.append(event)
        return found

    def _go_on(self, log: EventLog) -> Replay:
        """Write what was decided meanwhile, and what its database knows and its log does not."""
        resumption = self._beginning
        assert isinstance(resumption, Resumption)  # noqa: S101 - for the type checker
        for note in resumption.notes:
            self._note(note)
        found = resumption.replay

        def take_in(event: Event) -> None:
            log.append(event)
            found.take_in(event)

        if resumption.changed:
            take_in(_changed(found, resumption.changed))
        if not self.run.config.exists():
            write_text(self.run.config, config_to_yaml(self._config))
        if "config" in resumption.changed:
            write_text(self.run.config, config_to_yaml(self._config))
        with LabelStore(self.run.labels) as labels:
            for request in answer_from_database(self.run, labels, found, take_in):
                self._note(f"labels.db holds {request}, whose event was lost; the event is written anew.")
        self._add_to_provenance()
        self._count_tasks(found)
        n = len(found.policy.open_requests)
        self._note(f"The campaign goes on after {len(found.events)} events; {n} requests are sent again.")
        return found

    def _count_tasks(self, found: Replay) -> None:
        """Begin the account of the time where the last sitting left it."""
        self._usage = Usage(self._site.pools, _usage_before(self.run))
        for event in found.events:
            self._usage.add_task(event)

    def _add_to_provenance(self) -> None:
        """Note with what versions, and where, the campaign goes on."""
        try:
            content = read_json(self.run.provenance)
            before = [*content.get("resumed", [])]
        except (OSError, ValueError, TypeError, AttributeError):
            self._note("provenance.json was missing or damaged; it is written anew, without the inputs.")
            content, before = collect_provenance(seed=self._config.seed, inputs=[]), []
        sitting = collect_provenance(seed=self._config.seed, inputs=[])
        del sitting["inputs"]
        write_json(self.run.provenance, {**content, "resumed": [*before, sitting]})

    def _sit(self, found: Replay, status: StatusWriter) -> None:
        """Let a Thinker work; where the task server is lost, begin again with another one."""
        seq = len(found.events)
        self._hashes |= {
            request.args["directory"]: f"sha256:{event.values['sha256']}"
            for request, event in found.done.values()
            if request.kind == "train"
        }
        lost = find_lost(self.run, found) if isinstance(self._beginning, Resumption) else []
        restarts = 0
        while True:
            with self._working(found, seq, status) as (thinker, server, cargo):
                if lost:
                    self._restore(lost, thinker, server, cargo, found)
                    lost = []
                thinker.begin(list(found.policy.open_requests.values()))
                thinker.run()
                server_lost = not server.is_alive()
            if not server_lost or thinker.error is None or thinker.stop_reason is not None:
                return
            if isinstance(thinker.error, SiteError):
                return
            restarts = 1 if thinker.seq > seq else restarts + 1
            if restarts > MAX_RESTARTS:
                return
            seq = thinker.seq
            self._note(f"{thinker.error} It is started anew, and what was in flight is asked for again.")

    @contextlib.contextmanager
    def _working(
        self, found: Replay, seq: int, status: StatusWriter
    ) -> Iterator[tuple[CampaignThinker, TaskServer, Cargo]]:
        """Open all that a Thinker works with; close it whatever happens: no process, no object is left."""
        self.run.stopping.unlink(missing_ok=True)
        self._exchange = exchange = Exchange(self._config.redis, _identity(self.run, found))
        queues = exchange.queues(get_args(Agent))
        with contextlib.ExitStack() as stack:
            server = start_server(FUNCTIONS, queues, self._site, self.run.path)
            # Closed after the server has gone: a worker that is late would make the store's folder anew.
            resources = stack.enter_context(contextlib.ExitStack())
            stack.callback(queues.close)
            # What could end within the grace has ended: the workers are idle, or not worth waiting for.
            stack.callback(
                lambda: stop_server(server, queues, 0 if self._is_stopped_at_once() else CLOSING_S)
            )
            shelf = resources.enter_context(exchange.shelf(self.run.store, f"fff-{self.run.path}"))
            labels = resources.enter_context(LabelStore(self.run.labels))
            log = resources.enter_context(EventLog(self.run.events))
            method = make_reference(self._config.reference)
            cargo = Cargo(self.run, self._config, shelf, labels, found.policy, method, self._hashes)

            def watch(thinker: CampaignThinker) -> None:
                self._watch(thinker, server)
                status.update(thinker.snapshot)

            thinker = CampaignThinker(
                queues, found.policy, log, seq, cargo, self._usage, watch, self._last_task_end
            )
            self._thinker = thinker
            if self._stopped is not None:
                self.stop(*self._stopped)
            yield thinker, server, cargo

    def _is_stopped_at_once(self) -> bool:
        return self._stopped is not None and self._stopped[1]

    def _watch(self, thinker: CampaignThinker, server: TaskServer) -> None:
        self._refresh_lock()
        if self._site.submits_jobs:
            self._usage.note_pools(_read_pools(self.run, self._site))
        if not server.is_alive():
            raise why_it_ended(server.folder)
        grace_s = self._config.stop.grace_s
        if self.run.stop_file.exists():
            self.run.stop_file.unlink(missing_ok=True)
            self._stopped_by = self._stopped_by or "stop-file"
            thinker.stop("the file STOP was found", grace_s=grace_s)
        if self._exchange is not None and (reason := self._exchange.look_after(self._note)):
            self._stopped_by = self._stopped_by or "redis"
            thinker.stop(reason, grace_s=grace_s)
        if time.monotonic() >= self._stop_at:
            self._stopped_by = self._stopped_by or "walltime"
            thinker.stop("the walltime is near", grace_s=grace_s)
        if thinker.stop_reason is not None and not self.run.stopping.exists():
            self.run.stopping.parent.mkdir(exist_ok=True)
            self.run.stopping.touch()

    def _restore(
        self,
        lost: list[tuple[Request, Event]],
        thinker: CampaignThinker,
        server: TaskServer,
        cargo: Cargo,
        found: Replay,
    ) -> None:
        """Have files made again that the log tells of, by the requests that made them.

        Raises:
            RunDirectoryError: If one cannot be made again as it was.
            CampaignError: If the task server dies.
        """
        restored: dict[str, dict[str, str]] = {}
        for request, event in lost:
            self._note(f"The files of {request.id} are missing or damaged; they are made again.")
            values = thinker.ask(request, lambda: self._watch(thinker, server))
            if values is None:
                return  # asked to stop
            if is_as_before(self.run, request, event.values):
                continue
            if "sha256" not in values:
                msg = f"The files of {request.id} were lost, and could not be made again as they were."
                hint = "Restore them from a copy, or begin a new campaign with the labels of this one."
                raise RunDirectoryError(msg, hint=hint, path=str(self.run.path))
            # Another machine or device: the same training, but for the last digits.
            self._note(f"{request.id} gave other weights than before: another machine rounds otherwise.")
            restored[request.id] = {"sha256": values["sha256"]}
            cargo.note_model(request, values)
        if restored:
            change = _changed(found, {"restored": restored})
            thinker.record(change)

    def _judge(self, found: Replay) -> tuple[State, str]:
        thinker = self._thinker
        if thinker is not None and thinker.error is not None:
            state, why = _failure(thinker.error)
            if thinker.stop_reason is not None and isinstance(thinker.error, CampaignError):
                # A batch system that ends a job ends the workers with it, and they may be the first to go.
                logger.info("After it was asked to stop: %s", why)
                return "stopped", f"{thinker.stop_reason}; what ran was ended with its workers"
            return state, why
        if found.policy.verdict is not None:
            return found.policy.verdict.state, found.policy.verdict.reason
        return "stopped", (thinker.stop_reason if thinker else None) or "asked to stop"

    def _last_words(self, found: Replay | None, state: State, reason: str) -> Outcome:
        """Write status and summary, and return the outcome even where they cannot be written."""
        table = ""
        try:
            self.run.stopping.unlink(missing_ok=True)
            if found is not None:
                snapshot = self._snapshot(found)
                self._status_writer(found).write(
                    snapshot,
                    state=state,
                    reason=reason,
                    resumable=state != "finished",
                    stopped_by=self._what_stopped_it() if state == "stopped" else None,
                )
                test = self._config.test
                has_test_set = bool(test.labels) or test.n_frames != 0
                table = write_summary(self.run, snapshot, has_test_set=has_test_set)
        except OSError as error:
            logger.warning("Status and summary could not be written: %s", error)
            reason = f"{reason} (status.json and the summary could not be written: {error.strerror})"
        report = self._report() if state == "finished" else ""
        line = last_line(self.run, state, reason)
        logger.info("%s", line)
        return Outcome(state, line, table, report)

    def _what_stopped_it(self) -> StoppedBy | None:
        if self._stopped_by is None and self._thinker is not None and self._thinker.is_stopped_by_walltime:
            return "walltime"
        return self._stopped_by

    def _report(self) -> str:
        """Write the report of a finished campaign; return where it is, or why there is none."""
        if time.monotonic() > self._walltime_end - REPORT_S:
            return f"No report was written, for the walltime is near; it is by: fff report {self.run.path}"
        # The figures: matplotlib takes half a second to import.
        from fff.report.writing import write_report

        try:
            report = write_report(self.run)
        except Exception as error:  # the campaign is finished, whatever becomes of its report
            logger.warning("The report could not be written.", exc_info=True)
            reason = error.message if isinstance(error, FffError) else f"{type(error).__name__}: {error}"
            return f"The report could not be written: {reason} Try: fff report {self.run.path} --output FILE"
        for warning in report.warnings:
            logger.warning("Report: %s", warning)
        lacking = " (what it lacks stands at its top)" if report.warnings else ""
        return f"Report: {report.path}{lacking}"

    def _status_writer(self, found: Replay) -> StatusWriter:
        if self._status is None:
            started = found.events[0].times.get("started")
            self._status = StatusWriter(self.run, self._say, started=started, show=self._show)
        return self._status

    def _snapshot(self, found: Replay) -> dict[str, Any]:
        if self._thinker is not None:
            return self._thinker.snapshot()
        return {**found.policy.snapshot(), "usage": self._usage.summary(), "largest_message_bytes": 0}

    def _note(self, line: str) -> None:
        logger.warning(line)
        self._say(line)


def last_line(run: RunDirectory, state: str, reason: str) -> str:
    """Return the last line for people: how it ended, and how to go on."""
    # A reason may end in what a program has printed, on lines of its own.
    reason = " ".join(reason.split()).rstrip(".")
    if state == "finished":
        return f"Finished: {reason}. Results in {run.path}"
    if state == "stopped":
        return f"Stopped: {reason}. Resume with: fff resume {run.path}"
    return f"Failed: {reason}. See {run.log}. Resume with: fff resume {run.path}"


def _identity(run: RunDirectory, found: Replay) -> str:
    """Return what tells the campaign of a run directory from all others, copies of the folder among them."""
    return settings_hash({"path": str(run.path), "opened": found.events[0].times})


def _failure(error: BaseException) -> tuple[State, str]:
    if isinstance(error, FffError):
        return "failed", f"{error.message} {error.hint}".strip()
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return "failed", f"{error.strerror}{where}"
    return "failed", f"{type(error).__name__}: {error}"


def _changed(found: Replay, values: dict[str, Any]) -> Event:
    return Event(len(found.events), CHANGED, values=values, times={"started": time.time()})


def _usage_before(run: RunDirectory) -> dict[str, Any]:
    """Return where the time went in the sittings before; nothing if the status was lost."""
    try:
        usage = read_json(run.status)["usage"]
        Usage({}, usage)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return {}
    return dict(usage)


def _read_pools(run: RunDirectory, site: Site) -> dict[str, dict[str, Any]]:
    """Return how many workers each pool has, as the task server tells; none before it has."""
    pools: dict[str, dict[str, Any]] = {name: {"workers": 0} for name in site.pools}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        pools |= read_json(run.path / "parsl" / POOLS)["pools"]
    return pools


class _QuietHandler(logging.FileHandler):
    """Writes to a file, without passwords, and leaves it at that where there is no room: others say so."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line that is written."""
        return redact(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Pass over a line that could not be written; the traceback would fill the terminal."""


@contextlib.contextmanager
def _logging_to(run: RunDirectory) -> Iterator[None]:
    """Write the package's log to a file for people."""
    handler = _QuietHandler(run.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("fff")
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Colmena reports every agent that starts and ends to the logger of the Thinker.
    colmena = logging.getLogger(f"{CampaignThinker.__module__}.{CampaignThinker.__name__}")
    colmena.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
