"""The event log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fff.base.errors import LogDamagedError
from fff.data.events import Event, EventLog, has_half_line, read_events


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


DAMAGE = {
    "garbage": b"\xff\xfe\x00garbage\x80\n",
    "zeros": b"\0" * 4096 + b"\n",
    "no JSON": b"opened\n",
    "no object": b"[1, 2]\n",
    "a number": b"7\n",
    "an empty line": b"\n",
    "nested": b"[" * 100_000 + b"\n",
    "not a number": b'{"schema_version":1,"seq":1,"kind":"train","values":{"a":NaN}}\n',
    "infinite": b'{"schema_version":1,"seq":1,"kind":"train","values":{"a":-Infinity}}\n',
    "a long number": b'{"schema_version":1,"seq":1' + b"0" * 5000 + b',"kind":"train"}\n',
    "another schema": b'{"schema_version":9,"seq":1,"kind":"train"}\n',
    "no schema": b'{"seq":1,"kind":"train"}\n',
    "no seq": b'{"schema_version":1,"kind":"train"}\n',
    "no kind": b'{"schema_version":1,"seq":1}\n',
    "a half and a whole line": b'{"schema_version":1,"seq":1,"ki{"schema_version":1,"seq":1,"kind":"a"}\n',
    "two in one line": b'{"schema_version":1,"seq":1,"kind":"a"}{"schema_version":1,"seq":2,"kind":"a"}\n',
}
WRONG_TYPES = {
    "seq": ["1", 1.0, True, None, [1]],
    "kind": [1, None, ["train"]],
    "request": [7, None],
    "attempt": ["1", True, 1.5],
    "outcome": [1, None, "perhaps", ""],
    "values": [[], "x", None],
    "times": [[], {"started": "now"}, {"ended": None}, {"queued": True}, {"queued": [1.0]}],
    "worker": [1, None],
    "device": [0, None],
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("behind", [0, 2], ids=["at the end", "in the middle"])
def test_a_line_that_is_no_event_is_damage_and_named(tmp_path, what, behind):
    path = write(tmp_path / "events.jsonl", 1)
    path.write_bytes(path.read_bytes() + DAMAGE[what] + b"".join([b"more\n"] * behind))
    with pytest.raises(LogDamagedError, match="damaged at line 2") as caught:
        read_events(path)
    assert caught.value.context["line"] == 2
    assert "head -n 1" in caught.value.hint
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_TYPES.items() for value in values]
)
def test_a_field_of_another_kind_is_damage(tmp_path, name, value):
    path = write(tmp_path / "events.jsonl", 1)
    content = json.loads(events(2)[1].to_line())
    path.write_text(path.read_text() + json.dumps({**content, name: value}) + "\n")
    with pytest.raises(LogDamagedError, match="damaged at line 2"):
        read_events(path)


def test_a_huge_line_is_read(tmp_path):
    path = tmp_path / "events.jsonl"
    event = Event(0, "choose", values={"frames": [f"dynamics-t000-r0000:{i}" for i in range(200_000)]})
    with EventLog(path) as log:
        log.append(event)
    assert path.stat().st_size > 4_000_000
    assert read_events(path) == [event]


# --- a line that was begun ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        b'{"schema_version":1,"seq":3',
        b"x",
        b"\0" * 5000,
        b"\xff\xfe\x80",
        b"{" * 100_000,
        events(4)[3].to_line().rstrip().encode(),
    ],
    ids=["half", "a letter", "zeros", "garbage", "long", "whole but for its end"],
)
def test_whatever_was_begun_at_the_end_is_passed_over_told_and_cut_off(tmp_path, tail):
    path = write(tmp_path / "events.jsonl", 3)
    whole = path.read_bytes()
    assert not has_half_line(path)
    path.write_bytes(whole + tail)
    assert has_half_line(path)
    assert read_events(path) == events(3)
    EventLog(path).close()
    assert path.read_bytes() == whole
    assert not has_half_line(path)


def test_a_first_line_that_was_begun_leaves_an_empty_log(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(events(1)[0].to_line().encode()[:-1])
    assert has_half_line(path)
    assert read_events(path) == []
    EventLog(path).close()
    assert path.read_bytes() == b""
    assert not has_half_line(path)


def test_reading_writes_nothing(tmp_path):
    path = write(tmp_path / "events.jsonl", 2)
    path.write_bytes(path.read_bytes() + b"half")
    before = path.read_bytes()
    read_events(path)
    has_half_line(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("written", [0, 10])
def test_an_event_of_which_only_a_part_fits_on_the_disk_is_an_error_and_no_event(
    tmp_path, monkeypatch, written
):
    path = write(tmp_path / "events.jsonl", 2)
    log = EventLog(path)

    class NearlyFull:
        """Takes as much of a line as there is room for, as the kernel does."""

        def __init__(self, file):
            self._file = file

        def write(self, line):
            return self._file.write(line[:written])

        def __getattr__(self, name):
            return getattr(self._file, name)

    log._file = NearlyFull(log._file)
    with pytest.raises(OSError, match="could not be written whole"):
        log.append(events(3)[2])
    log.close()
    assert read_events(path) == events(2)
    with EventLog(path) as log:
        log.append(events(3)[2])
    assert read_events(path) == events(3)


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
