"""A campaign that goes on: its log is read, checked against the files beside it, and replayed."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fff.base.errors import ConfigError, RunDirectoryError
from fff.base.files import read_json
from fff.campaigns.changes import accept, find_changes, settle
from fff.campaigns.inputs import check_largest_fits
from fff.compute.sites import make_site
from fff.compute.tasks import FUNCTIONS
from fff.config import load_config
from fff.data.events import CHANGED, OPENED, Event, damaged, has_half_line, read_events
from fff.data.label_rows import read_rows
from fff.data.records import Frame
from fff.selection import audit_frame
from fff.steering.active_learning.calculator import label_number
from fff.steering.replay import replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fff.compute.sites import Site
    from fff.config import LoadedConfig
    from fff.data.labels import LabelStore
    from fff.data.run_directory import RunDirectory
    from fff.steering.active_learning import ActiveLearning
    from fff.steering.records import Request
    from fff.steering.replay import Replay

__all__ = ["Resumption", "answer_from_database", "config_of", "read_resumption"]

_LABEL = re.compile(r"label-\d{5,9}")


@dataclass
class Resumption:
    """What a campaign goes on with; nothing is written yet.

    Attributes:
        loaded: The config to go on with.
        replay: The campaign as its log tells it.
        changed: Values of the event `changed` to be written first; empty when nothing was decided.
        notes: What was found out of order, and what is done about it; for people.
        lost: Requests whose files are missing or damaged, and are made again.
    """

    loaded: LoadedConfig
    replay: Replay
    changed: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def policy(self) -> ActiveLearning:
        """The policy as it was."""
        return self.replay.policy

    @property
    def is_over(self) -> bool:
        """Whether the campaign has finished and nothing new is asked of it."""
        verdict = self.policy.verdict
        asked = self.changed.keys() - {"capacity", "pool_of"}
        return verdict is not None and verdict.state == "finished" and not asked


def config_of(run: RunDirectory, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Return the config that the campaign of a run directory works with, changed by `key=value` texts.

    Raises:
        RunDirectoryError: If there is no campaign.
        LogDamagedError: If its log is damaged.
        ConfigError: If the config is none any more.
    """
    if not run.is_opened:
        msg = f"There is no campaign in {run.path}."
        what = "It does not exist." if not run.path.exists() else "Its events.jsonl is missing or empty."
        hint = f"{what} `fff run CONFIG --run-dir {run.path}` begins one there if the folder is empty."
        raise RunDirectoryError(msg, hint=hint, path=str(run.path))
    in_force, line = _config_in_force(_events(run))
    base = ("run directory", {**in_force, "run_dir": str(run.path)})
    try:
        load_config(None, base=base)
    except ConfigError as error:
        raise damaged(run.events, line, f"the config in it is none: {error.message}") from error
    loaded = load_config(None, overrides, base=base)
    if loaded.run_dir != run.path:
        msg = f"`run_dir` is {loaded.run_dir}, but the campaign to be resumed is in {run.path}."
        hint = "Leave `run_dir` out; a campaign that is not running can be moved as a whole."
        raise ConfigError(msg, hint=hint, key="run_dir", value=str(loaded.run_dir))
    return loaded


def read_resumption(run: RunDirectory, loaded: LoadedConfig, *, accept_changes: bool) -> Resumption:
    """Return how the campaign of a run directory goes on. Take its lock first.

    Raises:
        LogDamagedError: If the log is damaged, other than by half a line at its very end.
        RunDirectoryError: If log and files do not belong together, or another policy wrote the log.
        ConfigError: If the config differs and that is not accepted.
    """
    events = _events(run)
    found = replay(events, run.events)
    policy = found.policy
    in_force = policy.state.config
    loaded = settle(loaded, in_force)
    changes = find_changes(in_force, loaded.config, _input_hashes(run))
    finished = policy.verdict is not None and policy.verdict.state == "finished"
    accept(changes, run.path, accepted=accept_changes, finished=finished)
    resumption = Resumption(loaded, found)
    if has_half_line(run.events):
        resumption.notes.append("The last line of events.jsonl was half-written; it is cut off.")
    orphans = _check_labels(run, found)
    if orphans:
        resumption.changed["labels"] = orphans
        names = ", ".join(label["request"] for label in orphans[:3]) + (" …" if len(orphans) > 3 else "")
        resumption.notes.append(
            f"labels.db holds {len(orphans)} labels that events.jsonl does not tell of ({names}); "
            "the campaign takes them in."
        )
    if changes:
        resumption.changed["config"] = loaded.config.model_dump(mode="json")
        resumption.notes.append("Changed: " + "; ".join(map(str, changes)) + ".")
    _note_capacity(resumption, make_site(loaded.config.site))
    if policy.verdict is not None and policy.verdict.state == "failed":
        resumption.changed["go_on"] = True
        resumption.notes.append(f"It had failed: {policy.verdict.reason.rstrip('.')}. It tries again.")
    return resumption


def _events(run: RunDirectory) -> list[Event]:
    try:
        return read_events(run.events)
    except OSError as error:
        msg = f"{run.events} cannot be read: {error.strerror or error}."
        raise RunDirectoryError(msg, hint="Check who owns it.", path=str(run.events)) from error


