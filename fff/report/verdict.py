"""What came out, in a paragraph, and what to do next."""

from __future__ import annotations

import math
import shlex
import statistics
from typing import TYPE_CHECKING, Any

from fff.base.durations import duration
from fff.report.numbers import DASH, interval, number, percent
from fff.report.pictures.audits import NO_AUDIT, PASSED, audited_runs
from fff.report.sittings import sittings_of
from fff.report.summary import no_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.report.record import Evaluation, Record

__all__ = [
    "audits",
    "command",
    "count_labels",
    "method_of",
    "next_step",
    "sentences",
    "test_set_of",
    "tiles",
    "why_no_error",
]

STILL_FALLS = 0.05
"""Part by which a round must lower the error for more labels to be worth asking for."""

MUCH_LARGER = 3.0
"""Error of audits over that of the test set from which on the test set says little about the dynamics."""

_LATEST = 10
"""Audits whose error is told: older ones are of models that are long replaced."""

_STATES = {
    "starting": "A process has just taken this campaign up.",
    "running": "This campaign is running; its numbers are those of the moment when this page was written.",
    "left": "Nobody works on this campaign: it was killed, and can go on where it was left.",
    "stopped": "This campaign was stopped, and can go on where it was left.",
    "failed": "This campaign failed.",
    "finished": "This campaign is finished.",
}


def sentences(record: Record) -> list[str]:
    """Return what came out, a sentence each."""
    said = [_STATES[record.standing.state]]
    if record.standing.reason and record.standing.state in {"failed", "stopped", "finished"}:
        said.append(f"Reason: {' '.join(record.standing.reason.split()).rstrip('.')}.")
    rounds = record.rounds
    if not rounds:
        said.append(f"It has {count_labels(record)} labels by {method_of(record)}.")
        return [*said, why_no_error(record)]
    last = rounds[-1]
    values = last.values
    said.append(
        f"With {number(last.n_labels)} labels by {method_of(record)} the committee of {last.name} predicts "
        f"forces with a mean absolute error of {number(values['force_mae_meV_per_A'])} meV/Å "
        f"({_bounds(values)}) on {number(values['n_structures'])} test structures {test_set_of(record)}, "
        "none of which it was trained on; energies with "
        f"{number(values['energy_mae_meV_per_atom'])} meV/atom."
    )
    said += _against_mean_force(values)
    said += _hotter_than_tested(record)
    if len(rounds) > 1:
        first = rounds[0]
        said.append(
            f"The first committee, with {number(first.n_labels)} labels, had "
            f"{number(first.values['force_mae_meV_per_A'])} meV/Å."
        )
    return [*said, *_against_baseline(record)]


def test_set_of(record: Record) -> str:
    """Return how the test set was made."""
    given = record.setting("test.labels")
    if given:
        return f"given in {given}"
    heat = " and ".join(f"{temperature:g}" for temperature in _temperatures(record, "test.temperatures_K"))
    return f"of dynamics at {heat} K by the reference" if heat else "of dynamics by the reference"


def _temperatures(record: Record, key: str) -> list[float]:
    """Return temperatures of the config in K; none where it holds something else."""
    given = record.setting(key, [])
    given = given if isinstance(given, list) else [given]
    return [value for value in given if isinstance(value, int | float)]


def _hotter_than_tested(record: Record) -> list[str]:
    """Return a warning where the dynamics is hotter than all of a test set that the reference made."""
    tested = _temperatures(record, "test.temperatures_K")
    sampled = _temperatures(record, "sampling.temperature_K")
    if record.setting("test.labels") or not tested or not sampled or max(sampled) <= max(tested):
        return []
    said = (
        f"Beware: the dynamics goes up to {max(sampled):g} K and the test set only to {max(tested):g} K, so "
        "that this error says nothing about the hotter structures; a new campaign can have them in "
        "test.temperatures_K."
    )
    return [said]


def audits(record: Record) -> str:
    """Return how trajectories fared against the reference, beside the error on the test set."""
    verdicts = [run.verdict for run in audited_runs(record) if run.verdict != NO_AUDIT]
    if not verdicts:
        return "No trajectory was audited."
    said = f"Of {len(verdicts)} audits of trajectories {verdicts.count(PASSED)} passed"
    found = [item.error_eV_per_A for item in record.judged if item.source == "audit"][-_LATEST:]
    found = [error for error in found if math.isfinite(error)]
    prediction = record.prediction
    if not found or prediction is None:
        return f"{said}."
    audit, test = statistics.median(found), statistics.median(prediction.error_eV_per_A.tolist())
    if audit <= MUCH_LARGER * test:
        return f"{said}."
    return (
        f"{said}; the largest force error was typically {number(1000 * audit)} meV/Å there (median of the "
        f"last {len(found)}), and {number(1000 * test)} meV/Å on the test set: the dynamics meets structures "
        "that the test set does not cover, or was driven by models worse than the last."
    )


def why_no_error(record: Record) -> str:
    """Return why no committee has an error on a test set."""
    if record.standing.is_alive:
        return "No committee has been measured on a test set yet."
    asked = record.setting("test.labels") or record.setting("test.n_frames", 0)
    return no_errors(record.status, has_test_set=bool(asked))


def _bounds(values: Mapping[str, Any]) -> str:
    bounds = values.get("force_mae_interval_meV_per_A")
    if bounds is None:
        return "how certain that is cannot be said from one stretch of dynamics"
    return f"95 % interval {interval(bounds)}"


