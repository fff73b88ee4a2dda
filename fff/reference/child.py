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
    FIRST_STEP,
    LABEL,
    READY,
    SETTINGS,
    STRUCTURE,
    failure_to_bytes,
    read_message,
    write_message,
)

if TYPE_CHECKING:
    from ase import Atoms

    from fff.data.records import Label
    from fff.reference.protocol import ReferenceCalculator, ReferenceMethod

__all__ = ["Answers", "main"]

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
    answers = Answers(method)
    write_message(replies, READY, b"")
    while (message := read_message(0)) is not None:
        write_message(replies, *answers(*message))


class Answers:
    """What a child answers to structures; it never raises, so that one bad structure costs only itself.

    Args:
        method: The method that calculates.
    """

    def __init__(self, method: ReferenceMethod) -> None:
        self._method = method
        self._dynamics: ReferenceCalculator | None = None

    def __call__(self, kind: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Return kind and payload of the answer: a label or a failure.

        Args:
            kind: `STRUCTURE` for a label that depends on nothing else, `FIRST_STEP` and `NEXT_STEP` for
                dynamics, where a step may begin from the solution of the one before.
            payload: The structure.
        """
        try:
            (frame,) = frames_from_bytes(payload)
            label = self._calculate(kind, frame.atoms)
            return LABEL, labels_to_bytes([label])
        except ReferenceFailure as failure:
            return FAILURE, failure_to_bytes(failure)
        except Exception as error:  # noqa: BLE001 - dying of it would look like a lost worker, and be tried again
            # What it leaves behind must not colour the next step.
            self._dynamics = None
            msg = f"The calculation failed: {type(error).__name__}: {error}"
            hint = "The structure is set aside."
            return FAILURE, failure_to_bytes(ReferenceFailure(msg, hint=hint, error=type(error).__name__))

    def _calculate(self, kind: bytes, atoms: Atoms) -> Label:
        if kind == STRUCTURE:
            return self._method.calculate(atoms)
        if kind == FIRST_STEP or self._dynamics is None:
            self._dynamics = self._method.ase_calculator()
        return self._dynamics.label_of(atoms)


def _die_with(parent: int, folder: str) -> None:
    # A parent-death signal would fire when the parent's *thread* ends, and spare what this child started;
    # asking who the parent is does neither.
    while os.getppid() == parent:
        time.sleep(_WATCH_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
