"""Follows an event log that grows: reads what is new, whole lines only, and keeps to what it has read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fff.base.collection import collection_paused
from fff.data.events import Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Follower"]

BLOCK_BYTES = 1 << 20
"""How much is read at once."""

_TAIL_BYTES = 256


class Follower:
    """Gives the new events of a log each time it is asked. It never writes, and waits for nothing.

    A half-written last line is read when it is whole. A line that cannot be read is passed over and told
    of once, in `troubles`: a watcher shows what there is.

    Args:
        path: The log; it need not be there yet.

    Attributes:
        troubles: What could not be read, a sentence each.
        restarts: How often the log was found shorter or replaced, and was read anew from its beginning;
            whoever keeps what came of its events must then forget it.
        n_events: Events read since the beginning of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.troubles: list[str] = []
        self.restarts = 0
        self.n_events = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._offset = 0
        self._line = 0
        self._inode = -1
        # The last bytes that were read: a log that was put in the place of another has others there.
        self._tail = b""
        self.n_events = 0

    def read(self) -> list[Event]:
        """Return the events that were added since the last call; all of them if the log was replaced."""
        try:
            with self.path.open("rb", buffering=0) as file, collection_paused():
                status = os.fstat(file.fileno())
                if self._offset and not self._is_the_same(file.fileno(), status):
                    self._begin_anew()
                    self.troubles.clear()
                    self.restarts += 1
                self._inode = status.st_ino
                return list(self._events(file.fileno(), status.st_size))
        except FileNotFoundError:
            if self._offset:
                self._begin_anew()
                self.restarts += 1
            return []
        except OSError as error:
            self._tell(f"{self.path.name} cannot be read: {error.strerror or error}.")
            return []

    def _is_the_same(self, handle: int, status: os.stat_result) -> bool:
        """Whether the file still begins with what was read; the inode alone may change on another host."""
        if status.st_size < self._offset:
            return False
        if status.st_size == self._offset and status.st_ino == self._inode:
            return True
        return os.pread(handle, len(self._tail), self._offset - len(self._tail)) == self._tail

    def _events(self, handle: int, size: int) -> Iterator[Event]:
        """Yield the events between the offset and the end of the file, in blocks of bounded size."""
        rest = b""
        while self._offset + len(rest) < size:
            block = os.pread(handle, BLOCK_BYTES, self._offset + len(rest))
            if not block:
                return
            data = rest + block
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].split(b"\n")[:-1]:
                self._line += 1
                event = self._event(line)
                if event is not None:
                    self.n_events += 1
                    yield event
            if whole:
                self._offset += whole
                self._tail = data[max(0, whole - _TAIL_BYTES) : whole]
            rest = data[whole:]

    def _event(self, line: bytes) -> Event | None:
        try:
            return Event.from_line(line.decode())
        except (ValueError, ArithmeticError) as error:
            self._tell(f"Line {self._line} of {self.path.name} cannot be read: {str(error).rstrip('.')}.")
            return None

    def _tell(self, trouble: str) -> None:
        if trouble not in self.troubles:
            self.troubles.append(trouble)
