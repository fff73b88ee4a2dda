"""Files that the log tells of and that are gone or damaged: made again by the requests that made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fff.base.errors import FffError, RunDirectoryError
from fff.data.packing import UNPACKABLE, labels_from_bytes
from fff.models.files import read_description, read_member
from fff.steering.active_learning.policy import trained_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fff.data.events import Event
    from fff.data.run_directory import RunDirectory
    from fff.steering.records import Request
    from fff.steering.replay import Replay

__all__ = ["find_lost", "is_as_before"]

_UNREADABLE = (*UNPACKABLE, OSError, FffError)


def find_lost(run: RunDirectory, found: Replay) -> list[tuple[Request, Event]]:
    """Return the requests whose files are needed and are not as their events say, oldest first.

    What one of them reads itself counts as needed.

    Raises:
        RunDirectoryError: If a file is lost that no request made: a start structure, a given test set.
    """
    opening = found.events[0].values
    lost: dict[str, tuple[Request, Event]] = {}
    seen: set[str] = set()
    waiting = list(found.policy.needed_results)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in found.done:
            request, event = found.done[name]
            if not is_as_before(run, request, event.values):
                lost[name] = found.done[name]
                waiting += _sources(request)
        else:
            _check_given(run, name, opening)
    return sorted(lost.values(), key=lambda item: item[1].seq)


def is_as_before(run: RunDirectory, request: Request, values: Mapping[str, Any]) -> bool:
    """Whether the files of a request are there and what its event says they are."""
    try:
        if request.kind in {"train", "train-baseline"}:
            folder = run.models / request.args["directory"]
            return bool(read_description(read_member(folder))["weights_sha256"] == values["sha256"])
        if request.kind == "dynamics":
            last = values["last"]
            return run.frames.read(last["id"]).hash == last["hash"]
        if request.kind == "score":
            # Opened here: NumPy leaves a damaged file open.
            path = run.scores / f"{request.id}.npz"
            with path.open("rb") as file, np.load(file, allow_pickle=False) as score:
                # All of it is read: each part has its checksum.
                lengths = {name: len(score[name]) for name in score.files}
            return lengths["deviation"] == len(request.args["frames"])
        if request.kind == "reference-dynamics":
            labels = labels_from_bytes((run.path / "test" / f"{request.id}.npz").read_bytes())
            return len(labels) == values["n_frames"]
    except _UNREADABLE:
        return False
    return True


def _sources(request: Request) -> Iterator[str]:
    """Yield the requests whose files a request reads."""
    for key in request.models:
        yield from trained_by(key)
    frames = [request.args["frame"]] if "frame" in request.args else request.args.get("frames", ())
    for frame in frames:
        yield frame.rpartition(":")[0]


def _check_given(run: RunDirectory, name: str, opening: Mapping[str, Any]) -> None:
    """Check a file that the campaign was opened with."""
    try:
        if name in {"start", "initial"}:
            expected = opening[f"{name}_frames"]
            frames = run.frames.read_many([item["id"] for item in expected])
            sound = [frame.hash for frame in frames] == [item["hash"] for item in expected]
        elif name == "given":
            sound = bool(labels_from_bytes((run.test / "given.npz").read_bytes()))
        else:
            return
    except _UNREADABLE:
        sound = False
    if not sound:
        where = run.test / "given.npz" if name == "given" else run.frames.path(name)
        msg = f"{where} is missing or damaged, and the campaign was opened with it."
        raise RunDirectoryError(
            msg,
            hint="Restore it from a copy, or begin a new campaign with the labels of this one.",
            path=str(where),
        )
