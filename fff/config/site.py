"""Section `site`: the machines a campaign runs on, by `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fff.base.durations import seconds
from fff.base.errors import ConfigError
from fff.base.launch_line import check_launch_line, placeholders_in
from fff.config.section import PositiveInt, Section, TextList

__all__ = [
    "BatchSite",
    "LaptopSite",
    "NodesSection",
    "PbsNodes",
    "PbsSite",
    "SiteSection",
    "SlurmNodes",
    "SlurmSite",
    "TaskGroup",
    "WorkstationSite",
]

TaskGroup = Literal["training", "inference", "sampling", "calculation"]
"""What a kind of node does: as in the four agents, with scoring and choosing together."""

_GROUPS: tuple[TaskGroup, ...] = ("training", "inference", "sampling", "calculation")
_LARGEST_MARGIN_S = 600.0
_LEAST_MARGIN_S = 30.0
_NodeName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=30)]
# Parsl gives some of these to a shell, and all to a line of a batch script; none is quoted there.
_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,:@+/-]*$")]
_Features = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=r"^[A-Za-z0-9_(\[][A-Za-z0-9_.,:@+/=&|*()\[\]-]*$")
]
_Line = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x08\x0a-\x1f]*$")]


class _AnySite(Section):
    """What every site has."""

    mpi_launch: _Line | None = Field(
        None,
        description=(
            "Command that starts the ranks of an external code, put before the code's own; {ranks}, {nodes}, "
            "{hosts} and {hosts_and_ranks} are filled in, as in `mpiexec -n {ranks}` or `srun "
            "--nodes={nodes} --ntasks={ranks} --nodelist={hosts}`; null: codes are started alone."
        ),
    )

    def check(self) -> None:
        """Check the launch line's placeholders.

        Raises:
            ConfigError: If one is unknown.
        """
        if self.mpi_launch is not None:
            check_launch_line(self.mpi_launch)


class LaptopSite(_AnySite):
    """One machine without accelerators; all kinds of task share its cores."""

    kind: Literal["laptop"] = Field(
        "laptop", description="One pool of workers on the cores found, for all kinds of task."
    )
    n_workers: int | None = Field(
        None, ge=1, le=1000, description="Workers, each doing one task at a time; null: one per core found."
    )


class WorkstationSite(_AnySite):
    """One machine whose accelerators train and score while its cores sample and calculate."""

    kind: Literal["workstation"] = Field(
        "workstation", description="A pool of workers each with an accelerator, and one on the other cores."
    )
    n_gpus: int = Field(
        0,
        ge=0,
        le=64,
        description="Accelerators (CUDA devices) to use, from number 0 on; each gets one worker.",
    )
    accelerators: TextList = Field(
        default=[],
        description="Numbers of the accelerators to use, where the first `n_gpus` are not the right ones.",
    )
    workers_per_accelerator: int = Field(1, ge=1, le=64, description="Workers that share each accelerator.")
    n_gpu_workers: int = Field(
        1,
        ge=1,
        le=1000,
        description="Workers that take the accelerators' part on the CPU where there are none.",
    )
    n_cpu_workers: int | None = Field(
        None, ge=1, le=1000, description="CPU workers; null: the cores found less one per accelerator worker."
    )

    @property
    def devices(self) -> list[str]:
        """The accelerator of each worker that has one; empty when CPU workers take their part."""
        named = list(self.accelerators) or [str(i) for i in range(self.n_gpus)]
        return [device for device in named for _ in range(self.workers_per_accelerator)]

    def check(self) -> None:
        """Check what concerns several keys.

        Raises:
            ConfigError: If accelerators are named and another number of them is given, or as above.
        """
        super().check()
        named = len(self.accelerators)
        if named and self.n_gpus not in (0, named):
            msg = f"`site.n_gpus` is {self.n_gpus}, but `site.accelerators` names {named}."
            hint = "Leave `site.n_gpus` out where `site.accelerators` is given."
            raise ConfigError(msg, hint=hint, key="site.n_gpus", value=self.n_gpus)
        if len(set(self.accelerators)) < named:
            msg = f"`site.accelerators` names a device twice: {', '.join(self.accelerators)}."
            hint = "Name each device once; `site.workers_per_accelerator` lets workers share one."
            raise ConfigError(msg, hint=hint, key="site.accelerators", value=self.accelerators)


class NodesSection(Section):
    """One kind of node of a batch system: what is asked for, and what its workers do."""

    tasks: list[TaskGroup] | None = Field(
        None,
        min_length=1,
        description=(
            "What workers there do, of training, inference (scoring, choosing, evaluating), sampling "
            "(dynamics) and calculation (reference method); null: all that no other kind of node names."
        ),
    )
    account: _Name | None = Field(None, description="Account that the time is charged to.")
    walltime: _Line = Field(
        "01:00:00", description="Time that a block may run, as 1:00:00 or 12h; the next block goes on."
    )
    drain_s: float | None = Field(
        None,
        gt=0,
        description=(
            "Time after its start from which a block takes no new task, so that what runs can end; null: "
            "walltime less a tenth of it, between 30 s and 600 s."
        ),
    )
    nodes_per_block: PositiveInt = Field(1, description="Nodes of a block, that is, of one job.")
    min_blocks: int = Field(0, ge=0, description="Blocks that are kept, also while they have nothing to do.")
    max_blocks: PositiveInt = Field(1, description="Blocks that may be there, or be queued, at a time.")
    workers_per_node: PositiveInt | None = Field(
        None,
        description=(
            "Workers of a node, each doing one task at a time; null: `workers_per_accelerator` for each "
            "accelerator, or 1."
        ),
    )
    cores_per_worker: PositiveInt = Field(1, description="Cores of a worker, for its threads or its ranks.")
    memory_per_node_GB: PositiveInt | None = Field(  # noqa: N815 - the unit's name
        None, description="Memory to ask for; null: what the batch system gives."
    )
    accelerators_per_node: int = Field(0, ge=0, le=64, description="Accelerators to ask for.")
    workers_per_accelerator: PositiveInt = Field(1, description="Workers that share each accelerator.")
    across_nodes: bool = Field(
        False,
        description=(
            "Whether calculations run across the nodes of a block, by `site.mpi_launch`: then each node is "
            "one slot, and the workers, which only wait for the ranks, are on the block's first node. "
            "`tasks` must be [calculation]."
        ),
    )
    launcher: Literal["single", "srun", "mpiexec"] | None = Field(
        None,
        description=(
            "What starts the workers on the nodes of a block: nothing for one node, srun or mpiexec for "
            "several; null: what suits."
        ),
    )
    options: list[_Line] = Field(
        default=[], description="Further options for the batch script, as --gres=gpu:a100:1."
    )
    set_up: list[_Line] = Field(
        default=[], description="Shell lines that run before the workers start, as module load gcc."
    )

    @property
    def n_workers_per_node(self) -> int:
        """Workers of a node; across nodes its part of the slots, which is one."""
        if self.across_nodes:
            return 1
        return self.workers_per_node or max(1, self.accelerators_per_node * self.workers_per_accelerator)

    @property
    def n_slots(self) -> int:
        """How many tasks all blocks together can run at a time."""
        return self.max_blocks * self.nodes_per_block * self.n_workers_per_node

    @property
    def cores_per_node(self) -> int:
        """Cores to ask for on each node."""
        return self.cores_per_worker * self.n_workers_per_node

    def check_as(self, key: str) -> None:
        """Check what concerns several keys.

        Args:
            key: Where this section stands.

        Raises:
            ConfigError: If two keys contradict each other.
        """
        walltime_s = seconds(self.walltime, f"{key}.walltime")
        if self.drain_s is not None and self.drain_s >= walltime_s:
            msg = f"`{key}.drain_s` is {self.drain_s:g} s, not below the walltime, {walltime_s:g} s."
            hint = "Give less, so that what runs can end, or leave it out."
            raise ConfigError(msg, hint=hint, key=f"{key}.drain_s", value=self.drain_s)
        if self.min_blocks > self.max_blocks:
            msg = f"`{key}.min_blocks` is {self.min_blocks}, above `{key}.max_blocks` ({self.max_blocks})."
            raise ConfigError(
                msg, hint="Set it to as many at most.", key=f"{key}.min_blocks", value=self.min_blocks
            )
        self._check_workers(key)
        if self.across_nodes:
            self._check_across_nodes(key)
        if self.launcher == "single" and self.nodes_per_block > 1 and not self.across_nodes:
            msg = f"`{key}.launcher` is single, which starts workers on one of {self.nodes_per_block} nodes."
            hint = "Leave it out, or set srun or mpiexec."
            raise ConfigError(msg, hint=hint, key=f"{key}.launcher", value=self.launcher)

    def _check_workers(self, key: str) -> None:
        devices = self.accelerators_per_node * self.workers_per_accelerator
        given = self.workers_per_node
        if self.workers_per_accelerator > 1 and not devices:
            msg = (
                f"`{key}.workers_per_accelerator` is {self.workers_per_accelerator}, but "
                f"`{key}.accelerators_per_node` is 0."
            )
            hint = f"Ask for accelerators, or set `{key}.workers_per_node` instead."
            raise ConfigError(
                msg, hint=hint, key=f"{key}.workers_per_accelerator", value=self.workers_per_accelerator
            )
        if given is not None and devices and given != devices:
            msg = (
                f"`{key}.workers_per_node` is {given}, but {self.accelerators_per_node} accelerators with "
                f"{self.workers_per_accelerator} workers each make {devices}."
            )
            hint = f"Leave `{key}.workers_per_node` out where there are accelerators."
            raise ConfigError(msg, hint=hint, key=f"{key}.workers_per_node", value=given)

    def _check_across_nodes(self, key: str) -> None:
        if set(self.tasks or ()) != {"calculation"}:
            given = "null" if self.tasks is None else ", ".join(self.tasks)
            msg = (
                f"`{key}.tasks` is {given}, but with `{key}.across_nodes` it must be calculation alone: all "
                "workers are on the first node, which other tasks would fill."
            )
            hint = f"Set `{key}.tasks` to [calculation], and give the others another kind of node."
            raise ConfigError(msg, hint=hint, key=f"{key}.tasks", value=self.tasks)
        if self.max_blocks > 1:
            msg = f"`{key}.max_blocks` is {self.max_blocks}, but a calculation cannot run across blocks."
            hint = f"Set `{key}.max_blocks` to 1, and `{key}.nodes_per_block` to all the nodes."
            raise ConfigError(msg, hint=hint, key=f"{key}.max_blocks", value=self.max_blocks)
        if self.accelerators_per_node or self.workers_per_node not in (None, 1):
            msg = (
                f"`{key}.across_nodes` makes each node one slot; `{key}` has workers or accelerators besides."
            )
            hint = f"Leave out `{key}.workers_per_node` and the accelerators, and ask for these by `options`."
            raise ConfigError(msg, hint=hint, key=f"{key}.across_nodes", value=True)
        if self.launcher not in (None, "single"):
            msg = (
                f"`{key}.launcher` is {self.launcher}, which starts workers on every node; with "
                f"`{key}.across_nodes` they are on the first."
            )
            raise ConfigError(msg, hint="Leave it out.", key=f"{key}.launcher", value=self.launcher)

    @property
    def walltime_s(self) -> int:
        """The walltime in seconds."""
        return int(seconds(self.walltime, "walltime"))

    @property
    def drain_after_s(self) -> int:
        """Time in seconds after its start from which a block takes no new task."""
        if self.drain_s is not None:
            return max(1, int(self.drain_s))
        margin_s = min(max(0.1 * self.walltime_s, _LEAST_MARGIN_S), _LARGEST_MARGIN_S)
        return int(max(self.walltime_s - margin_s, 1))


class SlurmNodes(NodesSection):
    """One kind of node of a Slurm cluster: what is asked for, and what its workers do."""

    partition: _Name | None = Field(None, description="Partition; null: the default one.")
    qos: _Name | None = Field(None, description="Quality of service; null: the default one.")
    constraint: _Features | None = Field(None, description="Features that nodes must have.")
    exclusive: bool = Field(False, description="Whether to ask for whole nodes.")


class PbsNodes(NodesSection):
    """One kind of node of a PBS cluster: what is asked for, and what its workers do."""

    queue: _Name | None = Field(None, description="Queue; null: the default one.")

    def check_as(self, key: str) -> None:
        """Check what concerns several keys, and that nothing of Slurm's is asked for.

        Args:
            key: Where this section stands.

        Raises:
            ConfigError: If two keys contradict each other, or the launcher is srun.
        """
        super().check_as(key)
        if self.launcher == "srun":
            msg = f"`{key}.launcher` is srun, which PBS does not have."
            raise ConfigError(msg, hint="Leave it out, or set mpiexec.", key=f"{key}.launcher", value="srun")


class BatchSite(_AnySite):
    """Nodes of a batch system, of one kind or several."""

    kind: Literal["slurm", "pbs"] = Field(description="Which batch system.")
    nodes: Mapping[_NodeName, NodesSection] = Field(description="Kinds of node.")
    inside_allocation: bool = Field(
        False,
        description=(
            "Whether fff itself runs in a job of the batch system, whose nodes the workers use; otherwise it "
            "submits jobs from where it runs, as a login node."
        ),
    )
    address: _Line | None = Field(
        None,
        description="Host name or IP address at which nodes reach this process; null: they try all it has.",
    )
    poll_s: float = Field(
        30.0, gt=0, le=3600, description="How often the batch system is asked what its jobs do."
    )
    heartbeat_s: float = Field(
        60.0,
        ge=10,
        le=86_400,
        description=(
            "Silence after which the workers of a node count as lost, and what they did is asked for again."
        ),
    )

    def check(self) -> None:
        """Check the kinds of node, each and together.

        Raises:
            ConfigError: If keys contradict each other, or a task has no kind of node, or several.
        """
        super().check()
        for name, nodes in self.nodes.items():
            nodes.check_as(f"site.nodes.{name}")
            if nodes.across_nodes and self.mpi_launch is None:
                msg = f"`site.nodes.{name}.across_nodes` needs `site.mpi_launch`, which is not set."
                hint = "Set it, for example to: srun --nodes={nodes} --ntasks={ranks} --nodelist={hosts}"
                raise ConfigError(msg, hint=hint, key="site.mpi_launch", value=None)
            if nodes.across_nodes and nodes.nodes_per_block > 1:
                _check_names_nodes(self.mpi_launch or "")
            if self.inside_allocation and nodes.max_blocks > 1:
                msg = f"`site.nodes.{name}.max_blocks` is {nodes.max_blocks}, inside one allocation."
                hint = "Set it to 1, and `nodes_per_block` to the nodes of the allocation that it may use."
                raise ConfigError(msg, hint=hint, key=f"site.nodes.{name}.max_blocks", value=nodes.max_blocks)
        self.pool_of_group()

    def pool_of_group(self) -> dict[TaskGroup, str]:
        """Return the kind of node that does each group of tasks.

        Raises:
            ConfigError: If a group has no kind of node, or several.
        """
        kinds = self.nodes
        found: dict[TaskGroup, str] = {}
        for name, nodes in kinds.items():
            for group in nodes.tasks or ():
                if group in found and found[group] != name:
                    msg = f"`site.nodes.{found[group]}` and `site.nodes.{name}` both do {group}."
                    hint = f"Leave {group} out of the tasks of one of them."
                    raise ConfigError(msg, hint=hint, key=f"site.nodes.{name}.tasks", value=nodes.tasks)
                found[group] = name
        rest = [name for name, nodes in kinds.items() if nodes.tasks is None]
        missing = [group for group in _GROUPS if group not in found]
        if len(rest) > 1 or (missing and not rest):
            what = (
                f"{', '.join(rest)} name no tasks" if rest else f"no kind of node does {', '.join(missing)}"
            )
            msg = f"`site.nodes` leaves open who does what: {what}."
            hint = f"Give each kind of node its `tasks`, of {', '.join(_GROUPS)}."
            raise ConfigError(msg, hint=hint, key="site.nodes", value=list(kinds))
        return found | (dict.fromkeys(missing, rest[0]) if rest else {})


def _check_names_nodes(line: str) -> None:
    """Check that a launch line for several nodes says which, or how many.

    Raises:
        ConfigError: If it does not: all ranks would run on the first.
    """
    if not placeholders_in(line) & {"nodes", "hosts", "hosts_and_ranks"}:
        msg = f"`site.mpi_launch` is {line!r}, which does not say on which nodes the ranks run."
        hint = "Use {nodes}, {hosts} or {hosts_and_ranks}: mpiexec -n {ranks} --host {hosts_and_ranks}"
        raise ConfigError(msg, hint=hint, key="site.mpi_launch", value=line)


class SlurmSite(BatchSite):
    """A cluster with Slurm; blocks are its jobs."""

    kind: Literal["slurm"] = Field(description="Nodes of a cluster, by Slurm.")
    nodes: Mapping[_NodeName, SlurmNodes] = Field(
        min_length=1, max_length=10, description="Kinds of node, by a name of your choice."
    )


class PbsSite(BatchSite):
    """A cluster with PBS (OpenPBS, PBS Pro); blocks are its jobs."""

    kind: Literal["pbs"] = Field(description="Nodes of a cluster, by PBS.")
    nodes: Mapping[_NodeName, PbsNodes] = Field(
        min_length=1, max_length=10, description="Kinds of node, by a name of your choice."
    )


SiteSection = Annotated[LaptopSite | WorkstationSite | SlurmSite | PbsSite, Field(discriminator="kind")]
