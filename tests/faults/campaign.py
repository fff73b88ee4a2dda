"""A small campaign in processes of its own, to be watched from outside, killed, and counted afterwards.

The reference is `program.py`, started as the external code of the method `xtb-cli`: nothing in the campaign
knows that it is being tested.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ase.io
import psutil

from fff.base.units import BOHR_A
from fff.data.events import read_events
from fff.data.labels import LabelStore
from fff.data.run_directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ase import Atoms

    from fff.data.events import Event

__all__ = ["FEW_SECONDS", "PATIENCE_S", "Campaign", "Victim", "structure_key"]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("program.py")
MARK = "FFF_TEST_CAMPAIGN"

PATIENCE_S = 600.0
"""How long anything may take on a machine that has other things to do, in seconds."""

FEW_SECONDS = 15.0
"""How long processes may take to leave once nothing is left that they work for."""

POLL_S = 0.001

CLUSTER = """4

Cu 0.0 0.0 0.0
Cu 1.824 1.824 0.0
Cu 1.824 0.0 1.824
Cu 0.0 1.824 1.824
"""

SETTINGS: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "model": {"n_features": 8, "n_layers": 1, "cutoff_A": 4.0, "n_radial": 8},
    "committee": {"size": 2},
    "start": {"n_labels": 6},
    "training": {"retrain_every": 6, "max_epochs": 12, "learning_rate": 0.02, "ema_decay": 0.5},
    "sampling": {
        "n_parallel": 2,
        "n_trajectories": 3,
        "n_steps": 20,
        "min_steps": 20,
        "max_steps": 40,
        "timestep_fs": 2.0,
        "n_frames": 6,
    },
    "audit": {"energy_tolerance_eV_per_atom": 5.0, "force_tolerance_eV_per_A": 50.0},
    "selection": {"chunk_size": 5},
    "test": {"n_frames": 4, "interval_steps": 1, "equilibration_steps": 2, "timestep_fs": 2.0},
    "stop": {"max_labels": 20},
    "site": {"kind": "laptop", "n_workers": 1},
}
"""A campaign of about a minute in which everything happens that happens in a long one."""

Victim = Literal["main", "server", "worker", "interchange", "manager", "guard", "bookkeeper", "reference"]


class Campaign:
    """One campaign in a folder of its own.

    Args:
        folder: Made when absent; holds config, structures, audit file, what was printed, and `run`.
        flags: Arguments of the program that plays the reference.
        time_limit_s: Time limit of a calculation.
        run_dir: The run directory; `run` in the folder when None.
        program: The program that plays the reference.
        **sections: Keys of the config that differ from `SETTINGS`, by section.

    Attributes:
        run: The run directory.
        audit: The file in which every reference calculation leaves its lines.
        process: The steering process of the present sitting, or of the last.
        sittings: How many were started.
        settings: What the config file says.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flags: Sequence[str] = (),
        time_limit_s: float = 60.0,
        run_dir: Path | None = None,
        program: Path = PROGRAM,
        **sections: Any,
    ) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run = RunDirectory(run_dir or folder / "run")
        self.audit = folder / "audit.txt"
        self.config = folder / "config.yaml"
        self.process: subprocess.Popen[bytes] | None = None
        self.sittings = 0
        self._pace = folder / "pace.txt"
        self._mark = secrets.token_hex(8)
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        structures = folder / "cluster.xyz"
        structures.write_text(CLUSTER, encoding="utf-8")
        command = [sys.executable, "-I", "-S", str(program), "--audit", str(self.audit)]
        content: dict[str, Any] = {
            **SETTINGS,
            "structures": [str(structures)],
            "reference": {
                "kind": "xtb-cli",
                "method": "GFN-FF",
                "command": [*command, "--pace", str(self._pace), *flags],
                "time_limit_s": time_limit_s,
            },
        }
        for name, section in sections.items():
            old = content.get(name)
            content[name] = {**old, **section} if isinstance(old, dict) else section
        self.settings = content
        self.config.write_text(json.dumps(content, indent=1), encoding="utf-8")

    @property
    def command(self) -> list[str]:
        """The command that begins the campaign, and goes on with it."""
        return ["run", str(self.config), "--run-dir", str(self.run.path)]

    def start(self, *arguments: str, heard: bool = False) -> None:
        """Start a sitting: the same command each time unless other arguments are given.

        Args:
            *arguments: Of fff.
            heard: Whether it prints into the pipe `process.stdout`, to be read or closed there.
        """
        self.sittings += 1
        program = [sys.executable, "-c", "from fff.cli.app import main; main()"]
        environment = {**os.environ, MARK: self._mark, "OMP_NUM_THREADS": "1"}
        with self.output.open("wb") as output, _listening_to_interrupts():
            self.process = subprocess.Popen(
                [*program, *(arguments or self.command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if heard else output,
                stderr=output,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )

    def slow_down(self, seconds: float) -> None:
        """Let every calculation that begins from now on take so long; 0 for as fast as it goes."""
        self._pace.write_text(str(seconds), encoding="utf-8")

    @property
    def output(self) -> Path:
        """What the present sitting prints."""
        return self.folder / f"output-{self.sittings:03d}.txt"

    @property
    def last_line(self) -> str:
        """The last line that the last sitting printed."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def is_running(self) -> bool:
        """Whether the steering process lives."""
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end of the sitting and return its exit code; minus the signal that killed it."""
        assert self.process is not None
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if time.monotonic() > end:
                msg = f"The sitting did not end within {timeout_s:.0f} s; see {self.folder}."
                raise AssertionError(msg)
            time.sleep(0.05)
        return self.process.returncode

    def wait_until(self, happened: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until something is so; returns False if the sitting ended first.

        Raises:
            AssertionError: If it takes too long.
        """
        end = time.monotonic() + timeout_s
        while not happened():
            if not self.is_running:
                return bool(happened())
            if time.monotonic() > end:
                msg = f"{what} did not come within {timeout_s:.0f} s; see {self.folder}."
                raise AssertionError(msg)
            time.sleep(POLL_S)
        return True

    def wait_for_events(self, n: int, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until the log holds `n` events; returns False if the sitting ended first."""
        return self.wait_until(lambda: self.n_lines() >= n, f"event {n}", timeout_s)

    # What it has written ------------------------------------------------------------------------------

    def n_lines(self) -> int:
        """Return the number of whole lines in the event log."""
        try:
            return self.run.events.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def events(self) -> list[Event]:
        """Return the events that are written."""
        return read_events(self.run.events) if self.run.events.exists() else []

    def log(self) -> str:
        """Return what the log for people says, of all sittings."""
        return self.run.log.read_text(encoding="utf-8", errors="replace") if self.run.log.exists() else ""

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the labels as they would be found by whoever looks now; nothing is repaired by looking."""
        with tempfile.TemporaryDirectory() as copies:
            for file in self.run.path.glob("labels.db*"):
                shutil.copy(file, copies)
            copy = Path(copies, "labels.db")
            if not copy.exists():
                return {}
            with LabelStore(copy) as store:
                return {row["request"]: _plain(row) for row in store.rows()}

    def calculations(self) -> list[tuple[str, str]]:
        """Return what the reference program noted: `begin` or `end`, and the structure's key."""
        if not self.audit.exists():
            return []
        lines = self.audit.read_text(encoding="utf-8").splitlines()
        return [(what, name) for what, name, _ in map(str.split, lines)]

    @property
    def also_elsewhere(self) -> set[str]:
        """The start structure: the dynamics that makes the test set begins there too."""
        return {structure_key(ase.io.read(self.settings["structures"][0]))}

    def n_again(self, what: Literal["begin", "end"]) -> int:
        """Return how many calculations of labels began, or ended, more than once."""
        keys = {row["key"] for row in self.rows().values()} - self.also_elsewhere
        times = Counter(name for note, name in self.calculations() if note == what and name in keys)
        return times.total() - len(times)

    # Its processes ------------------------------------------------------------------------------------

    def family(self) -> list[psutil.Process]:
        """Return the steering process and all its descendants, those that left its sessions included."""
        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            if self.process is not None:
                main = psutil.Process(self.process.pid)
                found = [main, *main.children(recursive=True)]
        self._seen |= {(p.pid, p.create_time()): p for p in found if _lives(p)}
        return found

    def find(self, victim: Victim) -> list[psutil.Process]:
        """Return the processes of one kind, oldest first."""
        assert self.process is not None
        if victim == "main":
            return [psutil.Process(self.process.pid)] if self.is_running else []
        family = sorted((p for p in self.family() if _lives(p)), key=lambda p: p.create_time())
        if victim == "server":
            return [p for p in family if p.ppid() == self.process.pid]
        if victim in ("worker", "bookkeeper"):
            pools = [p.pid for p in family if _is(p, "process_worker_pool") and not _is(p, "lifetime.py")]
            spawned = [[p for p in family if p.ppid() == pid and _is(p, "spawn_main")] for pid in pools]
            # The first that a pool starts keeps its books; it runs no task.
            chosen = slice(1) if victim == "bookkeeper" else slice(1, None)
            return [p for processes in spawned for p in processes[chosen]]
        if victim == "interchange":
            return [p for p in family if _is(p, "HTEX interchange") or _is(p, "high_throughput.interchange")]
        if victim == "reference":
            return [p for p in family if _is(p, "--audit") and not _is(p, "guard.py")]
        pools = [p for p in family if _is(p, "high_throughput.process_worker_pool")]
        return [p for p in pools if _is(p, "lifetime.py guard") == (victim == "guard")]

    def kill(self, victim: Victim, number: int = signal.SIGKILL, which: int = 0) -> bool:
        """Send a signal to one process of a kind; returns False if there is none."""
        self.family()
        found = self.find(victim)
        if not found:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            found[which % len(found)].send_signal(number)
            return True
        return False

    def left(self, within_s: float = FEW_SECONDS) -> list[str]:
        """Return the processes that are still there some seconds after the sitting ended."""
        end = time.monotonic() + within_s
        while (found := self._living()) and time.monotonic() < end:
            time.sleep(0.05)
        return [f"{p.pid} {' '.join(_command(p))[:150]}" for p in found]

    def _living(self) -> list[psutil.Process]:
        marked = [p for p in psutil.process_iter() if self._is_marked(p)]
        return [p for p in {*marked, *self._seen.values()} if _lives(p)]

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(MARK) == self._mark)
        except (psutil.Error, OSError):
            return False

    def kill_all(self) -> None:
        """Leave nothing behind, whatever became of the test."""
        self.family()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self._living():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()


def structure_key(atoms: Atoms) -> str:
    """Return what the reference program calls a structure: the hash of the file it is given."""
    rows = zip(atoms.positions / BOHR_A, atoms.symbols, strict=True)
    lines = [f"{x:.14f} {y:.14f} {z:.14f} {symbol.lower()}" for (x, y, z), symbol in rows]
    text = "\n".join(["$coord", *lines, "$end", ""])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without times, comparable by `==`, to the last bit of every number."""
    plain = {key: value for key, value in row.items() if key not in ("label", "wall_s")}
    label = row["label"]
    plain |= {
        "hash": label.hash,
        "energy_eV": label.energy_eV,
        "forces": label.forces_eV_per_A,
        "key": structure_key(label.atoms),
    }
    return {
        key: value.tobytes() if hasattr(value, "tobytes") else value for key, value in sorted(plain.items())
    }


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is(process: psutil.Process, word: str) -> bool:
    return word in " ".join(_command(process))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _listening_to_interrupts() -> Iterator[None]:
    """Let what is started here hear SIGINT also where a shell in the background has it ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
