"""A real Slurm for tests: the one that runs, or one of their own that `.ci/slurm` starts and stops.

Two tests that fight for its two nodes would wait for each other's jobs: whoever uses it holds it alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PATIENCE_S", "Slurm", "slurm_for_tests"]

CONTROL = Path(__file__).resolve().parents[2] / ".ci" / "slurm"
DEFAULT = Path("/run/fff-slurm/slurm.conf")
"""Where `.ci/slurm start` puts it unless told otherwise."""

PATIENCE_S = 600.0
"""How long anything may take on a machine that has other things to do, in seconds."""


@dataclass(frozen=True)
class Slurm:
    """A Slurm that runs, with two nodes n1 and n2 of two CPUs each.

    Attributes:
        conf: Its slurm.conf.
    """

    conf: Path

    def call(self, *command: str) -> str:
        """Return what one of its commands prints.

        Raises:
            AssertionError: If it fails.
        """
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command} failed: {done.stderr}"
        return done.stdout

    def jobs(self, prefix: str = "") -> dict[str, str]:
        """Return the state of every job that waits, runs or is ending, by its number.

        Args:
            prefix: What their names begin with.
        """
        rows = [line.split() for line in self.call("squeue", "-h", "-o", "%i %T %j").splitlines()]
        return {job: state for job, state, name in rows if name.startswith(prefix)}

    def blocks(self) -> dict[str, str]:
        """Return the state of the jobs that campaigns have submitted for their workers."""
        return self.jobs("fff.")

    def running(self) -> list[str]:
        """Return the blocks that run, the oldest first."""
        return sorted((job for job, state in self.blocks().items() if state == "RUNNING"), key=int)

    def submit(self, *words: str | Path) -> str:
        """Submit options of sbatch, a batch script and its arguments; return the number of the job."""
        return self.call("sbatch", "--parsable", *map(str, words)).strip()

    def cancel(self, prefix: str = "") -> None:
        """Cancel the jobs whose names begin so, and wait until none is left."""
        for job in self.jobs(prefix):
            self.call("scancel", job)
        self.wait_until(lambda: not self.jobs(prefix), "the end of all jobs")

    def wait_until[T](self, found: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
        """Wait until `found` returns something true, and return it.

        Raises:
            AssertionError: If it takes too long.
        """
        end = time.monotonic() + timeout_s
        while not (answer := found()):
            assert time.monotonic() < end, f"{what} did not come within {timeout_s:.0f} s"
            time.sleep(0.2)
        return answer


@contextlib.contextmanager
def slurm_for_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Give a Slurm without jobs, which `SLURM_CONF` names meanwhile; skip, with the reason, without one."""
    with contextlib.ExitStack() as stack:
        conf = _running() or _started(stack)
        monkeypatch.setenv("SLURM_CONF", str(conf))
        lock = stack.enter_context(conf.open("rb"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        slurm = Slurm(conf)
        slurm.cancel()
        stack.callback(slurm.cancel)
        yield slurm


def _running() -> Path | None:
    """Return the config of the Slurm that answers: the tests' own ones only, for its jobs are cancelled."""
    named = os.environ.get("SLURM_CONF")
    conf = Path(named) if named else DEFAULT
    if not conf.is_file() or "ClusterName=fff\n" not in conf.read_text(encoding="utf-8"):
        return None
    environment: dict[str, Any] = {**os.environ, "SLURM_CONF": str(conf)}
    answer = subprocess.run(["sinfo", "-h"], env=environment, capture_output=True, timeout=60, check=False)
    return conf if answer.returncode == 0 else None


def _started(stack: contextlib.ExitStack) -> Path:
    """Start one, and see to it that it is stopped."""
    # Daemons of root's: their folder is no other user's, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="fff-slurm-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    stack.callback(subprocess.run, [CONTROL, "stop", folder], capture_output=True, timeout=120)
    done = subprocess.run(
        [CONTROL, "start", folder], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip(done.stderr.strip())
    return folder / "slurm.conf"
