"""The real task server, Parsl's interchange and workers. Tasks are functions that any worker can import."""

from __future__ import annotations

import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from fff.base.errors import CampaignError
from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.compute.stores import ModelShelf, open_store
from fff.config.site import LaptopSite, WorkstationSite

pytestmark = [pytest.mark.slow, pytest.mark.integration]

START_s = 60
METHODS = {
    "calculate": operator.truediv,
    "score": operator.getitem,
    "train": os.getenv,
    "dynamics": subprocess.call,
    "refit": re.compile,
}


class Running:
    """A task server with all that belongs to it."""

    def __init__(self, section, run_dir):
        self.run_dir = run_dir
        self.queues = LocalQueues(METHODS)
        self.server = start_server(METHODS, self.queues, make_site(section), run_dir)

    def send(self, kind, *args):
        self.queues.send_inputs(*args, method=kind, topic=kind)

    def ask(self, kind, *args, timeout=START_s):
        self.send(kind, *args)
        return self.queues.get_result(kind, timeout=timeout)

    def family(self):
        return psutil.Process(self.server.pid).children(recursive=True)

    def guard(self):
        return next(p for p in self.family() if "guard" in p.cmdline())

    def pool(self):
        return self.guard().children()[0]

    def interchange(self):
        return next(p for p in self.family() if "interchange" in " ".join(p.cmdline()))

    def stop(self, grace_s=10.0):
        ended = stop_server(self.server, self.queues, grace_s)
        self.queues.close()
        return ended


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    # Parsl hands paths to a shell without quotes.
    folder = tmp_path_factory.mktemp("my laptop's (first) run")
    running = Running(LaptopSite(kind="laptop", n_workers=2), folder)
    assert running.ask("calculate", 1, 2).value == 0.5
    yield running
    assert running.stop()


@pytest.fixture
def own(tmp_path):
    running = Running(LaptopSite(kind="laptop", n_workers=2), tmp_path)
    assert running.ask("calculate", 1, 2).value == 0.5
    yield running
    running.stop(0)


