"""Batch systems: kinds of node as Parsl executors whose blocks are jobs of Slurm or PBS.

Parsl's providers write the job scripts, submit them and ask for their state. What is added here: scripts in
which a set-up line that fails ends the job, workers that leave no process behind on their node, accelerators
by the numbers that the batch system gave, and a ledger of jobs, so that none stays in the queue after a
steering process that was killed.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SimpleLauncher
from parsl.launchers.base import Launcher
from parsl.providers import LocalProvider, SlurmProvider
from parsl.providers.cluster_provider import ClusterProvider

from fff.base.errors import ConfigError, RunDirectoryError
from fff.base.redaction import redact
from fff.compute.launching import POLL_MS, interchange_command, set_up_lines, workers_command
from fff.compute.ledger import LEDGER, note_job
from fff.compute.pbs import MpiexecLauncher, PbsProvider, scheduler_options, select_options
from fff.config.site import BatchSite, PbsNodes, SlurmNodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fff.config.site import NodesSection

__all__ = [
    "batch_executor",
    "batch_scripts",
    "check_address",
    "check_allocation",
    "check_path",
    "try_script",
]

_COMMAND_TIMEOUT_S = 120
_LOOPBACK = "127.0.0.1"
_NOT_OF_A_JOB = {"SLURM_CONF", "SLURM_CLUSTERS"}
# Neither `%`, at which Slurm fills in numbers of its own, nor `:`, before which PBS reads a host.
_PLAIN = re.compile(r"[\w@+=,./-]+")

_log = logging.getLogger(__name__)


class _SrunLauncher(Launcher):
    """Starts the workers on each node of a block, one pool of workers on a node.

    Parsl's own writes the command to a file that two pools in one allocation share.
    """

    def __init__(self, cores_per_node: int, options: str = "") -> None:
        super().__init__()
        self._cores = cores_per_node
        self._options = options

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:
        """Return the command that runs `command` on every node."""
        del script_dir
        # Without --wait=0 and --kill-on-bad-exit=0 one node that ends would take the others with it.
        return (
            f"exec srun --nodes={nodes_per_block} --ntasks={nodes_per_block * tasks_per_node} "
            f"--ntasks-per-node={tasks_per_node} --cpus-per-task={self._cores} --export=ALL --wait=0 "
            f"--kill-on-bad-exit=0{self._options} bash -c {shlex.quote(command)}"
        )


class _Blocks(ClusterProvider):
    """What is added to Parsl's providers of blocks: a ledger, and a pace of its own."""

    batch_system = ""
    ledger: Path | None = None
    poll_s = 30.0

    @property
    def status_polling_interval(self) -> float:  # type: ignore[override] # Parsl adds it to a time
        """Seconds between two questions to the batch system."""
        return self.poll_s

    def status(self, job_ids: Sequence[object]) -> list[JobStatus]:
        """Return what the batch system says of jobs; all that are there and do not run are waiting."""
        # Parsl counts those that run and those that wait, and would submit others in place of the rest.
        return [
            JobStatus(JobState.PENDING, status.message)
            if status.state in {JobState.HELD, JobState.UNKNOWN}
            else status
            for status in super().status(job_ids)
        ]

    def submit(self, command: str, tasks_per_node: int, job_name: str = "fff") -> Any:
        """Submit a block, note it in the ledger, and return its job's id."""
        # What users see in the queue: `fff.cpu.block-0` and the time of submission.
        name = job_name.replace("parsl.", "fff.", 1)
        job_id = super().submit(command, tasks_per_node, name)  # type: ignore[safe-super] # Parsl's own
        if self.ledger is not None and job_id:
            note_job(self.ledger, self.batch_system, str(job_id))
        return job_id


