from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import time
import warnings

import pytest
from colmena.exceptions import KillSignalException, TimeoutException
from colmena.models import FailureInformation, Result
from colmena.queue.base import QueueRole

from fff.base.errors import CampaignError
from fff.compute.queues import _HEADER, LocalQueues, _End, shorten_failure
from fff.compute.stores import ModelShelf, open_store

MEGABYTE = 1_000_000


@pytest.fixture
def queues():
    made = LocalQueues(["train", "sample"])
    yield made
    made.close()


@pytest.fixture
def fork(queues):
    """Start a function of the queues in a forked process, as the task server is."""
    started = []

    def start(serve):
        def run():
            queues.keep(QueueRole.SERVER)
            serve(queues)
            queues.close(5)

        process = multiprocessing.get_context("fork").Process(target=run)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        queues.keep(QueueRole.CLIENT)
        started.append(process)
        return process

    yield start
    for process in started:
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


def sleep_for_ever(_):
    time.sleep(600)


def test_a_forked_server_answers_and_ends_on_the_kill_signal(queues, fork):
    server = fork(echo)
    queues.send_inputs(b"x" * MEGABYTE, method="f", topic="train")
    assert len(queues.get_result("train", timeout=10).value) == MEGABYTE
    queues.send_kill_signal()
    server.join(10)
    assert server.exitcode == 0


def test_what_was_sent_before_the_fork_arrives(queues, fork):
    queues.send_inputs(1, method="f", topic="train")
    fork(echo)
    assert queues.get_result("train", timeout=10).value == 1


def test_a_server_that_ends_delivers_what_it_had_to_send(queues, fork):
    def serve(queues):
        for _ in range(3):
            _, task = queues.get_task()
            task.set_result(b"x" * MEGABYTE)
            task.serialize()
            queues.send_result(task)

    server = fork(serve)
    for _ in range(3):
        queues.send_inputs(1, method="f", topic="train")
    server.join(0.3)
    assert [len(queues.get_result("train", timeout=10).value) for _ in range(3)] == [MEGABYTE] * 3


def test_sending_does_not_block_when_nobody_reads(queues, fork):
    fork(sleep_for_ever)
    started = time.monotonic()
    for _ in range(8):
        queues.send_inputs(b"x" * MEGABYTE, method="f", topic="train")
    assert time.monotonic() - started < 2
    started = time.monotonic()
    queues.close(linger_s=0.2)
    assert time.monotonic() - started < 2


def test_the_death_of_the_server_is_seen_and_nothing_waits_for_ever(queues, fork):
    server = fork(sleep_for_ever)
    queues.send_inputs(1, method="f", topic="train")
    assert queues.connected
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=0.3)
    assert not queues.connected
    with pytest.raises(CampaignError, match="task server is gone"):
        queues.get_result("train")
    active = queues.active_count
    with pytest.raises(CampaignError, match="task server is gone"):
        queues.send_inputs(1, method="f", topic="train")
    assert queues.active_count == active


def test_a_message_cut_off_by_a_kill_is_no_message():
    mine, theirs = socket.socketpair()
    end = _End(mine, {"train"})
    for length in (10, 1000):
        theirs.sendall(_HEADER.pack(5, length) + b"train" + b"x" * 10)
    theirs.close()
    assert end.get("train", timeout=5) == ("train", b"x" * 10)
    with pytest.raises(EOFError):
        end.get("train", timeout=None)
    end.close(0)


def test_the_server_stops_when_the_steering_process_is_gone(queues):
    server, client = queues._server, queues._client
    client.close(0)
    with pytest.raises(KillSignalException):
        queues.get_task()
    assert not server.open


def test_a_task_is_active_before_it_is_sent(queues, monkeypatch):
    seen = []
    monkeypatch.setattr(queues, "_send_request", lambda message, topic: seen.append(queues.active_count))
    queues.send_inputs(1, method="f", topic="train")
    assert seen == [1]


def test_the_largest_message_counts_requests_and_results(queues):
    queues.send_inputs(b"x" * 1000, method="f", topic="train")
    request = queues.largest_message
    # Pickled and written as hexadecimal digits: twice the size and a kilobyte of Colmena's own.
    assert 2000 < request < 4000
    _, task = queues.get_task(timeout=5)
    task.set_result(b"y" * 5000)
    task.serialize()
    queues.send_result(task)
    assert queues.largest_message == request
    queues.get_result("train", timeout=5)
    assert queues.largest_message > 10_000


def test_a_request_with_two_proxies_stays_small(queues, tmp_path):
    with ModelShelf(open_store(tmp_path / "a" / "folder" / "of" / "usual" / "length", "test-size")) as shelf:
        models = [shelf.acquire(key, lambda: {"weights": bytes(MEGABYTE)}) for key in ("first", "second")]
        settings = {f"key_number_{i}": float(i) for i in range(20)}
        queues.send_inputs(settings, *models, method="train", topic="train")
    assert queues.largest_message < 7000


def test_a_failure_passes_with_a_short_message(queues):
    queues.send_inputs(1, method="f", topic="train")
    _, task = queues.get_task(timeout=5)
    task.success = False
    task.failure_info = FailureInformation(exception="E" * 99_000, traceback="begin" + "T" * 99_000 + "end")
    queues.send_result(task)
    failure = queues.get_result("train", timeout=5).failure_info
    assert queues.largest_message < 10_000
    assert failure.traceback.startswith("begin")
    assert failure.traceback.endswith("end")
    assert "letters left out" in failure.exception


def test_a_short_failure_message_is_left_alone():
    result = Result(((), {}))
    result.failure_info = FailureInformation(exception="ValueError('x')", traceback=None)
    shorten_failure(result)
    assert result.failure_info == FailureInformation(exception="ValueError('x')", traceback=None)
    result.failure_info = None
    shorten_failure(result)
    assert result.failure_info is None


def test_flush_drops_what_has_arrived(queues):
    queues.send_inputs(1, method="f", topic="train")
    queues.get_task(timeout=5)
    queues.send_inputs(2, method="f", topic="train")
    time.sleep(0.1)
    queues.flush()
    with pytest.raises(TimeoutException):
        queues.get_task(timeout=0.1)


def test_waiting_ends_when_the_queue_is_closed(queues):
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=0.01)
    queues.close()
    queues.close()
    with pytest.raises(CampaignError):
        queues.get_result("train")
    with pytest.raises(KillSignalException):
        queues.get_task()


def test_queues_are_inherited_not_pickled(queues):
    with pytest.raises(TypeError):
        pickle.dumps(queues)
