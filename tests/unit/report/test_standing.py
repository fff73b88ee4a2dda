"""A campaign's state is told as it is, whatever its status file says."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fff.data.run_directory import RunDirectory
from fff.data.run_lock import RunLock
from fff.report.standing import STALE_AFTER_S, read_standing

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from fff.data.run_lock import RunLock
RunLock(Path(sys.argv[1])).take()
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@pytest.fixture
def lock(run):
    """Held by this process."""
    lock = RunLock(run.lock)
    lock.take()
    yield lock
    lock.release()


def write_status(run, state, *, age_s=0.0, **more):
    status = {"schema_version": 1, "state": state, "reason": "why", "updated": time.time() - age_s, **more}
    run.status.write_text(json.dumps(status))
    if age_s:
        os.utime(run.status, (time.time() - age_s,) * 2)


@pytest.mark.parametrize(("state", "resumable"), [("finished", False), ("stopped", True), ("failed", True)])
def test_what_is_over_is_over(run, state, resumable):
    write_status(run, state)
    standing = read_standing(run)
    assert (standing.state, standing.reason, standing.resumable) == (state, "why", resumable)
    assert not standing.is_alive
    assert standing.to_json()["state"] == state


def test_a_campaign_with_a_process_is_running(run, lock):
    write_status(run, "running")
    standing = read_standing(run)
    assert (standing.state, standing.notes) == ("running", ())
    assert standing.how_to_go_on(run.path).startswith("fff stop ")


def test_a_campaign_whose_process_was_killed_was_left_and_can_be_resumed(run):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.lock)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert holder.stdout.readline()
    write_status(run, "running", eta_s=60.0)
    assert read_standing(run).state == "running"
    holder.kill()
    holder.communicate()
    standing = read_standing(run)
    assert (standing.state, standing.resumable) == ("left", True)
    assert "killed" in standing.reason
    assert standing.how_to_go_on(run.path) == f"fff resume {run.path}"
    told = standing.to_json()
    assert (told["state"], told["resumable"], told["eta_s"]) == ("left", True, None)


def test_what_stopped_a_campaign_is_told_until_it_goes_on(run):
    write_status(run, "stopped", stopped_by="walltime")
    assert read_standing(run).to_json()["stopped_by"] == "walltime"
    lock = RunLock(run.lock)
    lock.take()
    try:
        assert read_standing(run).to_json()["stopped_by"] is None
    finally:
        lock.release()


@pytest.mark.parametrize("state", ["stopped", "finished", "running"])
def test_a_process_that_has_taken_it_up_again_is_starting(run, state):
    write_status(run, state, age_s=100.0)
    lock = RunLock(run.lock)
    lock.take()
    try:
        assert read_standing(run).state == "starting"
    finally:
        lock.release()


def test_the_last_words_of_a_process_that_still_holds_its_lock_count(run, lock):
    os.utime(run.lock, (time.time() - 3.0,) * 2)
    write_status(run, "finished")
    assert read_standing(run).state == "finished"


def test_a_campaign_that_has_no_status_yet_is_starting_or_was_left(run):
    assert read_standing(run).state == "left"
    lock = RunLock(run.lock)
    lock.take()
    try:
        assert read_standing(run).state == "starting"
    finally:
        lock.release()


def test_a_process_that_is_held_up_is_remarked(run, lock):
    write_status(run, "running", age_s=STALE_AFTER_S + 10)
    os.utime(run.lock, (time.time() - STALE_AFTER_S - 5,) * 2)
    (note,) = read_standing(run).notes
    assert note.startswith("The status is 40 s old")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 7}', "\0\0", '"x"', "[" * 100_000])
def test_a_damaged_status_is_told_of(run, content):
    run.status.write_text(content)
    standing = read_standing(run)
    assert (standing.state, len(standing.notes)) == ("left", 1)
    assert json.dumps(standing.to_json())
