"""An event log is followed while it grows, whatever becomes of it."""

import shutil
import time

import pytest

from fff.data.events import Event, EventLog
from fff.report.following import Follower


def event(seq, message=""):
    return Event(seq, "calculate", f"label-{seq:05d}", values={"message": message})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, *events):
    with EventLog(path) as log:
        for item in events:
            log.append(item)


def test_each_event_is_given_once(path):
    follower = Follower(path)
    assert follower.read() == []
    write(path, event(0), event(1))
    assert follower.read() == [event(0), event(1)]
    assert follower.read() == []
    write(path, event(2))
    assert follower.read() == [event(2)]
    assert (follower.n_events, follower.restarts, follower.troubles) == (3, 0, [])


def test_a_half_line_is_read_when_it_is_whole(path):
    line = event(1, "Å is two bytes").to_line().encode()
    write(path, event(0))
    follower = Follower(path)
    for cut in (1, len(line) // 2, len(line) - 1):
        path.write_bytes(event(0).to_line().encode() + line[:cut])
        assert follower.read() in ([event(0)], [])
    path.write_bytes(event(0).to_line().encode() + line)
    assert follower.read() == [event(1, "Å is two bytes")]
    assert follower.restarts == 0


def test_a_half_line_that_a_resumed_campaign_cuts_off_leaves_no_trace(path):
    write(path, event(0))
    with path.open("a") as file:
        file.write('{"schema_version":1,"se')
    follower = Follower(path)
    assert follower.read() == [event(0)]
    write(path, event(1))
    assert follower.read() == [event(1)]


def test_a_log_that_was_cut_or_replaced_is_read_anew(path, tmp_path):
    write(path, *(event(seq) for seq in range(5)))
    follower = Follower(path)
    assert len(follower.read()) == 5
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert follower.read() == [event(0), event(1)]
    assert follower.restarts == 1
    other = tmp_path / "other"
    write(other, *(event(seq, "another campaign") for seq in range(4)))
    other.rename(path)
    assert follower.read() == [event(seq, "another campaign") for seq in range(4)]
    assert follower.restarts == 2
    path.unlink()
    assert follower.read() == []
    assert (follower.restarts, follower.n_events) == (3, 0)


def test_a_copy_of_the_same_log_goes_on(path, tmp_path):
    write(path, event(0), event(1))
    follower = Follower(path)
    follower.read()
    shutil.copy(path, tmp_path / "copy")
    (tmp_path / "copy").rename(path)
    write(path, event(2))
    assert follower.read() == [event(2)]


def test_a_damaged_line_is_told_of_once_and_passed_over(path):
    lines = [event(seq).to_line().encode() for seq in range(4)]
    path.write_bytes(lines[0] + b'{"schema_version":1,"seq":\xff}\n' + lines[2])
    follower = Follower(path)
    assert follower.read() == [event(0), event(2)]
    with path.open("ab") as file:
        file.write(lines[3])
    assert follower.read() == [event(3)]
    (trouble,) = follower.troubles
    assert trouble.startswith("Line 2 of events.jsonl cannot be read: ")


def test_a_log_that_cannot_be_opened_is_a_trouble_and_no_error(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    follower = Follower(tmp_path / "events.jsonl")
    assert follower.read() == follower.read() == []
    assert follower.troubles == ["events.jsonl cannot be read: Is a directory."]


def test_lines_longer_than_a_block_are_read(path, monkeypatch):
    monkeypatch.setattr("fff.report.following.BLOCK_BYTES", 16)
    write(path, event(0), event(1))
    assert Follower(path).read() == [event(0), event(1)]


def test_what_is_old_costs_nothing(path):
    write(path, *(event(seq, "x" * 200) for seq in range(3000)))
    follower = Follower(path)
    began = time.perf_counter()
    follower.read()
    first_s = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(100):
        assert follower.read() == []
    assert (time.perf_counter() - began) / 100 < first_s / 5
