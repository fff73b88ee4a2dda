"""One end of a queue: what arrives waits here by topic, and two threads fetch and send."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from colmena.exceptions import TimeoutException

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["STOP", "Mailbox"]

STOP = None
"""What ends the thread that sends, and what those find who wait for a message that cannot come."""


class Mailbox(ABC):
    """One end of a queue: a thread sends what was put, another fetches and sorts by topic.

    Any thread may put and get. The threads start on first use, so that there are none before a fork.

    Args:
        topics: Topics that messages come under. An empty name alone: messages of all topics, in their order.

    Attributes:
        open: Whether the other end is there, as far as this one has noticed.
    """

    def __init__(self, topics: Collection[str]) -> None:
        self.open = True
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._reader: threading.Thread | None = None
        self._outgoing: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._incoming: dict[str, queue.Queue[tuple[str, bytes] | None]] = {
            topic: queue.Queue() for topic in topics
        }
        self._single = "" in self._incoming

    def put(self, topic: str, data: bytes) -> bool:
        """Have `data` sent, without waiting for it; returns whether the other end is still there."""
        if self._writer is None:
            self._start()
        self._outgoing.put((topic, data))
        return self.open

    def get(self, topic: str, timeout: float | None) -> tuple[str, bytes]:
        """Return the next message of a topic and its topic.

        Raises:
            TimeoutException: If none came within `timeout` seconds.
            EOFError: If none can come any more and there is no time limit.
        """
        if self._reader is None:
            self._start()
        incoming = self._incoming[topic]
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while True:
            remaining = None if end is None else max(0.0, end - time.monotonic())
            try:
                found = incoming.get(timeout=remaining)
            except queue.Empty:
                raise TimeoutException from None
            if found is not STOP:
                return found
            incoming.put(STOP)  # for the next one who asks
            if remaining is None:
                raise EOFError
            time.sleep(remaining)
            raise TimeoutException

    def drop(self) -> None:
        """Forget what has arrived."""
        for incoming in self._incoming.values():
            with contextlib.suppress(queue.Empty):
                while True:
                    if incoming.get_nowait() is STOP:
                        incoming.put(STOP)
                        break

    def close(self, linger_s: float) -> None:
        """Send what waits, for `linger_s` at most, then end; may be called twice."""
        with self._lock:
            self.open = False
            writer, reader = self._writer, self._reader
        if writer is not None:
            self._outgoing.put(STOP)
            writer.join(linger_s)
        self._cut()
        for thread in (writer, reader):
            if thread is not None:
                thread.join(1.0)
        self.give_up()
        self._announce_end()

    @abstractmethod
    def give_up(self) -> None:
        """Let go what this process holds, and leave the other process's copy of it as it is."""

    @abstractmethod
    def _cut(self) -> None:
        """End what the threads wait for."""

    @abstractmethod
    def _write(self) -> None:
        """Send what is put until `STOP` comes; runs in a thread of its own."""

    @abstractmethod
    def _read(self) -> None:
        """Deliver what comes until nothing more can come; runs in a thread of its own."""

    def _deliver(self, topic: str, data: bytes) -> None:
        incoming = self._incoming.get("" if self._single else topic)
        if incoming is not None:
            incoming.put((topic, data))

    def _announce_end(self) -> None:
        for incoming in self._incoming.values():
            incoming.put(STOP)

    def _start(self) -> None:
        with self._lock:
            if self._writer is None and self.open:
                self._reader = threading.Thread(target=self._read, name="queue-reader", daemon=True)
                self._writer = threading.Thread(target=self._write, name="queue-writer", daemon=True)
                self._reader.start()
                self._writer.start()
