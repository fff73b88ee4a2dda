"""The child of `ReferenceProcess`: `python -m fff.reference.child`.

Reads settings, then structures from its standard input, and writes labels or failures to what was its
standard output. It ends when its input does. It runs under guard (see `fff.external`), which kills it and all
that it started, and removes its temporary files, when its parent dies.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceFailure
from fff.data.packing import frames_from_bytes, labels_to_bytes
from fff.external import Launch, Workplace, space_error
from fff.reference.making import make_reference
from fff.reference.pipes import (
    FAILURE,
    FIRST_STEP,
    LABEL,
    READY,
    SETTINGS,
    STRUCTURE,
    WORK,
    failure_to_bytes,
    read_message,
    write_message,
)

if TYPE_CHECKING:
    from ase import Atoms

    from fff.data.records import Label
    from fff.reference.protocol import ReferenceCalculator, ReferenceMethod

__all__ = ["Answers", "main"]


def main() -> None:
    """Serve until the parent closes the pipe."""
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
    settings = json.loads(payload)
    workplace = Workplace.from_json(settings["workplace"])
    _serve(make_reference(settings["section"], workplace), workplace, replies)


def _serve(method: ReferenceMethod, workplace: Workplace, replies: int) -> None:
    answers = Answers(method)
    # The parent started the guard; this is whom to look for.
    write_message(replies, READY, str(os.getpid()).encode())
    while (message := read_message(0)) is not None:
        kind, payload = message
        if kind == WORK:
            work = json.loads(payload)
            workplace.name, workplace.time_limit_s = work["name"], work["time_limit_s"]
            workplace.launch = work["launch"] and Launch.from_json(work["launch"])
        else:
            write_message(replies, *answers(kind, payload))


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
            if full := space_error(error, Path(tempfile.gettempdir())):
                return FAILURE, failure_to_bytes(full)
            msg = f"The calculation failed: {type(error).__name__}: {error}"
            hint = "The structure is set aside."
            return FAILURE, failure_to_bytes(ReferenceFailure(msg, hint=hint, error=type(error).__name__))

    def _calculate(self, kind: bytes, atoms: Atoms) -> Label:
        if kind == STRUCTURE:
            return self._method.calculate(atoms)
        if kind == FIRST_STEP or self._dynamics is None:
            self._dynamics = self._method.ase_calculator()
        return self._dynamics.label_of(atoms)


if __name__ == "__main__":
    main()
