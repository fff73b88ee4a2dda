"""Audits: how far from the reference trajectories were found, and how long runs could become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fff.data.events import CHANGED, OPENED
from fff.report.drawing import COLOURS, QUIET, Column, Drawing, drawing
from fff.report.pictures.axes import logarithmic, time_unit
from fff.report.sittings import sittings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fff.report.record import Record

__all__ = ["Run", "audited_runs", "draw_audits"]

PASSED, NOT_PASSED, NO_AUDIT = "passed", "not passed", "no audit yet"
_MARKS = {PASSED: ("o", COLOURS[2]), NOT_PASSED: ("X", COLOURS[1]), NO_AUDIT: ("D", QUIET)}


@dataclass(frozen=True)
class Run:
    """A run of dynamics and the audit of its last frame.

    Attributes:
        request: Id of its request.
        ended: When it ended (Unix time in seconds).
        steps: How long it was.
        reason: Why it ended.
        verdict: What became of its audit.
        energy_ratio: The audit's error over its tolerance; None where not known.
        force_ratio: The same of the force.
        audited: When (Unix time in seconds); None if it was not.
    """

    request: str
    ended: float
    steps: int
    reason: str
    verdict: str
    energy_ratio: float | None = None
    force_ratio: float | None = None
    audited: float | None = None


def audited_runs(record: Record) -> list[Run]:
    """Return every run of dynamics with what its audit found, oldest first."""
    audits = _audits(record)
    runs = []
    for event in record.done("dynamics"):
        last: dict[str, Any] = event.values.get("last") or {}
        run = (event.request, event.times.get("ended", 0.0), event.values["steps"], event.values["reason"])
        found = audits.get(str(last.get("hash")))
        if found is None:
            runs.append(Run(*run, NO_AUDIT))
            continue
        energy, force, audited = found
        verdict = PASSED if max(energy, force) < 1 else NOT_PASSED
        runs.append(Run(*run, verdict, energy, force, audited))
    return runs


def _audits(record: Record) -> dict[str, tuple[float, float, float]]:
    """Return errors over tolerances, of energy and force, and when, of each audit by the structure's hash.

    Tolerances are those in force when it was judged: they may change between two sittings.
    """
    structures = {item.request: item.label.hash for item in record.judged}
    tolerances: dict[str, float] = {}
    found: dict[str, tuple[float, float, float]] = {}
    for event in record.events:
        values = event.values
        if event.kind in {OPENED, CHANGED}:
            tolerances = values.get("config", {}).get("audit", tolerances)
        elif event.outcome == "done" and "energy_error" in values and event.request in structures:
            found[structures[event.request]] = (
                values["energy_error"] / tolerances["energy_tolerance_eV_per_atom"],
                values["force_error"] / tolerances["force_tolerance_eV_per_A"],
                event.times.get("ended", 0.0),
            )
    return found


def draw_audits(record: Record) -> Drawing | str:
    """Draw run lengths and audit errors over time; a sentence where there was no run."""
    runs = audited_runs(record)
    if not runs:
        return "No run of dynamics has ended yet."
    from matplotlib.figure import Figure

    sittings = sittings_of(record)
    times = [sittings.worked_by(run.ended) for run in runs]
    seconds, unit = time_unit(max(times))
    with drawing():
        figure = Figure(figsize=(7.6, 5.0))
        upper, lower = figure.subplots(2, 1, sharex=True)
        for verdict, (mark, colour) in _MARKS.items():
            own = [(t / seconds, r.steps) for t, r in zip(times, runs, strict=True) if r.verdict == verdict]
            if own:
                x, y = zip(*own, strict=True)
                upper.scatter(x, y, marker=mark, s=26, color=colour, linewidths=0, label=verdict, zorder=3)
        upper.set_ylabel(f"run length (steps of {record.setting('sampling.timestep_fs', 0):g} fs)")
        upper.set_ylim(0, 1.08 * max(run.steps for run in runs) or 1)
        _legend_above(upper)
        _draw_ratios(lower, [(t / seconds, run) for t, run in zip(times, runs, strict=True)])
        lower.set_xlabel(f"time worked ({unit})")
        lower.set_xlim(left=0)
    return Drawing(
        name="audits",
        title="Audits of trajectories",
        figure=figure,
        columns=_columns(runs, times),
        caption=(
            "Above: how long each run of dynamics was, and what the audit of its last frame found; good "
            "models earn longer runs. Below: what was found there over what is tolerated; below one "
            "passes, for energy and force alike."
        ),
    )


def _draw_ratios(axes: Axes, runs: list[tuple[float, Run]]) -> None:
    known = [(time, run) for time, run in runs if run.force_ratio is not None]
    if not known:
        axes.text(0.5, 0.5, "no audit yet", transform=axes.transAxes, ha="center", color=QUIET)
        return
    times = [time for time, _ in known]
    shown: list[float] = [1.0]
    for name, colour, mark in (("energy", COLOURS[4], "s"), ("force", COLOURS[0], "o")):
        ratios = [getattr(run, f"{name}_ratio") for _, run in known]
        shown += ratios
        axes.scatter(times, ratios, s=16, marker=mark, color=colour, linewidths=0, label=name, zorder=3)
    axes.axhline(1.0, color=QUIET, linestyle="--", linewidth=1.0)
    logarithmic(axes.yaxis, shown)
    axes.set_ylabel("error over tolerance")
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=3, fontsize=8, borderaxespad=0.1)


def _columns(runs: list[Run], times: list[float]) -> list[Column]:
    return [
        Column("request", "", [run.request for run in runs]),
        Column("time_worked", "s", [round(time, 1) for time in times]),
        Column("steps", "", [run.steps for run in runs]),
        Column("reason", "", [run.reason for run in runs]),
        Column("audit", "", [run.verdict for run in runs]),
        Column("energy_error_over_tolerance", "", [run.energy_ratio for run in runs]),
        Column("force_error_over_tolerance", "", [run.force_ratio for run in runs]),
    ]