class _SlurmBlocks(_Blocks, SlurmProvider):
    """Parsl's provider for Slurm; jobs that Slurm has forgotten have ended."""

    batch_system = "slurm"

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
        """Run a command of the batch system, and return exit code, output and messages."""
        # fff may run in a job itself, and what that one was given would be read as wishes for the next.
        given = [name for name in os.environ if name.startswith("SLURM_") and name not in _NOT_OF_A_JOB]
        without = "".join(f" -u {name}" for name in given)
        code, out, err = super().execute_wait(f"env{without} {cmd}" if given else cmd, timeout)
        # squeue fails on a single job that it has forgotten, and Parsl would take it to be there for ever.
        return (0, out, err) if code and "Invalid job id" in err else (code, out, err)


class _PbsBlocks(_Blocks, PbsProvider):
    """The provider for PBS."""

    batch_system = "pbs"


def check_path(run_dir: Path) -> None:
    """Check that batch scripts can name the run directory.

    Raises:
        RunDirectoryError: If a shell would not read its path as one word; Parsl quotes none.
    """
    if not _PLAIN.fullmatch(str(run_dir)):
        msg = f"The run directory {run_dir} has a name that batch scripts cannot hold."
        hint = "Choose another with --run-dir: letters, digits and _ - . , = + @ only, and no blanks."
        raise RunDirectoryError(msg, hint=hint, path=str(run_dir))


def check_allocation(site: BatchSite) -> None:
    """Check that this process is in a job where the site says so.

    Raises:
        ConfigError: If it is not.
    """
    variable = "SLURM_JOB_ID" if site.kind == "slurm" else "PBS_JOBID"
    if site.inside_allocation and variable not in os.environ:
        msg = f"`site.inside_allocation` is true, but this process is in no job: {variable} is not set."
        hint = "Start fff in a batch script; or set the key to false, to have jobs submitted."
        raise ConfigError(msg, hint=hint, key="site.inside_allocation", value=True)


def check_address(site: BatchSite) -> None:
    """Check that the address at which workers are to reach this process is one of this machine.

    Raises:
        ConfigError: If it is not; Parsl would wait for minutes, and then say nothing of it.
    """
    if site.address is None:
        return
    try:
        # Port 0: any that is free.
        with socket.create_server((site.address, 0)):
            return
    except OSError as error:
        why = error.strerror or error
        msg = f"`site.address` is {site.address!r}, which is no address of this machine: {why}."
        hint = f"It has {', '.join([socket.gethostname(), *_addresses()])}; or leave the key out."
        raise ConfigError(msg, hint=hint, key="site.address", value=site.address) from None


def _addresses() -> list[str]:
    """Return the addresses of this machine on its networks.

    Parsl would also ask a server on the internet for the one that this machine has there.
    """
    interfaces = psutil.net_if_addrs().values()
    return sorted(
        entry.address for entries in interfaces for entry in entries if entry.family == socket.AF_INET
    )


def batch_executor(name: str, site: BatchSite, nodes: NodesSection, run_dir: Path) -> HighThroughputExecutor:
    """Return the Parsl executor of one kind of node; its blocks are submitted when it is started.

    Args:
        name: Name of the kind of node; the label of the executor.
        site: The site.
        nodes: The kind of node.
        run_dir: The run directory.
    """
    devices = nodes.accelerators_per_node
    heartbeat_s = max(1, int(site.heartbeat_s / 4))
    named = {"devices": _given_devices(devices, nodes.workers_per_accelerator)} if devices else {}
    executor = HighThroughputExecutor(
        label=name,
        provider=_provider(site, nodes, run_dir),
        launch_cmd=workers_command("attend", **named),
        interchange_launch_cmd=interchange_command(),
        address=site.address or _LOOPBACK,
        # Parsl counts the cores of the whole node; how many workers there are is decided by the config.
        cores_per_worker=1e-6,
        max_workers_per_node=nodes.nodes_per_block if nodes.across_nodes else nodes.n_workers_per_node,
        available_accelerators=[str(i) for i in range(devices) for _ in range(nodes.workers_per_accelerator)],
        heartbeat_period=heartbeat_s,
        heartbeat_threshold=int(site.heartbeat_s),
        # Inside an allocation it is the campaign that stops in time.
        drain_period=None if site.inside_allocation else nodes.drain_after_s,
        poll_period=POLL_MS,
        # Blocks come and go; when too many fail the task server says so itself.
        block_error_handler=False,
        encrypted=True,
    )
    if site.address is None:
        executor.address, executor.all_addresses = None, set(_addresses())
    return executor


