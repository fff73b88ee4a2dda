"""Blocks of Parsl on programs that answer as those of PBS: a block of two nodes, and one that PBS forgets."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.config.site import PbsSite
from tests.support.pbs import Pbs

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(600)]

PATIENCE_S = 200.0
# Ends when one runs on each node.
TOGETHER = (
    'touch "$0/$NODE"; until [ "$(ls "$0" | wc -l)" = 2 ]; do sleep 0.1; done; echo "$NODE $PBS_JOBID $SET"'
)


@pytest.fixture
def pbs(tmp_path, monkeypatch):
    made = Pbs(tmp_path / "pbs", ("n1", "n2"), runs_jobs=True)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_a_block_of_two_nodes_works_on_both_and_another_follows_one_that_pbs_has_forgotten(pbs, tmp_path):
    nodes = {"nodes_per_block": 2, "set_up": ["export SET=up"]}
    site = PbsSite.model_validate({"kind": "pbs", "poll_s": 1, "heartbeat_s": 10, "nodes": {"any": nodes}})
    queues = LocalQueues(["calculate"])
    server = start_server({"calculate": subprocess.check_output}, queues, make_site(site), tmp_path / "run")
    try:
        folder = tmp_path / "met"
        folder.mkdir()
        for _ in range(2):
            ask(queues, TOGETHER, folder)
        assert {answer(queues) for _ in range(2)} == {"n1 1.head up", "n2 1.head up"}

        ask(queues, 'touch "$0/begun"; sleep 3600', folder)
        wait_until((folder / "begun").exists)
        pbs.switch("no-history")
        os.killpg(int((pbs.folder / "jobs" / "1").read_text().split()[1]), signal.SIGKILL)
        pbs.tell("1", "")
        assert answer(queues) is None
        ask(queues, 'echo "$PBS_JOBID"', folder)
        assert answer(queues) == "2.head"
    finally:
        stop_server(server, queues, 20)
        queues.close()
    assert (pbs.folder / "jobs" / "2").read_text().startswith("F")


def ask(queues, line, folder):
    queues.send_inputs(["bash", "-c", line, str(folder)], method="calculate", topic="calculate")


def answer(queues):
    """Return what a task printed, None for one that was lost."""
    result = queues.get_result("calculate", timeout=PATIENCE_S)
    return result.value.decode().strip() if result.success else None


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
