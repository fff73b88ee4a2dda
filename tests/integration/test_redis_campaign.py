"""A real campaign over a real Redis server that loses its data, stays away for good, and answers no more."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from fff.data.events import read_events
from fff.data.labels import LabelStore
from fff.data.run_directory import RunDirectory
from tests.support.redis_server import VARIABLE, started_redis

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 500.0

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]

CONFIG = {
    "name": "over-redis",
    "seed": 3,
    "structures": ["bulk:Cu:1x1x1"],
    "reference": {"kind": "ase", "calculator": "emt"},
    "model": {"n_features": 8, "n_layers": 1, "cutoff_A": 3.0, "n_radial": 8},
    "committee": {"size": 2},
    "start": {"n_labels": 6},
    "training": {"retrain_every": 6, "max_epochs": 12},
    "sampling": {
        "n_parallel": 2,
        "n_trajectories": 3,
        "n_steps": 20,
        "max_steps": 40,
        "timestep_fs": 2.0,
        "n_frames": 6,
    },
    "audit": {"energy_tolerance_eV_per_atom": 5.0, "force_tolerance_eV_per_A": 50.0},
    "selection": {"chunk_size": 5},
    "test": {"n_frames": 0},
    "stop": {"max_labels": 14, "grace_s": 1.0},
    "site": {"kind": "laptop", "n_workers": 1},
}


class Campaign:
    """A campaign in a process of its own, as a user runs it."""

    def __init__(self, folder, server):
        self.run = RunDirectory(folder / "run")
        self.config = folder / "config.yaml"
        redis = {"url": server.url, "password_variable": VARIABLE, "patience_s": 10.0}
        self.config.write_text(json.dumps({**CONFIG, "redis": redis}))
        self.output = folder / "output.txt"
        self.process = None

    def start(self):
        with self.output.open("a") as output:
            command = [
                sys.executable,
                str(ROOT / "run.py"),
                str(self.config),
                "--run-dir",
                str(self.run.path),
            ]
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def n_events(self):
        return len(self.run.events.read_text().splitlines()) if self.run.events.exists() else 0

    def wait_for_more_events(self, n):
        target = self.n_events() + n
        self.wait_until(lambda: self.n_events() >= target)

    def wait_until(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def last_line(self):
        return self.output.read_text().rstrip().splitlines()[-1]


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "redis"
    folder.mkdir()
    made = started_redis(folder, monkeypatch)
    yield made
    made.stop()


@pytest.fixture
def campaign(tmp_path, server):
    made = Campaign(tmp_path, server)
    yield made
    if made.process is not None and made.process.poll() is None:
        family = psutil.Process(made.process.pid).children(recursive=True)
        made.process.kill()
        made.process.wait()
        psutil.wait_procs(family, timeout=10)


def command_lines():
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


def test_nothing_is_lost_or_repeated_whatever_the_server_does_and_the_password_is_nowhere(campaign, server):
    campaign.start()
    campaign.wait_until(lambda: any(key.endswith(":store") for key in server.key_names()))
    assert all(key.startswith("fff:h") for key in server.key_names())
    assert not [line for line in command_lines() if server.password in line]

    # Its data are lost: whatever is on its way is sent and stored again, and nobody is started anew.
    server.stop()
    server.start()
    campaign.wait_for_more_events(4)

    # For good: the campaign stops, and says why and how to go on.
    server.stop()
    assert campaign.process.wait(PATIENCE_S) == 3
    assert f"The Redis server {server.url} was away for" in campaign.last_line()
    assert campaign.last_line().endswith(f"Resume with: fff resume {campaign.run.path}")
    status = json.loads(campaign.run.status.read_text())
    assert (status["state"], status["resumable"], status["stopped_by"]) == ("stopped", True, "redis")

    # Not before it is back.
    campaign.start()
    assert campaign.process.wait(PATIENCE_S) == 2
    assert "cannot be used" in campaign.output.read_text()

    # Killed: what it has left in the server goes when the campaign goes on.
    server.start()
    campaign.start()
    campaign.wait_for_more_events(1)
    campaign.process.kill()
    assert campaign.process.wait(PATIENCE_S) == -signal.SIGKILL
    left = sittings(server)
    assert len(left) == 1

    # Ctrl-C while it answers nothing.
    campaign.start()
    campaign.wait_for_more_events(1)
    assert not sittings(server) & left
    server.pause()
    campaign.process.send_signal(signal.SIGINT)
    assert campaign.process.wait(PATIENCE_S) == 3
    assert "SIGINT was received" in campaign.last_line()
    server.go_on()

    campaign.start()
    assert campaign.process.wait(PATIENCE_S) == 0, campaign.output.read_text()
    assert server.key_names() == set()
    assert not campaign.run.store.exists()
    check_that_each_label_is_there_once(campaign.run)
    check_that_it_is_nowhere(server.password, campaign)


def sittings(server):
    return {key.split(":")[2] for key in server.key_names()}


def check_that_each_label_is_there_once(run):
    with LabelStore(run.labels) as labels:
        hashes = [label.hash for label in labels.read()]
    assert len(hashes) == len(set(hashes)) == 14
    events = read_events(run.events)
    assert not [event for event in events if event.outcome == "failed"]
    done = Counter(event.request for event in events if event.request)
    assert set(done.values()) == {1}


def check_that_it_is_nowhere(password, campaign):
    assert password.encode() not in campaign.output.read_bytes()
    files = [path for path in campaign.run.path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if password.encode() in path.read_bytes()]
