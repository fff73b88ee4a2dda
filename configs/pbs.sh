#!/usr/bin/env bash
# A campaign in jobs of PBS, one after the other: a job that comes to its walltime submits the next one, until
# the campaign has finished. Submit it once, in the folder where the config and this script are:
#
#     qsub -v FFF_CONFIG=CONFIG.yaml pbs.sh        or write the config into the line below
#     fff status RUN_DIR                           says where it stands
#     fff stop RUN_DIR                             stops it: no next job comes then, nor after qdel
#
# --- CHANGE: what the job asks for. A next job knows these lines only, no options given to qsub. -----------
#
# Where the config says `inside_allocation: false` this job only steers: one core and a long walltime, in a
# queue for such jobs; fff submits blocks of nodes for the work. Where it says `inside_allocation: true` the
# work is done in this job: ask here for the nodes, cores, memory and accelerators that the config names, as
# `-l select=2:ncpus=16`, and by `-l place=scatter` for a host of its own for each.
#
#PBS -N fff
#PBS -l walltime=24:00:00
#PBS -l select=1:ncpus=1
#PBS -j oe
##PBS -q long
##PBS -A my-project
##PBS -l place=scatter

# --- CHANGE: how `fff` is found on the nodes; the same lines as for the login node. ------------------------
# module load python/3.12
# source "$HOME/fff/.venv/bin/activate"

set -euo pipefail

# --- CHANGE: the config, the run directory (runs/CONFIG when empty), and what this file is called. ---------
cd "${PBS_O_WORKDIR:-.}"
config=${FFF_CONFIG:-pbs.yaml}
run_dir=${FFF_RUN_DIR:-}
script=${FFF_SCRIPT:-pbs.sh}

# --- CHANGE: jobs at most, one after the other; after so many you are asked to look. -----------------------
max_jobs=${FFF_MAX_JOBS:-50}

# --- Below nothing needs to be changed. ---------------------------------------------------------------------

refuse() {
    echo "$*" >&2
    exit 2
}

[ -f "$config" ] || refuse "There is no config $config in $PWD: submit with -v FFF_CONFIG=CONFIG.yaml"
[ -f "$script" ] || refuse "There is no $script in $PWD: submit with -v FFF_SCRIPT=NAME, or change the line."
command -v fff >/dev/null || refuse "There is no program fff on $(hostname): see the lines marked CHANGE."
config=$(realpath -- "$config")
script=$(realpath -- "$script")
name=$(basename -- "$config")
run_dir=$(realpath --canonicalize-missing -- "${run_dir:-runs/${name%.*}}")
this_job=${FFF_JOB:-1}
without_progress=${FFF_WITHOUT_PROGRESS:-0}

n_done() { cat "$run_dir/events.jsonl" 2>/dev/null | grep -c '"outcome":"done"' || true; }
stopped_by() { fff status "$run_dir" --json | sed -n 's/^ *"stopped_by": "\([a-z-]*\)",\{0,1\}$/\1/p'; }

# qdel ends this script too; fff is left to stop in order before, and no next job is submitted.
cancelled=no
trap 'cancelled=yes' TERM INT

echo "Job $this_job of $max_jobs at most, ${PBS_JOBID:-without a number}, on $(hostname), $(date)"
before=$(n_done)
code=0
fff run "$config" --run-dir "$run_dir" </dev/null || code=$?

# 0: finished. 1: failed, 2: refused: both want to be looked at. 3: stopped; by what, is asked for.
if [ "$code" -ne 3 ] || [ $cancelled = yes ] || [ "$(stopped_by)" != walltime ]; then
    exit "$code"
fi
if [ "$(n_done)" = "$before" ]; then without_progress=$((without_progress + 1)); else without_progress=0; fi
if [ $without_progress -ge 2 ]; then
    echo "No task ended in this job, nor in the one before: is the walltime long enough? No next job." >&2
    exit 1
fi
if [ "$this_job" -ge "$max_jobs" ]; then
    echo "This was job $this_job of $max_jobs at most (max_jobs in this script): no next job." >&2
    exit "$code"
fi

export FFF_CONFIG=$config FFF_RUN_DIR=$run_dir FFF_SCRIPT=$script FFF_MAX_JOBS=$max_jobs
export FFF_JOB=$((this_job + 1)) FFF_WITHOUT_PROGRESS=$without_progress
# By name only: qsub takes the values from here, whatever characters they hold.
qsub -v FFF_CONFIG,FFF_RUN_DIR,FFF_SCRIPT,FFF_MAX_JOBS,FFF_JOB,FFF_WITHOUT_PROGRESS "$script" ||
    { echo "The next job could not be submitted. Go on by: qsub -v FFF_CONFIG=$config $script" >&2; exit 1; }
