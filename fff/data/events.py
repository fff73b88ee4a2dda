"""The event log: append only, one JSON line per event, the source of truth of a campaign."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from fff.base.collection import collection_paused
from fff.base.errors import LogDamagedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["CHANGED", "OPENED", "Event", "EventLog", "damaged", "has_half_line", "read_events"]

SCHEMA_VERSION = 1

OPENED = "opened"
"""Kind of the first event: config, policy version, capacity."""

CHANGED = "changed"
"""Kind of an event between two sittings: an accepted change of config or capacity, and the like."""

Outcome = Literal["done", "failed"]


@dataclass(frozen=True)
class Event:
    """Something that happened: the campaign was opened or changed, or a request ended.

    Attributes:
        seq: Sequence number, from 0, without gaps.
        kind: `OPENED`, `CHANGED`, or the kind of the request that ended.
        request: Id of the request; empty for the first two.
        attempt: Which try of the request this was, from 1.
        outcome: Whether the task gave its result.
        values: Small JSON-able numbers and names; arrays and weights rest in files that it names. Of a failed
            task: `failure_class`, `error`, `message`.
        times: Unix times in seconds: `queued`, `started`, `ended`, as far as known.
        worker: Host and process that did it.
        device: The torch device it used.
    """

    seq: int
    kind: str
    request: str = ""
    attempt: int = 1
    outcome: Outcome = "done"
    values: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""
    device: str = ""

    def to_line(self) -> str:
        """Return the event as one line of JSON, newline included."""
        content = {"schema_version": SCHEMA_VERSION, **{name: getattr(self, name) for name in _TYPES}}
        return json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Read what `to_line` wrote.

        Raises:
            ValueError: If the line is no event of a schema this fff reads.
        """
        try:
            content = _DECODER.decode(line)
        except RecursionError:
            msg = "it is nested too deeply"
            raise ValueError(msg) from None
        if not isinstance(content, dict):
            msg = "it is no JSON object"
            raise ValueError(msg)  # noqa: TRY004 - a damaged line, whatever is wrong with it
        version = content.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            msg = f"schema version {version}, this fff reads {SCHEMA_VERSION}"
            raise ValueError(msg)
        if content.keys() - _TYPES.keys() or not {"seq", "kind"} <= content.keys():
            msg = f"an event has the keys {', '.join(_TYPES)}; this has {', '.join(content)}"
            raise ValueError(msg)
        for name, value in content.items():
            if type(value) is not _TYPES[name]:
                msg = f"`{name}` is {value!r}"
                raise ValueError(msg)
        if content.get("outcome", "done") not in _OUTCOMES:
            msg = f"`outcome` is {content['outcome']!r}"
            raise ValueError(msg)
        if strange := [
            value
            for value in content.get("times", {}).values()
            if type(value) not in (int, float) or not -_LATEST_S < value < _LATEST_S
        ]:
            msg = f"a time is {strange[0]!r}"
            raise ValueError(msg)
        return cls(**content)


def _refuse(constant: str) -> None:
    msg = f"it holds {constant}, which is no number"
    raise ValueError(msg)


_LATEST_S = 1e12
_DECODER = json.JSONDecoder(parse_constant=_refuse)
_OUTCOMES = get_args(Outcome)

_TYPES: dict[str, type] = {
    "seq": int,
    "kind": str,
    "request": str,
    "attempt": int,
    "outcome": str,
    "values": dict,
    "times": dict,
    "worker": str,
    "device": str,
}


class EventLog:
    """Appends events to a file: handed to the kernel at once, synced to disk when asked.

    Killing the process loses nothing; only a power cut costs what came after the last `sync`, which
    is kept apart from `append` so that nobody waits for a disk while decisions are made.

    Args:
        path: The file; made when absent, continued when present. A half-written last line, which a crash
            leaves, is cut off then: its `append` never returned, so nobody acted on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_half_line(path)
        # Without a buffer there is nothing that closing could fail to write.
        self._file = path.open("ab", buffering=0)
        self._synced = True

    def append(self, event: Event) -> None:
        """Write one event; when this returns, no crash of this process can lose it.

        Raises:
            OSError: If the disk is full.
        """
        line = event.to_line().encode()
        self._synced = False
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "The event could not be written whole", str(self.path))

    def sync(self) -> None:
        """Bring what was appended to disk, if there is anything new; any thread may call it."""
        if not self._synced:
            self._synced = True
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; may be called twice."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self.sync()
            self._file.close()

    def __enter__(self) -> EventLog:
        """Return itself; `close` comes with the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()


def read_events(path: Path) -> list[Event]:
    """Return all events of a log. A half-written last line, which a crash leaves, is passed over.

    Raises:
        LogDamagedError: If any other line cannot be read or a sequence number is missing.
        FileNotFoundError: If there is no log.
    """
    events: list[Event] = []
    with path.open("rb") as file, collection_paused():
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                event = Event.from_line(line.decode())
            except ValueError as error:
                raise damaged(path, number, str(error)) from error
            if event.seq != len(events):
                raise damaged(path, number, f"sequence number {event.seq} where {len(events)} was due")
            events.append(event)
    return events


def has_half_line(path: Path) -> bool:
    """Whether a log ends in a half-written line, as a crash leaves it; `EventLog` cuts it off."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"


def _cut_half_line(path: Path) -> None:
    if not path.is_file():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)


def damaged(path: Path, line: int, why: str) -> LogDamagedError:
    """Return the error for a line, counted from 1, that cannot be what was written there."""
    back = (
        f", or go back to that point: move the file away and put its first {line - 1} lines in its place "
        f"(head -n {line - 1})"
    )
    return LogDamagedError(
        f"The event log {path} is damaged at line {line}: {why.rstrip('.')}.",
        hint=f"Restore the file from a copy{back if line > 1 else ''}; labels.db keeps every label.",
        path=str(path),
        line=line,
    )
