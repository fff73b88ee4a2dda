"""When a pool whose blocks come and go is given up, and with what words."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.jobs.states import JobState, JobStatus

from fff.base.errors import CampaignError, SiteError
from fff.compute import watching
from fff.compute.watching import POOLS, PoolWatch

GONE = JobStatus(JobState.MISSING)
WAS_THERE = JobStatus(JobState.COMPLETED)
CANCELLED = JobStatus(JobState.SCALED_IN)
RUNS = JobStatus(JobState.RUNNING)
REFUSED = JobStatus(
    JobState.FAILED,
    "Failed to start block 7: Cannot launch job: no job ID; recode=1, stdout=, stderr=sbatch: error: bad",
)


class Running:
    """An interchange process that runs."""

    def poll(self):
        return None


def executor(tmp_path, *states, n_workers=0, block="0"):
    made = HighThroughputExecutor("cpu", address="127.0.0.1")
    made.run_dir = str(tmp_path)
    made.interchange_proc = Running()
    made._status = {str(number): state for number, state in enumerate(states)}
    made.connected_managers = lambda: [
        {"manager": "a", "block_id": block, "active": n_workers > 0, "worker_count": n_workers, "tasks": 3},
        {"manager": "b", "block_id": "0", "active": False, "worker_count": 9, "tasks": 9},
    ]
    made.held = []
    made._hold_manager = made.held.append
    return made


def watch(tmp_path, made, *, submits_jobs=True):
    return PoolWatch({"cpu": made, "own": ThreadPoolExecutor()}, tmp_path, submits_jobs=submits_jobs)


def wait_until_told(tmp_path):
    end = time.monotonic() + 60
    while not (tmp_path / POOLS).exists() and time.monotonic() < end:
        time.sleep(0.01)


def look(tmp_path, made, *, submits_jobs=True):
    with watch(tmp_path, made, submits_jobs=submits_jobs) as looking:
        if submits_jobs:
            wait_until_told(tmp_path)
        looking.look()
        looking.look()
    assert (tmp_path / POOLS).exists() == submits_jobs


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What must last for some seconds is the end at once."""
    monkeypatch.setattr(watching, "BARREN_S", 0.0)


@pytest.mark.parametrize(
    "states",
    [
        (),
        (GONE, GONE),
        (GONE, GONE, WAS_THERE),
        (GONE, WAS_THERE, GONE, GONE),
        (WAS_THERE,) * 9,
        (CANCELLED, CANCELLED, CANCELLED, RUNS),
    ],
)
def test_blocks_come_and_go(tmp_path, states):
    look(tmp_path, executor(tmp_path, *states))


@pytest.mark.parametrize("last", list(itertools.product([GONE, REFUSED], repeat=3)))
def test_three_in_a_row_that_never_had_a_worker_are_the_end(tmp_path, last):
    made = executor(tmp_path, *last[:2], CANCELLED, last[2], RUNS)
    with pytest.raises(SiteError, match="The last 3 jobs of pool 'cpu' ended before a worker was") as caught:
        look(tmp_path, made)
    assert "site.nodes.cpu" in caught.value.hint
    if last[2] is REFUSED:
        assert caught.value.message.endswith("there: sbatch: error: bad.")


def test_a_batch_system_that_refuses_for_a_while_costs_no_pool_that_has_or_had_workers(tmp_path, monkeypatch):
    look(tmp_path, executor(tmp_path, REFUSED, REFUSED, REFUSED, RUNS, n_workers=4, block="3"))
    barren = executor(tmp_path, WAS_THERE, REFUSED, REFUSED, REFUSED)
    look(tmp_path, barren)
    monkeypatch.setattr(watching, "BARREN_AFTER_WORKERS_S", 0.0)
    with pytest.raises(SiteError, match="ended before a worker was there"):
        look(tmp_path, barren)


def test_a_pool_that_never_had_a_worker_has_some_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "BARREN_S", 3600.0)
    look(tmp_path, executor(tmp_path, REFUSED, REFUSED, REFUSED))


def test_what_a_job_printed_last_is_passed_on(tmp_path):
    (tmp_path / "err").write_text("fff: this line of set_up failed:\n  module load x\n")
    gone = JobStatus(JobState.MISSING, "Job is marked as MISSING", stderr_path=str(tmp_path / "err"))
    with pytest.raises(SiteError, match=r"there: fff: this line of set_up failed: module load x\.$"):
        look(tmp_path, executor(tmp_path, gone, gone, gone))


def test_workers_that_cannot_reach_this_machine_are_told_of_with_the_key_that_helps(tmp_path):
    (tmp_path / "err").write_text(
        "Traceback\n  " + "x" * 900 + "\nConnectionError: No viable ZMQ url from: tcp://a\n"
    )
    gone = JobStatus(JobState.MISSING, stderr_path=str(tmp_path / "err"))
    with pytest.raises(
        SiteError, match=r"was there: ConnectionError: No viable ZMQ url from: tcp://a\.$"
    ) as caught:
        look(tmp_path, executor(tmp_path, gone, gone, gone))
    assert caught.value.hint.startswith("Set `site.address`")


def test_on_one_machine_a_block_that_ends_is_the_end(tmp_path):
    with pytest.raises(CampaignError, match="The workers of pool 'cpu' are gone") as caught:
        look(tmp_path, executor(tmp_path, WAS_THERE), submits_jobs=False)
    assert not isinstance(caught.value, SiteError)  # another one may do better


def test_a_job_that_is_too_small_for_the_workers_is_told_of_in_the_words_of_srun(tmp_path):
    (tmp_path / "err").write_text("srun: error: Unable to create step for job 39: More processors\n")
    gone = JobStatus(JobState.MISSING, stderr_path=str(tmp_path / "err"))
    with pytest.raises(SiteError, match="'cpu' ended before one was there: srun: error: Unable") as caught:
        look(tmp_path, executor(tmp_path, gone), submits_jobs=False)
    assert "too few nodes or cores" in caught.value.hint


def test_a_job_that_has_ended_gets_no_more_tasks_and_its_workers_do_not_count(tmp_path):
    made = executor(tmp_path, WAS_THERE, RUNS, n_workers=4)
    look(tmp_path, made)
    assert made.held == ["a"]
    assert json.loads((tmp_path / POOLS).read_text())["pools"]["cpu"]["workers"] == 0


def test_a_manager_that_is_not_sound_costs_its_job_alone(tmp_path):
    made = executor(tmp_path, RUNS, RUNS)
    made.blocks_to_job_id |= {"0": "100", "1": "101"}
    cancelled = []
    made.provider.cancel = cancelled.extend
    log = tmp_path / "cpu" / "block-1" / "abc" / "manager.log"
    log.parent.mkdir(parents=True)
    log.write_text("Worker 3 was not busy when it died\n")
    look(tmp_path, made)
    assert cancelled == ["101"]
    with pytest.raises(CampaignError, match="cannot be relied on: a worker died between two tasks"):
        look(tmp_path, made, submits_jobs=False)


def test_how_many_workers_there_are_is_told_in_a_file(tmp_path):
    with watch(tmp_path, executor(tmp_path, RUNS, JobStatus(JobState.PENDING), GONE, n_workers=4)):
        wait_until_told(tmp_path)
    told = json.loads((tmp_path / POOLS).read_text())["pools"]
    assert told == {"cpu": {"workers": 4, "busy": 3, "nodes": 1, "jobs_running": 1, "jobs_waiting": 1}}
