"""How a reference process and its child talk: messages of one kind letter, a length and bytes."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

from fff.base.errors import (
    NoSpaceError,
    NotConvergedError,
    ReferenceFailure,
    ReferenceLostError,
    ReferenceSetupError,
    TimeLimitError,
)

__all__ = [
    "FAILURE",
    "FIRST_STEP",
    "LABEL",
    "NEXT_STEP",
    "READY",
    "SETTINGS",
    "STRUCTURE",
    "WORK",
    "failure_from_bytes",
    "failure_to_bytes",
    "read_message",
    "write_message",
]

SETTINGS, WORK, STRUCTURE, FIRST_STEP, NEXT_STEP = b"S", b"W", b"A", b"B", b"N"
READY, LABEL, FAILURE = b"R", b"L", b"F"

_HEADER = struct.Struct("<cQ")
_FAILURES: dict[str, type[ReferenceFailure]] = {
    kind.__name__: kind
    for kind in (
        NoSpaceError,
        NotConvergedError,
        ReferenceFailure,
        ReferenceLostError,
        ReferenceSetupError,
        TimeLimitError,
    )
}


def write_message(descriptor: int, kind: bytes, payload: bytes, *, deadline: float | None = None) -> None:
    """Write a message.

    Args:
        descriptor: Where to; it must not block if there is a deadline.
        kind: One letter.
        payload: The content.
        deadline: When to give up, on the clock `time.monotonic` (s).

    Raises:
        BrokenPipeError: If nobody reads any more.
        TimeoutError: If the deadline has passed.
    """
    rest = memoryview(_HEADER.pack(kind, len(payload)) + payload)
    while rest:
        _wait(descriptor, select.POLLOUT, deadline)
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            continue


def read_message(descriptor: int, *, deadline: float | None = None) -> tuple[bytes, bytes] | None:
    """Read a message and return its kind and payload, or None where the other side has closed.

    Args:
        descriptor: Where from.
        deadline: When to give up, on the clock `time.monotonic` (s).

    Raises:
        EOFError: If the other side went away within a message.
        TimeoutError: If the deadline has passed.
    """
    header = _read_exactly(descriptor, _HEADER.size, deadline)
    if not header:
        return None
    kind, length = _HEADER.unpack(header)
    payload = _read_exactly(descriptor, length, deadline)
    if len(payload) < length:
        raise EOFError
    return kind, payload


def failure_to_bytes(failure: ReferenceFailure) -> bytes:
    """Pack a failure: class, message, hint and context."""
    packed = {
        "class": type(failure).__name__,
        "message": failure.message,
        "hint": failure.hint,
        "context": failure.context,
    }
    return json.dumps(packed, default=str).encode()


def failure_from_bytes(data: bytes) -> ReferenceFailure:
    """Unpack what `failure_to_bytes` packed.

    Raises:
        KeyError: If the class is none of those that may travel.
    """
    packed: dict[str, Any] = json.loads(data)
    return _FAILURES[packed["class"]](packed["message"], hint=packed["hint"], **packed["context"])


def _read_exactly(descriptor: int, length: int, deadline: float | None) -> bytes:
    """Return `length` bytes; none if the other side has closed before the first.

    Raises:
        EOFError: If it closes after the first.
        TimeoutError: If the deadline has passed.
    """
    parts: list[bytes] = []
    missing = length
    while missing:
        _wait(descriptor, select.POLLIN, deadline)
        part = os.read(descriptor, min(missing, 1 << 20))
        if not part:
            if parts:
                raise EOFError
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if deadline is None:
        poll.poll()
        return
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not poll.poll(1000 * left_s):
        raise TimeoutError
