"""PBS (OpenPBS, PBS Pro): what it is asked for, what it says of jobs, and workers on the nodes of a job.

Parsl's provider asks for a report of every job it ever submitted, as JSON. Once one of them has left the
history PBS answers with an error, which Parsl takes for no answer. Some versions write JSON that
nothing reads.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from typing import TYPE_CHECKING

from parsl.jobs.states import JobState, JobStatus
from parsl.launchers.base import Launcher
from parsl.providers import PBSProProvider

from fff.base.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fff.config.site import NodesSection

__all__ = ["CARRIED", "MpiexecLauncher", "PbsProvider", "scheduler_options", "select_options"]

CARRIED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "MODULEPATH",
    "LANG",
    "LC_ALL",
)
"""Environment variables that go along with a job: `qstat -f` shows them, and among others may be secrets."""

_OF_THE_JOB = ("PBS_JOBID", "PBS_O_WORKDIR")
_JOB = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?", re.ASCII)
_GONE = ("Unknown Job Id", "Job has finished")
_STATES = {
    "Q": JobState.PENDING,
    "W": JobState.PENDING,
    "T": JobState.PENDING,
    "M": JobState.PENDING,
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,
    # Its output is still on its way, and what it ended with not yet known.
    "E": JobState.RUNNING,
    "H": JobState.HELD,
    "S": JobState.HELD,
    "U": JobState.HELD,
}
_ENDED = {"C", "F", "X"}

# One process on each host, bound to nothing, by the words that each mpiexec reads: their options differ.
_ONE_EACH = {
    "OMPI_MCA_rmaps_base_mapping_policy": "node",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": "node",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "I_MPI_PERHOST": "1",
    "I_MPI_PIN": "off",
    "I_MPI_JOB_RESPECT_PROCESS_PLACEMENT": "off",
    "PALS_PPN": "1",
    "PALS_CPU_BIND": "none",
}
# These, and what tells a program that it is a rank: an MPI code that a worker starts is none of this mpiexec.
_OF_RANKS = (
    "OMPI_",
    "PRTE_",
    "PMIX_",
    "PMI_",
    "HYDI_",
    "MPI_LOCAL",
    "I_MPI_P",
    "I_MPI_JOB_",
    "PALS_",
)

_log = logging.getLogger(__name__)


class PbsProvider(PBSProProvider):
    """Parsl's provider for PBS; jobs that PBS has forgotten have ended."""

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:
        """Run a command of PBS, and return exit code, output and messages."""
        code, out, err = super().execute_wait(cmd, timeout)
        if code or not cmd.startswith("qsub "):
            return code, out, err
        # Where qsub also tells of accounts and quotas Parsl would take each line for a job.
        jobs = [line.strip() for line in out.splitlines() if _JOB.fullmatch(line.strip())]
        return (0, jobs[-1], err) if jobs else (1, out, f"{err}\nqsub names no job: {out}")

    def _status(self) -> None:
        asked = [str(job) for job, known in self.resources.items() if not known["status"].terminal]
        if not asked:
            return
        code, out, err = self.execute_wait(f"qstat {shlex.join(asked)}")
        said = _table(out)
        gone = _named(line for line in err.splitlines() if any(words in line for words in _GONE))
        ended = []
        for job in asked:
            number = _number(job)
            state = said.get(number)
            if state in _ENDED or (state is None and (number in gone or code == 0)):
                ended.append(job)
            elif state is not None:
                self._note(job, _STATES.get(state, JobState.UNKNOWN))
            else:
                _log.warning("qstat does not tell of job %s (exit code %d): %s", job, code, redact(err))
        if ended:
            self._note_ended(ended)

    def _note_ended(self, jobs: Sequence[str]) -> None:
        # Fails where PBS keeps no history, or not of these.
        _, out, _ = self.execute_wait(f"qstat -x -f {shlex.join(jobs)}")
        codes = _exit_codes(out)
        for job in jobs:
            code = codes.get(_number(job))
            self._note(job, JobState.FAILED if code else JobState.COMPLETED, code)

    def _note(self, job: str, state: JobState, code: int | None = None) -> None:
        known = self.resources[job]
        known["status"] = JobStatus(
            state,
            exit_code=code,
            stdout_path=known["job_stdout_path"],
            stderr_path=known["job_stderr_path"],
        )


def _number(job: str) -> str:
    """Return what names a job on its server, whose name PBS shortens in tables."""
    return job.partition(".")[0]


