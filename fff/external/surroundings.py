"""The environment of an external code: this process's own, less what describes this process alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["environment_of_code"]

# A worker may itself be a task of Slurm's. `srun` would read the layout of the worker as the options of the
# step that it is to start, and Open MPI would take a code for one rank of the worker's step. What names the
# job and its nodes stays, and so does what only a user sets.
_OF_A_STEP = re.compile(
    r"SLURM_(STEP_?\w*|NNODES|NTASKS|NPROCS|NTASKS_PER_\w+|TASKS_PER_NODE|CPUS_PER_TASK|CPU_BIND\w*|MEM_BIND\w*"
    r"|MEM_PER_\w+|DISTRIBUTION|DIST_PLANESIZE|EXPORT_ENV|PROCID|LOCALID|NODEID|GTIDS|TASK_PID|SRUN_COMM_\w+"
    r"|LAUNCH_NODE_IPADDR)"
)
# What an MPI launcher tells each of its ranks, should one have started the worker.
_OF_A_RANK = re.compile(
    r"PMI_\w+|PMIX_(?!MCA_)\w+|HYDI?_\w+"
    r"|OMPI_(COMM_WORLD_\w+|APP_CTX_\w+|NUM_APP_CTX|FIRST_RANKS|UNIVERSE_SIZE|COMMAND|ARGV|FILE_LOCATION)"
    r"|OMPI_MCA_(ess\w*|orte_\w+|pmix|initial_wdir)"
)


def environment_of_code(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a code, or what launches it, does not take itself for the worker.

    All else reaches it, whatever the site has set: paths, modules, options of MPI launchers.

    Args:
        environment: That of this process.

    Example:
        >>> environment_of_code({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "PMI_RANK": "0"})
        {'SLURM_JOB_ID': '7'}
    """
    kept = {
        name: value
        for name, value in environment.items()
        if not (_OF_A_STEP.fullmatch(name) or _OF_A_RANK.fullmatch(name))
    }
    if "SLURM_JOB_CPUS_PER_NODE" in environment:
        # By this Open MPI counts the ranks that a node may have: one on each core, not one for each worker.
        kept["SLURM_TASKS_PER_NODE"] = environment["SLURM_JOB_CPUS_PER_NODE"]
    return kept
