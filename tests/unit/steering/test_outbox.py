"""Requests on their way to a submitter."""

from __future__ import annotations

import threading
import time

from fff.steering.outbox import Outbox
from fff.steering.records import Request


def request(name: str) -> Request:
    return Request(name, "train", "Trainer", "gpu")


def test_requests_come_out_in_the_order_in_which_they_went_in():
    outbox = Outbox()
    for name in ("c", "a", "b"):
        outbox.put(request(name))
    assert [outbox.get(0.0).id for _ in range(3)] == ["c", "a", "b"]


def test_an_empty_outbox_gives_nothing_after_the_time_asked_for():
    started = time.monotonic()
    assert Outbox().get(0.05) is None
    assert 0.05 <= time.monotonic() - started < 2.0


def test_a_delayed_request_lets_others_pass_and_comes_when_it_is_due():
    outbox = Outbox()
    started = time.monotonic()
    outbox.put(request("later"), delay_s=0.1)
    outbox.put(request("now"))
    assert outbox.get(1.0).id == "now"
    assert outbox.get(0.0) is None
    assert outbox.get(5.0).id == "later"
    assert 0.1 <= time.monotonic() - started < 2.0


def test_a_waiting_submitter_is_woken_by_a_request():
    outbox = Outbox()
    timer = threading.Timer(0.05, outbox.put, [request("a")])
    timer.start()
    started = time.monotonic()
    assert outbox.get(30.0).id == "a"
    assert time.monotonic() - started < 10.0
    timer.join()