def _config_in_force(events: Sequence[Event]) -> tuple[dict[str, Any], int]:
    """Return the config, and the number of the line that holds it."""
    for event in reversed(events):
        if event.kind in (OPENED, CHANGED) and isinstance(event.values.get("config"), dict):
            return dict(event.values["config"]), event.seq + 1
    msg = "The event log holds no config."
    raise ConfigError(msg, hint="Restore events.jsonl from a copy.", key="", value=None)


def _input_hashes(run: RunDirectory) -> list[dict[str, str]]:
    """Return path and sha256 of the files that were copied; none if provenance.json was lost."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        content = read_json(run.provenance)
        return [{"path": str(item["path"]), "sha256": str(item["sha256"])} for item in content["inputs"]]
    return []


def _check_labels(run: RunDirectory, found: Replay) -> list[dict[str, str]]:
    """Return the rows that no event tells of and no open request asks for.

    Raises:
        RunDirectoryError: If rows are missing that events tell of, or are of other structures.
    """
    state = found.policy.state
    told = {label.request: label.hash for label in state.labels}
    opened = {request.id: request.args["hash"] for request in state.of_kind("calculate")}
    orphans = []
    unsound: list[str] = []
    rows: dict[str, str] = {}
    if not run.labels.exists() and told:
        raise _other_labels(run, f"it is missing, though events.jsonl tells of {len(told)} labels")
    for request, structure, source, is_sound in read_rows(run.labels) if run.labels.exists() else ():
        rows[request] = structure
        is_orphan = request not in told and request not in opened and _LABEL.fullmatch(request)
        if is_orphan:
            orphans.append({"request": request, "hash": structure, "source": source})
        if not is_sound and (is_orphan or request in told or request in opened):
            unsound.append(request)
    if missing := [request for request in told if request not in rows]:
        raise _other_labels(
            run, f"it lacks {len(missing)} labels that events.jsonl tells of, the first is {missing[0]}"
        )
    for request, structure in {**opened, **told}.items():
        if rows.get(request, structure) != structure:
            raise _other_labels(run, f"its row {request} is of another structure than events.jsonl tells of")
    if unsound:
        msg = f"{run.labels} is damaged: its row {unsound[0]} does not hold the label that it names."
        hint = "Restore the file from a copy; fff never replaces a row."
        raise RunDirectoryError(msg, hint=hint, path=str(run.labels))
    # One that the campaign has under another id, and whose own id is behind it, is of no use.
    known = {*told.values(), *opened.values()}
    return [
        label
        for label in orphans
        if label["hash"] not in known or label_number(label["request"]) >= state.n_calculations
    ]


def _other_labels(run: RunDirectory, why: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{run.labels} and {run.events} do not belong together: {why}.",
        hint="Restore both from copies of one moment. Labels that are left can be used in a new campaign: "
        f"`labels: [{run.labels}]` in its config.",
        path=str(run.labels),
    )


def _note_capacity(resumption: Resumption, site: Site) -> None:
    state = resumption.policy.state
    pool_of = {kind: site.pool_of(kind) for kind in FUNCTIONS}
    if site.pools != state.capacity or pool_of != state.pool_of:
        resumption.changed |= {"capacity": site.pools, "pool_of": pool_of}
        resumption.notes.append(f"Workers: {_slots(state.capacity)} before, now {_slots(site.pools)}.")
    if not resumption.is_over:
        check_largest_fits(resumption.loaded.config, site)


def _slots(capacity: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {pool}" for pool, n in capacity.items())


def answer_from_database(
    run: RunDirectory, labels: LabelStore, found: Replay, take_in: Callable[[Event], None]
) -> list[str]:
    """Give open requests the labels that the database holds: the row was written, its event was not.

    Args:
        run: The run directory.
        labels: The labels.
        found: The campaign after replay.
        take_in: Writes an event to the log, and lets the campaign take it in.

    Returns:
        The requests that were answered.
    """
    answered: list[str] = []
    state = found.policy.state
    # One that was open may stand in line now, where slots are fewer than they were.
    while request := next((r for r in state.of_kind("calculate") if r.id in labels), None):
        (label,) = labels.read([request.id])
        values: dict[str, Any] = {"found": "labels.db"}
        if math.isfinite(label.wall_s):
            values["wall_s"] = label.wall_s
        if request.args["source"] == "audit":
            frame = _driven(run, labels, request)
            errors = audit_frame(frame, label, request.args["energy_shifts_eV"])
            values |= {"energy_error": errors.energy_eV_per_atom, "force_error": errors.force_eV_per_A}
        take_in(Event(len(found.events), request.kind, request.id, request.attempt, values=values))
        answered.append(request.id)
    return answered


def _driven(run: RunDirectory, labels: LabelStore, request: Request) -> Frame:
    """Return what the driving model said about an audited frame: the row says it too, if the file is lost.

    Raises:
        RunDirectoryError: If neither does.
    """
    try:
        return run.frames.read(request.args["frame"])
    except (OSError, LookupError, ValueError, RunDirectoryError) as error:
        energy_eV, forces = labels.predicted(request.id)
        if energy_eV is None or forces is None:
            where = run.frames.path(request.args["frame"].rpartition(":")[0])
            msg = f"{where} is missing or damaged, and {request.id} cannot be judged without it."
            raise RunDirectoryError(msg, hint="Restore it from a copy.", path=str(where)) from error
        (label,) = labels.read([request.id])
        return Frame(label.atoms, energy_eV, forces)
