"""The live view on a terminal: what `fff.report.view` gives, as lines that fit its width and height.

Nothing is told by colour alone, and every line fits: a narrow or short terminal gets less of it, never a
broken picture.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fff.base.durations import duration
from fff.report.lanes import IDLE, LETTERS
from fff.report.view import STRIP_CELLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

__all__ = ["render"]

FEWEST_COLUMNS = 40
BOXED_FROM = 76
"""Columns and rows from which the panels stand in boxes, two side by side."""
BOXED_FROM_ROWS = 20

MOST_EVENTS = 10
MOST_WARNINGS = 4
STATES = {
    "starting": ("STARTING", "bold yellow"),
    "running": ("RUNNING", "bold green"),
    "finished": ("FINISHED", "bold green"),
    "stopped": ("STOPPED", "bold yellow"),
    "failed": ("FAILED", "bold red"),
    "left": ("LEFT", "bold red"),
}
_COLOURS = {
    "T": "blue",
    "B": "cyan",
    "F": "cyan",
    "D": "green",
    "S": "yellow",
    "C": "yellow",
    "L": "magenta",
    "R": "bright_black",
    "E": "cyan",
    "x": "bold red",
}
_NAMES = {"calculate": "label", "reference-dynamics": "reference dynamics", "train-baseline": "baseline"}
_LABEL_WIDTH = 11


def render(view: Mapping[str, Any], width: int, height: int | None = None) -> Group:
    """Return the view as something that Rich prints.

    Args:
        view: What `View.look` gave.
        width: Columns of the terminal.
        height: Rows that may be used; None for as many as it takes.
    """
    width = max(width, FEWEST_COLUMNS)
    head = _head(view, width)
    foot = _foot(view)
    rest = 1000 if height is None else max(0, height - len(head) - len(foot))
    boxed = width >= BOXED_FROM and (height is None or height >= BOXED_FROM_ROWS)
    panels, taken = _panels(view, width, boxed=boxed, rest=rest)
    rest -= taken
    lines: list[Text] = []
    for section, share in (
        (_errors(view, width), 1.0),
        (_lanes(view, width), 0.5),
        (_warnings(view), 0.5),
        (_events(view), 1.0),
    ):
        # A heading alone tells nothing.
        room = int((rest - len(lines)) * share + 0.5)
        if section and room >= min(2, len(section)):
            lines += section[:room]
    parts: list[RenderableType] = [*head, *panels, *_fitting(lines), *foot]
    return Group(*parts)


def _fitting(lines: Sequence[Text]) -> Sequence[Text]:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


# --- head and foot --------------------------------------------------------------------------------------


def _head(view: Mapping[str, Any], width: int) -> list[Text]:
    name, style = STATES.get(view["state"], (str(view["state"]).upper(), "bold"))
    elapsed_s = view["elapsed_s"]
    title = Text.assemble((plain(view["name"]), "bold"), "  ", (name, style))
    if elapsed_s is not None:
        title.append(f"  after {duration(elapsed_s)}")
    if view["pools"]:
        title.append(f"  workers busy: {view['pools']}")
    lines = [title, _label_bar(view, width)]
    if view["state"] not in {"running", "finished"} and view["reason"]:
        seen_s = None if view["updated"] is None else max(0.0, view["now"] - view["updated"])
        ago = f" ({duration(seen_s)} ago)" if seen_s is not None and view["state"] != "starting" else ""
        style = "bold" if view["state"] in {"failed", "left"} else ""
        lines.append(Text(plain(view["reason"]) + ago, style))
    lines += [Text(f"! {plain(note)}", "yellow") for note in view["notes"][:3]]
    return list(_fitting(lines))


def _label_bar(view: Mapping[str, Any], width: int) -> Text:
    labels = view["labels"]
    done, target = labels["done"], labels["target"]
    if done is None or not target:
        return Text("no label yet")
    text = f" {done} of {target} labels"
    if labels["failed"]:
        text += f", {labels['failed']} failed"
    if labels["eta_s"] is not None:
        text += f", about {duration(labels['eta_s'])} to the last"
    elif view["state"] == "running":
        text += ", what follows the last takes its time" if done >= target else ", time left not known yet"
    return bar(done / target, max(8, min(40, width - len(text) - 2)), "green").append(text, "")


def bar(fraction: float, width: int, style: str) -> Text:
    """Return a bar of `width` characters that is filled to a fraction between 0 and 1."""
    filled = round(max(0.0, min(1.0, fraction)) * width)
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), "bright_black"))


def _foot(view: Mapping[str, Any]) -> list[Text]:
    verbs = {"stop": "To stop it", "resume": "To go on", "report": "What came out"}
    command = view["how_to_go_on"]
    verb = verbs.get(command.split()[1], "Next")
    return list(_fitting([Text(f"{verb}: {plain(command)}", "bright_black")]))


# --- the four panels ------------------------------------------------------------------------------------


def _panels(
    view: Mapping[str, Any], width: int, *, boxed: bool, rest: int
) -> tuple[list[RenderableType], int]:
    """Return the panels, and the rows they take."""
    room = (width // 2 - 4 if boxed else width - _LABEL_WIDTH) - _LABEL_WIDTH
    contents = {
        "Trainer": _trainer(view, room),
        "Sampler": _sampler(view, room),
        "Selector": _selector(view, room),
        "Calculator": _calculator(view, room),
    }
    if not boxed:
        n = max(1, min(3, rest // 8))
        lines = []
        for name, rows in contents.items():
            for index, row in enumerate(rows[:n]):
                lines.append(Text.assemble((f"{name if index == 0 else '':<11}", "bold"), row))
        return list(_fitting(lines)), len(lines)
    n = max(2, min(6 if rest > 34 else 4, rest // 4))
    grid = Table.grid(expand=True)
    for _ in range(2):
        grid.add_column(ratio=1)
    taken, pairs = 0, list(contents.items())
    for left, right in (pairs[:2], pairs[2:]):
        height = min(n, max(len(left[1]), len(right[1])))
        taken += height + 2
        grid.add_row(*(_box(name, rows[:height], height) for name, rows in (left, right)))
    grid.width = width
    return [grid], taken


def _box(name: str, rows: Sequence[Text], height: int) -> Panel:
    return Panel(
        Group(*_fitting(list(rows))),
        title=Text(name, "bold"),
        title_align="left",
        height=height + 2,
        border_style="bright_black",
    )


def _row(label: str, *parts: str | Text | tuple[str, str]) -> Text:
    return Text.assemble((f"{label:<{_LABEL_WIDTH}}", "bright_black"), *parts)


def _fit(room: int, *texts: str) -> str:
    """Return the first of some ways to say it that fits; the last one is cut off if it must be."""
    return next((text for text in texts if len(text) <= room), texts[-1])


def _trainer(view: Mapping[str, Any], room: int) -> list[Text]:
    trainer = view["trainer"]
    number = trainer["round"]
    knows = {error["name"]: error["n_labels"] for error in view["errors"]}
    known = knows.get(f"round-{number:03d}") if isinstance(number, int) else None
    which = "none yet" if number is None else f"of round {number}"
    rows = [_row("committee", which + ("" if known is None else f", on {known} labels"))]
    for name in ("training", "baseline"):
        training = trainer[name]
        if training is not None:
            rows += _training(training, "comparison" if name == "baseline" else "round", room)
    if len(rows) == 1:
        retrain = trainer["retrain"]
        new, every = retrain.get("new_labels"), retrain.get("every")
        if every and number is not None and view["state"] == "running":
            rows.append(_row("next round", f"at {every} new labels: {new} so far"))
        elif number is None:
            rows.append(_row("next round", "after the first labels"))
    return rows


def _training(training: Mapping[str, Any], what: str, room: int) -> list[Text]:
    members = training["members"]
    done = sum(member["state"] == "done" for member in members)
    name = f"round {training['round']}" if training["round"] is not None else what
    on = f"{training['n_labels']} labels: {done} of {len(members)}"
    rows = [_row(name, _fit(room, f"{on} members done", f"{on} done"))]
    for member in members:
        if member["state"] != "running":
            continue
        text = _row(f"member {member['member']}")
        epoch, most = member["epoch"], member["max_epochs"]
        if epoch is None:
            text.append("begins")
        else:
            if most:
                text.append_text(bar(epoch / most, 10 if room > 32 else 6, "blue"))
            text.append(" epoch " if room > 32 else " ")
            text.append(f"{epoch:.0f}" + (f"/{most:.0f}" if most else ""))
        error = member["force_mae_eV_per_A"]
        if error is not None:
            text.append(f", {1000 * error:.0f} meV/Å")
        rows.append(text)
    return rows


def _sampler(view: Mapping[str, Any], room: int) -> list[Text]:
    sampler = view["sampler"]
    counts = sampler["trajectories"]
    audits = sampler["audits"]
    made, passed = audits.get("made", 0), audits.get("passed", 0)
    steps, timestep = sampler["next_run_steps"], sampler["timestep_fs"]
    n_running, n_waiting, n_idle = (counts.get(name, 0) for name in ("running", "waiting", "idle"))
    share = f"{passed} of {made} passed ({passed / made:.0%})" if made else "none yet"
    row = f", {audits.get('most_in_a_row', 0)} in a row" if made else ""
    length = "not known" if steps is None else f"{steps:.0f} steps"
    if steps is not None and timestep:
        length += f", {steps * timestep:.0f} fs"
    return [
        _row(
            "dynamics",
            _fit(
                room,
                f"{n_running} running, {n_waiting} wait for an audit, {n_idle} idle",
                f"{n_running} run, {n_waiting} wait, {n_idle} idle",
            ),
        ),
        _row("audits", _fit(room, share + row, share)),
        _last_audit(sampler, room),
        _row("next run", length),
    ]


def _last_audit(sampler: Mapping[str, Any], room: int) -> Text:
    if not sampler["last_audits"]:
        return _row("last audit", "none yet")
    last = sampler["last_audits"][-1]
    energy, force = last["energy_error_eV_per_atom"], last["force_error_eV_per_A"]
    most_energy, most_force = sampler["energy_tolerance_eV_per_atom"], sampler["force_tolerance_eV_per_A"]
    if None in (energy, force, most_energy, most_force):
        return _row("last audit", "not known")
    word, style = ("passed", "green") if last["passed"] else ("failed", "bold red")
    energies, forces = (
        f" {1000 * energy:.{0 if energy >= 0.1 else 1}f} of {1000 * most_energy:g} meV/atom",
        f"{force:.2f} of {most_force:g} eV/Å",
    )
    return _row(
        "last audit",
        (word, style),
        _fit(room - len(word), f"{energies}, {forces}", energies, energies.replace(" of ", "/")),
    )


def _selector(view: Mapping[str, Any], room: int) -> list[Text]:
    waiting, deviations = view["selector"]["waiting"], view["selector"]["deviations"]
    low, middle, high = (deviations[name] for name in ("lowest", "median", "highest"))
    rows = [
        _row("to label", f"{waiting.get('audits', 0)} audits, {waiting.get('selected', 0)} selected"),
        _row("frames", f"{waiting.get('unscored', 0)} to score, {waiting.get('scored', 0)} scored"),
    ]
    if middle is None:
        rows.append(_row("deviations", "not known" if waiting.get("selected") else "nothing is selected"))
    else:
        unit = deviations["unit"]
        rows.append(
            _row(
                "deviations",
                _fit(
                    room,
                    f"{middle:.2f} in the middle, {low:.2f} to {high:.2f} {unit}",
                    f"{low:.2f} to {high:.2f}, middle {middle:.2f} {unit}",
                    f"middle {middle:.2f}, to {high:.2f} {unit}",
                ),
            )
        )
    stop = deviations["stop_deviation_eV_per_A"]
    if stop is not None:
        rows.append(_row("", f"runs stop at {stop:.2f} eV/Å"))
    return rows


def _calculator(view: Mapping[str, Any], room: int) -> list[Text]:
    calculator = view["calculator"]
    in_flight, longest = calculator["in_flight"], calculator["longest_s"]
    since = f", the longest for {duration(longest)}" if longest is not None else ""
    each = calculator["seconds_per_label"]
    done = f"{_count(calculator['done'])}, {_count(calculator['failed'])} failed"
    retries = calculator["retries"]
    return [
        _row("in flight", f"{_count(in_flight)}{since}"),
        _row(
            "done",
            _fit(room, f"{done}, {retries} to try again", f"{done}, {retries} again") if retries else done,
        ),
        _row("one takes", "not known yet" if each is None else duration(each)),
        _row("method", plain(calculator["method"]) or "not known"),
    ]


# --- below the panels -----------------------------------------------------------------------------------


def _errors(view: Mapping[str, Any], width: int) -> list[Text]:
    rounds = [error for error in view["errors"] if not error["is_baseline"]]
    known = [error for error in rounds if error["force_mae_meV_per_A"] is not None]
    if not known:
        return [_row("test error", "not known yet")]
    last = known[-1]
    interval = last["interval_meV_per_A"]
    text = f"{last['force_mae_meV_per_A']:.0f} meV/Å"
    if interval:
        text += f", 95 %: {interval[0]:.0f} - {interval[1]:.0f}"
    row = _row("test error", (text, "bold"), f", {_count(last['n_labels'])} labels")
    compared = [error for error in view["errors"] if error["is_baseline"]]
    if compared and compared[-1]["force_mae_meV_per_A"] is not None:
        row.append(f"; random frames {compared[-1]['force_mae_meV_per_A']:.0f}")
    before = " > ".join(f"{error['force_mae_meV_per_A']:.0f}" for error in known[:-1][-8:])
    if before and width - row.cell_len > len(before) + 12:
        row.append(f"; before: {before}", "bright_black")
    return [row]


def _lanes(view: Mapping[str, Any], width: int) -> list[Text]:
    lanes = view["lanes"]
    if not lanes["lanes"]:
        return []
    used = set("".join(lane["strip"] for lane in lanes["lanes"]))
    legend = [(sign, _NAMES.get(kind, kind)) for kind, sign in LETTERS.items() if sign in used]
    if "x" in used:
        legend.append(("x", "failed"))
    head = Text.assemble(("Workers", "bold"), f"  last {duration(lanes['until'] - lanes['since'])}: ")
    for index, (sign, name) in enumerate(legend):
        head.append("  " if index else "").append(sign, _COLOURS.get(sign, "")).append(f" {name}")
    hidden = lanes["n_slots"] - len(lanes["lanes"])
    if hidden > 0:
        head.append(f"  ({hidden} more)", "bright_black")
    return [head, *(_lane(lane, lanes, width) for lane in lanes["lanes"])]


def _lane(lane: Mapping[str, Any], lanes: Mapping[str, Any], width: int) -> Text:
    name = _short(lane["worker"]) or "new"
    now = lane["now"]
    doing = f" {now['request']} {duration(lanes['until'] - now['since'])}" if now else ""
    told = 30 if width >= BOXED_FROM and any(lane["now"] for lane in lanes["lanes"]) else 0
    room = max(10, width - 18 - told)
    row = Text(f"{name:<11} {lane['busy']:>4.0%} ")
    row.append_text(strip(lane["strip"], room))
    return row.append(plain(doing) if told else "")


def strip(cells: str, width: int) -> Text:
    """Return the strip of a worker in fewer characters: what fills most of each, failures before all."""
    width = min(width, STRIP_CELLS)
    text = Text()
    for index in range(width):
        piece = cells[index * len(cells) // width : (index + 1) * len(cells) // width] or IDLE
        sign = "x" if "x" in piece else max(piece, key=piece.count)
        text.append(sign if sign != IDLE else "·", _COLOURS.get(sign, "bright_black"))
    return text


def _short(worker: str) -> str:
    host, _, process = worker.rpartition(":")
    return plain(f"{host[:4]}:{process}" if host else process)


def _warnings(view: Mapping[str, Any]) -> list[Text]:
    causes = view["warnings"]
    if not causes:
        return []
    total = sum(cause["count"] for cause in causes)
    rows = [Text.assemble(("Warnings", "bold"), f"  {total}, by cause")]
    for cause in causes[:MOST_WARNINGS]:
        what = f"{cause['count']:>4} x {cause['kind']} ({cause['failure_class']}): "
        rows.append(Text.assemble((plain(what), "yellow"), plain(cause["reason"])))
    return rows


def _events(view: Mapping[str, Any]) -> list[Text]:
    events = view["events"][-MOST_EVENTS:]
    if not events:
        return []
    rows = [Text.assemble(("Last events", "bold"), f"  {view['n_events']} so far, the newest first")]
    for event in reversed(events):
        when = (
            "--:--:--" if event["when"] is None else time.strftime("%H:%M:%S", time.localtime(event["when"]))
        )
        row = Text.assemble((when, "bright_black"), "  ", plain(event["request"] or event["kind"]), "  ")
        row.append(plain(event["text"]), "bold red" if event["failed"] else "")
        if event["took_s"] is not None:
            row.append(f"  {duration(event['took_s'])}", "bright_black")
        rows.append(row)
    return rows


# --- words ----------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Return text without what a terminal would obey: messages may hold what a program has printed."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
