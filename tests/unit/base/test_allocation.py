from __future__ import annotations

import time

import pytest

import fff.base.allocation as module
from fff.base.allocation import Allocation, find_allocation

SLURM = {"SLURM_JOB_ID": "12"}
PBS = {"PBS_JOBID": "7.server"}
QSTAT = """Job Id: 7.server
    Job_Name = water
    Resource_List.ncpus = 4
    Resource_List.walltime = 01:30:00
    stime = {began}
    Variable_List = PBS_O_HOME=/home/me,PBS_O_QUOTE="
"""


@pytest.fixture
def batch_system(tmp_path, monkeypatch):
    """Put a program on PATH, alone there, that prints a text, or fails with it."""

    def install(program, text, code=0):
        path = tmp_path / program
        (tmp_path / "text").write_text(text)
        stream = 1 if code == 0 else 2
        path.write_text(f'#!/bin/sh\nprintf "%s" "$*" >{tmp_path}/asked\n')
        with path.open("a") as file:
            file.write(
                f'while read -r line; do echo "$line" >&{stream}; done <{tmp_path}/text\nexit {code}\n'
            )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return tmp_path / "asked"

    monkeypatch.setenv("PATH", str(tmp_path))
    return install


def test_outside_of_jobs_there_is_none():
    assert find_allocation({"PATH": "/bin"}) is None
    assert find_allocation({"SLURM_JOB_ID": "", "PBS_JOBID": ""}) is None


def test_slurm_says_the_end_in_the_environment_where_it_can():
    found = find_allocation({**SLURM, "SLURM_JOB_END_TIME": str(int(time.time()) + 600)})
    assert found.left_s == pytest.approx(600, abs=5)
    over = find_allocation({**SLURM, "SLURM_JOB_END_TIME": "1000"})
    assert over == Allocation("Slurm", "12", 0.0)


@pytest.mark.parametrize(
    ("text", "left_s"),
    [
        ("1-02:03:04\n", 93784),
        ("2:03:04\n", 7384),
        ("59:58\n", 3598),
        ("0:07\n", 7),
        ("7\n", 7),
        ("UNLIMITED\n", None),
        ("NOT_SET\n", None),
        ("30:00\n20:00\n", 1800),
    ],
)
def test_else_squeue_is_asked_for_the_time_left(batch_system, text, left_s):
    asked = batch_system("squeue", text)
    assert find_allocation(SLURM) == Allocation("Slurm", "12", left_s)
    assert asked.read_text() == "--noheader --jobs=12 --format=%L"


@pytest.mark.parametrize(("walltime", "left_s"), [("01:30:00", 4800), ("48:00:00", 172_200)])
def test_pbs_is_asked_for_start_and_walltime(batch_system, walltime, left_s):
    began = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 600))
    asked = batch_system("qstat", QSTAT.format(began=began).replace("01:30:00", walltime))
    found = find_allocation(PBS)
    assert (found.batch_system, found.job, found.problem) == ("PBS", "7.server", "")
    assert found.left_s == pytest.approx(left_s, abs=5)
    assert asked.read_text() == "-f 7.server"


def test_a_job_of_pbs_without_walltime_has_no_end(batch_system):
    batch_system("qstat", "Job Id: 7.server\n    stime = Sun Nov 22 08:00:00 2026\n")
    assert find_allocation(PBS) == Allocation("PBS", "7.server", None)


@pytest.mark.parametrize(
    ("environment", "program", "text", "code", "problem"),
    [
        (
            SLURM,
            "squeue",
            "slurm_load_jobs error: Invalid job id\n",
            1,
            "squeue failed: slurm_load_jobs error",
        ),
        (SLURM, "squeue", "", 1, "squeue failed: exit code 1"),
        (SLURM, "squeue", "", 0, "squeue knows no job 12"),
        (SLURM, "squeue", "INVALID\n", 0, "squeue says 'INVALID', which is no time"),
        (SLURM, "other", "", 0, "squeue cannot be started: No such file or directory"),
        (PBS, "qstat", "qstat: cannot connect to server\n", 1, "qstat failed: qstat: cannot connect"),
        (PBS, "qstat", "Resource_List.walltime = 01:00:00\n", 0, "qstat says no start of the job"),
        (
            PBS,
            "qstat",
            "Resource_List.walltime = 01:00:00\nstime = 7\n",
            0,
            "qstat says that the job began at '7'",
        ),
        (
            PBS,
            "qstat",
            "Resource_List.walltime = long\nstime = Sun Nov 22 08:00:00 2026\n",
            0,
            "qstat says 'long', which is no time",
        ),
    ],
)
def test_a_batch_system_that_gives_no_answer_is_a_problem_in_words(
    batch_system, environment, program, text, code, problem
):
    batch_system(program, text, code)
    found = find_allocation(environment)
    assert found.left_s is None
    assert found.problem.startswith(problem)


def test_a_batch_system_that_hangs_is_not_waited_for(batch_system, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tmp_path / "squeue").chmod(0o755)
    assert find_allocation(SLURM).problem == "squeue did not answer within 0 s"
