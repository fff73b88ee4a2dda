#!/usr/bin/env bash
# A campaign in jobs of Slurm, one after the other: a job that comes to its walltime submits the next one, until
# the campaign has finished. Submit it once, from any folder:
#
#     sbatch slurm.sh CONFIG.yaml [RUN_DIR]        RUN_DIR is runs/CONFIG unless given
#     tail -f fff-*.txt                            what it says;  fff status RUN_DIR  says where it stands
#     fff stop RUN_DIR                             stops it: no next job comes then, nor after scancel
#
# --- CHANGE: what the job asks for. A next job knows these lines only, no options given to sbatch. ---------
#
# Where the config says `inside_allocation: false` this job only steers: one core and a long walltime, in a
# partition for such jobs; fff submits blocks of nodes for the work. Where it says `inside_allocation: true`
# the work is done in this job: ask here for the nodes, cores, memory and accelerators that the config names.
#
#SBATCH --job-name=fff
#SBATCH --time=24:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --output=fff-%j.txt
##SBATCH --partition=long
##SBATCH --account=my-project

# --- CHANGE: how `fff` is found on the nodes; the same lines as for the login node. ------------------------
# module load python/3.12
# source "$HOME/fff/.venv/bin/activate"

set -euo pipefail

# --- CHANGE: jobs at most, one after the other; after so many you are asked to look. -----------------------
max_jobs=${FFF_MAX_JOBS:-50}

# --- Below nothing needs to be changed. ---------------------------------------------------------------------

refuse() {
    echo "$*" >&2
    exit 2
}

[ $# -eq 1 ] || [ $# -eq 2 ] || refuse "Submit it with a config: sbatch slurm.sh CONFIG.yaml [RUN_DIR]"
[ -f "$1" ] || refuse "There is no config $1 in $PWD."
command -v fff >/dev/null || refuse "There is no program fff on $(hostname): see the lines marked CHANGE."
config=$(realpath -- "$1")
name=$(basename -- "$config")
run_dir=$(realpath --canonicalize-missing -- "${2:-runs/${name%.*}}")
this_job=${FFF_JOB:-1}
without_progress=${FFF_WITHOUT_PROGRESS:-0}

n_done() { cat "$run_dir/events.jsonl" 2>/dev/null | grep -c '"outcome":"done"' || true; }
stopped_by() { fff status "$run_dir" --json | sed -n 's/^ *"stopped_by": "\([a-z-]*\)",\{0,1\}$/\1/p'; }

# scancel ends this script too; fff is left to stop in order before, and no next job is submitted.
cancelled=no
trap 'cancelled=yes' TERM INT

echo "Job $this_job of $max_jobs at most, ${SLURM_JOB_ID:-without a number}, on $(hostname), $(date)"
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

# What Slurm has set for this job says nothing about the next one.
conf=${SLURM_CONF:-} job_name=${SLURM_JOB_NAME:-fff}
while read -r variable; do unset "$variable"; done < <(compgen -v SLURM_)
if [ -n "$conf" ]; then export SLURM_CONF=$conf; fi
export FFF_JOB=$((this_job + 1)) FFF_WITHOUT_PROGRESS=$without_progress FFF_MAX_JOBS=$max_jobs
# Slurm runs a copy of this script, $0, from a folder of its own; so the next job is like this one even where
# the file was changed meanwhile.
sbatch --export=ALL --chdir="$PWD" --job-name="$job_name" "$0" "$config" "$run_dir" ||
    { echo "The next job could not be submitted. Go on by: sbatch slurm.sh $config $run_dir" >&2; exit 1; }
