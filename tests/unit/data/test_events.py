"""The event log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fff.base.errors import LogDamagedError
from fff.data.events import Event, EventLog, read_events


def events(n: int) -> list[Event]:
    return [
        Event(
            seq=i,
            kind="calculate",
            request=f"label-{i:05d}",
            attempt=1 + i % 2,
            outcome="failed" if i % 2 else "done",
            values={"energy_error": 0.1 * i, "message": "µ Å\n\u2028"},
            times={"queued": 1.5, "started": 2.5, "ended": 3.25},
            worker="node:123",
            device="cpu",
        )
        for i in range(n)
    ]


def write(path, n: int):
    with EventLog(path) as log:
        for event in events(n):
            log.append(event)
    return path


def test_what_was_appended_is_read_again(tmp_path):
    assert read_events(write(tmp_path / "events.jsonl", 5)) == events(5)


def test_an_event_is_one_line_with_its_schema_version(tmp_path):
    for event in events(2):
        line = event.to_line()
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert json.loads(line)["schema_version"] == 1
        assert Event.from_line(line) == event


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Event(0, "score", values={"deviation": float("nan")}).to_line()


def test_a_line_of_another_schema_is_refused():
    line = json.dumps({**json.loads(events(1)[0].to_line()), "schema_version": 2})
    with pytest.raises(ValueError, match="schema version 2, this fff reads 1"):
        Event.from_line(line)


def test_a_line_with_another_field_is_refused():
    line = json.dumps({**json.loads(events(1)[0].to_line()), "colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        Event.from_line(line)


def test_each_event_is_in_the_file_when_append_returns(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for count, event in enumerate(events(3), start=1):
        log.append(event)
        assert len(read_events(path)) == count
    log.close()


def test_a_log_is_continued_never_begun_anew(tmp_path):
    path = write(tmp_path / "events.jsonl", 2)
    with EventLog(path) as log:
        log.append(Event(2, "train"))
    assert [event.seq for event in read_events(path)] == [0, 1, 2]


def test_events_are_synced_when_asked_if_there_are_new_ones_and_at_the_end(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    first, second, third = events(3)
    with EventLog(tmp_path / "events.jsonl") as log:
        log.append(first)
        log.append(second)
        assert synced == []
        log.sync()
        log.sync()
        assert len(synced) == 1
        log.append(third)
    assert len(synced) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_that_closing_does_not_repeat(tmp_path):
    path = tmp_path / "events.jsonl"
    path.symlink_to("/dev/full")
    log = EventLog(path)
    with pytest.raises(OSError, match="No space left"):
        log.append(Event(0, "opened"))
    log.close()


def test_a_log_may_be_closed_twice(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.close()
    log.close()


def test_a_half_written_last_line_is_passed_over(tmp_path):
    path = write(tmp_path / "events.jsonl", 3)
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        assert len(read_events(path)) == 2


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_half_written_last_line_is_cut_off_before_the_log_is_continued(tmp_path, cut):
    path = write(tmp_path / "events.jsonl", 3)
    path.write_bytes(path.read_bytes()[:-cut])
    with EventLog(path) as log:
        log.append(events(3)[2])
    assert read_events(path) == events(3)


def test_a_damaged_line_is_named(tmp_path):
    path = write(tmp_path / "events.jsonl", 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20] + "\n" + lines[2])
    with pytest.raises(LogDamagedError, match=r"damaged at line 2") as caught:
        read_events(path)
    assert caught.value.context == {"path": str(path), "line": 2}
    assert "first 1 lines" in caught.value.hint


def test_a_complete_last_line_that_cannot_be_read_is_damage(tmp_path):
    path = write(tmp_path / "events.jsonl", 1)
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(LogDamagedError, match="line 2"):
        read_events(path)


def test_a_missing_event_is_noticed(tmp_path):
    path = write(tmp_path / "events.jsonl", 4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(LogDamagedError, match="sequence number 3 where 2 was due"):
        read_events(path)


def test_without_a_log_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "events.jsonl")


def test_an_empty_log_has_no_events(tmp_path):
    path = tmp_path / "events.jsonl"
    path.touch()
    assert read_events(path) == []
