"""A campaign from its first event to its last line: what it needs is opened, run and closed here."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from fff.base.errors import CampaignError, FffError
from fff.campaigns.opening import open_run
from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.compute.stores import ModelShelf, open_store
from fff.compute.tasks import FUNCTIONS
from fff.data.events import Event, EventLog
from fff.data.labels import LabelStore
from fff.data.run_directory import RunDirectory
from fff.reference import make_reference
from fff.report.summary import write_summary
from fff.steering.active_learning import ActiveLearning
from fff.steering.active_learning.policy import POLICY_VERSION
from fff.steering.cargo import Cargo
from fff.steering.records import Agent
from fff.steering.status import StatusWriter
from fff.steering.thinker import CampaignThinker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fff.campaigns.inputs import Inputs
    from fff.compute.sites import Site
    from fff.config import ActiveLearningConfig

__all__ = ["Outcome", "run_campaign"]

type State = Literal["finished", "stopped", "failed"]

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""How long running tasks may go on after a stop was asked for, in seconds."""

CLOSING_S = 5.0
"""How long the task server may take to close, in seconds."""

EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended.

    Attributes:
        state: finished, stopped or failed.
        message: The last line for people.
        table: The summary table, for people.
    """

    state: State
    message: str
    table: str = ""

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.state]


def run_campaign(inputs: Inputs, *, say: Callable[[str], None] = print) -> Outcome:
    """Run a campaign to its end in a new run directory.

    Args:
        inputs: What `load_inputs` found; the config is among it.
        say: Prints a line for people.

    Raises:
        FffError: If the run directory cannot be used; nothing has been run then.
        KeyboardInterrupt: If a signal came before the campaign was running.
    """
    loaded = inputs.loaded
    run = RunDirectory(loaded.run_dir)
    with _Signals() as signals:
        run.take()
        try:
            with _logging_to(run.log):
                return _run(run, loaded.config, open_run(run, loaded.config, inputs), say, signals)
        finally:
            run.give_back()


def _run(
    run: RunDirectory,
    config: ActiveLearningConfig,
    opened: dict[str, Any],
    say: Callable[[str], None],
    signals: _Signals,
) -> Outcome:
    site = make_site(config.site)
    opened |= {
        "capacity": site.pools,
        "pool_of": {kind: site.pool_of(kind) for kind in FUNCTIONS},
        "policy_version": POLICY_VERSION,
    }
    event = Event(0, "opened", values=opened, times={"started": time.time()})
    policy = ActiveLearning(event)
    status = StatusWriter(run, say)
    thinker: CampaignThinker | None = None
    try:
        with _thinker(run, config, site, policy, event, status, signals) as thinker:
            signals.thinker = thinker
            thinker.begin(policy.start())
            thinker.run()
    except (OSError, FffError) as error:
        logger.exception("The campaign could not be carried on.")
        state, reason = _failure(error)
    else:
        state, reason = _judge(thinker, policy)
    return _last_words(run, status, thinker, state, reason)


def _last_words(
    run: RunDirectory,
    status: StatusWriter,
    thinker: CampaignThinker | None,
    state: State,
    reason: str,
) -> Outcome:
    """Write status and summary, and return the outcome even where they cannot be written."""
    if thinker is None:
        return Outcome(state, _last_line(run, state, reason))
    snapshot = thinker.snapshot()
    table = ""
    try:
        status.write(snapshot, state=state, reason=reason, resumable=False)
        table = write_summary(run, snapshot)
    except OSError as error:
        logger.warning("Status and summary could not be written: %s", error)
        reason = f"{reason} (status.json and the summary could not be written: {error.strerror})"
    return Outcome(state, _last_line(run, state, reason), table)


@contextlib.contextmanager
def _thinker(
    run: RunDirectory,
    config: ActiveLearningConfig,
    site: Site,
    policy: ActiveLearning,
    opened: Event,
    status: StatusWriter,
    signals: _Signals,
) -> Iterator[CampaignThinker]:
    """Open all that a thinker works with, and close it whatever happens: no process, no object is left."""
    queues = LocalQueues(topics=get_args(Agent))
    with contextlib.ExitStack() as stack:
        server = start_server(FUNCTIONS, queues, site, run.path)
        # Closed after the server has gone: a worker that is late would make the store's folder anew.
        resources = stack.enter_context(contextlib.ExitStack())
        stack.callback(queues.close)
        # What could end within the grace has ended: the server's workers are idle, or not worth waiting for.
        stack.callback(lambda: stop_server(server, queues, 0 if signals.count > 1 else CLOSING_S))
        run.store.mkdir(parents=True, exist_ok=True)
        shelf = resources.enter_context(ModelShelf(open_store(run.store, f"fff-{run.path}")))
        labels = resources.enter_context(LabelStore(run.labels))
        log = resources.enter_context(EventLog(run.events))
        log.append(opened)
        cargo = Cargo(run, config, shelf, labels, policy, make_reference(config.reference))

        def watch(thinker: CampaignThinker) -> None:
            if not server.is_alive():
                msg = "The task server died."
                raise CampaignError(msg, hint=f"See {run.path / 'parsl' / 'server.log'}.")
            if run.stop_file.exists():
                thinker.stop("the file STOP was found", grace_s=GRACE_S)
            status.update(thinker.snapshot)

        yield CampaignThinker(queues, policy, log, opened.seq + 1, cargo, site.pools, watch)


def _judge(thinker: CampaignThinker, policy: ActiveLearning) -> tuple[State, str]:
    if thinker.error is not None:
        return _failure(thinker.error)
    if policy.verdict is not None:
        return policy.verdict.state, policy.verdict.reason
    return "stopped", thinker.stop_reason or "asked to stop"


def _failure(error: BaseException) -> tuple[State, str]:
    if isinstance(error, FffError):
        return "failed", f"{error.message} {error.hint}".strip()
    return "failed", f"{type(error).__name__}: {error}"


def _last_line(run: RunDirectory, state: str, reason: str) -> str:
    if state == "finished":
        return f"Finished: {reason}. Results in {run.path}"
    if state == "stopped":
        return f"Stopped: {reason}. All labels made so far are in {run.labels}"
    return f"Failed: {reason.rstrip('.')}. See {run.log}"


class _Signals:
    """Lets Ctrl-C and SIGTERM stop the campaign, and a second one stop it at once."""

    def __init__(self) -> None:
        self.thinker: CampaignThinker | None = None
        self.count = 0
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
        self.count += 1
        if self.thinker is None:
            raise KeyboardInterrupt
        grace_s = GRACE_S if self.count == 1 else 0.0
        self.thinker.stop(f"{signal.Signals(number).name} was received", grace_s=grace_s)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write the package's log to a file for people."""
    handler = logging.FileHandler(path, encoding="utf-8")
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
