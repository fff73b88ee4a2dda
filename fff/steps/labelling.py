"""Labels for structures, outside a campaign: a database, several calculations at a time, resumable."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fff.base.cores import cores_found
from fff.base.errors import FffError, ReferenceFailure, RunDirectoryError
from fff.base.ids import settings_hash, structure_hash
from fff.data.labels import LabelStore
from fff.data.sqlite import connect
from fff.reference import ReferenceProcess, make_reference
from fff.reference.launching import launch_outside_campaign
from fff.reference.probing import probe_reference
from fff.steps.outputs import taken
from fff.steps.sharing import shared_by
from fff.steps.sources import structures_to_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fff.config import ActiveLearningConfig
    from fff.data.records import Label
    from fff.data.run_lock import RunLock
    from fff.steps.interruption import Interruption
    from fff.steps.sources import Asked

__all__ = ["Failed", "Labelled", "label_structures"]

_LOOK_EVERY_s = 0.2
_WAIT_s = 20.0
_STOPS_ALL = ("setup", "disk")


@dataclass(frozen=True)
class Failed:
    """A structure that got no label.

    Attributes:
        name: What people call it.
        reason: Why, in a sentence.
    """

    name: str
    reason: str


@dataclass
class Labelled:
    """What a labelling did.

    Attributes:
        method: Name of the reference method.
        n_structures: Different structures that were asked for.
        n_known: Those whose label was in the database before.
        n_made: Labels that were made now.
        failed: Structures without a label.
        is_stopped: Whether it was stopped before all were tried.
        calculation_s: Time of the calculations together.
    """

    method: str
    n_structures: int
    n_known: int
    n_made: int = 0
    failed: list[Failed] = field(default_factory=list)
    is_stopped: bool = False
    calculation_s: float = 0.0


def label_structures(
    sources: Sequence[str],
    config: ActiveLearningConfig,
    output: Path,
    *,
    n_workers: int | None,
    tell: Callable[[int, int, str], None],
    interruption: Interruption,
) -> Labelled:
    """Label structures into a database; what is in it already is not calculated again.

    Args:
        sources: Files, folders and names, as in a config's `structures`.
        config: Its sections `reference`, `calculation.max_attempts`, `site.mpi_launch` and its seed count.
        output: The database; made when absent.
        n_workers: Calculations at a time; as many as there are cores when None.
        tell: Told how many structures are done, of how many, and what happened last.
        interruption: Asked whether to stop. Calculations that run may end then; asked twice they are killed.

    Raises:
        FffError: If a structure cannot be used, the method cannot run here, or the database holds labels of
            other settings or belongs to a campaign.
    """
    if (output.parent / "events.jsonl").exists():
        msg = f"{output} lies in the run directory of a campaign, which alone writes there."
        raise RunDirectoryError(msg, hint="Choose another place with --output.", path=str(output))
    section = config.reference.model_dump(mode="json")
    settings = settings_hash(make_reference(section).settings)
    _check_settings(output, settings)
    asked = structures_to_label(sources, config)
    method = probe_reference(section, [each.atoms for each in asked])
    with taken(output) as lock, LabelStore(output) as store:
        # Again: another process may have made it since.
        _check_settings(output, settings)
        done = {structure for _, structure, _ in store.origins()}
        todo = [each for each in asked if structure_hash(each.atoms) not in done]
        labelled = Labelled(method, len(asked), len(asked) - len(todo))
        n_workers = max(1, min(n_workers or cores_found(), len(todo)))
        work = output.with_name(f"{output.stem}-tasks")
        workers = _Workers(config, work, todo, n_workers)
        interruption.wait_for = ": calculations that run may end"
        interruption.at_once = workers.kill
        with shared_by(n_workers):
            _collect(workers, labelled, store, settings, (tell, interruption, lock))
    return labelled


def _check_settings(output: Path, settings: str) -> None:
    """Refuse a database with labels of another method: their energies could not be told apart."""
    if not output.is_file():
        return
    found: set[str] = set()
    # What is no database is refused by the store.
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(connect(output, wait_s=_WAIT_s, read_only=True)) as database,
    ):
        rows = database.execute("SELECT DISTINCT value FROM text_key_values WHERE key = 'settings'")
        found = {str(value) for (value,) in rows}
    if found - {settings}:
        msg = f"{output} holds labels of another reference method, or of other settings of it."
        hint = "Choose another database with --output, or the settings that it was made with."
        raise RunDirectoryError(msg, hint=hint, path=str(output))


def _collect(
    workers: _Workers, labelled: Labelled, store: LabelStore, settings: str, with_whom: tuple[Any, ...]
) -> None:
    """Put the labels into the database as they come, until all workers have ended."""
    tell: Callable[[int, int, str], None]
    interruption: Interruption
    lock: RunLock
    tell, interruption, lock = with_whom
    tell(labelled.n_known, labelled.n_structures, "")
    fatal: FffError | None = None
    for answer in workers.answers():
        lock.refresh()
        if interruption.is_asked():
            workers.stop()
        if answer is None:
            continue
        each, label, error = answer
        if label is not None:
            _keep(store, each, label, labelled.method, settings)
            labelled.n_made += 1
            labelled.calculation_s += label.wall_s
        elif isinstance(error, ReferenceFailure) and error.failure_class in _STOPS_ALL:
            fatal = fatal or error
            workers.stop()
        elif not workers.is_killed:
            labelled.failed.append(Failed(each.name, _reason(error)))
        n_done = labelled.n_known + labelled.n_made + len(labelled.failed)
        tell(n_done, labelled.n_structures, f"{each.name}: {'failed' if label is None else 'labelled'}")
    if fatal is not None:
        raise fatal
    labelled.is_stopped = n_left(labelled) > 0


def n_left(labelled: Labelled) -> int:
    """Return how many structures have not been tried."""
    return labelled.n_structures - labelled.n_known - labelled.n_made - len(labelled.failed)


def _keep(store: LabelStore, each: Asked, label: Label, method: str, settings: str) -> None:
    hashed = structure_hash(each.atoms)
    store.add(
        f"label-{hashed}",
        label,
        source=each.source,
        method=method,
        settings=settings,
        segment=each.segment or hashed,
        wall_s=round(label.wall_s, 4),
    )


def _reason(error: Exception | None) -> str:
    if isinstance(error, FffError):
        return f"{error.message} {error.hint}".strip()
    return f"{type(error).__name__}: {error}"


class _Workers:
    """Threads that each drive one child process, which a time limit can kill.

    Args:
        config: Its sections `reference` and `calculation.max_attempts`, and `site.mpi_launch` for a slot on
            this machine: whatever a calculation takes in a campaign, here it takes one of `n_workers`, with
            its share of the cores.
        work_dir: Where external codes calculate.
        todo: The structures.
        n_workers: How many threads.
    """

    def __init__(
        self,
        config: ActiveLearningConfig,
        work_dir: Path,
        todo: Sequence[Asked],
        n_workers: int,
    ) -> None:
        self._todo: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        for each in todo:
            self._todo.put(each)
        self._answers: queue.SimpleQueue[tuple[Asked, Label | None, Exception | None]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._max_attempts = config.calculation.max_attempts
        self._launch = launch_outside_campaign(config.site, cores=max(1, cores_found() // n_workers))
        section = config.reference.model_dump(mode="json")
        self._processes = [ReferenceProcess(section, work_dir=work_dir) for _ in range(n_workers)]
        self.is_killed = False

    def answers(self) -> Iterator[tuple[Asked, Label | None, Exception | None] | None]:
        """Yield structures with label or error as they come, and None now and then, until all has ended."""
        threads = [threading.Thread(target=self._work, args=(each,)) for each in self._processes]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads) or not self._answers.empty():
                try:
                    yield self._answers.get(timeout=_LOOK_EVERY_s)
                except queue.Empty:
                    yield None
        finally:
            # Reached early if an answer could not be kept, on a full disk perhaps.
            self.stop()
            if any(thread.is_alive() for thread in threads):
                self.kill()
            for thread in threads:
                thread.join()

    def stop(self) -> None:
        """Begin no other calculation."""
        self._stopping.set()

    def kill(self) -> None:
        """End the calculations that run."""
        self.is_killed = True
        self.stop()
        for process in self._processes:
            if pid := process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _work(self, process: ReferenceProcess) -> None:
        with process:
            while not self._stopping.is_set():
                try:
                    each = self._todo.get_nowait()
                except queue.Empty:
                    return
                self._answers.put((each, *self._calculate(process, each)))

    def _calculate(self, process: ReferenceProcess, each: Asked) -> tuple[Label | None, Exception | None]:
        error: Exception | None = None
        for _ in range(self._max_attempts):
            try:
                return process.calculate(each.atoms, structure_hash(each.atoms), self._launch), None
            except ReferenceFailure as failure:
                error = failure
                if failure.failure_class != "retry" or self._stopping.is_set():
                    break
            except Exception as unexpected:  # noqa: BLE001 - one structure must not end the others' labels
                return None, unexpected
        return None, error
