"""The task server: a process forked from the steering process that hands tasks to Parsl.

Nothing of it outlives the steering process. The kernel kills the server with its parent, the interchange
with the server, and the guards of the worker pools see the server go and leave no descendant behind.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parsl
import psutil
from colmena.exceptions import KillSignalException, TimeoutException
from colmena.models import FailureInformation
from colmena.models.methods import PythonMethod
from colmena.queue.base import QueueRole
from colmena.task_server.parsl import ParslTaskServer

from fff.base.errors import CampaignError, SiteError
from fff.base.files import private_folder, read_json, refuse_links, write_json
from fff.base.redaction import redact
from fff.compute.ledger import cancel_jobs
from fff.compute.lifetime import (
    OWNER_VARIABLE,
    adopt_orphans,
    die_with_parent,
    is_supported,
    kill_descendants,
)
from fff.compute.watching import PoolWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing import Process

    from fff.compute.queues import Queues
    from fff.compute.sites import Site

__all__ = ["TaskServer", "start_server", "stop_server", "why_it_ended"]

_log = logging.getLogger(__name__)

_LAST_WORDS = "last_words.json"
_CHECK_EVERY_S = 1.0
_LINGER_S = 5.0
_KILL_S = 5.0


class TaskServer(ParslTaskServer):
    """Colmena's Parsl task server, which ends when its workers are lost and never leaves any behind.

    Args:
        methods: The function of each kind of task; workers must be able to import it.
        queues: Queues made by this process.
        site: Where the tasks run.
        run_dir: The run directory; Parsl's files and `server.log` go to its folder `parsl`.
    """

    # Parsl configs and queues cannot be pickled; the default elsewhere, and later here, is not to fork.
    _start_method = "fork"
    _Popen = staticmethod(ForkProcess._Popen)  # type: ignore[assignment]

    def __init__(
        self, methods: Mapping[str, Callable[..., Any]], queues: Queues, site: Site, run_dir: Path
    ) -> None:
        super().__init__(
            [
                (PythonMethod(function, name=kind), {"executors": [site.pool_of(kind)]})
                for kind, function in methods.items()
            ],
            queues,
            site.parsl_config(run_dir),
        )
        self._submits_jobs = site.submits_jobs
        self.queues: Queues = queues
        # A steering process that forgets to stop it still ends.
        self.daemon = True
        self.folder = run_dir / "parsl"
        self.steering_pid = os.getpid()

    def run(self) -> None:
        """Serve until told to stop, until the steering process is gone, or until workers are lost."""
        die_with_parent(self.steering_pid)
        adopt_orphans()
        _leave_the_terminal()
        _log_to(self.folder / "server.log")
        os.environ[OWNER_VARIABLE] = str(os.getpid())
        self.queues.keep(QueueRole.SERVER)
        try:
            with _plain_path(self.folder) as path:
                self.config.run_dir = str(path)
                super().run()
        except Exception as error:  # noqa: BLE001 - the border of this process: its log has it
            _log.exception("The task server ends.")
            if isinstance(error, SiteError):
                _leave_words(self.folder, error)
            self._let_go()
            # Threads of Parsl may wait for ever for an interchange that is gone; the interpreter would too.
            os._exit(1)
        self._let_go()

    def _let_go(self) -> None:
        self.queues.close(_LINGER_S)
        if is_supported():
            # Parsl terminates its pools and does not look back; a pool may have lost its guard.
            kill_descendants()

    def listen_and_launch(self) -> None:
        """Hand requests to Parsl, and look after the pools in between.

        Raises:
            CampaignError: If the workers of a pool are gone.
        """
        executors = parsl.dfk().executors
        with PoolWatch(executors, self.folder, submits_jobs=self._submits_jobs) as watch:
            self._listen(watch)

    def _listen(self, watch: PoolWatch) -> None:
        next_look = time.monotonic()
        while True:
            # Also where one pool keeps this loop busy: another may be gone.
            if time.monotonic() >= next_look:
                watch.look()
                next_look = time.monotonic() + _CHECK_EVERY_S
            try:
                topic, task = self.queues.get_task(_CHECK_EVERY_S)
            except TimeoutException:
                continue
            except KillSignalException:
                return
            else:
                if task.method in self.method_names:
                    self.process_queue(topic, task)
                else:
                    known = ", ".join(sorted(self.method_names))
                    error = ValueError(f"There is no kind of task {task.method!r}; there are {known}.")
                    task.success = False
                    task.failure_info = FailureInformation.from_exception(error)
                    self.queues.send_result(task)


def start_server(
    methods: Mapping[str, Callable[..., Any]], queues: Queues, site: Site, run_dir: Path
) -> TaskServer:
    """Fork the task server and return at once; its workers are ready some seconds later.

    Call it from the main thread, before any other thread is started. Requests may be sent immediately.
    That the server has ended, for whatever reason, shows in `is_alive()`; why, in `parsl/server.log`.

    Args:
        methods: The function of each kind of task; workers must be able to import it.
        queues: Queues that this process has just made.
        site: Where the tasks run.
        run_dir: The run directory.

    Raises:
        RuntimeError: If this is not the main thread: the server would die with the thread.
        RunDirectoryError: If the folder `parsl` is a symbolic link, or holds links to files.
    """
    if threading.current_thread() is not threading.main_thread():
        msg = "The task server must be started from the main thread, since it dies with the thread."
        raise RuntimeError(msg)
    # Parsl keeps there the keys that admit workers, and this process appends to files that lie there.
    refuse_links(private_folder(run_dir / "parsl"))
    (run_dir / "parsl" / _LAST_WORDS).unlink(missing_ok=True)
    # Of a steering process that was killed; the workers of those that run would find nobody any more.
    if cancelled := cancel_jobs(run_dir / "parsl"):
        _log.warning("Jobs of a sitting before this one were cancelled: %s.", ", ".join(cancelled))
    server = TaskServer(methods, queues, site, run_dir)
    with warnings.catch_warnings():
        # The idle threads of numerical libraries count as threads too; the server never calls those.
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork\(\)", DeprecationWarning)
        server.start()
    queues.keep(QueueRole.CLIENT)
    return server


def why_it_ended(folder: Path) -> CampaignError:
    """Return why a task server is not alive any more, for people; a SiteError if another would end so too.

    Args:
        folder: The folder `parsl` of the run directory.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        words = read_json(folder / _LAST_WORDS)
        return SiteError(str(words["message"]), hint=str(words["hint"]))
    msg = "The task server, or the workers it looks after, died."
    return CampaignError(msg, hint=f"See {folder / 'server.log'}.")


