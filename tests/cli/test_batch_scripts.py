"""The batch scripts: when they submit themselves again, and when not; recorders play fff, sbatch and qsub."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SUBMITTERS = {"slurm": "sbatch", "pbs": "qsub"}

FFF = """#!/bin/bash
if [ "$1" = status ]; then
    printf '{\\n "schema_version": 1,\\n "stopped_by": %s,\\n "state": "stopped"\\n}\\n' "$BY"
    exit 0
fi
printf '%s\\n' "$@" >"$RECORD/run"
mkdir -p "$4"
for ((i = 0; i < EVENTS; i++)); do echo '{"kind":"train","outcome":"done"}' >>"$4/events.jsonl"; done
echo '{"kind":"train","outcome":"failed"}' >>"$4/events.jsonl"
if [ -n "$WAIT" ]; then
    trap 'exit 3' TERM
    touch "$RECORD/waiting"
    sleep 60 &
    wait
fi
exit "$CODE"
"""
SUBMIT = """#!/bin/bash
printf '%s\\n' "$@" >"$RECORD/submitted"
env | grep -E '^(FFF|SLURM)_' | sort >"$RECORD/environment"
exit "$SUBMITTED"
"""


class Job:
    """One batch script in a folder of its own."""

    def __init__(self, system, folder, name="my config.yaml"):
        self.system = system
        self.folder = folder
        self.config = folder / name
        self.config.write_text("structures: [molecule:H2O]\n")
        self.run_dir = folder / "runs" / Path(name).stem
        self.record = folder / "record"
        programs = folder / "programs"
        for path in (self.record, programs):
            path.mkdir()
        for program, text in (("fff", FFF), (SUBMITTERS[system], SUBMIT)):
            (programs / program).write_text(text)
            (programs / program).chmod(0o755)
        self.script = folder / f"{system}.sh"
        shutil.copy(CONFIGS / self.script.name, self.script)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RECORD": str(self.record),
            "BY": '"walltime"',
            "CODE": "3",
            "EVENTS": "2",
            "WAIT": "",
            "SUBMITTED": "0",
            "SLURM_CONF": "/etc/my.conf",
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NAME": "water",
            "SLURM_MEM_PER_NODE": "4000",
            "PBS_JOBID": "7.server",
            "PBS_O_WORKDIR": str(folder),
        }

    def command(self, *arguments):
        given = arguments or ((self.config.name,) if self.system == "slurm" else ())
        self.environment.setdefault("FFF_CONFIG", self.config.name)
        return ["bash", str(self.script), *given]

    def run(self, *arguments, **environment):
        self.environment |= environment
        command = self.command(*arguments)
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )

    @property
    def is_resubmitted(self):
        return (self.record / "submitted").exists()

    def environment_of_next(self):
        lines = (self.record / "environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def run_next(self):
        """Run the job that was submitted."""
        arguments = (self.record / "submitted").read_text().splitlines()
        following = {**self.environment, **self.environment_of_next()}
        for name in ("submitted", "environment"):
            (self.record / name).unlink()
        script = next(i for i, argument in enumerate(arguments) if argument.endswith(".sh"))
        return subprocess.run(
            ["bash", *arguments[script:]],
            env=following,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(params=SUBMITTERS)
def job(request, tmp_path):
    folder = tmp_path / "a folder, with $blanks"
    folder.mkdir()
    return Job(request.param, folder)


def test_a_job_that_met_its_walltime_submits_the_next_one(job):
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert (job.record / "run").read_text().splitlines() == [
        "run",
        str(job.config),
        "--run-dir",
        str(job.run_dir),
    ]
    assert job.is_resubmitted
    environment = job.environment_of_next()
    assert (environment["FFF_JOB"], environment["FFF_WITHOUT_PROGRESS"]) == ("2", "0")
    done = job.run_next()
    assert done.returncode == 0, done.stderr
    assert "Job 2 of 50 at most" in done.stdout
    assert job.is_resubmitted
    assert job.environment_of_next()["FFF_JOB"] == "3"
    # The same campaign, whatever the folder is called.
    assert (job.record / "run").read_text().splitlines()[1:] == [
        str(job.config),
        "--run-dir",
        str(job.run_dir),
    ]


def test_the_next_job_of_slurm_is_told_nothing_of_this_one_but_where_slurm_is(tmp_path):
    job = Job("slurm", tmp_path)
    assert job.run().returncode == 0
    told = [name for name in job.environment_of_next() if name.startswith("SLURM_")]
    assert told == ["SLURM_CONF"]
    submitted = (job.record / "submitted").read_text().splitlines()
    assert "--job-name=water" in submitted
    assert f"--chdir={tmp_path}" in submitted


def test_pbs_is_given_names_of_variables_only(tmp_path):
    job = Job("pbs", tmp_path, "a,b='c'.yaml")
    assert job.run().returncode == 0
    option, names, script = (job.record / "submitted").read_text().splitlines()
    assert (option, script) == ("-v", str(job.script))
    assert re.fullmatch(r"[A-Z_,]+", names)
    assert job.environment_of_next()["FFF_CONFIG"] == str(job.config)


@pytest.mark.parametrize(
    ("code", "by"),
    [(0, "null"), (1, "null"), (2, "null"), (3, '"signal"'), (3, '"stop-file"'), (3, "null"), (137, "null")],
)
def test_whatever_else_ends_a_campaign_ends_the_jobs(job, code, by):
    done = job.run(CODE=str(code), BY=by)
    assert done.returncode == code
    assert not job.is_resubmitted


def test_a_job_that_is_cancelled_lets_fff_stop_and_submits_nothing(job):
    job.environment["WAIT"] = "yes"
    process = subprocess.Popen(
        job.command(), env=job.environment, cwd=job.folder, start_new_session=True, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not (job.record / "waiting").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 3
    assert not job.is_resubmitted


def test_two_jobs_without_progress_are_enough(job):
    job.environment["EVENTS"] = "0"
    assert job.run().returncode == 0
    assert job.environment_of_next()["FFF_WITHOUT_PROGRESS"] == "1"
    done = job.run_next()
    assert done.returncode == 1
    assert "No task ended in this job, nor in the one before" in done.stderr
    assert not job.is_resubmitted


def test_progress_is_forgiving(job):
    assert job.run(FFF_WITHOUT_PROGRESS="1").returncode == 0
    assert job.environment_of_next()["FFF_WITHOUT_PROGRESS"] == "0"


def test_there_are_no_more_jobs_than_allowed(job):
    assert job.run(FFF_MAX_JOBS="2").returncode == 0
    done = job.run_next()
    assert done.returncode == 3
    assert "job 2 of 2 at most" in done.stderr
    assert not job.is_resubmitted


def test_a_batch_system_that_takes_no_next_job_is_no_success(job):
    done = job.run(SUBMITTED="1")
    assert done.returncode == 1
    assert "The next job could not be submitted. Go on by: " in done.stderr


def test_what_is_missing_is_said_before_anything_is_done(job):
    done = job.run(*(["none.yaml"] if job.system == "slurm" else []), FFF_CONFIG="none.yaml")
    assert done.returncode == 2
    assert "There is no config none.yaml" in done.stderr
    done = job.run(FFF_CONFIG=job.config.name, PATH="/usr/bin:/bin")
    assert done.returncode == 2
    assert "There is no program fff on" in done.stderr
    assert not (job.record / "run").exists()


def test_another_run_directory_can_be_given(job):
    given = [job.config.name, "there"] if job.system == "slurm" else []
    assert job.run(*given, FFF_RUN_DIR="there").returncode == 0
    assert (job.folder / "there" / "events.jsonl").exists()


@pytest.mark.parametrize("system", SUBMITTERS)
def test_what_must_be_changed_is_marked_and_stands_first(system):
    text = (CONFIGS / f"{system}.sh").read_text()
    below = text.index("Below nothing needs to be changed")
    assert 3 <= text.count("--- CHANGE:") <= 5
    assert text.rindex("CHANGE:") < below
    assert max(map(len, text.splitlines())) <= 120
