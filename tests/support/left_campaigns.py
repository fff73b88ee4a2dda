"""Run directories as a killed process leaves them: of played campaigns, with the files their logs tell of."""

from __future__ import annotations

import copy
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from fff.base.ids import sha256_bytes
from fff.data.events import Event, EventLog
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.records import Frame, Label
from fff.data.run_directory import RunDirectory
from tests.support.playing_campaigns import Game, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fff.steering.records import Request


def water(number: int) -> Atoms:
    """Return one of many different structures."""
    return Atoms("OH2", [[0, 0, 1e-3 * number], [0.76, 0.59, 0], [-0.76, 0.59, 0]])


def labelled(atoms: Atoms, energy_eV: float = -14.0) -> Label:
    """Return a label of a structure."""
    return Label(atoms, energy_eV, np.full((len(atoms), 3), 0.25), segment="some", wall_s=1.5)


class LeftCampaign:
    """A campaign that is played, with small files in the place of what its tasks would write.

    Every result is written to its file, every label to the database and every event to the log, in the order
    in which a real campaign does it.

    Args:
        path: The run directory.
        pools: Slots of the one pool, or of the pools `gpu` and `cpu`.
        **options: Those of `opened`.
    """

    def __init__(self, path: Path, pools: Any = 2, **options: Any) -> None:
        self.run = RunDirectory(path)
        self._n = self._n_logged = 0
        path.mkdir(parents=True)
        site = (
            {"kind": "laptop", "n_workers": pools}
            if isinstance(pools, int)
            else {"kind": "workstation", "n_gpu_workers": pools["gpu"], "n_cpu_workers": pools["cpu"]}
        )
        event = opened(pools, **{**options, "site": {**options.get("site", {}), **site}})
        values = dict(event.values)
        for kind in ("start", "initial"):
            named = values[f"{kind}_frames"]
            frames = [self._frame() for _ in named]
            ids = self.run.frames.write(kind, frames)
            values[f"{kind}_frames"] = [
                {**one, "id": name, "hash": frame.hash}
                for one, name, frame in zip(named, ids, frames, strict=True)
            ]
        if "test/given.npz" in values["test_files"]:
            self._write("test/given.npz", labels_to_bytes([labelled(water(0))]))
        self.game = Game(Event(0, "opened", values=values, times={"started": 1.0}))
        LabelStore(self.run.labels).close()
        self._log()

    def copied(self, path: Path) -> LeftCampaign:
        """Return the same campaign in another run directory."""
        shutil.copytree(self.run.path, path)
        copied = copy.deepcopy(self)
        copied.run = RunDirectory(path)
        return copied

    def finish(self, request: Request, *, row: bool = True, event: bool = True) -> None:
        """Have a task give its result.

        Args:
            request: The request.
            row: Whether a label reaches the database.
            event: Whether the event reaches the log; without it the campaign is left at this point.
        """
        values = self._results.get(request.kind, lambda self, request: {})(self, request)
        if request.kind == "calculate" and row:
            self.add_row(
                request.id, self.run.frames.read(request.args["frame"]).atoms, request.args["source"]
            )
        if event:
            self.game.finish(request, **values)
            self._log()

    def add_row(self, request: str, atoms: Atoms, source: str = "active", **changes: Any) -> Label:
        """Write a label to the database and return it."""
        label = labelled(atoms, **changes)
        with LabelStore(self.run.labels) as labels:
            labels.add(request, label, source=source, method="GFN2-xTB", wall_s=label.wall_s)
        return label

    def play(self, until: Callable[[Game], Any] = lambda game: False) -> LeftCampaign:
        """Finish the oldest open request until `until`, or until nothing is open."""
        while self.game.open and not until(self.game):
            self.finish(self.game.open[0])
        return self

    def _log(self) -> None:
        with EventLog(self.run.events) as log:
            for event in self.game.events[self._n_logged :]:
                log.append(event)
        self._n_logged = len(self.game.events)

    def _frame(self) -> Frame:
        self._n += 1
        return Frame(water(self._n), -13.5, np.full((3, 3), 0.5))

    def _write(self, name: str, content: bytes) -> None:
        path = self.run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _dynamics(self, request: Request) -> dict[str, Any]:
        frames = [self._frame() for _ in range(self.game.config.sampling.n_frames + 1)]
        ids = self.run.frames.write(request.id, frames)
        told = [{"id": i, "hash": one.hash, "deviation": 0.5} for i, one in zip(ids, frames, strict=True)]
        return {"others": told[:-1], "last": told[-1]}

    def _train(self, request: Request) -> dict[str, Any]:
        weights = f"weights {request.id} {request.attempt}".encode()
        return {"sha256": self.write_model(request.args["directory"], weights)}

    def write_model(self, directory: str, weights: bytes) -> str:
        """Write the files of a member and return the hash of its weights."""
        sha256 = sha256_bytes(weights)
        description = {"schema_version": 1, "weights_sha256": sha256}
        self._write(f"models/{directory}/model.json", json.dumps(description).encode())
        self._write(f"models/{directory}/weights.safetensors", weights)
        return sha256

    def _score(self, request: Request) -> dict[str, Any]:
        buffer = io.BytesIO()
        n = len(request.args["frames"])
        np.savez(buffer, deviation=np.full(n, 0.5), features=np.zeros((n, 8)), energy_eV=np.zeros((3, n)))
        self._write(f"scores/{request.id}.npz", buffer.getvalue())
        return {}

    def _reference_dynamics(self, request: Request) -> dict[str, Any]:
        labels = [labelled(self._frame().atoms) for _ in range(request.args["n_frames"])]
        self._write(f"test/{request.id}.npz", labels_to_bytes(labels))
        return {}

    _results = {  # noqa: RUF012
        "dynamics": _dynamics,
        "train": _train,
        "train-baseline": _train,
        "score": _score,
        "reference-dynamics": _reference_dynamics,
    }