def _table(text: str) -> dict[str, str]:
    """Return the state of each job in the table that qstat prints: id, name, user, time, state, queue."""
    rows = [line.split() for line in text.splitlines()]
    return {_number(row[0]): row[-2] for row in rows if len(row) > 1 and _JOB.fullmatch(row[0])}


def _named(lines: Iterable[str]) -> set[str]:
    return {_number(word) for line in lines for word in line.split() if _JOB.fullmatch(word)}


def _exit_codes(text: str) -> dict[str, int]:
    """Return the exit status of each job whose report, by `qstat -f`, has one."""
    codes = {}
    for report in re.split(r"^Job Id: ", text, flags=re.MULTILINE)[1:]:
        if found := re.search(r"^\s+Exit_status = (-?\d+)\s*$", report, re.MULTILINE):
            codes[_number(report.split()[0])] = int(found[1])
    return codes


def select_options(nodes: NodesSection) -> str:
    """Return what a chunk asks for besides its cores."""
    wanted = []
    if nodes.across_nodes:
        # PBS tells mpiexec how many ranks a host takes: one, unless told.
        wanted.append(f"mpiprocs={nodes.cores_per_node}")
    if nodes.memory_per_node_GB:
        wanted.append(f"mem={nodes.memory_per_node_GB}gb")
    if nodes.accelerators_per_node:
        wanted.append(f"ngpus={nodes.accelerators_per_node}")
    return ":".join(wanted)


def scheduler_options(nodes: NodesSection) -> str:
    """Return the further directives of a job's script, with the environment variables that go along."""
    # Of several lines with -v PBS reads the last one only.
    own = [found[1] for line in nodes.options if (found := re.fullmatch(r"-v\s*(.+)", line.strip()))]
    lines = [line for line in nodes.options if not line.strip().startswith("-v")]
    if nodes.nodes_per_block > 1 and not any("place=" in line for line in lines):
        # Otherwise one host may get several chunks, and the workers of several nodes.
        lines.insert(0, "-l place=scatter")
    if names := [name for name in CARRIED if os.environ.get(name)] + own:
        lines.insert(0, f"-v {','.join(names)}")
    return "\n".join(f"#PBS {line}" for line in lines)


class MpiexecLauncher(Launcher):
    """Starts the workers on each node of a block by mpiexec, one pool of workers on a node.

    mpiexec takes no environment along, or only its own idea of it: each node runs the set-up lines itself.

    Args:
        set_up: Lines that run on each node before the workers start.
        hosts: Command that prints the hosts of the job, each once.
        n_before: How many of these others have, who stand before this kind of node in the config.
    """

    def __init__(self, set_up: str, hosts: str, n_before: int = 0) -> None:
        super().__init__()
        self._set_up = set_up
        self._hosts = hosts
        self._n_before = n_before

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:
        """Return the lines that run `command` on every node."""
        del tasks_per_node, script_dir
        n, first = nodes_per_block, self._n_before + 1
        lacking = (
            f"fff: the workers need the hosts {first} to {self._n_before + n} of the job, which has fewer; "
            "where it asks for several by select, it needs place=scatter too."
        )
        unset = " ".join(f"${{!{prefix}*}}" for prefix in _OF_RANKS)
        return f"""\
hosts=$(mktemp "${{TMPDIR:-/tmp}}/fff-hosts-XXXXXX") || exit 1
trap 'rm -f "$hosts"' EXIT
{self._hosts} | tail -n +{first} | head -n {n} >"$hosts"
[ "$(wc -l <"$hosts")" -eq {n} ] || {{ echo {shlex.quote(lacking)} >&2; exit 1; }}
carried=$(declare -p {" ".join((*CARRIED, *_OF_THE_JOB))} ${{!OMPI_MCA_*}} 2>/dev/null)
IFS= read -r -d '' on_node <<'END_OF_WHAT_RUNS_ON_EACH_NODE'
(
{self._set_up}
{command}
)
code=$?
[ $code -eq 0 ] || echo "fff: what started the workers on $(hostname) ended with exit code $code" >&2
# One that ends with an error would have mpiexec end those on the other nodes.
exit 0
END_OF_WHAT_RUNS_ON_EACH_NODE
export {" ".join(f"{name}={value}" for name, value in _ONE_EACH.items())}
# A login shell, as that of a job: it knows `module`.
mpiexec -n {n} --hostfile "$hosts" /bin/bash -l -c "unset {unset.replace("$", chr(92) + "$")}
$carried
$on_node" </dev/null
"""
