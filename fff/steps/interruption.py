"""Ctrl-C as a wish: a step stops in order when it is first asked to, and at once the second time."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Tells a step whether it is to stop, since SIGINT or SIGTERM came while the context was open.

    The first signal sets `is_asked`. The second one also calls what `at_once` was given, to end what would
    take long; without that it is a KeyboardInterrupt.

    Args:
        say: Prints a line for people, from a signal handler.

    Example:
        >>> with Interruption(print) as interruption:
        ...     interruption.is_asked()
        False
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._count = 0
        self._previous: dict[int, Any] = {}
        self.wait_for = ""
        self.at_once: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; a step run from another keeps the program's own.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_asked(self) -> bool:
        """Whether the step is to stop."""
        return self._count > 0

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._say(f"Stopping{self.wait_for}; Ctrl-C again stops at once.")
        elif self.at_once is not None:
            self.at_once()
        else:
            raise KeyboardInterrupt