def _given_devices(n: int, workers_each: int) -> str:
    """Return the shell words that name the device of each worker, as the batch system numbers them."""
    numbers = ",".join(map(str, range(n)))
    repeated = " ".join(["$device"] * workers_each)
    return (
        f"$(for device in $(echo ${{CUDA_VISIBLE_DEVICES:-{numbers}}} | tr , ' '); do echo {repeated}; done)"
    )


def _provider(site: BatchSite, nodes: NodesSection, run_dir: Path) -> Any:
    set_up = "\n".join(_set_up(nodes))
    if site.inside_allocation:
        return LocalProvider(
            nodes_per_block=nodes.nodes_per_block,
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=_launcher(site, nodes),
            worker_init=set_up,
            cmd_timeout=_COMMAND_TIMEOUT_S,
        )
    common: dict[str, Any] = {
        "nodes_per_block": nodes.nodes_per_block,
        "init_blocks": nodes.min_blocks,
        "min_blocks": nodes.min_blocks,
        "max_blocks": nodes.max_blocks,
        "walltime": _clock(nodes.walltime_s),
        "account": nodes.account,
        "worker_init": set_up,
        "launcher": _launcher(site, nodes),
        "cmd_timeout": _COMMAND_TIMEOUT_S,
    }
    provider: Any
    if isinstance(nodes, SlurmNodes):
        provider = _SlurmBlocks(
            **common,
            partition=nodes.partition,
            qos=nodes.qos,
            constraint=nodes.constraint,
            exclusive=nodes.exclusive,
            cores_per_node=nodes.cores_per_node,
            mem_per_node=nodes.memory_per_node_GB,
            gpus_per_node=nodes.accelerators_per_node or None,
            scheduler_options="\n".join(f"#SBATCH {line}" for line in nodes.options),
        )
    else:
        provider = _PbsBlocks(
            **common,
            queue=nodes.queue if isinstance(nodes, PbsNodes) else None,
            cpus_per_node=nodes.cores_per_node,
            select_options=select_options(nodes),
            scheduler_options=scheduler_options(nodes),
        )
    provider.poll_s = site.poll_s
    provider.ledger = run_dir / "parsl" / LEDGER
    return provider


def _launcher(site: BatchSite, nodes: NodesSection) -> Launcher:
    kind = nodes.launcher or _suitable_launcher(site, nodes)
    if kind == "srun":
        # Inside one allocation each kind of node takes its part only.
        return _SrunLauncher(nodes.cores_per_node, " --exact" if site.inside_allocation else "")
    if kind == "mpiexec":
        return MpiexecLauncher("\n".join(_set_up(nodes)), _hosts(nodes), _n_before(site, nodes))
    return SimpleLauncher()


def _hosts(nodes: NodesSection) -> str:
    """Return the command that prints the hosts of a job, each once."""
    if isinstance(nodes, SlurmNodes):
        return 'scontrol show hostnames "$SLURM_JOB_NODELIST"'
    return """awk '!seen[$0]++' "$PBS_NODEFILE\""""


def _n_before(site: BatchSite, nodes: NodesSection) -> int:
    """Return how many hosts of a job belong to kinds of node that stand before this one in the config."""
    if not site.inside_allocation:
        return 0
    # Calculations across nodes have the last ones (see `_slots`).
    kinds = [kind for kind in site.nodes.values() if not kind.across_nodes]
    before = itertools.takewhile(lambda kind: kind is not nodes, kinds)
    return sum(kind.nodes_per_block for kind in before)


def _suitable_launcher(site: BatchSite, nodes: NodesSection) -> str:
    n_nodes = nodes.nodes_per_block
    if site.inside_allocation:
        n_nodes = sum(kind.nodes_per_block for kind in site.nodes.values())
    if nodes.across_nodes or n_nodes == 1:
        return "single"
    return "srun" if isinstance(nodes, SlurmNodes) else "mpiexec"


