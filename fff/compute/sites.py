"""Sites: the machines of the config as pools of worker slots, and as Parsl executors.

A pool is one Parsl executor; its label is the pool's name. Here `laptop` and `workstation`, both one machine
and started by the steering process itself. A batch system is one more function in `_MAKERS`: a provider and
a launcher of Parsl in place of the local ones; `guard` works on any node that can see its owner.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.cores import THREAD_VARIABLES, cores_found
from fff.base.errors import ConfigError
from fff.compute.lifetime import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor

    from fff.config.site import LaptopSite, SiteSection, WorkstationSite

__all__ = ["ACCELERATED_KINDS", "CPU_KINDS", "Pool", "Site", "make_site"]

ACCELERATED_KINDS = frozenset({"train", "train-baseline", "refit", "score", "choose", "evaluate"})
"""Kinds of task that run models on many structures at once."""
CPU_KINDS = frozenset({"dynamics", "calculate", "reference-dynamics"})
"""Kinds of task that go one structure at a time."""

_LOOPBACK = "127.0.0.1"
# How often a pool looks for workers that have died, and says that it lives.
_HEARTBEAT_S = 2
# Both sides are on this machine, where the death of a process is noticed without heartbeats (see `guard` and
# the task server). A busy machine misses them for minutes and a laptop that sleeps for hours: neither counts.
_HEARTBEAT_THRESHOLD_S = 7 * 86_400
# Parsl starts the workers on the first tick of this clock (5 s unless told), and looks after them on it.
_STRATEGY_PERIOD_S = 0.2
# All wake up on messages; this only bounds how fast an idle process turns its loop (10 ms unless told).
_POLL_MS = 100
# A pool keeps a socket in its folder for temporary files. The path of a socket has at most 107 characters,
# 32 of which its name takes. Decided where the pool runs, since batch systems name that folder there.
_SHORT_TMPDIR = 'if [ "${#TMPDIR}" -gt 75 ]; then export TMPDIR=/tmp; fi'
_PARSL_HTEX = "parsl.executors.high_throughput"


@dataclass(frozen=True)
class Pool:
    """Workers of one kind.

    Attributes:
        n_workers: How many; each runs one task at a time.
        n_threads: Threads that the numerical libraries of each worker may use.
        accelerators: Device ids, one for each worker; empty for workers that must not see a device.
    """

    n_workers: int
    n_threads: int = 1
    accelerators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Site:
    """Where tasks run.

    Attributes:
        name: The `kind` of the config section.
        specification: The pools by name.
        pool_of_kind: The pool of every kind of task.
    """

    name: str
    specification: Mapping[str, Pool]
    pool_of_kind: Mapping[str, str]

    @property
    def pools(self) -> dict[str, int]:
        """Slots by pool: how many tasks each can run at a time."""
        return {name: pool.n_workers for name, pool in self.specification.items()}

    def pool_of(self, kind: str) -> str:
        """Return the pool that runs tasks of `kind`; it is the label of the Parsl executor.

        Raises:
            KeyError: If there is no such kind of task.
        """
        return self.pool_of_kind[kind]

    def parsl_config(self, run_dir: Path) -> Config:
        """Return the Parsl config of this site; Parsl's files go to the folder `parsl` of the run directory.

        Args:
            run_dir: The run directory.
        """
        from parsl.config import Config

        return Config(
            executors=[_executor(name, pool) for name, pool in self.specification.items()],
            run_dir=str(run_dir / "parsl"),
            initialize_logging=False,
            retries=0,
            strategy="none",
            strategy_period=_STRATEGY_PERIOD_S,
            usage_tracking=0,
        )


def make_site(section: SiteSection) -> Site:
    """Return the site that a config section describes.

    Raises:
        ConfigError: If there is no site of that kind.
    """
    if section.kind not in _MAKERS:
        msg = f"`site.kind` is {section.kind!r}; there are {', '.join(sorted(_MAKERS))}."
        raise ConfigError(msg, key="site.kind", value=section.kind)
    return _MAKERS[section.kind](section)


def _laptop(section: LaptopSite) -> Site:
    cores = cores_found()
    n_workers = section.n_workers or cores
    pool = Pool(n_workers, max(1, cores // n_workers))
    kinds = dict.fromkeys(ACCELERATED_KINDS | CPU_KINDS, "shared")
    return Site(section.kind, {"shared": pool}, kinds)


def _workstation(section: WorkstationSite) -> Site:
    cores = cores_found()
    devices = tuple(section.devices)
    n_gpu = len(devices) or section.n_gpu_workers
    n_cpu = section.n_cpu_workers or max(1, cores - n_gpu)
    threads = max(1, cores // (n_gpu + n_cpu))
    pools = {"gpu": Pool(n_gpu, threads, devices), "cpu": Pool(n_cpu, threads)}
    kinds = dict.fromkeys(ACCELERATED_KINDS, "gpu") | dict.fromkeys(CPU_KINDS, "cpu")
    return Site(section.kind, pools, kinds)


_MAKERS: dict[str, Callable[..., Site]] = {"laptop": _laptop, "workstation": _workstation}


def _executor(label: str, pool: Pool) -> HighThroughputExecutor:
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider

    # As modules, not as the scripts on PATH: it works without an activated environment, and from byte code.
    options = DEFAULT_LAUNCH_CMD.removeprefix("process_worker_pool.py ")
    # -P: the folder that the user stands in, perhaps somebody else's run directory, must not provide modules.
    workers = [sys.executable, "-P", "-m", f"{_PARSL_HTEX}.process_worker_pool"]
    interchange = [sys.executable, "-P", "-m", f"{_PARSL_HTEX}.interchange"]
    return HighThroughputExecutor(
        label=label,
        provider=LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init=_environment(pool),
        ),
        launch_cmd=f"exec {_shell(wrap('guard', workers))} {options}",
        interchange_launch_cmd=wrap("follow", interchange),
        address=_LOOPBACK,
        loopback_address=_LOOPBACK,
        # Parsl counts the cores of the whole machine; how many workers there are is decided above.
        cores_per_worker=1e-6,
        max_workers_per_node=pool.n_workers,
        available_accelerators=list(pool.accelerators),
        heartbeat_period=_HEARTBEAT_S,
        heartbeat_threshold=_HEARTBEAT_THRESHOLD_S,
        poll_period=_POLL_MS,
        encrypted=True,
    )


def _environment(pool: Pool) -> str:
    variables = dict.fromkeys(THREAD_VARIABLES, str(pool.n_threads))
    if not pool.accelerators:
        # Each worker would open the first device for itself. Parsl sets this for workers that have one.
        variables["CUDA_VISIBLE_DEVICES"] = ""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # Libraries may come from the current folder too: one that torch brings along looks there for CUDA's.
    return "\n".join(["cd /", _SHORT_TMPDIR, *exports])


def _shell(command: Sequence[str]) -> str:
    # Parsl formats the launch command, so braces in a path must be doubled.
    return shlex.join(command).replace("{", "{{").replace("}", "}}")