def wait_until(condition, within_s=10.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def is_gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_four_agents_get_their_own_results(laptop):
    taken = {}

    def agent(kind, *args):
        taken[kind] = [laptop.ask(kind, *args).value for _ in range(10)]

    arguments = [
        ("calculate", 6, 3),
        ("score", [7, 8], 1),
        ("train", "OMP_NUM_THREADS"),
        ("dynamics", ["true"]),
    ]
    agents = [threading.Thread(target=agent, args=one) for one in arguments]
    for one in agents:
        one.start()
    for one in agents:
        one.join(60)
    assert taken == {"calculate": [2.0] * 10, "score": [8] * 10, "train": ["1"] * 10, "dynamics": [0] * 10}


def test_a_proxied_parcel_reaches_the_worker_and_small_messages_the_queue(laptop, tmp_path):
    with ModelShelf(open_store(tmp_path / "store", "test-server")) as shelf:
        model = shelf.acquire("model", lambda: {"weights": b"\1" * 2_000_000, "name": b"painn"})
        assert laptop.ask("score", model, "name").value == b"painn"
        shelf.release("model")
        assert shelf.n_objects() == 0
    assert laptop.queues.largest_message < 10_000


def test_an_evicted_parcel_is_a_failed_task_not_a_lost_worker(laptop, tmp_path):
    with ModelShelf(open_store(tmp_path / "store", "test-evicted")) as shelf:
        proxy = shelf.acquire("model", lambda: {"name": b"painn"})
        shelf.release("model")
        result = laptop.ask("score", proxy, "name")
    assert not result.success
    assert "ProxyResolveMissingKeyError" in result.failure_info.traceback


def test_a_task_that_raises_is_a_failed_result_with_a_short_message(laptop):
    result = laptop.ask("refit", "(" * 50_000)
    assert not result.success
    assert result.failure_info.exception
    assert laptop.queues.largest_message < 120_000
    result = laptop.ask("calculate", 1, 0)
    assert "ZeroDivisionError" in result.failure_info.exception


def test_an_unknown_kind_of_task_is_a_failed_result(laptop):
    laptop.queues.send_inputs(1, method="cook", topic="train")
    result = laptop.queues.get_result("train", timeout=10)
    assert not result.success
    assert "no kind of task 'cook'" in result.failure_info.exception


def test_workers_see_no_accelerator_and_a_thread_each(laptop):
    assert laptop.ask("train", "CUDA_VISIBLE_DEVICES").value == ""
    assert laptop.ask("train", "MKL_NUM_THREADS").value == "1"


def test_the_terminal_stays_quiet_and_the_logs_are_in_the_run_directory(laptop, capfd):
    assert laptop.ask("calculate", 4, 2).value == 2.0
    assert capfd.readouterr() == ("", "")
    assert (laptop.run_dir / "parsl" / "server.log").exists()
    assert {p.name for p in laptop.run_dir.iterdir()} == {"parsl"}


def test_a_lost_worker_costs_its_task_and_is_replaced(own):
    own.send("dynamics", ["sleep", "600"])
    assert wait_until(lambda: any(p.name() == "sleep" for p in own.family()))
    sleeper = next(p for p in own.family() if p.name() == "sleep")
    started = time.monotonic()
    sleeper.parent().kill()
    sleeper.kill()
    result = own.queues.get_result("dynamics", timeout=20)
    assert not result.success
    assert "WorkerLost" in result.failure_info.exception
    assert time.monotonic() - started < 10
    for _ in range(4):
        assert own.ask("calculate", 1, 2).value == 0.5


@pytest.mark.parametrize("part", ["guard", "pool", "interchange"])
def test_the_loss_of_a_pool_ends_the_server_and_is_noticed(own, part):
    family = own.family()
    getattr(own, part)().kill()
    assert wait_until(lambda: not own.server.is_alive(), 60)
    assert own.server.exitcode == 1
    assert wait_until(lambda: not own.queues.connected, 30)
    assert "The workers of pool 'shared' are gone" in (own.run_dir / "parsl" / "server.log").read_text()
    assert wait_until(lambda: all(map(is_gone, family)), 30)


def test_a_server_that_lost_its_workers_ends_though_a_thread_waits_for_ever(tmp_path, monkeypatch):
    def lose(watch):
        threading.Thread(target=threading.Event().wait).start()  # in the server, as one of Parsl's
        msg = "The workers are gone."
        raise CampaignError(msg)

    monkeypatch.setattr("fff.compute.watching.PoolWatch.look", lose)
    running = Running(LaptopSite(kind="laptop", n_workers=1), tmp_path)
    try:
        assert wait_until(lambda: not running.server.is_alive(), 30)
        assert running.server.exitcode == 1
        assert "The workers are gone." in (tmp_path / "parsl" / "server.log").read_text()
    finally:
        running.stop(0)


def test_stopping_waits_for_running_tasks_within_the_grace(own):
    own.send("dynamics", ["sleep", "1"])
    assert own.stop(grace_s=20)
    assert own.server.exitcode == 0


def test_stopping_takes_bounded_time_and_leaves_nothing(own):
    own.send("dynamics", ["bash", "-c", "setsid sleep 600 & sleep 600"])
    assert wait_until(lambda: sum(p.name() == "sleep" for p in own.family()) == 2)
    family = own.family()
    started = time.monotonic()
    assert not own.stop(grace_s=1)
    assert time.monotonic() - started < 8
    assert all(map(is_gone, family))


def test_a_server_killed_while_running_is_noticed_and_leaves_nothing(own):
    own.send("dynamics", ["bash", "-c", "setsid sleep 600 & sleep 600"])
    assert wait_until(lambda: sum(p.name() == "sleep" for p in own.family()) == 2)
    family = own.family()
    os.kill(own.server.pid, signal.SIGKILL)
    assert wait_until(lambda: not own.server.is_alive() and not own.queues.connected, 30)
    assert wait_until(lambda: all(map(is_gone, family)), 30)


def test_a_workstation_gives_each_kind_its_pool_and_pins_accelerators(tmp_path):
    section = WorkstationSite(kind="workstation", accelerators=["7"], n_cpu_workers=1)
    running = Running(section, tmp_path)
    try:
        assert running.ask("train", "CUDA_VISIBLE_DEVICES").value == "7"
        assert running.ask("dynamics", ["bash", "-c", 'test -z "$CUDA_VISIBLE_DEVICES"']).value == 0
    finally:
        running.stop()


@pytest.fixture
def steering(tmp_path):
    script = Path(__file__).parents[1] / "support" / "compute_run.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_nothing_outlives_a_killed_steering_process(steering):
    family = [psutil.Process(int(pid)) for pid in steering.stdout.readline().split()]
    # Server, interchange, shell, guard, pool, its manager and tracker, two workers, three of the task.
    assert len(family) >= 11
    steering.kill()
    started = time.monotonic()
    assert wait_until(lambda: all(map(is_gone, family)), 10)
    assert time.monotonic() - started < 3


def test_ctrl_c_reaches_the_steering_process_alone(steering):
    family = [psutil.Process(int(pid)) for pid in steering.stdout.readline().split()]
    os.killpg(steering.pid, signal.SIGINT)
    time.sleep(0.5)
    steering.stdin.write("21\n")
    steering.stdin.flush()
    assert steering.stdout.readline() == "42\n"
    assert not any(map(is_gone, family))
