"""A campaign whose workers are jobs of a real Slurm, and whose messages and models go through a Redis."""

from __future__ import annotations

import json

import pytest

from tests.faults.campaign import Campaign
from tests.support.redis_server import VARIABLE, started_redis
from tests.support.slurm import slurm_for_tests

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]


@pytest.fixture
def slurm(monkeypatch):
    with slurm_for_tests(monkeypatch) as slurm:
        yield slurm


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "redis"
    folder.mkdir()
    made = started_redis(folder, monkeypatch)
    yield made
    made.stop()


@pytest.fixture
def campaign(tmp_path, server):
    made = Campaign(
        tmp_path / "campaign",
        test={"n_frames": 0},
        start={"n_labels": 4},
        training={"retrain_every": 4, "max_epochs": 4},
        sampling={"n_frames": 4, "n_trajectories": 2},
        stop={"max_labels": 8, "grace_s": 2.0},
        redis={"url": server.url, "password_variable": VARIABLE},
    )
    nodes = {"workers_per_node": 1, "walltime": "00:10:00", "max_blocks": 1}
    made.settings["site"] = {"kind": "slurm", "poll_s": 1, "nodes": {"any": nodes}}
    made.config.write_text(json.dumps(made.settings))
    with made:
        yield made


def kinds_of_keys(server):
    return {key.split(":")[3] for key in server.key_names()}


def test_workers_on_nodes_have_the_password_from_their_environment_and_no_file_has_it(
    slurm, server, campaign
):
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
