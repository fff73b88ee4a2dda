"""What steering and task server rely on in any queue, over every queue a site may name."""

from __future__ import annotations

import threading
import time

import pytest
from colmena.exceptions import KillSignalException, TimeoutException

from fff.compute.queues import LocalQueues
from fff.compute.redis_queues import RedisQueues
from tests.support.redis_server import started_redis

TOPICS = ["train", "sample", "select", "calculate"]
MEGABYTE = 1_000_000


@pytest.fixture
def redis_server(tmp_path, monkeypatch):
    server = started_redis(tmp_path, monkeypatch)
    yield server
    server.stop()


@pytest.fixture(params=["local", "redis"])
def queues(request):
    if request.param == "local":
        made = LocalQueues(TOPICS)
        yield made
        made.close()
    else:
        server = request.getfixturevalue("redis_server")
        made = RedisQueues(server.connect_to, "fff:test:", TOPICS)
        yield made
        made.close()
        assert server.key_names() == set()


def serve_one(queues, value=None):
    topic, task = queues.get_task(timeout=5)
    task.deserialize()
    task.set_result(task.args[0] if value is None else value)
    task.serialize()
    queues.send_result(task)
    return topic


def test_inputs_reach_the_server_and_values_come_back(queues):
    task_id = queues.send_inputs(
        [1, 2], method="sum", input_kwargs={"start": 3}, topic="train", task_info={"request": "r1"}
    )
    topic, task = queues.get_task(timeout=5)
    task.deserialize()
    assert (topic, task.method, task.args, task.kwargs) == ("train", "sum", ([1, 2],), {"start": 3})
    task.set_result(6)
    task.serialize()
    queues.send_result(task)
    result = queues.get_result("train", timeout=5)
    assert (result.value, result.success, result.task_id) == (6, True, task_id)
    assert result.task_info == {"request": "r1"}


def test_requests_keep_their_order(queues):
    for i in range(20):
        queues.send_inputs(i, method="f", topic=TOPICS[i % 4])
    seen = []
    for _ in range(20):
        _, task = queues.get_task(timeout=5)
        task.deserialize()
        seen.append(task.args[0])
    assert seen == list(range(20))


def test_a_result_waits_under_its_own_topic(queues):
    queues.send_inputs(1, method="f", topic="train")
    serve_one(queues)
    with pytest.raises(TimeoutException):
        queues.get_result("sample", timeout=0.1)
    assert queues.get_result("train", timeout=5).value == 1


def test_an_empty_queue_times_out_on_both_sides(queues):
    with pytest.raises(TimeoutException):
        queues.get_result("train", timeout=0.1)
    with pytest.raises(TimeoutException):
        queues.get_task(timeout=0.1)


def test_the_kill_signal_comes_after_what_was_sent_before(queues):
    queues.send_inputs(1, method="f", topic="train")
    queues.send_kill_signal()
    queues.get_task(timeout=5)
    with pytest.raises(KillSignalException):
        queues.get_task(timeout=5)


def test_a_task_counts_as_active_until_its_result_is_taken(queues):
    queues.send_inputs(1, method="f", topic="train")
    assert queues.active_count == 1
    serve_one(queues)
    assert queues.active_count == 1
    queues.get_result("train", timeout=5)
    assert queues.active_count == 0
    assert queues.wait_until_done(timeout=1)


def test_an_unknown_topic_is_refused(queues):
    with pytest.raises(ValueError, match="topic"):
        queues.send_inputs(1, method="f", topic="cooking")


def test_four_threads_exchange_a_megabyte_each_while_the_other_side_is_slow(queues):
    taken = {}

    def steer(topic):
        queues.send_inputs(topic[0].encode() * MEGABYTE, method="f", topic=topic)
        taken[topic] = queues.get_result(topic, timeout=30).value

    agents = [threading.Thread(target=steer, args=(topic,)) for topic in TOPICS]
    for agent in agents:
        agent.start()
    time.sleep(0.3)
    for _ in TOPICS:
        serve_one(queues)
        time.sleep(0.05)
    for agent in agents:
        agent.join(30)
    assert taken == {topic: topic[0].encode() * MEGABYTE for topic in TOPICS}