def _against_mean_force(values: Mapping[str, Any]) -> list[str]:
    mean_force = values.get("mean_force_mae_meV_per_A")
    if not mean_force:
        return []
    part = percent(values["force_mae_meV_per_A"] / mean_force)
    what = f"predicting the mean force everywhere would give ({number(mean_force)} meV/Å)"
    return [f"The error of forces is {part} of what {what}."]


def _against_baseline(record: Record) -> list[str]:
    """Return how a committee of random frames compares with the campaign's own of as many labels."""
    baseline = record.baseline
    if baseline is None:
        return []
    said = (
        f"A committee of {number(baseline.n_labels)} random frames of reference dynamics has "
        f"{number(baseline.values['force_mae_meV_per_A'])} meV/Å ({_bounds(baseline.values)})"
    )
    # One that had more labels, in a campaign that was extended, would win by them alone.
    equals = [evaluation for evaluation in record.rounds if evaluation.n_labels == baseline.n_labels]
    if not equals:
        return [f"{said}; none of the campaign's own had as many labels, so they cannot be compared."]
    own = equals[-1]
    if own is not record.rounds[-1]:
        said += f", {own.name} of as many labels {number(own.values['force_mae_meV_per_A'])} meV/Å"
    bounds = [evaluation.values.get("force_mae_interval_meV_per_A") for evaluation in (own, baseline)]
    if bounds[0] is None or bounds[1] is None:
        return [f"{said}."]
    if max(bounds[0][0], bounds[1][0]) <= min(bounds[0][1], bounds[1][1]):
        return [f"{said}: the intervals overlap, so this test set does not tell which is better."]
    better = bounds[0][1] < bounds[1][0]
    return [f"{said}: choosing labels {'paid' if better else 'did not pay'} on this test set."]


def next_step(record: Record) -> tuple[str, str]:
    """Return what to do next, and the command for it; both may be empty."""
    state = record.standing.state
    if state in {"starting", "running"}:
        return "Watch it, or have this page written anew later.", command(record, "status")
    if state in {"left", "stopped"}:
        return "It goes on with:", command(record, "resume")
    if state == "failed":
        return "Put right what is told under Failures; then it goes on with:", command(record, "resume")
    target = record.setting("stop.max_labels")
    if len(record.rounds) < 2 or not isinstance(target, int):
        return "The committee is named by models/committee.json.", ""
    *earlier, last = record.rounds
    best = min(earlier, key=_error)
    gain = (_error(best) - _error(last)) / _error(best) if _error(best) else 0.0
    if gain <= STILL_FALLS:
        advice = (
            f"The last committee is not much better than the best before it ({_in_short(best)}): more labels "
            "of this kind may not help. Look at the worst structures, and at the model's size and training, "
            "before asking for more labels."
        )
        return advice, ""
    more = command(record, f"resume -o stop.max_labels={2 * max(target, count_labels(record))}")
    last_bounds, best_bounds = (each.values.get("force_mae_interval_meV_per_A") for each in (last, best))
    if last_bounds is not None and best_bounds is not None and last_bounds[1] < best_bounds[0]:
        since = f"the best committee before it ({_in_short(best)})"
        advice = f"The last committee has an error lower by {percent(gain)} than {since}: more labels will "
        return f"{advice}probably help.", more
    why = "the intervals overlap" if last_bounds and best_bounds else "nothing says how certain they are"
    return (
        f"It is not clear whether more labels help: the last committee has {_in_short(last)}, the best "
        f"before it {_in_short(best)}, and {why}. To find out, go on for more labels:"
    ), more


def _error(evaluation: Evaluation) -> float:
    return float(evaluation.values["force_mae_meV_per_A"])


def _in_short(evaluation: Evaluation) -> str:
    return f"{number(_error(evaluation))} meV/Å with {number(evaluation.n_labels)} labels"


def command(record: Record, what: str) -> str:
    """Return a command for this run directory: `resume -o x=1` becomes `fff resume DIR -o x=1`."""
    verb, _, rest = what.partition(" ")
    return f"fff {verb} {shlex.quote(str(record.run.path))} {rest}".rstrip()


def count_labels(record: Record) -> int:
    """Return how many labels there are, given ones included."""
    return len(record.judged) or len(record.done("calculate"))


def method_of(record: Record) -> str:
    """Return the name of the reference method."""
    for item in reversed(record.judged):
        if item.method:
            return item.method
    return str(record.setting("reference.kind", "an unknown method"))


def tiles(record: Record) -> list[tuple[str, str]]:
    """Return the numbers that a reader looks for first, each with what it is."""
    found: list[tuple[str, str]] = []
    if record.rounds:
        values = record.rounds[-1].values
        bounds = values.get("force_mae_interval_meV_per_A")
        found += [
            (f"{number(values['force_mae_meV_per_A'])} meV/Å", f"force error (95 %: {interval(bounds)})"),
            (f"{number(values['energy_mae_meV_per_atom'])} meV/atom", "energy error"),
        ]
    target, count = record.setting("stop.max_labels"), count_labels(record)
    # Extended, and then given its first budget again, a campaign has more.
    is_ahead = isinstance(target, int) and count <= target
    found.append((f"{count} of {target}" if is_ahead else str(count), "labels"))
    found.append((str(len(record.rounds)) if record.rounds else DASH, "committees measured"))
    found.append((duration(sittings_of(record).worked_s), "time worked"))
    return found
