"""A probe of the site: real tasks on real workers, with the queues and stores of a campaign."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.build import molecule
from colmena.exceptions import TimeoutException

from fff.base.durations import duration
from fff.base.errors import CampaignError
from fff.campaigns.checking.findings import failed, fine, skipped
from fff.campaigns.checking.labelling import displaced
from fff.campaigns.checking.surroundings import existing_part
from fff.compute.exchange import Exchange, find_redis
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.compute.tasks import FUNCTIONS, Call
from fff.config.site import BatchSite, LaptopSite
from fff.data.packing import labels_to_bytes
from fff.data.records import Frame, Label
from fff.data.run_directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ase import Atoms

    from fff.campaigns.checking.findings import Finding, Known
    from fff.compute.parcels import Parcel
    from fff.compute.queues import Queues
    from fff.compute.server import TaskServer
    from fff.compute.sites import Site
    from fff.compute.stores import ModelShelf
    from fff.config.site import SiteSection

__all__ = ["try_site"]

_TOPIC = "check"
_START_LIMIT_S = 180.0
_LOOK_EVERY_S = 0.5
_CLOSING_S = 3.0
_TRAINING_LIMIT_S = 15.0
_EPOCHS = 8
_MOST_STRUCTURES = 64
_STEPS = 100
_REPEATS = 4
_LAST_BYTES = 4000
# The model knows nothing: what it does to the structure is no reason to end a run.
_UNGUARDED = {
    "stop_deviation_eV_per_A": 1e9,
    "max_temperature_factor": 1e9,
    "max_force_eV_per_A": 1e9,
    "min_distance_factor": 0.0,
}
_FOLDER = "round-000/member-1"


def try_site(known: Known) -> Iterator[Finding]:
    """Start the workers, have a model trained on one and dynamics run with it on another, and stop them.

    The labels are made up, so that this says something also where the reference fails: zeros for displaced
    copies of the structures.
    """
    with _place(known) as place, _started(known, RunDirectory(place / "site")) as trial:
        trained = trial.train()
        yield from _about_workers(known, trial, trained)
        if trained.failure:
            return
        yield _about_training(known, trial, trained)
        moved = trial.run_dynamics()
        if moved.pool != trained.pool:
            yield from _about_workers(known, trial, moved)
        yield from _about_dynamics(known, moved)
        yield from _about_transport(trial, moved)


@dataclass(frozen=True)
class _Answer:
    """What came of a task.

    Attributes:
        kind: Kind of task.
        pool: Where it ran.
        failure: Why it failed; empty if it did not.
        values: Its values.
        worker: Which worker.
        device: Where it computed.
        own_s: What the task itself took.
        waited_s: From sending it to its start.
        total_s: From sending it to its answer.
    """

    kind: str
    pool: str
    failure: str = ""
    values: dict[str, Any] | None = None
    worker: str = ""
    device: str = ""
    own_s: float = 0.0
    waited_s: float = 0.0
    total_s: float = 0.0


@contextlib.contextmanager
def _place(known: Known) -> Iterator[Path]:
    """Give a folder that the workers see: those on other nodes do not see this one's temporary files."""
    site = known.config.site
    if not (isinstance(site, BatchSite) and site.inside_allocation):
        yield known.scratch
        return
    beside = existing_part(known.loaded.run_dir.parent)
    with tempfile.TemporaryDirectory(prefix="fff-check-", dir=beside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _tried_here(section: SiteSection) -> SiteSection:
    """Return the site that is tried: a worker of this machine where jobs would wait in a queue."""
    if isinstance(section, BatchSite) and not section.inside_allocation:
        return LaptopSite(n_workers=1)
    return section


@contextlib.contextmanager
def _started(known: Known, run: RunDirectory) -> Iterator[_Trial]:
    """Open what a campaign works with; in the order in which one closes it, too."""
    site = make_site(_tried_here(known.config.site))
    site.check_here(run.path)
    run.path.mkdir()
    find_redis(known.config.redis)
    exchange = Exchange(known.config.redis, f"check-{secrets.token_hex(8)}")
    queues = exchange.queues([_TOPIC])
    with contextlib.ExitStack() as stack:
        server = start_server(FUNCTIONS, queues, site, run.path)
        resources = stack.enter_context(contextlib.ExitStack())
        stack.callback(queues.close)
        stack.callback(lambda: stop_server(server, queues, _CLOSING_S))
        shelf = resources.enter_context(exchange.shelf(run.store, f"fff-{run.path}"))
        yield _Trial(known, run, site, queues, server, shelf)


@dataclass
class _Trial:
    """Workers that are there, and what they are asked to do."""

    known: Known
    run: RunDirectory
    site: Site
    queues: Queues
    server: TaskServer
    shelf: ModelShelf
    sent_bytes: int = 0

    def __post_init__(self) -> None:
        given = self.known.inputs.every_structure if self.known.inputs else []
        self.structures: Sequence[Atoms] = given or [molecule("H2O")]

    def train(self) -> _Answer:
        """Have a few epochs of the config's own training done."""
        config = self.known.config
        n = min(max(2 * config.training.batch_size, 8), _MOST_STRUCTURES)
        chosen = [self.structures[i] for i in np.linspace(0, len(self.structures) - 1, n).round().astype(int)]
        labels = [
            Label(copy, 0.0, np.zeros((len(copy), 3)), segment=str(i))
            for i, copy in enumerate(displaced(atoms, i) for i, atoms in enumerate(chosen))
        ]
        energies = {str(z): 0.0 for label in labels for z in label.atoms.numbers.tolist()}
        parcel = {
            "labels.npz": labels_to_bytes(labels),
            "reference_energies.json": json.dumps(energies).encode(),
        }
        parcels: dict[str, Callable[[], Parcel]] = {f"labels:{n}": lambda: parcel}
        if self.known.inputs is not None and self.known.inputs.start_members:
            members = self.known.inputs.start_members
            parcels["start"] = lambda: _as_parcel(members)
        self.sent_bytes = len(parcel["labels.npz"])
        training = config.training.model_dump(mode="json") | {
            "max_epochs": _EPOCHS,
            "stop_patience": 10 * _EPOCHS,
            "plateau_patience": 10 * _EPOCHS,
            # Zeros are nothing to learn from: this takes as long, and cannot fail.
            "learning_rate": config.training.min_learning_rate,
            "time_limit_s": _TRAINING_LIMIT_S,
        }
        call = Call(
            request="check-train",
            run_dir=str(self.run.path),
            limit_s=_START_LIMIT_S,
            # Not the first member, which does more than be trained.
            args={"directory": _FOLDER, "member": 1, "seed": 1, "split_seed": 1, "n_labels": n},
            settings={"model": config.model.model_dump(mode="json"), "training": training},
            models=tuple(parcels),
        )
        return self._ask("train", call, parcels)

    def run_dynamics(self) -> _Answer:
        """Have a short run of the config's own dynamics done, by a worker that has its libraries loaded."""
        config = self.known.config
        middle = sorted(self.structures, key=len)[len(self.structures) // 2]
        (frame,) = self.run.frames.write("check", [Frame(middle)])
        member = self.run.models / _FOLDER
        committee = {f"member-{i}": member for i in range(config.committee.size)}
        parcels: dict[str, Callable[[], Parcel]] = {
            "member:check": lambda: _as_parcel([member]),
            "committee:check": lambda: _named_parcel(committee),
        }
        call = Call(
            request="check-dynamics",
            run_dir=str(self.run.path),
            limit_s=_START_LIMIT_S,
            args={
                "frame": frame,
                "n_steps": _STEPS,
                "temperature_K": config.sampling.temperature_K[0],
                "seed": 1,
            },
            settings={"sampling": config.sampling.model_dump(mode="json") | _UNGUARDED},
            models=tuple(parcels),
        )
        seen: set[str] = set()
        for _ in range(_REPEATS):
            answer = self._ask("dynamics", call, parcels)
            if answer.failure or answer.worker in seen:
                return answer
            seen.add(answer.worker)
        return answer

    def _ask(self, kind: str, call: Call, parcels: dict[str, Callable[[], Parcel]]) -> _Answer:
        proxies = [self.shelf.acquire(key, make) for key, make in parcels.items()]
        pool = self.site.pool_of(kind)
        sent, began = time.time(), time.monotonic()
        self.queues.send_inputs(call, *proxies, method=kind, topic=_TOPIC)
        result = self._wait()
        total_s = time.monotonic() - began
        if result is None:
            return _Answer(kind, pool, failure=self._why_no_answer(began))
        if not result.success:
            why = result.failure_info.exception if result.failure_info else "the task was lost"
            return _Answer(kind, pool, failure=_innermost(why))
        envelope = result.value
        if envelope["outcome"] != "done":
            return _Answer(kind, pool, failure=envelope["values"].get("message", "no message"))
        return _Answer(
            kind,
            pool,
            values=envelope["values"],
            worker=envelope["worker"],
            device=envelope["device"],
            own_s=envelope["ended"] - envelope["started"],
            waited_s=envelope["started"] - sent,
            total_s=total_s,
        )

    def _wait(self) -> Any:
        """Return the result, or None if none comes: in time, or ever."""
        end = time.monotonic() + _START_LIMIT_S
        while time.monotonic() < end and self.server.is_alive():
            with contextlib.suppress(TimeoutException, CampaignError):
                return self.queues.get_result(_TOPIC, timeout=_LOOK_EVERY_S)
        return None

    def _why_no_answer(self, began: float) -> str:
        waited_s = time.monotonic() - began
        state = "did not answer" if self.server.is_alive() else "ended"
        lines = _last_line(self.run.path / "parsl" / "server.log")
        return f"the workers {state} within {waited_s:.0f} s{': ' + lines if lines else ''}"


def _innermost(exception: str) -> str:
    """Return the reason in an exception of Parsl, which prints all of its executor before it."""
    found = re.search(r"\w+Error\(.*\)(?=\)$)", exception.strip(), re.DOTALL)
    return re.sub(r"(\\n|\\t|\s)+", " ", found[0]) if found else exception


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-_LAST_BYTES:].decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _as_parcel(folders: Sequence[Path]) -> Parcel:
    return _named_parcel({f"member-{i}": folder for i, folder in enumerate(folders)})


def _named_parcel(folders: dict[str, Path]) -> Parcel:
    names = ("model.json", "weights.safetensors")
    return {
        f"{key}/{name}": (folder / name).read_bytes() for key, folder in folders.items() for name in names
    }


def _about_workers(known: Known, trial: _Trial, answer: _Answer) -> Iterator[Finding]:
    pool = trial.site.specification[answer.pool]
    name = f"{trial.site.name}, pool {answer.pool}"
    if trial.site.name != known.config.site.kind:
        name = "a worker on this machine, in place of those of the nodes"
    if answer.failure:
        hint = _repair(answer.failure)
        yield failed(
            "site", f"{name}: a task ({answer.kind}) failed: {answer.failure}", hint, pool=answer.pool
        )
        return
    start_s = answer.waited_s
    values = {"pool": answer.pool, "start_s": round(start_s, 3), "device": answer.device}
    found = (
        f"{name}: {pool.n_workers} {'worker' if pool.n_workers == 1 else 'workers'}, there after "
        f"{duration(start_s)}; the first task ({answer.kind}) ran on {answer.device}, "
        f"{duration(answer.own_s)} with the loading of libraries"
    )
    if pool.accelerators and answer.device == "cpu":
        hint = "Look at `nvidia-smi` on this machine, and at site.accelerators."
        yield failed(
            "site", f"{found}; but the worker of device {pool.accelerators[0]} sees none", hint, **values
        )
    else:
        yield fine("site", found, **values)


def _repair(failure: str) -> str:
    if "out of memory" in failure.lower():
        return "Take a smaller training.batch_size or model.n_features, or fewer workers on a device."
    if "workers" in failure:
        return "Look whether this machine lets processes talk over 127.0.0.1, and at its memory."
    return "Mend what the message names; the same would end a campaign."


def _about_training(known: Known, trial: _Trial, answer: _Answer) -> Finding:
    values = answer.values or {}
    known.start_s = max(0.0, answer.waited_s + answer.own_s - values["wall_s"])
    folder = trial.run.models / _FOLDER
    known.epoch_s = _epoch_s(folder / "history.csv") / max(1, values["n_train"] + values["n_validation"])
    known.model_bytes = sum(path.stat().st_size for path in folder.iterdir())
    n = values["n_train"] + values["n_validation"]
    return fine(
        "training",
        f"{duration(known.epoch_s * n)} an epoch of {n} structures on {answer.device}; "
        f"{duration(known.epoch_s)} a structure; a model takes {known.model_bytes / 1e6:,.1f} MB",
        epoch_s_per_structure=known.epoch_s,
        model_bytes=known.model_bytes,
        device=answer.device,
    )


def _epoch_s(history: Path) -> float:
    """Return the seconds of an epoch; the first, which warms up, counts only where it is the only one."""
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))[1:]
    ends = [float(row["wall"]) for row in rows]
    if len(ends) < 2:
        return ends[0]
    return float(np.median(np.diff(ends)))