def _set_up(nodes: NodesSection) -> list[str]:
    lines = []
    for line in nodes.set_up:
        said = shlex.quote(f"fff: this line of set_up failed: {line}")
        # On a line of its own: the user's may end in a comment.
        lines += [line, f"[ $? -eq 0 ] || {{ echo {said} >&2; exit 1; }}"]
    if nodes.across_nodes:
        lines += _slots(nodes)
    return lines + set_up_lines(nodes.cores_per_worker, has_devices=nodes.accelerators_per_node > 0)


def _slots(nodes: NodesSection) -> list[str]:
    """Return the lines that tell workers which hosts calculations may run on."""
    n = nodes.nodes_per_block
    # Without its hosts a worker would take every slot to be on its own node.
    said = f'"fff: calculations need {n} hosts, but the batch system names: ${{FFF_SLOT_HOSTS:-none}}"'
    # Of an allocation that several kinds of node share the last ones: steps begin on the first.
    return [
        f"export FFF_SLOT_HOSTS=$({_hosts(nodes)} | tail -n {n} | paste -sd,)",
        f"[ $(echo $FFF_SLOT_HOSTS | tr , ' ' | wc -w) -eq {n} ] || {{ echo {said} >&2; exit 1; }}",
        # `attend` removes it when the block ends.
        'export FFF_SLOT_LEASES=$(mktemp -d "${TMPDIR:-/tmp}/fff-slots-XXXXXX")',
    ]


def _clock(total_s: int) -> str:
    # In whole minutes, and not less: Parsl tells Slurm no seconds.
    hours, minutes = divmod(math.ceil(total_s / 60), 60)
    return f"{hours:02d}:{minutes:02d}:00"


def batch_scripts(site: BatchSite, run_dir: Path) -> dict[str, str]:
    """Return the script of a block of each kind of node, as it would be submitted; nothing is.

    Inside an allocation it is what would be started there.

    Raises:
        RunDirectoryError: If batch scripts cannot name the run directory.
    """
    check_path(run_dir)
    return {name: _script(name, site, nodes, run_dir) for name, nodes in site.nodes.items()}


def _script(name: str, site: BatchSite, nodes: NodesSection, run_dir: Path) -> str:
    executor: Any = batch_executor(name, site, nodes, run_dir)
    executor.run_dir = str(run_dir / "parsl" / "000")
    executor.cert_dir = f"{executor.logdir}/certificates"
    executor.logconf_path = None
    executor.worker_port = 0
    executor.initialize_scaling()
    command = executor._get_launch_command("0")
    provider = executor.provider
    if isinstance(provider, LocalProvider):
        return f"{provider.worker_init}\n{provider.launcher(command, 1, nodes.nodes_per_block)}\n"
    with tempfile.TemporaryDirectory() as folder:
        provider.script_dir, provider.ledger = folder, None
        provider.execute_wait = _not_submitted  # this provider is thrown away
        provider.submit(command, 1, f"parsl.{name}.block-0")
        (script,) = (path for path in Path(folder).iterdir() if not path.suffix.startswith(".std"))
        text = script.read_text(encoding="utf-8")
        text = text.replace(folder, str(run_dir / "parsl" / "000" / "submit_scripts"))
    return re.sub(r"(fff\.[\w-]+\.block-0)\.\d+\.\d+", r"\1", text)


def _not_submitted(_cmd: str, _timeout: int | None = None) -> tuple[int, str, str]:
    return 0, "Submitted batch job 0", ""


def try_script(script: str) -> tuple[bool, str]:
    """Return whether Slurm would take a script, which it does not run, and its words.

    Raises:
        OSError: If there is no sbatch.
        subprocess.TimeoutExpired: If it does not answer.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        ended = subprocess.run(
            ["sbatch", "--test-only", file.name],  # noqa: S607 - where it lies is the site's business
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    return ended.returncode == 0, redact(" ".join(f"{ended.stdout} {ended.stderr}".split()))
