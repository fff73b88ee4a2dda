"""Members trained side by side, each in a process of its own that goes on from its checkpoints."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from fff.base.errors import FffError, TrainingError
from fff.data.packing import labels_from_bytes
from fff.models.files import DESCRIPTION, read_member, write_member
from fff.stages import Lifetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

__all__ = ["Job", "train_members"]

_LOOK_EVERY_s = 0.5
_STOP = "stop"


@dataclass(frozen=True)
class Job:
    """The training of one member.

    Attributes:
        folder: Where its files go; one with a `model.json` is done.
        checkpoints: Where its checkpoints are until then.
        labels: File of the labels.
        chosen: Which of them it is trained on.
        model: The section `model` of the config.
        training: The section `training`.
        seed: Of its parameters and batches.
        split_seed: Of its draw of the labels.
        is_drawn: Whether it is trained on a draw with replacement, as members of a committee are.
        reference_energies: Energies of atoms in eV; those of `start` are fitted anew.
        start: Folder of the member to go on from.
        number: Decides which accelerator it takes, if there are several.
    """

    folder: Path
    checkpoints: Path
    labels: Path
    chosen: Sequence[int]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    seed: int
    split_seed: int
    is_drawn: bool
    reference_energies: Mapping[int, float] = field(default_factory=dict)
    start: Path | None = None
    number: int = 0

    @property
    def is_done(self) -> bool:
        """Whether its files are there; the description is written last."""
        return (self.folder / DESCRIPTION).is_file()


def train_members(
    jobs: Sequence[Job],
    *,
    n_processes: int,
    tell: Callable[[Job, dict[str, Any] | None], None],
    is_asked_to_stop: Callable[[], bool],
) -> None:
    """Train members, several at a time; those that are done are left alone.

    Args:
        jobs: What is to be trained.
        n_processes: Processes at a time.
        tell: Told of each epoch with a row of the history, and with None of each member that is done.
        is_asked_to_stop: Asked now and then; trainings that run then write a checkpoint and end.

    Raises:
        FffError: What a training raised; the others stop with their checkpoints.
    """
    crew = _Crew([job for job in jobs if not job.is_done], n_processes)
    try:
        while crew.go_on(is_stopping=is_asked_to_stop()):
            for job, kind, value in crew.listen():
                if kind == "epoch":
                    tell(job, value)
                elif kind == "done":
                    tell(job, None)
    finally:
        crew.end()
    if crew.failure is not None:
        raise crew.failure


class _Crew:
    """Processes, and the trainings that wait for one; they stay, since loading torch takes seconds.

    Attributes:
        failure: The first error of a training; nothing new is begun after it.
    """

    def __init__(self, jobs: Sequence[Job], n_processes: int) -> None:
        self.failure: FffError | None = None
        self._waiting = deque(jobs)
        self._processes = [_Process() for _ in range(min(n_processes, len(jobs)))]

    def go_on(self, *, is_stopping: bool) -> bool:
        """Begin what may begin, or have all trainings stop; return whether anything runs."""
        if is_stopping or self.failure is not None:
            self._waiting.clear()
        for process in self._processes:
            if self._waiting and process.job is None:
                process.begin(self._waiting.popleft())
            elif process.job is not None and (is_stopping or self.failure is not None):
                process.stop()
        return any(process.job is not None for process in self._processes)

    def listen(self) -> Iterator[tuple[Job, str, Any]]:
        """Yield what trainings tell: their job, `epoch`, `done`, `stopped` or `failed`, and a value."""
        busy = {process.connection: process for process in self._processes if process.job is not None}
        for connection in wait(list(busy), _LOOK_EVERY_s):
            assert isinstance(connection, Connection)  # noqa: S101 - for the type checker
            job, kind, value = busy[connection].hear()
            if kind == "failed":
                self.failure = self.failure or value
            yield job, kind, value

    def end(self) -> None:
        """End all processes, at once."""
        for process in self._processes:
            process.end()


class _Process:
    """A process that trains members, one after the other. It dies with this one: its pipe breaks then.

    Attributes:
        job: What it is doing, or None.
        connection: Our end of the pipe.
    """

    def __init__(self) -> None:
        self.job: Job | None = None
        # Forking a process with threads, as torch has them, can hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._is_told_to_stop = False

    def begin(self, job: Job) -> None:
        self.job = job
        self._say(job)

    def stop(self) -> None:
        if not self._is_told_to_stop:
            self._is_told_to_stop = True
            self._say(_STOP)

    def _say(self, message: Job | str) -> None:
        with contextlib.suppress(OSError):  # it has died, which is heard next
            self.connection.send(message)

    def hear(self) -> tuple[Job, str, Any]:
        assert self.job is not None  # noqa: S101 - for the type checker: one without a job says nothing
        job = self.job
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            msg = f"The training of {job.folder} died with exit code {self._process.exitcode}."
            hint = "SIGKILL (-9) usually means that the machine ran out of memory."
            kind, value = "failed", TrainingError(msg, hint=hint)
        if kind != "epoch":
            self.job = None
        return job, kind, value

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Train members in this process, and tell the other end of the pipe."""
    # The terminal sends Ctrl-C to all processes; the other end decides what it means.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    stopping = threading.Event()
    threading.Thread(target=_listen, args=(connection, jobs, stopping), daemon=True).start()
    while True:
        connection.send(_answer(jobs.get(), connection, stopping))


def _answer(job: Job, connection: Connection, stopping: threading.Event) -> tuple[str, Any]:
    try:
        summary = _trained(job, connection, stopping)
    except FffError as error:
        return "failed", error
    except Exception as error:  # noqa: BLE001 - the border of a process: it ends as a sentence at the other end
        msg = f"The training of {job.folder} failed: {type(error).__name__}: {error}."
        return "failed", TrainingError(msg)
    return ("stopped", None) if summary is None else ("done", summary)


def _listen(connection: Connection, jobs: queue.SimpleQueue[Job], stopping: threading.Event) -> None:
    try:
        while True:
            message = connection.recv()
            if message == _STOP:
                stopping.set()
            else:
                jobs.put(message)
    except (EOFError, OSError):
        os._exit(1)


def _trained(job: Job, connection: Connection, stopping: threading.Event) -> dict[str, Any] | None:
    from fff.models import load_force_field, refit_reference_energies, train_member

    every = labels_from_bytes(job.labels.read_bytes())
    labels = [every[i] for i in job.chosen]
    start = None if job.start is None else read_member(job.start)
    energies = job.reference_energies
    device = _device(job.number)
    if start is not None:
        energies = refit_reference_energies(load_force_field(start, device), labels)
    trained = train_member(
        labels,
        model=job.model,
        training=job.training,
        seed=job.seed,
        split_seed=job.split_seed,
        reference_energies=energies,
        start=start,
        bootstrap=job.is_drawn,
        device=device,
        progress=lambda row: connection.send(("epoch", row)),
        lifetime=Lifetime(job.checkpoints, stop=stopping.is_set),
    )
    if trained is None:
        return None
    write_member(job.folder, trained.files)
    return trained.summary


def _device(number: int) -> str:
    import torch

    n_found = torch.cuda.device_count()
    return f"cuda:{number % n_found}" if n_found else "cpu"