def _about_dynamics(known: Known, answer: _Answer) -> Iterator[Finding]:
    if answer.failure:
        yield failed("dynamics", answer.failure, _repair(answer.failure))
        return
    steps = (answer.values or {})["steps"]
    if steps < _STEPS // 4:
        reason = (answer.values or {})["reason"]
        found = f"a run ended after {steps} of {_STEPS} steps ({reason}), too early to tell what a step takes"
        yield skipped("dynamics", found)
        return
    known.dynamics_s = answer.own_s / steps
    sampling = known.config.sampling
    least, most = sampling.n_steps * known.dynamics_s, sampling.max_steps * known.dynamics_s
    yield fine(
        "dynamics",
        f"{duration(known.dynamics_s)} a step; a run takes {duration(least)} at first "
        f"({sampling.n_steps} steps), {duration(most)} at most ({sampling.max_steps})",
        step_s=known.dynamics_s,
    )


def _about_transport(trial: _Trial, answer: _Answer) -> Iterator[Finding]:
    if answer.failure:
        return
    way_s = max(0.0, answer.total_s - answer.own_s)
    yield fine(
        "store, queues",
        f"{trial.sent_bytes / 1000:.1f} kB of labels, and models, written, and read by workers through "
        f"proxies; a message there and back: {duration(way_s)}; largest message "
        f"{trial.queues.largest_message / 1000:.1f} kB",
        round_trip_s=round(way_s, 5),
        largest_message_bytes=trial.queues.largest_message,
    )
