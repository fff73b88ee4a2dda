"""Everything that a watcher sees, as one plain structure made from the files of a run directory alone.

The terminal, the page in the browser and programs are given the same; none of them opens a file itself.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from fff.data.events import CHANGED, OPENED
from fff.data.lines import describe_outcome, describe_pools
from fff.report.failures import Failures
from fff.report.following import Follower
from fff.report.lanes import IDLE, Lanes, letter
from fff.report.standing import STALE_AFTER_S, Standing, number, numbers, part, read_standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fff.data.events import Event
    from fff.data.run_directory import RunDirectory
    from fff.report.lanes import Segment

__all__ = ["STRIP_CELLS", "View"]

STRIP_CELLS = 120
"""Pieces of time in a worker's strip."""

LONGEST_STRIP_S = 600.0
SHORTEST_STRIP_S = 30.0

MOST_LANES = 32
MOST_CAUSES = 20
LAST_EVENTS = 30
LAST_AUDITS = 10
RECENT_TASKS = 20

SLACK_S = 0.5
"""A task may begin so much before the worker it went to is known to be free: the log comes after the work."""

_TAIL_BYTES = 4096
_TRAININGS = {"train", "train-baseline"}


class View:
    """Looks at a run directory again and again, and reads only what is new.

    Args:
        run: The run directory. Nothing in it is written.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._follower = Follower(run.events)
        self._restarts = 0
        self._forget()

    def _forget(self) -> None:
        self._config: Mapping[str, Any] = {}
        self._pool_of: Mapping[str, Any] = {}
        self._capacity: Mapping[str, Any] = {}
        self._lanes = Lanes()
        self._failures = Failures()
        self._last: deque[Event] = deque(maxlen=LAST_EVENTS)
        self._audits: deque[dict[str, Any]] = deque(maxlen=LAST_AUDITS)
        self._calculations_s: deque[float] = deque(maxlen=RECENT_TASKS)
        self._trained: dict[str, Mapping[str, Any]] = {}

    def look(self) -> dict[str, Any]:
        """Return what there is to be seen now, JSON-able; the methods below say what each part holds."""
        standing = read_standing(self.run)
        self._read_events()
        status = standing.status
        updated = number(status, "updated")
        now = time.time()
        usage = part(status, "usage")
        elapsed_s = number(usage, "elapsed_s")
        if standing.state == "running" and elapsed_s is not None and updated is not None:
            elapsed_s += min(max(0.0, now - updated), STALE_AFTER_S)
        until = now if standing.is_alive or updated is None else updated
        return {
            "schema_version": 1,
            "run_dir": str(self.run.path),
            "name": str(self._config.get("name") or self.run.path.name),
            "state": standing.state,
            "reason": standing.reason,
            "resumable": standing.resumable,
            "how_to_go_on": standing.how_to_go_on(self.run.path),
            "notes": [*standing.notes, *self._stopping(standing), *self._follower.troubles],
            "now": now,
            "updated": updated,
            "started": number(status, "started"),
            "elapsed_s": elapsed_s,
            "labels": self._labels(standing),
            "trainer": self._trainer(status),
            "sampler": self._sampler(status),
            "selector": self._selector(status),
            "calculator": self._calculator(status, now),
            "errors": _errors(status),
            "busy": numbers(status, "workers"),
            "pools": describe_pools(
                numbers(status, "workers"), part(status, "pools") if standing.is_alive else {}
            ),
            "lanes": self._worker_lanes(standing, until),
            "events": [_event(event) for event in self._last],
            "n_events": self._follower.n_events,
            "warnings": [cause.to_json() for cause in self._failures.causes()[:MOST_CAUSES]],
        }

    # --- what the log tells -----------------------------------------------------------------------------

    def _read_events(self) -> None:
        events = self._follower.read()
        if self._follower.restarts != self._restarts:
            self._restarts = self._follower.restarts
            self._forget()
        for event in events:
            self._take_in(event)

    def _take_in(self, event: Event) -> None:
        self._last.append(event)
        if event.kind in {OPENED, CHANGED}:
            self._config = part(event.values, "config") or self._config
            self._pool_of = part(event.values, "pool_of") or self._pool_of
            self._capacity = part(event.values, "capacity") or self._capacity
            return
        self._lanes.add(event)
        self._failures.add(event)
        if event.outcome != "done":
            return
        if event.kind in _TRAININGS:
            self._trained[event.request] = event.values
        elif event.kind == "calculate":
            self._take_in_label(event)

    def _take_in_label(self, event: Event) -> None:
        if {"started", "ended"} <= event.times.keys():
            self._calculations_s.append(event.times["ended"] - event.times["started"])
        if "energy_error" not in event.values:
            return
        energy, force = number(event.values, "energy_error"), number(event.values, "force_error")
        bounds = part(self._config, "audit")
        most_energy = number(bounds, "energy_tolerance_eV_per_atom")
        most_force = number(bounds, "force_tolerance_eV_per_A")
        known = None not in (energy, force, most_energy, most_force)
        self._audits.append(
            {
                "request": event.request,
                "ended": event.times.get("ended"),
                "energy_error_eV_per_atom": energy,
                "force_error_eV_per_A": force,
                "passed": (energy < most_energy and force < most_force) if known else None,  # type: ignore[operator]
            }
        )

    # --- labels and the four panels ---------------------------------------------------------------------

    def _labels(self, standing: Standing) -> dict[str, Any]:
        status = standing.status
        labels = part(status, "labels")
        running = standing.state == "running"
        return {
            "done": number(labels, "done"),
            "failed": number(labels, "failed"),
            "in_flight": number(labels, "in_flight"),
            "target": number(labels, "target") or number(part(self._config, "stop"), "max_labels"),
            "per_label_s": number(status, "label_s") if running else None,
            "eta_s": number(status, "eta_s") if running else None,
        }

    def _trainer(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Return the present round, and where each member in training is; errors in eV/Å."""
        return {
            "round": number(status, "round"),
            "retrain": numbers(status, "retrain"),
            "training": self._members(part(status, "training"), status),
            "baseline": self._members(part(status, "baseline"), status),
        }

    def _members(self, training: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any] | None:
        if not training:
            return None
        round_ = training.get("round")
        round_ = round_ if isinstance(round_, int) else None
        requests = "train-baseline" if round_ is None else f"train-r{round_:03d}"
        flights = {
            flight["request"]: flight
            for flight in _flights(status)
            if flight["kind"] in _TRAININGS and flight["request"].startswith(requests)
        }
        members = [
            {"member": member, "state": state, **self._progress(member, state, flights, requests)}
            for state in ("done", "running", "waiting")
            for member in _numbers(training.get(state))
        ]
        return {
            "round": round_,
            "n_labels": number(training, "n_labels"),
            "members": sorted(members, key=lambda member: member["member"]),
        }

    def _progress(
        self, member: int, state: str, flights: Mapping[str, Mapping[str, Any]], requests: str
    ) -> dict[str, Any]:
        """Return the epoch and the force error on labels left out (eV/Å) of a member, as far as known."""
        end = f"-m{member}"
        known: dict[str, Any] = {
            "epoch": None,
            "max_epochs": number(part(self._config, "training"), "max_epochs"),
            "force_mae_eV_per_A": None,
            "since": None,
        }
        if state == "done":
            values = self._trained.get(f"{requests}{end}", {})
            known["epoch"] = number(values, "epochs")
            known["force_mae_eV_per_A"] = number(values, "validation_force_mae_eV_per_A")
        request = next((name for name in flights if name.endswith(end)), None)
        if state == "running" and request is not None:
            known["since"] = flights[request]["since"]
            known |= _last_epoch(self.run.tasks / f"{request}.stage" / "history.csv")
        return known

    def _sampler(self, status: Mapping[str, Any]) -> dict[str, Any]:
        sampling = part(self._config, "sampling")
        audit = part(self._config, "audit")
        return {
            "trajectories": numbers(status, "trajectories"),
            "next_run_steps": number(status, "next_run_steps"),
            "timestep_fs": number(sampling, "timestep_fs"),
            "audits": numbers(status, "audits"),
            "energy_tolerance_eV_per_atom": number(audit, "energy_tolerance_eV_per_atom"),
            "force_tolerance_eV_per_A": number(audit, "force_tolerance_eV_per_A"),
            "last_audits": list(self._audits),
        }

    def _selector(self, status: Mapping[str, Any]) -> dict[str, Any]:
        """Return the waiting lists, and the deviations of what waits for a label.

        The threshold, where dynamics stops, is one of the largest force deviation (eV/Å): it is told only
        where frames are chosen by the same.
        """
        deviations = part(status, "selected_deviations")
        kind = deviations.get("kind") or part(self._config, "selection").get("deviation")
        stop = number(part(self._config, "sampling"), "stop_deviation_eV_per_A")
        return {
            "waiting": numbers(status, "waiting"),
            "deviations": {
                **{name: number(deviations, name) for name in ("lowest", "median", "highest")},
                "kind": kind,
                "unit": "eV/atom" if kind == "energy" else "eV/Å",
                "stop_deviation_eV_per_A": stop if kind == "max-force" else None,
            },
        }

    def _calculator(self, status: Mapping[str, Any], now: float) -> dict[str, Any]:
        flights = [flight for flight in _flights(status) if flight["kind"] == "calculate"]
        labels = part(status, "labels")
        return {
            "method": _method(part(self._config, "reference")),
            "in_flight": number(labels, "in_flight"),
            "longest_s": max((now - flight["since"] for flight in flights), default=None),
            "done": number(labels, "done"),
            "failed": number(labels, "failed"),
            "retries": number(status, "retries"),
            # The median of the last ones: the mean holds the first, for which the worker had to warm up.
            "seconds_per_label": statistics.median(self._calculations_s) if self._calculations_s else None,
        }

    def _stopping(self, standing: Standing) -> list[str]:
        if not standing.is_alive:
            return []
        if self.run.stopping.exists():
            return ["It is stopping: nothing new is begun, and what runs may end."]
        return ["It was asked to stop."] if self.run.stop_file.exists() else []

    # --- the workers ------------------------------------------------------------------------------------

    def _worker_lanes(self, standing: Standing, until: float) -> dict[str, Any]:
        """Return what each worker did in the last minutes, letter by letter, and what it does now."""
        began = number(standing.status, "sitting_started") or number(standing.status, "started") or until
        seconds = min(max(until - began, SHORTEST_STRIP_S), LONGEST_STRIP_S)
        since = until - seconds
        flights = _flights(standing.status) if standing.state == "running" else []
        alive = [worker for worker in self._lanes.workers if self._lanes.last_end(worker) >= began]
        doing = self._who_does(flights, alive)
        n_slots = sum(int(number(self._capacity, pool) or 0) for pool in self._capacity)
        # A worker that died was replaced; of more workers than slots the ones that did something last live.
        alive.sort(key=lambda w: (w in doing, self._lanes.last_end(w)), reverse=True)
        alive = sorted(alive[: n_slots or None], key=_natural)
        on_others = [
            flight for flight in flights if flight["request"] not in {f["request"] for f in doing.values()}
        ]
        lanes = [self._lane(worker, doing.get(worker), began, since, until) for worker in alive[:MOST_LANES]]
        lanes += [
            self._lane("", flight, began, since, until)
            for flight in on_others[: max(0, n_slots - len(alive))]
        ]
        return {
            "since": since,
            "until": until,
            "n_workers": len(alive),
            "n_slots": n_slots,
            "lanes": lanes[:MOST_LANES],
        }

    def _who_does(
        self, flights: Sequence[Mapping[str, Any]], workers: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Return which worker most likely has which request: the one that had just become free.

        A request is sent when a slot is free, so it goes to a worker that ended its last task before; of
        those the one that ended last made the slot free.
        """
        doing: dict[str, Mapping[str, Any]] = {}
        # Sorted once: this process steers a thousand workers, and looks every second.
        free = [(self._lanes.last_end(worker), self._pool(worker), worker) for worker in workers]
        free.sort(key=itemgetter(0), reverse=True)
        for flight in flights:
            latest, pools = flight["since"] + SLACK_S, (flight.get("pool"), None)
            fitting = (i for i, (end, pool, _) in enumerate(free) if end <= latest and pool in pools)
            index = next(fitting, None)
            if index is not None:
                doing[free.pop(index)[2]] = flight
        return doing

    def _pool(self, worker: str) -> Any:
        return self._pool_of.get(self._lanes.last_kind(worker))

    def _lane(
        self, worker: str, flight: Mapping[str, Any] | None, began: float, since: float, until: float
    ) -> dict[str, Any]:
        segments = self._lanes.segments(worker, since, until)
        now = None if flight is None else (max(flight["since"], self._lanes.last_end(worker)), flight)
        # Of the time that the worker was there, as far as anybody knows.
        there = max(since, began)
        busy_s = self._lanes.busy(worker, there, until) * (until - there)
        if now is not None:
            busy_s += max(0.0, until - max(now[0], there))
        return {
            "worker": worker,
            "pool": (flight or {}).get("pool") or self._pool(worker),
            "busy": min(1.0, busy_s / (until - there)) if until > there else 0.0,
            "strip": _strip(segments, now, since, until),
            "now": None
            if flight is None
            else {"request": flight["request"], "kind": flight["kind"], "since": flight["since"]},
        }


def _strip(
    segments: Sequence[Segment], now: tuple[float, Mapping[str, Any]] | None, since: float, until: float
) -> str:
    """Return a letter for each piece of time: of the task that fills most of it, or of a failed one."""
    cell_s = (until - since) / STRIP_CELLS
    filled: list[dict[str, float]] = [{} for _ in range(STRIP_CELLS)]
    tasks = [(s.started, s.ended, "x" if s.failed else letter(s.kind)) for s in segments]
    if now is not None:
        tasks.append((now[0], until, letter(str(now[1]["kind"]))))
    for started, ended, sign in tasks:
        first = max(0, int((started - since) / cell_s))
        last = min(STRIP_CELLS - 1, int((ended - since) / cell_s))
        for cell in range(first, last + 1):
            begin = since + cell * cell_s
            overlap = min(ended, begin + cell_s) - max(started, begin)
            # A failure is seen however short it was.
            filled[cell][sign] = filled[cell].get(sign, 0.0) + (cell_s if sign == "x" else max(0.0, overlap))
    return "".join(
        max(signs, key=lambda sign: signs[sign]) if sum(signs.values()) > cell_s / 4 else IDLE
        for signs in filled
    )


def _flights(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what is in flight, the oldest first; nothing where an older fff wrote the status."""
    flights = status.get("in_flight")
    if not isinstance(flights, list):
        return []
    return [
        flight
        for flight in flights
        if isinstance(flight, dict)
        and isinstance(flight.get("request"), str)
        and "/" not in flight["request"]
        and isinstance(flight.get("kind"), str)
        and number(flight, "since") is not None
    ]


def _errors(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the errors on the test set in order of the rounds, those of the comparison last (meV/Å)."""
    errors = part(status, "errors")
    names = sorted(errors, key=lambda name: (not name.startswith("round-"), name))
    return [
        {
            "name": name,
            "is_baseline": not name.startswith("round-"),
            "n_labels": number(error, "n_labels"),
            "n_structures": number(error, "n_structures"),
            "force_mae_meV_per_A": number(error, "force_mae_meV_per_A"),
            "interval_meV_per_A": _interval(error.get("force_mae_interval_meV_per_A")),
            "energy_mae_meV_per_atom": number(error, "energy_mae_meV_per_atom"),
            "mean_force_mae_meV_per_A": number(error, "mean_force_mae_meV_per_A"),
        }
        for name in names
        if (error := part(errors, name))
    ]


def _interval(value: Any) -> list[float] | None:
    both = value if isinstance(value, list) and len(value) == 2 else []
    return list(both) if both and all(isinstance(end, (int, float)) for end in both) else None


def _event(event: Event) -> dict[str, Any]:
    started, ended = event.times.get("started"), event.times.get("ended")
    return {
        "seq": event.seq,
        "when": ended if ended is not None else started,
        "kind": event.kind,
        "request": event.request,
        "attempt": event.attempt,
        "failed": event.outcome == "failed",
        "text": _changed(event) if event.kind in {OPENED, CHANGED} else describe_outcome(event),
        "took_s": ended - started if started is not None and ended is not None else None,
        "worker": event.worker,
    }


def _changed(event: Event) -> str:
    if event.kind == OPENED:
        return "the campaign begins"
    return "decided between two sittings: " + (", ".join(event.values) or "nothing")


def _last_epoch(path: Path) -> dict[str, Any]:
    """Return the last epoch of a training in progress, and the last error on labels left out (eV/Å)."""
    try:
        with path.open("rb") as file:
            names = file.readline().decode(errors="replace").strip().split(",")
            file.seek(max(file.tell(), file.seek(0, 2) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return {}
    # The first line of the piece may be half a one, or that of the units; the last may be half written.
    rows = [
        dict(zip(names, cells, strict=True))
        for cells in csv.reader(text.split("\n")[1:-1])
        if len(cells) == len(names)
    ]
    epochs = [int(row["epoch"]) for row in rows if row.get("epoch", "").isdigit()]
    errors = [error for row in rows if (error := _to_float(row.get("validation_force_mae"))) is not None]
    return {
        "epoch": epochs[-1] if epochs else 0,
        "force_mae_eV_per_A": errors[-1] if errors else None,
    }


def _to_float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _numbers(value: Any) -> list[int]:
    return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []


def _method(reference: Mapping[str, Any]) -> str:
    """Return what makes the labels, in a few words."""
    kind = str(reference.get("kind") or "")
    for key in ("method", "functional", "xc", "calculator"):
        if reference.get(key):
            return f"{kind} {reference[key]}"
    return kind


def _natural(worker: str) -> tuple[str, int]:
    host, _, process = worker.rpartition(":")
    return host, int(process) if process.isdigit() else 0
