"""A campaign from its first event to its last line: what it needs is opened, run and closed here."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fff.base.errors import CampaignError
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
    from fff.config import ActiveLearningConfig, LoadedConfig

__all__ = ["Outcome", "run_campaign"]

logger = logging.getLogger(__name__)

GRACE_S = 5.0
EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


@dataclass(frozen=True)
class Outcome:
    """How a campaign ended.

    Attributes:
        state: finished, stopped or failed.
        message: The last line for people.
        table: The summary table, for people.
    """

    state: Literal["finished", "stopped", "failed"]
    message: str
    table: str = ""

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.state]


def run_campaign(loaded: LoadedConfig, inputs: Inputs, *, say: Callable[[str], None] = print) -> Outcome:
    """Run a campaign to its end in a new run directory.

    Args:
        loaded: The config and where its values came from.
        inputs: What `load_inputs` found.
        say: Prints a line for people.

    Raises:
        FffError: If the run directory cannot be used; nothing has been run then.
    """
    run = RunDirectory(loaded.run_dir)
    run.take()
    try:
        with _logging_to(run.log):
            opened = open_run(run, loaded.config, inputs)
            return _run(run, loaded.config, opened, say)
    finally:
        run.give_back()


def _run(
    run: RunDirectory, config: ActiveLearningConfig, opened: dict[str, Any], say: Callable[[str], None]
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
    with _thinker(run, config, site, policy, event, status) as (thinker, server):
        with _stop_on_signals(thinker):
            thinker.begin(policy.start())
            thinker.run()
        snapshot = thinker.snapshot()
        server_died = not server.is_alive()
    state, reason = _judge(thinker, policy, server_died=server_died)
    status.write(snapshot, state=state, reason=reason, resumable=False)
    table = write_summary(run, snapshot)
    return Outcome(state, _last_line(run, state, reason), table)


@contextlib.contextmanager
def _thinker(
    run: RunDirectory,
    config: ActiveLearningConfig,
    site: Site,
    policy: ActiveLearning,
    opened: Event,
    status: StatusWriter,
) -> Iterator[tuple[CampaignThinker, Any]]:
    """Open all that a thinker works with, and close it whatever happens: no process, no object is left."""
    queues = LocalQueues(topics=get_args(Agent))
    with contextlib.ExitStack() as stack:
        server = start_server(FUNCTIONS, queues, site, run.path)
        # Closed after the server has gone: a worker that is late would make the store's folder anew.
        resources = stack.enter_context(contextlib.ExitStack())
        stack.callback(queues.close)
        stack.callback(stop_server, server, queues, GRACE_S)
        run.store.mkdir(parents=True, exist_ok=True)
        shelf = resources.enter_context(ModelShelf(open_store(run.store, f"fff-{run.path}")))
        labels = resources.enter_context(LabelStore(run.labels))
        log = resources.enter_context(EventLog(run.events))
        log.append(opened)
        method = make_reference(config.reference).name
        cargo = Cargo(run, config, shelf, labels, policy, method)

        def watch(thinker: CampaignThinker) -> None:
            if not server.is_alive():
                msg = "The task server died."
                raise CampaignError(msg, hint=f"See {run.path / 'parsl' / 'server.log'}.")
            if run.stop_file.exists():
                thinker.stop("the file STOP was found")
            status.update(thinker.snapshot)

        yield CampaignThinker(queues, policy, log, opened.seq + 1, cargo, site.pools, watch), server


def _judge(
    thinker: CampaignThinker, policy: ActiveLearning, *, server_died: bool
) -> tuple[Literal["finished", "stopped", "failed"], str]:
    if thinker.error is not None:
        return "failed", f"{type(thinker.error).__name__}: {thinker.error}"
    if policy.verdict is not None:
        return policy.verdict.state, policy.verdict.reason
    if server_died:
        return "failed", "the task server died"
    return "stopped", thinker.stop_reason or "asked to stop"


def _last_line(run: RunDirectory, state: str, reason: str) -> str:
    if state == "finished":
        return f"Finished: {reason}. Results in {run.path}"
    if state == "stopped":
        return f"Stopped: {reason}. All labels made so far are in {run.labels}"
    return f"Failed: {reason.rstrip('.')}. See {run.log}"


@contextlib.contextmanager
def _stop_on_signals(thinker: CampaignThinker) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the campaign; the second one gets what Python does by default."""

    def stop(number: int, _frame: FrameType | None) -> None:
        thinker.stop(f"{signal.Signals(number).name} was received")
        signal.signal(number, previous[number])

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous: dict[int, Any] = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
