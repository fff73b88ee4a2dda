"""Requests on their way to a submitter, some of them only after a delay."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fff.steering.records import Request

__all__ = ["Outbox"]


class Outbox:
    """A queue for one submitter: first due, first out; nothing is dropped."""

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Request]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()

    def put(self, request: Request, *, delay_s: float = 0.0) -> None:
        """Add a request that may be sent after `delay_s` seconds."""
        with self._changed:
            heapq.heappush(self._items, (time.monotonic() + delay_s, next(self._count), request))
            self._changed.notify()

    def get(self, timeout_s: float) -> Request | None:
        """Return the next request that is due, or None when none is within `timeout_s` seconds."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now = time.monotonic()
                due = self._items[0][0] if self._items else end
                if self._items and due <= now:
                    return heapq.heappop(self._items)[2]
                if now >= end:
                    return None
                self._changed.wait(min(due, end) - now)
