"""Campaigns on a real Slurm: blocks are cancelled, expire, cannot start; a batch job follows the other."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from fff.steering.replay import replay
from tests.faults.campaign import Campaign
from tests.faults.kill import Reference, differences
from tests.support.redis_server import VARIABLE, started_redis
from tests.support.slurm import slurm_for_tests

# Minutes on a free machine; a busy one may take long to start the workers of a block.
pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 120.0
SMALL = {
    "stop": {"max_labels": 12, "grace_s": 2.0},
    "sampling": {"n_frames": 4},
    "test": {"n_frames": 0},
}


@pytest.fixture(scope="module")
def slurm():
    with pytest.MonkeyPatch.context() as monkeypatch, slurm_for_tests(monkeypatch) as slurm:
        yield slurm


@pytest.fixture(autouse=True)
def no_block_left(slurm):
    """Fail a test that leaves a block of its campaign in the queue."""
    yield
    end = time.monotonic() + SOON_S
    while (left := slurm.blocks()) and time.monotonic() < end:
        time.sleep(0.2)
    slurm.cancel("fff.")
    assert not left, f"blocks left in the queue: {left}"


def on_slurm(folder, *, inside_allocation=False, nodes=None, **sections):
    """Return a campaign on blocks of one worker each."""
    campaign = Campaign(folder, time_limit_s=3600.0, **{**SMALL, **sections})
    kind = {"workers_per_node": 1, "walltime": "00:10:00", "max_blocks": 1, **(nodes or {})}
    campaign.settings["site"] = {
        "kind": "slurm",
        "inside_allocation": inside_allocation,
        "poll_s": 1,
        "heartbeat_s": 10,
        "nodes": {"any": kind},
    }
    campaign.config.write_text(json.dumps(campaign.settings, indent=1))
    return campaign


def n_labels(campaign):
    return sum(event.kind == "calculate" and event.outcome == "done" for event in campaign.events())


def n_begun(campaign):
    return sum(what == "begin" for what, _ in campaign.calculations())


def begin_a_long_calculation(slurm, campaign):
    """Let the next calculation take hours, and those after it no time; return what it calculates."""
    campaign.slow_down(7200)
    begun = n_begun(campaign)
    slurm.wait_until(lambda: n_begun(campaign) > begun, "a long calculation")
    _, calculated = campaign.calculations()[-1]
    # The program notes that it begins, and then looks how long it is to take.
    time.sleep(2)
    campaign.slow_down(0)
    return calculated


def lost(campaign):
    """Return how often each request was lost with its block."""
    failed = [event for event in campaign.events() if event.outcome == "failed"]
    assert {event.values["failure_class"] for event in failed} <= {"lost"}
    return Counter(event.request for event in failed)


def in_flight(campaign):
    """Return the requests that a sitting which is over has left open."""
    return set(replay(campaign.events(), campaign.run.events).policy.open_requests)


def submit(slurm, campaign, walltime):
    """Submit the batch script, changed where it says CHANGE, and return the number of the job."""
    text = (ROOT / "configs" / "slurm.sh").read_text()
    text = text.replace("--time=24:00:00", f"--time={walltime}")
    text = text.replace("# module load python/3.12", f"PATH={Path(sys.executable).parent}:$PATH")
    script = campaign.folder / "mine.sh"
    script.write_text(text)
    return slurm.submit(f"--chdir={campaign.folder}", script, campaign.config, campaign.run.path)


def check_labels(campaign, left_open=frozenset()):
    """Check that as many labels are there as asked for, and that none was made twice but those in flight.

    Args:
        campaign: It has finished.
        left_open: Requests, or keys of structures, that were in flight when a sitting ended before.
    """
    rows = campaign.rows()
    assert len(rows) == campaign.settings["stop"]["max_labels"]
    assert len({row["hash"] for row in rows.values()}) == len(rows)
    status = json.loads(campaign.run.status.read_text())
    assert (status["state"], status["stopped_by"]) == ("finished", None)
    assert status["labels"]["failed"] == 0
    begun = Counter(key for what, key in campaign.calculations() if what == "begin")
    failed = lost(campaign)
    for request, row in rows.items():
        if row["key"] not in campaign.also_elsewhere:
            again = failed[request] + bool({request, row["key"]} & left_open)
            assert begun[row["key"]] <= 1 + again, request


def test_a_job_knows_when_it_ends(slurm):
    code = "from fff.base.allocation import find_allocation as f; x = f(); print(x.batch_system, x.left_s)"
    out = slurm.call("srun", "--time=3", sys.executable, "-P", "-c", code)
    system, left_s = out.split()
    assert system == "Slurm"
    assert 60 < float(left_s) <= 180


def test_blocks_that_are_cancelled_and_that_expire_cost_only_what_ran_on_them(slurm, tmp_path):
    nodes = {"max_blocks": 2, "min_blocks": 2, "drain_s": 60}
    with on_slurm(tmp_path, nodes=nodes) as campaign:
        campaign.slow_down(0.5)
        campaign.start()
        assert campaign.wait_until(lambda: len(slurm.running()) == 2 and n_labels(campaign) >= 2, "labels")
        # One is cancelled while a calculation runs.
        first = slurm.running()[0]
        slurm.call("scancel", first)
        assert campaign.wait_until(lambda: first not in slurm.blocks(), "the end of a block")
        done = n_labels(campaign)
        assert campaign.wait_until(lambda: n_labels(campaign) >= done + 2, "labels after it")
        # What begins now would take hours; the blocks may run for a minute only.
        begin_a_long_calculation(slurm, campaign)
        jobs = slurm.running()
        for job in jobs:
            slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        assert campaign.wait_until(lambda: not set(jobs) & set(slurm.blocks()), "the end of their time")
        assert campaign.wait() == 0, campaign.last_line
        assert lost(campaign)
        check_labels(campaign)
        assert campaign.left() == []


def test_a_killed_campaign_leaves_no_job_and_goes_on(slurm, tmp_path):
    with on_slurm(tmp_path, nodes={"max_blocks": 2, "min_blocks": 2}) as campaign:
        campaign.slow_down(0.5)
        campaign.start()
        assert campaign.wait_until(lambda: slurm.running() and n_labels(campaign) >= 2, "labels")
        before = campaign.rows()
        for process in [*campaign.find("server"), *campaign.find("main")]:
            os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert campaign.wait() == -signal.SIGKILL
        left_open = in_flight(campaign)
        slurm.wait_until(lambda: not slurm.blocks(), "the end of what it had submitted")
        assert time.monotonic() - killed < SOON_S
        campaign.slow_down(0)
        campaign.start("resume", str(campaign.run.path))
        assert campaign.wait() == 0, campaign.last_line
        rows = campaign.rows()
        assert {request: rows.get(request) for request in before} == before
        check_labels(campaign, left_open)
        assert campaign.left() == []


@pytest.fixture(scope="module")
def job_near_its_end(slurm, tmp_path_factory):
    """A batch job of two minutes in the middle of a calculation that takes longer; and what is calculated."""
    folder = tmp_path_factory.mktemp("jobs")
    with on_slurm(folder, inside_allocation=True) as campaign:
        campaign.slow_down(0.2)
        job = submit(slurm, campaign, "00:02:00")
        slurm.wait_until(lambda: n_labels(campaign) >= 2, "labels")
        yield campaign, job, begin_a_long_calculation(slurm, campaign)
        slurm.cancel()


@pytest.mark.usefixtures("job_near_its_end")  # which needs its time, and one of the four CPUs
def test_in_serial_order_laptop_and_slurm_give_the_same_labels(slurm, tmp_path):
    laptop = Reference.made_in(tmp_path / "laptop", "serial", **SMALL)
    with on_slurm(tmp_path / "slurm") as campaign:
        campaign.start()
        assert campaign.wait() == 0, campaign.last_line
        assert differences(SimpleNamespace(campaign=campaign), laptop) == []


def test_a_job_stops_at_its_walltime_and_submits_one_that_finishes(slurm, job_near_its_end):
    campaign, first, calculated = job_near_its_end
    slurm.wait_until(lambda: first not in slurm.jobs(), "the end of the first job")
    said = (campaign.folder / f"fff-{first}.txt").read_text()
    assert f"Job    Slurm job {first} ends in" in said
    assert "Stopped: the walltime is near. Resume with: fff resume " in said
    slurm.wait_until(lambda: not slurm.jobs(), "the end of all jobs")
    last = max(campaign.folder.glob("fff-*.txt"), key=lambda path: path.stat().st_mtime_ns)
    said = last.read_text()
    # Two jobs, unless this machine is so slow that the first one did nothing.
    assert "of 50 at most" in said
    assert "Finished: " in said
    check_labels(campaign, {calculated})


def test_a_steering_job_that_is_cancelled_takes_its_blocks_along_and_has_no_next_one(slurm, tmp_path):
    with on_slurm(tmp_path) as campaign:
        campaign.slow_down(0.2)
        job = submit(slurm, campaign, "01:00:00")
        slurm.wait_until(lambda: n_labels(campaign) >= 1, "a label")
        slurm.call("scancel", job)
        slurm.wait_until(lambda: not slurm.jobs(), "the end of all jobs")
        status = json.loads(campaign.run.status.read_text())
        assert (status["state"], status["stopped_by"]) == ("stopped", "signal")
        assert [path.name for path in tmp_path.glob("fff-*.txt")] == [f"fff-{job}.txt"]


UNUSABLE = {
    "a partition that is not there": ({"partition": "none"}, "invalid partition"),
    "a line of set_up that fails": ({"set_up": ["module_that_is_missing load"]}, "module_that_is_missing"),
}


@pytest.mark.parametrize(("nodes", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_blocks_that_cannot_start_end_the_campaign_soon_with_the_reason(slurm, tmp_path, nodes, words):
    with on_slurm(tmp_path, nodes=nodes) as campaign:
        began = time.monotonic()
        campaign.start()
        assert campaign.wait() in {1, 2}
        assert time.monotonic() - began < 2 * SOON_S
        said = campaign.output.read_text()
        assert words in said
        assert campaign.last_line.startswith("Failed: ") or "Hint: " in said
        assert campaign.left() == []


# --- queues and store on a Redis server -----------------------------------------------------------------


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "redis"
    folder.mkdir()
    made = started_redis(folder, monkeypatch)
    yield made
    made.stop()


def kinds_of_keys(server):
    return {key.split(":")[3] for key in server.key_names()}


def test_workers_on_nodes_have_the_password_from_their_environment_and_no_file_has_it(
    slurm, server, tmp_path
):
    campaign = on_slurm(
        tmp_path / "campaign",
        start={"n_labels": 4},
        training={"retrain_every": 4, "max_epochs": 4},
        sampling={"n_frames": 4, "n_trajectories": 2},
        stop={"max_labels": 8, "grace_s": 2.0},
        redis={"url": server.url, "password_variable": VARIABLE},
    )
    with campaign:
        campaign.start()
        assert campaign.wait_until(lambda: kinds_of_keys(server) >= {"requests", "store"}, "both parts")
        assert campaign.wait() == 0, campaign.output.read_text()
        assert len(campaign.rows()) == 8
        assert not [event for event in campaign.events() if event.outcome == "failed"]
        assert server.key_names() == set()
        slurm.wait_until(lambda: not slurm.blocks(), "the end of its blocks")
        assert campaign.left() == []

        files = [path for path in campaign.folder.rglob("*") if path.is_file()]
        assert [path for path in files if "submit_scripts" in path.parts]
        assert not [path for path in files if server.password.encode() in path.read_bytes()]
