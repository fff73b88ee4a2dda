"""Programs that answer as those of OpenPBS do, for tests: there is no PBS to install.

Their words and exit codes are those of OpenPBS: 153 for a job that is unknown, 35 for one that is in the
history only; and with `-x`, where no history is kept, no job at all, and 0.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Pbs"]

_QSUB = """
number=$(($(ls "$PBS_DOUBLE/jobs" | wc -l) + 1))
for script; do :; done
printf '%s\\n' "$@" >"$PBS_DOUBLE/submitted"
cp "$script" "$PBS_DOUBLE/scripts/$number"
echo Q >"$PBS_DOUBLE/jobs/$number"
if [ -e "$PBS_DOUBLE/runs-jobs" ]; then
    setsid bash "$PBS_DOUBLE/bin/job" "$number" </dev/null >/dev/null 2>&1 &
fi
[ ! -e "$PBS_DOUBLE/words" ] || cat "$PBS_DOUBLE/words"
echo "$number.head.cluster.local"
"""

# As its MoM runs a job: PATH comes by -v, the rest of the environment does not; output comes in the end.
_JOB = """
number=$1; script=$PBS_DOUBLE/scripts/$number
echo "R $$" >"$PBS_DOUBLE/jobs/$number"
out=$(sed -n 's/^#PBS -o //p' "$script"); err=$(sed -n 's/^#PBS -e //p' "$script")
folder=$PBS_DOUBLE/tmp-$number; mkdir "$folder"
env -i HOME="$HOME" PATH="$PATH" TMPDIR="$folder" PBS_DOUBLE="$PBS_DOUBLE" PBS_JOBID="$number.head" \\
    PBS_NODEFILE="$PBS_DOUBLE/nodes" bash "$script" >"$out" 2>"$err"
echo "F $?" >"$PBS_DOUBLE/jobs/$number"
"""

_QSTAT = """
echo "$@" >>"$PBS_DOUBLE/asked"
[ ! -e "$PBS_DOUBLE/down" ] || { echo "qstat: cannot connect to server head (errno=111)" >&2; exit 111; }
history=no; code=0
while [[ $1 = -* ]]; do [ "$1" != -x ] || history=yes; shift; done
if [ $history = yes ] && [ -e "$PBS_DOUBLE/no-history" ]; then
    echo "qstat: PBS is not configured to maintain job history" >&2; exit 0
fi
for job; do
    number=${job%%.*}; read -r state exit_status <"$PBS_DOUBLE/jobs/$number" 2>/dev/null || state=unknown
    [ $state != F ] || [ ! -e "$PBS_DOUBLE/no-history" ] || state=unknown
    if [ $state = unknown ]; then
        echo "qstat: Unknown Job Id $job" >&2; code=153
    elif [ $state = F ] && [ $history = no ]; then
        echo "qstat: $job Job has finished, use -x or -H to obtain historical job information" >&2; code=35
    elif [ $history = yes ]; then
        printf 'Job Id: %s\\n    Job_Name = fff\\n    job_state = %s\\n' "$job" $state
        [ -z "$exit_status" ] || printf '    Exit_status = %s\\n' "$exit_status"
        printf '    Variable_List = SAID="Exit_status = 7",PATH=/bin\\n\\n'
    else
        [ -n "$head" ] || printf '%-18s%-17s%-17s%9s S Queue\\n' 'Job id' Name User 'Time Use'
        head=done
        printf '%-17s %-16s %-16s  %8s %s %s\\n' "$number.head" 'fff.cpu.block-0*' me 0 $state workq
    fi
done
exit $code
"""

_QDEL = """
for job; do
    number=${job%%.*}; read -r state pid <"$PBS_DOUBLE/jobs/$number"
    [ "$state" != R ] || [ -z "$pid" ] || kill -- "-$pid"
    echo "F 271" >"$PBS_DOUBLE/jobs/$number"
done
"""

# As those of Open MPI: no environment goes to the nodes but its own; one that fails ends the others.
_MPIEXEC = """
[ "$1 $3" = "-n --hostfile" ] || { echo "mpiexec: unknown option" >&2; exit 1; }
n=$2; hosts=$4; shift 4
[ "$(wc -l <"$hosts")" -eq "$n" ] || exit 1
cp "$hosts" "$PBS_DOUBLE/hostfile-$$"
pids=
for host in $(cat "$hosts"); do
    env -i HOME="$HOME" NODE="$host" PBS_DOUBLE="$PBS_DOUBLE" OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1 "$@" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid" || { kill $pids; exit 1; }; done
"""


class Pbs:
    """A PBS in a folder: programs in `bin`, and the state of each job in a file of its own.

    Args:
        folder: An empty folder.
        nodes: Hosts that a job gets, as its node file has them.
        runs_jobs: Whether jobs are run; otherwise they stay in the queue until told.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...] = ("n1",), *, runs_jobs: bool = False) -> None:
        self.folder = folder
        programs = {"qsub": _QSUB, "qstat": _QSTAT, "qdel": _QDEL, "mpiexec": _MPIEXEC, "job": _JOB}
        for name in ("bin", "jobs", "scripts"):
            (folder / name).mkdir(parents=True)
        for name, text in programs.items():
            program = folder / "bin" / name
            program.write_text(f"#!/bin/bash{text}")
            program.chmod(0o755)
        (folder / "nodes").write_text("".join(f"{node}\n" for node in nodes))
        if runs_jobs:
            (folder / "runs-jobs").touch()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a process that finds this PBS."""
        return {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PBS_DOUBLE": str(self.folder),
            "PBS_NODEFILE": str(self.folder / "nodes"),
        }

    def tell(self, job: str, state: str) -> None:
        """Set the state of a job: a letter, and for F an exit status; empty: the job is forgotten."""
        path = self.folder / "jobs" / job.partition(".")[0]
        path.write_text(f"{state}\n" if state else "unknown\n")

    def switch(self, name: str) -> None:
        """Switch on `no-history` or `down`."""
        (self.folder / name).touch()
