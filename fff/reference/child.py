"""The child of `ReferenceProcess`: `python -m fff.reference.child PARENT_PID FOLDER`.

Reads settings, then structures from its standard input, and writes labels or failures to what was its
standard output. It ends when its input does. When its parent dies it removes the folder of its temporary
files and kills itself and all that it started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceFailure
from fff.data.packing import frames_from_bytes, labels_to_bytes
from fff.reference.making import make_reference
from fff.reference.pipes import (
    FAILURE,
    LABEL,
    READY,
    SETTINGS,
    failure_to_bytes,
    read_message,
    write_message,
)

if TYPE_CHECKING:
    from fff.reference.protocol import ReferenceMethod

__all__ = ["main"]

_WATCH_EVERY_S = 0.5


def main(parent: int, folder: str) -> None:
    """Serve until the parent closes the pipe.

    Args:
        parent: Process id of the parent.
        folder: Where temporary files go.
    """
    threading.Thread(target=_die_with, args=(parent, folder), daemon=True).start()
    # The parent's terminal sends Ctrl-C to it alone; it decides when to kill.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.dup(1)
    # Whatever a library prints must not fall between the replies.
    os.dup2(2, 1)
    first = read_message(0)
    if first is None:
        return
    kind, payload = first
    if kind != SETTINGS:
        msg = f"The first message to a reference child is its settings; it was of kind {kind!r}."
        raise ValueError(msg)
    try:
        _serve(make_reference(json.loads(payload)), replies)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(method: ReferenceMethod, replies: int) -> None:
    write_message(replies, READY, b"")
    while (message := read_message(0)) is not None:
        (frame,) = frames_from_bytes(message[1])
        try:
            label = method.calculate(frame.atoms)
        except ReferenceFailure as failure:
            write_message(replies, FAILURE, failure_to_bytes(failure))
        else:
            write_message(replies, LABEL, labels_to_bytes([label]))


def _die_with(parent: int, folder: str) -> None:
    # A parent-death signal would fire when the parent's *thread* ends, and spare what this child started;
    # asking who the parent is does neither.
    while os.getppid() == parent:
        time.sleep(_WATCH_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
