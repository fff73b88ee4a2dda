"""No job is forgotten: what the ledger tells is cancelled, or kept for another try."""

from __future__ import annotations

import json
import shutil

import pytest

from fff.compute.ledger import LEDGER, cancel_jobs, note_job


@pytest.fixture
def batch_system(tmp_path, monkeypatch):
    """Commands in the place of scancel and qdel that note how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    called = tmp_path / "called.txt"

    def answer(script):
        for name in ("scancel", "qdel"):
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {called}\n{script}\n')
            (folder / name).chmod(0o755)

    answer("exit 0")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    answer.calls = lambda: called.read_text().splitlines() if called.exists() else []
    answer.folder = folder
    return answer


@pytest.fixture
def parsl(tmp_path):
    folder = tmp_path / "run" / "parsl"
    folder.mkdir(parents=True)
    for system, job in (("slurm", "7"), ("pbs", "8.host"), ("slurm", "9")):
        note_job(folder / LEDGER, system, job)
    return folder


def test_the_jobs_are_cancelled_once(parsl, batch_system):
    with (parsl / LEDGER).open("a") as file:
        file.write('{"kind": "slu')
    assert cancel_jobs(parsl) == ["7", "9", "8.host"]
    assert batch_system.calls() == ["scancel 7 9", "qdel 8.host"]
    assert cancel_jobs(parsl) == []
    assert list(parsl.iterdir()) == []
    assert len(batch_system.calls()) == 2


@pytest.mark.parametrize(
    "said",
    [
        "scancel: error: Kill job error on job id 7: Invalid job id specified",
        "scancel: error: Kill job error on job id 7: Job/step already completing or completed",
        "qdel: Unknown Job Id 8.host",
        "qdel: Job has finished 8.host",
    ],
)
def test_jobs_that_have_ended_are_over(parsl, batch_system, said):
    batch_system(f"echo '{said}' >&2; exit 1")
    cancel_jobs(parsl)
    assert not (parsl / LEDGER).exists()


def test_where_the_batch_system_does_not_answer_the_ledger_stays(parsl, batch_system, caplog):
    batch_system("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    cancel_jobs(parsl)
    assert "Jobs 7, 9 may be in the queue still: slurm_load_jobs error: Unable to contact" in caplog.text
    batch_system("exit 0")
    assert cancel_jobs(parsl) == ["7", "9", "8.host"]
    assert not (parsl / LEDGER).exists()


def test_a_batch_system_that_is_not_here_is_said_in_the_log(parsl, batch_system, caplog):
    shutil.rmtree(batch_system.folder)
    cancel_jobs(parsl)
    assert "Jobs 8.host may be in the queue still: there is no qdel here." in caplog.text
    assert (parsl / LEDGER).exists()


def test_a_copy_of_a_run_directory_leaves_the_jobs_of_the_other_alone(parsl, batch_system):
    copy = shutil.copytree(parsl, parsl.parent / "copy")
    assert cancel_jobs(copy) == []
    assert batch_system.calls() == []


@pytest.mark.parametrize("job", ["--me", "-u root", "7 8", "", "a", "7;reboot"])
def test_what_no_job_is_called_is_not_given_to_a_command(tmp_path, batch_system, job):
    entry = {"kind": "slurm", "job": job, "folder": str(tmp_path)}
    (tmp_path / LEDGER).write_text(json.dumps(entry) + "\n")
    assert cancel_jobs(tmp_path) == []
    assert batch_system.calls() == []
