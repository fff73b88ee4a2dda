"""Sites: the machines of the config as pools of worker slots, and as Parsl executors.

A pool is one Parsl executor; its label is the pool's name. Those of `laptop` and `workstation` are on this
machine and made here; those of clusters are made in `batch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fff.base.cores import cores_found
from fff.config.site import BatchSite, LaptopSite

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor

    from fff.config.site import SiteSection, TaskGroup, WorkstationSite

__all__ = ["Pool", "Site", "make_site"]

_LOOPBACK = "127.0.0.1"
# How often a pool looks for workers that have died, and says that it lives.
_HEARTBEAT_S = 2
# Both sides are on this machine, where the death of a process is noticed without heartbeats (see `guard` and
# the task server). A busy machine misses them for minutes and a laptop that sleeps for hours: neither counts.
_HEARTBEAT_THRESHOLD_S = 7 * 86_400
# Parsl starts the workers on the first tick of this clock (5 s unless told), and looks after them on it.
_STRATEGY_PERIOD_S = 0.2
_LONGEST_STRATEGY_PERIOD_S = 10.0

_KINDS_OF_GROUP: dict[TaskGroup, tuple[str, ...]] = {
    "training": ("train", "train-baseline", "refit"),
    "inference": ("score", "choose", "evaluate"),
    "sampling": ("dynamics",),
    "calculation": ("calculate", "reference-dynamics"),
}


@dataclass(frozen=True)
class Pool:
    """Workers of one kind.

    Attributes:
        n_workers: How many at most; each runs one task at a time.
        n_threads: Threads that the numerical libraries of each worker may use.
        accelerators: Device of each worker of a node; empty for workers that must not see a device.
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
        batch: The section of a cluster; None where all is on this machine.
    """

    name: str
    specification: Mapping[str, Pool]
    pool_of_kind: Mapping[str, str]
    batch: BatchSite | None = None

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

    @property
    def submits_jobs(self) -> bool:
        """Whether workers come and go with jobs of a batch system that this site submits."""
        return self.batch is not None and not self.batch.inside_allocation

    def check_here(self, run_dir: Path) -> None:
        """Check that this process, and this run directory, can be a campaign's on this site.

        Raises:
            RunDirectoryError: If batch scripts cannot name the run directory.
            ConfigError: If the site is inside an allocation and this process is not, or its address is none
                of this machine.
        """
        if self.batch is not None:
            from fff.compute.batch import check_address, check_allocation, check_path

            check_path(run_dir)
            check_allocation(self.batch)
            check_address(self.batch)

    def parsl_config(self, run_dir: Path) -> Config:
        """Return the Parsl config of this site; Parsl's files go to the folder `parsl` of the run directory.

        Args:
            run_dir: The run directory.
        """
        from parsl.config import Config

        period_s = _STRATEGY_PERIOD_S
        if self.batch is not None and self.submits_jobs:
            period_s = min(self.batch.poll_s, _LONGEST_STRATEGY_PERIOD_S)
        return Config(
            executors=self._executors(run_dir),
            run_dir=str(run_dir / "parsl"),
            initialize_logging=False,
            retries=0,
            strategy="simple" if self.submits_jobs else "none",
            strategy_period=period_s,
            usage_tracking=0,
        )

    def _executors(self, run_dir: Path) -> list[HighThroughputExecutor]:
        if self.batch is None:
            return [_executor(name, pool) for name, pool in self.specification.items()]
        from fff.compute.batch import batch_executor

        kinds = self.batch.nodes
        return [batch_executor(name, self.batch, nodes, run_dir) for name, nodes in kinds.items()]


def make_site(section: SiteSection) -> Site:
    """Return the site that a config section describes."""
    if isinstance(section, BatchSite):
        return _cluster(section)
    return _laptop(section) if isinstance(section, LaptopSite) else _workstation(section)


def _laptop(section: LaptopSite) -> Site:
    cores = cores_found()
    n_workers = section.n_workers or cores
    pool = Pool(n_workers, max(1, cores // n_workers))
    return Site(section.kind, {"shared": pool}, _pools(dict.fromkeys(_KINDS_OF_GROUP, "shared")))


def _workstation(section: WorkstationSite) -> Site:
    cores = cores_found()
    devices = tuple(section.devices)
    n_gpu = len(devices) or section.n_gpu_workers
    n_cpu = section.n_cpu_workers or max(1, cores - n_gpu)
    threads = max(1, cores // (n_gpu + n_cpu))
    pools = {"gpu": Pool(n_gpu, threads, devices), "cpu": Pool(n_cpu, threads)}
    groups: dict[TaskGroup, str] = {
        "training": "gpu",
        "inference": "gpu",
        "sampling": "cpu",
        "calculation": "cpu",
    }
    return Site(section.kind, pools, _pools(groups))


def _cluster(section: BatchSite) -> Site:
    pools = {
        name: Pool(
            nodes.n_slots,
            nodes.cores_per_worker,
            tuple(
                str(i)
                for i in range(nodes.accelerators_per_node)
                for _ in range(nodes.workers_per_accelerator)
            ),
        )
        for name, nodes in section.nodes.items()
    }
    return Site(section.kind, pools, _pools(section.pool_of_group()), section)


def _pools(groups: Mapping[TaskGroup, str]) -> dict[str, str]:
    """Return the pool of every kind of task from that of its group."""
    return {kind: groups[group] for group, kinds in _KINDS_OF_GROUP.items() for kind in kinds}


def _executor(label: str, pool: Pool) -> HighThroughputExecutor:
    from parsl.executors import HighThroughputExecutor
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider

    from fff.compute.launching import POLL_MS, interchange_command, set_up_lines, workers_command

    return HighThroughputExecutor(
        label=label,
        provider=LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init="\n".join(set_up_lines(pool.n_threads, has_devices=bool(pool.accelerators))),
        ),
        launch_cmd=workers_command("guard"),
        interchange_launch_cmd=interchange_command(),
        address=_LOOPBACK,
        loopback_address=_LOOPBACK,
        # Parsl counts the cores of the whole machine; how many workers there are is decided above.
        cores_per_worker=1e-6,
        max_workers_per_node=pool.n_workers,
        available_accelerators=list(pool.accelerators),
        heartbeat_period=_HEARTBEAT_S,
        heartbeat_threshold=_HEARTBEAT_THRESHOLD_S,
        poll_period=POLL_MS,
        encrypted=True,
    )
