"""Looks after pools of workers: what makes one useless, and how many workers it has."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import zmq
from parsl.errors import ParslError
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobState

from fff.base.errors import CampaignError, SiteError
from fff.base.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parsl.jobs.states import JobStatus

__all__ = ["POOLS", "PoolWatch"]

POOLS = "pools.json"
"""File in the folder `parsl` that says how many workers, and jobs, each pool has."""

MOST_FAILED_BLOCKS = 3
"""Blocks in a row that end before a worker of theirs was there, after which a pool may be given up."""

BARREN_S = 15.0
"""How long that must last, in seconds, in a pool that never had a worker."""

BARREN_AFTER_WORKERS_S = 600.0
"""How long it must last, in seconds, in a pool that had workers: what it asks for was right."""

_TELL_EVERY_S = 2.0
_PART_OF_A_LOG = 1_000_000
_LAST_WORDS = 400
_TOO_SMALL = "Unable to create step"
_OUT_OF_REACH = "No viable ZMQ url"
_NOT_SUBMITTED = "Failed to start block"

# What the managers of Parsl's pools note and then live with; nothing is right afterwards.
_TROUBLE = {
    # It takes with it the lock of the queue that it waited at, which nothing ever opens again: another worker
    # is started, and no worker gets a task any more. One that dies at work holds no lock.
    b"was not busy when it died": "a worker died between two tasks and may have locked out the others",
    # All that is left of them then waits for ever, or writes the same error a thousand times a second.
    b"Exceptional ending for": "a part of its manager failed",
    b"Failed to forward monitoring message": "a part of its manager failed",
}

_log = logging.getLogger(__name__)


class PoolWatch:
    """Looks at the pools; a context manager.

    Where blocks come and go it also tells in `pools.json` how many workers each pool has.

    Args:
        executors: The pools by name.
        folder: The folder `parsl` of the run directory.
        submits_jobs: Whether blocks come and go with jobs of a batch system. One that ends is then nothing to
            worry about; what ran there is lost, and asked for again.
    """

    def __init__(self, executors: Mapping[str, Any], folder: Path, *, submits_jobs: bool) -> None:
        self._executors = {
            label: executor
            for label, executor in executors.items()
            if isinstance(executor, HighThroughputExecutor)  # not Parsl's own threads
        }
        self._folder = folder
        self._submits_jobs = submits_jobs
        self._read: dict[Path, int] = {}
        self._given_up: set[str] = set()
        self._barren_since: dict[str, float] = {}
        # Of pools that have workers, or had some.
        self._n_workers: dict[str, int] = {}
        self._closing = threading.Event()
        # Its questions to the interchanges wait for answers, which nobody else should.
        self._teller = threading.Thread(target=self._tell_always, name="pools", daemon=True)
        if submits_jobs:
            self._teller.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._teller.is_alive():
            self._teller.join(_TELL_EVERY_S)

    def look(self) -> None:
        """Check that every pool can be used.

        Raises:
            CampaignError: If one cannot; a SiteError if another one would not do better.
        """
        for label, executor in self._executors.items():
            interchange = executor.interchange_proc
            if interchange is None or interchange.poll() is not None or executor.bad_state_is_set:
                raise _gone(label, executor, str(executor.executor_exception or "no reason known"))
            blocks = dict(executor.status_facade)
            if self._submits_jobs:
                self._check_blocks(label, executor, blocks)
            else:
                _check_own(label, executor, blocks)
            # Not those that have ended: a campaign of weeks has hundreds.
            live = [block for block, status in blocks.items() if not status.terminal]
            for block, trouble in self._trouble_noted(Path(executor.logdir), live):
                self._give_up(label, executor, block, trouble)

    def _check_blocks(
        self, label: str, executor: HighThroughputExecutor, blocks: Mapping[str, JobStatus]
    ) -> None:
        """Give a pool up that gets no workers: its last blocks have all ended before one was there.

        A batch system that is out of reach for a while refuses jobs too: a pool must be without workers for
        some time, and for longer where it had some before.
        """
        ended = [blocks[name] for name in sorted(blocks, key=int) if blocks[name].terminal]
        ended = [status for status in ended if status.state != JobState.SCALED_IN]
        last = ended[-MOST_FAILED_BLOCKS:]
        is_barren = len(last) == MOST_FAILED_BLOCKS and all(map(_never_was, last))
        if not is_barren or self._n_workers.get(label):
            self._barren_since.pop(label, None)
            return
        had_some = label in self._n_workers or not all(map(_never_was, ended))
        patience_s = BARREN_AFTER_WORKERS_S if had_some else BARREN_S
        now = time.monotonic()
        if now - self._barren_since.setdefault(label, now) < patience_s:
            return
        words = _last_words(last[-1])
        msg = f"The last {len(last)} jobs of pool {label!r} ended before a worker was there: {words}"
        hint = (
            f"Look at `site.nodes.{label}` and at the output of the jobs in "
            f"{executor.run_dir}/submit_scripts; `fff check` has the batch system judge a script."
        )
        if _OUT_OF_REACH in words:
            hint = f"Set `site.address` to the address at which nodes reach this machine. {hint}"
        raise SiteError(msg, hint=hint)

    def _give_up(self, label: str, executor: HighThroughputExecutor, block: str, trouble: str) -> None:
        """Let a block go whose manager is not sound; on this machine that is the whole pool."""
        if not self._submits_jobs:
            msg = f"The workers of pool {label!r} cannot be relied on: {trouble}."
            raise CampaignError(msg, hint=f"See {executor.logdir}.")
        job = executor.blocks_to_job_id.get(block)
        if job is None or job in self._given_up:
            return
        self._given_up.add(job)
        _log.warning("Job %s of pool %s is cancelled: %s.", job, label, trouble)
        assert executor.provider is not None  # noqa: S101 - for the type checker
        executor.provider.cancel([job])

    def _trouble_noted(self, folder: Path, blocks: Sequence[str]) -> list[tuple[str, str]]:
        """Return the blocks whose managers have noted since the last look that they are useless, and why."""
        longest = max(map(len, _TROUBLE))
        found = []
        for block in blocks:
            for path in folder.glob(f"block-{block}/*/manager.log"):
                with path.open("rb") as file:
                    # Begun a little earlier: what was looked at may have ended in the middle of such a line.
                    file.seek(max(0, self._read.get(path, 0) - longest))
                    noted = file.read(_PART_OF_A_LOG)
                    self._read[path] = file.tell()
                found += [(block, meaning) for words, meaning in _TROUBLE.items() if words in noted][:1]
        return found

    def _tell_always(self) -> None:
        told: dict[str, Any] = {}
        while not self._closing.is_set():
            try:
                pools = {label: self._describe(executor) for label, executor in self._executors.items()}
                self._n_workers |= {
                    label: pool["workers"]
                    for label, pool in pools.items()
                    if pool["workers"] or label in self._n_workers
                }
                if pools != told:
                    write_json(self._folder / POOLS, {"schema_version": 1, "pools": pools}, sync=False)
                    told = pools
            except (OSError, ParslError, zmq.ZMQError) as error:
                # The server closes, or looks itself and finds what is wrong.
                _log.info("How many workers there are cannot be told: %s", error)
            self._closing.wait(_TELL_EVERY_S)

    @staticmethod
    def _describe(executor: HighThroughputExecutor) -> dict[str, Any]:
        """Return how many workers and jobs a pool has, JSON-able.

        Of a block that has ended Parsl learns only by the silence of its managers, and would send them tasks
        until then: they are told to take none.
        """
        blocks = dict(executor.status_facade)
        managers = [manager for manager in executor.connected_managers() if manager["active"]]
        over = [m for m in managers if m["block_id"] in blocks and blocks[m["block_id"]].terminal]
        for manager in over:
            job = executor.blocks_to_job_id.get(manager["block_id"])
            _log.warning("Job %s of pool %s has ended under its workers.", job, executor.label)
            executor._hold_manager(manager["manager"])
        there = [manager for manager in managers if manager not in over]
        states = [status.state for status in blocks.values()]
        return {
            "workers": sum(manager["worker_count"] for manager in there),
            "busy": sum(min(manager["tasks"], manager["worker_count"]) for manager in there),
            "nodes": len(there),
            "jobs_running": states.count(JobState.RUNNING),
            "jobs_waiting": states.count(JobState.PENDING),
        }


def _check_own(label: str, executor: HighThroughputExecutor, blocks: Mapping[str, JobStatus]) -> None:
    """Give up a pool whose only block has ended: on this machine, or in the job that this process runs in."""
    for status in blocks.values():
        if status.state == JobState.MISSING:
            # Another one would end in the same way.
            msg = f"The workers of pool {label!r} ended before one was there: {_last_words(status)}"
            hint = f"What they printed is in {executor.run_dir}/submit_scripts."
            if _TOO_SMALL in msg:
                hint = f"The job that fff runs in has too few nodes or cores for all kinds of node. {hint}"
            raise SiteError(msg, hint=hint)
        if status.terminal:
            raise _gone(label, executor, _last_words(status))


def _gone(label: str, executor: HighThroughputExecutor, why: str) -> CampaignError:
    return CampaignError(f"The workers of pool {label!r} are gone: {why}", hint=f"See {executor.logdir}.")


def _never_was(status: JobStatus) -> bool:
    """Whether a block ended before a worker of its was there, or could not be submitted."""
    return status.state == JobState.MISSING or (status.message or "").startswith(_NOT_SUBMITTED)


def _last_words(status: JobStatus) -> str:
    """Return what a job, or the batch system about it, said last, on one line."""
    message = status.message or ""
    if message.startswith(_NOT_SUBMITTED):
        # Parsl puts the command and its own reading of it before what the batch system said.
        said = [message.rpartition("stderr=")[2]]
    else:
        said = [status.stdout_summary or "", status.stderr_summary or ""]
    lines = [" ".join(line.split()) for part in said for line in part.splitlines() if line.strip()]
    words = ""
    for line in reversed(lines):
        if words and len(line) + len(words) >= _LAST_WORDS:
            break
        words = f"{line} {words}".strip()
    return f"{words[-_LAST_WORDS:].rstrip('.') or 'it said nothing'}."
