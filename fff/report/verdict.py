"""What came out, in a paragraph, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from fff.report.numbers import DASH, duration, interval, number, percent
from fff.report.sittings import sittings_of
from fff.report.summary import no_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fff.report.record import Record

__all__ = ["command", "count_labels", "method_of", "next_step", "sentences", "tiles", "why_no_error"]

STILL_FALLS = 0.05
"""Part by which a round must lower the error for more labels to be worth asking for."""

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
        f"({_bounds(values)}) on {number(values['n_structures'])} test structures that it was not trained on"
        f"{_against_mean_force(values)}; energies with {number(values['energy_mae_meV_per_atom'])} meV/atom."
    )
    if len(rounds) > 1:
        first = rounds[0]
        said.append(
            f"The first committee, with {number(first.n_labels)} labels, had "
            f"{number(first.values['force_mae_meV_per_A'])} meV/Å."
        )
    said += _against_baseline(record)
    return said


def why_no_error(record: Record) -> str:
    """Return why no committee has an error on a test set."""
    if record.standing.is_alive:
        return "No committee has been measured on a test set yet."
    return no_errors(record.status)


def _bounds(values: Mapping[str, Any]) -> str:
    bounds = values.get("force_mae_interval_meV_per_A")
    if bounds is None:
        return "how certain that is cannot be said from one stretch of dynamics"
    return f"95 % interval {interval(bounds)}"


def _against_mean_force(values: Mapping[str, Any]) -> str:
    mean_force = values.get("mean_force_mae_meV_per_A")
    if not mean_force:
        return ""
    part = percent(values["force_mae_meV_per_A"] / mean_force)
    return f", {part} of what predicting the mean force everywhere would give ({number(mean_force)} meV/Å)"


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
    rounds = record.rounds
    if len(rounds) < 2 or not isinstance(target, int):
        return "The committee is named by models/committee.json.", ""
    before, last = (evaluation.values["force_mae_meV_per_A"] for evaluation in rounds[-2:])
    gain = (before - last) / before if before else 0.0
    more = command(record, f"resume -o stop.max_labels={2 * target}")
    if gain > STILL_FALLS:
        return f"The last round lowered the error by {percent(gain)}: more labels will probably help.", more
    advice = (
        "The last round did not lower the error much: more labels of this kind may not help. Look at the "
        "worst structures, and at the model's size and training, before asking for more labels."
    )
    return advice, ""


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
    target = record.setting("stop.max_labels")
    found.append((f"{count_labels(record)} of {target}" if target else str(count_labels(record)), "labels"))
    found.append((str(len(record.rounds)) if record.rounds else DASH, "committees measured"))
    found.append((duration(sittings_of(record).worked_s), "time worked"))
    return found
