"""Messages through a real Redis server to which everything happens that happens to servers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import warnings

import pytest
from colmena.exceptions import KillSignalException, TimeoutException
from colmena.queue.base import QueueRole

from fff.base.errors import ConfigError
from fff.compute.redis_queues import RedisQueues
from tests.support.redis_server import PATIENCE_S, VARIABLE, started_redis

pytestmark = [pytest.mark.slow, pytest.mark.integration]

PREFIX = "fff:a:b:"


@pytest.fixture
def server(tmp_path, monkeypatch):
    made = started_redis(tmp_path, monkeypatch)
    yield made
    made.stop()


@pytest.fixture
def lasting_server(tmp_path, monkeypatch):
    made = started_redis(tmp_path, monkeypatch, keeps_data=True)
    yield made
    made.stop()


@pytest.fixture
def fork():
    """Start a function of the queues in a forked process, as the task server is."""
    started = []

    def start(queues, serve):
        def run():
            queues.keep(QueueRole.SERVER)
            serve(queues)
            queues.close(PATIENCE_S)

        process = multiprocessing.get_context("fork").Process(target=run)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        queues.keep(QueueRole.CLIENT)
        started.append((queues, process))
        return process

    yield start
    for queues, process in started:
        queues.close()
        process.kill()
        process.join()


def echo(queues):
    while True:
        try:
            _, task = queues.get_task()
        except KillSignalException:
            return
        task.deserialize()
        task.set_result(task.args[0])
        task.serialize()
        queues.send_result(task)


def take(queues, n):
    return [queues.get_result("train", timeout=PATIENCE_S).value for _ in range(n)]


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_forked_server_answers_ends_on_the_kill_signal_and_leaves_no_key(server, fork):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    echoing = fork(queues, echo)
    queues.send_inputs(b"x" * 1_000_000, method="f", topic="train")
    assert len(take(queues, 1)[0]) == 1_000_000
    assert all(key.startswith(PREFIX) for key in server.key_names())
    queues.send_kill_signal()
    echoing.join(PATIENCE_S)
    assert echoing.exitcode == 0
    queues.close()
    assert server.key_names() == set()


def empty(server):
    with server.client() as client:
        client.flushall()


def cut_connections(server):
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def restart(server):
    server.stop()
    server.start()


def stay_away(server):
    server.stop()
    time.sleep(1)
    server.start()


@pytest.mark.parametrize("befall", [empty, cut_connections, restart, stay_away])
def test_whatever_befalls_the_server_each_message_arrives_once_and_in_order(server, fork, befall):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    fork(queues, echo)
    for i in range(300):
        queues.send_inputs(i, method="f", topic="train")
        if i == 100:
            befall(server)
    assert take(queues, 150) == list(range(150))
    befall(server)
    assert take(queues, 150) == list(range(150, 300))
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=1)
    wait_until(lambda: queues.absence.seconds == 0)


def test_a_server_that_comes_back_with_older_data_doubles_nothing(lasting_server, fork):
    requests, received = f"{PREFIX}requests", f"{PREFIX}requests:received"
    ready = multiprocessing.get_context("fork").Event()
    queues = RedisQueues(lasting_server.connect_to, PREFIX, ["train"])
    echoing = fork(queues, lambda queues: ready.wait(PATIENCE_S) and echo(queues))
    for i in range(50):
        queues.send_inputs(i, method="f", topic="train")
    with lasting_server.client() as client:
        wait_until(lambda: client.llen(requests) == 50)
        older = client.lrange(requests, 0, -1)
        ready.set()
        wait_until(lambda: client.get(received) == b"50")
        os.kill(echoing.pid, signal.SIGSTOP)
        # The first may still go to the process that does not run, which waits for it since before.
        client.rpush(requests, *older)
        client.set(received, 20)
    restart(lasting_server)
    with lasting_server.client() as client:
        assert client.lrange(requests, 0, -1)[-49:] == older[-49:]
        assert client.get(received) == b"20"
        os.kill(echoing.pid, signal.SIGCONT)
        wait_until(lambda: client.llen(requests) == 0 and client.get(received) == b"50")
    queues.send_inputs(50, method="f", topic="train")
    assert take(queues, 51) == list(range(51))
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=1)


def test_while_the_server_is_paused_sending_does_not_block_and_afterwards_all_arrives(server, fork):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    fork(queues, echo)
    queues.send_inputs(0, method="f", topic="train")
    assert take(queues, 1) == [0]
    server.pause()
    started = time.monotonic()
    for i in range(20):
        queues.send_inputs(i, method="f", topic="train")
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=0.1)
    assert time.monotonic() - started < 4
    wait_until(lambda: queues.absence.seconds > 0)
    assert queues.absence.why
    server.go_on()
    assert take(queues, 20) == list(range(20))


def test_closing_does_not_wait_for_a_server_that_is_away(server, fork):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    fork(queues, lambda queues: time.sleep(600))
    queues.send_inputs(1, method="f", topic="train")
    server.stop()
    wait_until(lambda: "refused" in queues.absence.why)
    queues.close()


def test_a_server_that_takes_no_writes_counts_as_away_also_where_nothing_is_to_be_said(server):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    queues.send_inputs(1, method="f", topic="train")
    with server.client() as client:
        client.config_set("maxmemory", 1)
    wait_until(lambda: "maxmemory" in queues.absence.why and queues.absence.seconds > 0)
    queues.close()


def test_another_password_counts_as_away_and_is_not_told(server, monkeypatch):
    monkeypatch.setenv(VARIABLE, "hunter2")
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    queues.send_inputs(1, method="f", topic="train")
    wait_until(lambda: queues.absence.seconds > 0)
    assert queues.absence.why == "it refuses user or password"
    queues.close()


def test_without_its_variable_there_is_no_queue(server, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=VARIABLE):
        RedisQueues(server.connect_to, PREFIX, ["train"])


def test_what_others_put_into_the_lists_is_never_unpickled(server):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    queues.send_inputs(1, method="f", topic="train")
    with server.client() as client:
        wait_until(lambda: client.llen(f"{PREFIX}requests") == 1)
        (frame,) = client.lrange(f"{PREFIX}requests", 0, -1)
        # Of nobody, changed on the way, and sent back where it came from.
        for forged in (b"", b"x", b"x" * 1000, frame[:-1] + b"x"):
            client.lpush(f"{PREFIX}requests", forged)
        client.rpush(f"{PREFIX}results", frame)
    _, task = queues.get_task(timeout=PATIENCE_S)
    task.deserialize()
    assert task.args == (1,)
    with pytest.raises(TimeoutException):
        queues.get_task(timeout=0.5)
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=0.5)
    queues.close()


def test_a_task_server_ends_when_the_steering_process_is_gone(server, fork):
    def steer(_):
        queues = RedisQueues(server.connect_to, PREFIX, ["train"])
        server_of_it = multiprocessing.get_context("fork").Process(target=serve, args=(queues,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            server_of_it.start()
        queues.keep(QueueRole.CLIENT)
        queues.send_inputs(server_of_it.pid, method="f", topic="train")
        time.sleep(600)

    def serve(queues):
        queues.keep(QueueRole.SERVER)
        echo(queues)
        with server.client() as client:
            client.set("ended", os.getpid())

    steering = fork(RedisQueues(server.connect_to, "fff:c:d:", ["train"]), steer)
    with server.client() as client:
        wait_until(lambda: client.get(f"{PREFIX}requests:received") == b"1")
        os.kill(steering.pid, signal.SIGKILL)
        wait_until(lambda: client.get("ended") is not None)


def test_every_key_goes_by_itself_if_nobody_removes_it(server):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    queues.send_inputs(1, method="f", topic="train")
    queues.get_task(timeout=PATIENCE_S)
    queues.send_inputs(2, method="f", topic="train")
    with server.client() as client:
        wait_until(lambda: len(server.key_names()) == 3)
        assert all(0 < client.ttl(key) <= 3600 for key in server.key_names())
    queues.close()
    queues.close()
    assert server.key_names() == set()


def test_queues_are_inherited_not_pickled(server):
    queues = RedisQueues(server.connect_to, PREFIX, ["train"])
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(queues)
    queues.close()