def _leave_words(folder: Path, error: SiteError) -> None:
    """Tell the steering process why there will be no workers; the log tells people."""
    with contextlib.suppress(OSError):
        write_json(folder / _LAST_WORDS, {"message": redact(error.message), "hint": error.hint})


def stop_server(server: TaskServer, queues: Queues, grace_s: float) -> bool:
    """Ask the server to stop, give running tasks `grace_s` seconds to end, then kill what is left.

    Their results can be received until then. Afterwards no process of the server is alive, and no job of its
    is in a queue.

    Args:
        server: What `start_server` returned.
        queues: The queues it serves; close them afterwards.
        grace_s: Seconds, 0 to kill at once.

    Returns:
        Whether the server ended by itself.
    """
    family: list[psutil.Process] = []
    if grace_s > 0 and server.is_alive():
        with contextlib.suppress(CampaignError):
            queues.send_kill_signal()
        # What it has started must be known before it goes: afterwards nothing leads there.
        family += _descendants(server)
        server.join(grace_s)
    family += _descendants(server)
    ended = not server.is_alive()
    server.kill()
    server.join(_KILL_S)
    # The guards see the server go and do the work; this waits for them, and is there if one was killed.
    _, alive = psutil.wait_procs(set(family), timeout=_KILL_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_KILL_S)
    # Parsl cancels its jobs when it closes in order; it may have been killed before that.
    cancel_jobs(server.folder)
    return ended and server.exitcode == 0


def _descendants(server: Process) -> list[psutil.Process]:
    try:
        return list(psutil.Process(server.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


@contextlib.contextmanager
def _plain_path(folder: Path) -> Iterator[Path]:
    """Give a way to `folder` that a shell reads as one word: Parsl quotes no path that it gives to one."""
    if re.fullmatch(r"[\w@%+=:,./-]+", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fff-") as place:
        link = Path(place, "parsl")
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def _leave_the_terminal() -> None:
    """Let Ctrl-C, a closed terminal and signals to the group reach the steering process alone; it decides.

    What is ignored stays ignored in the processes that the server starts.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The steering process may have its own ideas about this one, which came along with the fork.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _log_to(path: Path) -> None:
    """Send all output of this process and of what it starts to a file: the terminal is not its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # The steering process's handlers hold its files and its terminal.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Redacting(logging.Formatter):
    """Leaves secrets out of what is logged: Parsl logs what batch systems answer, as it is."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
