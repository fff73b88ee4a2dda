"""When a campaign was worked on, and where the time of its slots went."""

from __future__ import annotations

import pytest

from fff.data.events import Event
from fff.report.sittings import Sittings, account_of_slots


def task(started, ended, kind="train", outcome="done", queued=None):
    times = {"queued": started if queued is None else queued, "started": started, "ended": ended}
    return Event(1, kind, "x", outcome=outcome, times=times, worker="here:1")


OPENED = Event(0, "opened", values={"capacity": {"shared": 2}}, times={"started": 100.0})


def test_a_night_in_which_nobody_worked_is_no_time_worked():
    events = [OPENED, task(110, 150), task(10_010, 10_050)]
    sittings = Sittings(events, resumed=[10_000.0])
    assert sittings.stretches == [(100.0, 150), (10_000.0, 10_050)]
    assert sittings.worked_s == 100.0
    assert [sittings.worked_by(time) for time in (90, 130, 9_000, 10_020)] == [0, 30, 50, 70]
    assert [sittings.index(time) for time in (90, 130, 9_000, 10_020)] == [0, 0, 0, 1]


def test_the_status_says_until_when_a_campaign_was_worked_on():
    assert Sittings([OPENED, task(110, 150)], until=160.0).worked_s == 60.0


def test_a_campaign_without_times_has_not_worked():
    assert Sittings([Event(0, "opened")]).worked_s == 0.0


def test_every_second_of_a_slot_is_accounted_for():
    events = [
        OPENED,
        task(110, 150),
        task(112, 120, "dynamics", queued=111),
        task(120, 130, "calculate", "failed"),
    ]
    account = account_of_slots(events, Sittings(events, until=160.0), held_back_s=5.0)
    assert account.total_s == 120.0
    assert account.done_s == {"train": 40, "dynamics": 8}
    assert account.busy == pytest.approx(48 / 120)
    assert (account.failed_s, account.start_up_s, account.overhead_s) == (10.0, 20.0, 1.0)
    assert (account.held_back_s, account.waiting_s) == (5.0, 36.0)


def test_each_sitting_starts_its_workers_and_may_have_another_number_of_slots():
    more = Event(2, "changed", values={"capacity": {"gpu": 1, "cpu": 3}}, times={"started": 1_000.0})
    events = [OPENED, task(110, 150), more, task(1_010, 1_050)]
    account = account_of_slots(events, Sittings(events, resumed=[1_000.0]), held_back_s=0.0)
    assert account.total_s == 2 * 50 + 4 * 50
    assert account.start_up_s == 2 * 10 + 4 * 10
