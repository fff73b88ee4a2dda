"""A campaign that goes on: log, database and config, read and held against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fff.base.errors import ConfigError, LogDamagedError, RunDirectoryError
from fff.base.ids import sha256_file
from fff.campaigns.resuming import Resumption, answer_from_database, config_of, read_resumption
from fff.compute import tasks
from fff.compute.sites import make_site
from fff.compute.tasks import Call
from fff.config import LaptopSite, config_from_dict
from fff.config.loading import LoadedConfig
from fff.data.events import Event, EventLog, read_events
from fff.data.labels import LabelStore
from fff.data.packing import labels_to_bytes
from fff.data.run_directory import RunDirectory
from tests.support.left_campaigns import LeftCampaign, labelled, water
from tests.support.playing_campaigns import EXTERNAL


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> LeftCampaign:
    """A campaign that was left in its second round."""
    left = LeftCampaign(tmp_path_factory.mktemp("played") / "run")
    return left.play(lambda game: game.state.n_own_labels == 9)


@pytest.fixture
def left(tmp_path, played) -> LeftCampaign:
    return played.copied(tmp_path / "run")


def resume(left: LeftCampaign, *, accept: bool = False, **sections: Any) -> Resumption:
    loaded = config_of(left.run)
    if sections:
        values = loaded.config.model_dump(mode="json")
        for name, section in sections.items():
            values[name] = {**values[name], **section} if isinstance(section, dict) else section
        loaded = LoadedConfig(config_from_dict(values), loaded.sources)
    return read_resumption(left.run, loaded, accept_changes=accept)


def answer(left: LeftCampaign, resumption: Resumption) -> list[str]:
    """Answer from the database as a sitting does."""
    found = resumption.replay
    with EventLog(left.run.events) as log, LabelStore(left.run.labels) as labels:

        def take_in(event) -> None:
            log.append(event)
            found.take_in(event)

        return answer_from_database(left.run, labels, found, take_in)


def take_in(left: LeftCampaign, resumption: Resumption) -> None:
    """Write what was decided, as a sitting does."""
    event = Event(len(resumption.replay.events), "changed", values=resumption.changed)
    with EventLog(left.run.events) as log:
        log.append(event)
    resumption.replay.take_in(event)


def refused(left: LeftCampaign) -> RunDirectoryError:
    before = left.run.events.read_bytes()
    with pytest.raises(RunDirectoryError) as caught:
        resume(left)
    assert left.run.events.read_bytes() == before
    assert caught.value.hint
    return caught.value


# --- as it was ------------------------------------------------------------------------------------------


def test_a_campaign_that_was_left_goes_on_as_it_was_and_nothing_is_written(left):
    before = {path: path.read_bytes() for path in left.run.path.rglob("*") if path.is_file()}
    resumption = resume(left)
    assert resumption.policy.state == left.game.state
    assert resumption.policy.open_requests == left.game.policy.open_requests
    assert resumption.changed == {}
    assert resumption.notes == []
    assert not resumption.is_over
    assert {path: path.read_bytes() for path in left.run.path.rglob("*") if path.is_file()} == before


def test_a_half_written_last_line_is_told(left):
    with left.run.events.open("ab") as file:
        file.write(b'{"schema_version":1,"seq":')
    resumption = resume(left)
    assert resumption.notes == ["The last line of events.jsonl was half-written; it is cut off."]
    assert resumption.policy.state == left.game.state


def test_a_log_that_is_damaged_in_the_middle_is_refused_with_its_line(left):
    lines = left.run.events.read_bytes().splitlines(keepends=True)
    lines[7] = b"\0" * len(lines[7]) + b"\n"
    left.run.events.write_bytes(b"".join(lines))
    for read in (lambda: resume(left), lambda: config_of(left.run)):
        with pytest.raises(LogDamagedError, match="damaged at line 8") as caught:
            read()
        assert "head -n 7" in caught.value.hint


# --- the config that it goes on with --------------------------------------------------------------------


def test_the_config_is_the_last_that_was_in_force_wherever_the_folder_lies_now(left):
    left.game.change_config(stop={"max_labels": 33})
    left._log()
    elsewhere = left.run.path.rename(left.run.path.with_name("moved"))
    loaded = config_of(RunDirectory(elsewhere), ["audit.fraction=0.125"])
    assert loaded.config.stop.max_labels == 33
    assert loaded.config.audit.fraction == 0.125
    assert loaded.run_dir == elsewhere
    assert loaded.sources["audit.fraction"] == "-o"
    assert loaded.sources["stop.max_labels"] == "run directory"


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "a file", "an empty log", "half a line"])
def test_where_there_is_no_campaign_one_cannot_be_resumed(tmp_path, what):
    path = tmp_path / "there"
    if what == "a file":
        path.touch()
    elif what != "nothing":
        path.mkdir()
    if what in {"an empty log", "half a line"}:
        (path / "events.jsonl").write_text("" if what == "an empty log" else '{"seq":0')
    with pytest.raises(RunDirectoryError, match="There is no campaign in") as caught:
        config_of(RunDirectory(path))
    assert ("It does not exist." in caught.value.hint) == (what == "nothing")


def test_a_log_that_cannot_be_read_is_refused(left, monkeypatch):
    loaded = config_of(left.run)

    def deny(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("fff.campaigns.resuming.read_events", deny)
    for read in (
        lambda: config_of(left.run),
        lambda: read_resumption(left.run, loaded, accept_changes=False),
    ):
        with pytest.raises(RunDirectoryError, match=r"events.jsonl cannot be read: Permission denied\."):
            read()


def test_a_log_without_a_config_is_refused(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"schema_version":1,"seq":0,"kind":"opened"}\n')
    with pytest.raises(ConfigError, match="holds no config"):
        config_of(RunDirectory(tmp_path))


def test_changes_that_are_accepted_are_written_with_the_first_event_and_told(left):
    with pytest.raises(ConfigError, match="audit"):
        resume(left, audit={"fraction": 0.25})
    resumption = resume(left, accept=True, audit={"fraction": 0.25}, stop={"max_labels": 40})
    assert resumption.changed["config"]["audit"]["fraction"] == 0.25
    assert resumption.loaded.config.stop.max_labels == 40
    (note,) = resumption.notes
    assert note == "Changed: audit.fraction: 0.5 -> 0.25; stop.max_labels: 20 -> 40."
    # Nothing is decided before it is written.
    assert resumption.policy.state == left.game.state


def test_other_slots_are_told(left):
    resumption = resume(left, accept=True, site={"n_workers": 5})
    assert resumption.changed["capacity"] == {"shared": 5}
    assert set(resumption.changed["pool_of"].values()) == {"shared"}
    assert resumption.notes[-1] == "Workers: 2 shared before, now 5 shared."
    workstation = {"kind": "workstation", "n_gpu_workers": 1, "n_cpu_workers": 3}
    values = {**config_of(left.run).config.model_dump(mode="json"), "site": workstation}
    loaded = LoadedConfig(config_from_dict(values), {})
    resumption = read_resumption(left.run, loaded, accept_changes=True)
    assert resumption.changed["capacity"] == {"gpu": 1, "cpu": 3}
    assert resumption.changed["pool_of"]["calculate"] == "cpu"


def large_left(path: Path) -> LeftCampaign:
    """Return a campaign that has just begun two calculations, each on three of six slots."""
    sections = {name: dict(section) for name, section in EXTERNAL.items()}
    calculation = {"nodes_by_size": [[0, 1], [40, 3]]}
    return LeftCampaign(path, pools=6, sizes=(9,), calculation=calculation, **sections)


def test_fewer_slots_than_a_calculation_takes_are_refused(tmp_path):
    left = large_left(tmp_path / "run")
    assert [request.slots for request in left.game.open] == [3, 3]
    with pytest.raises(ConfigError, match="gives 3 slots to one calculation, above the 2") as raised:
        resume(left, accept=True, site={"n_workers": 2})
    assert raised.value.context["key"] == "calculation.nodes_by_size"
    # Where calculations take less it goes on.
    resumption = resume(
        left, accept=True, site={"n_workers": 2}, calculation={"nodes_by_size": [[0, 1], [40, 2]]}
    )
    assert resumption.changed["capacity"] == {"shared": 2}


def test_a_row_of_a_calculation_that_no_longer_has_its_slots_answers_it_all_the_same(tmp_path):
    left = large_left(tmp_path / "run")
    first, second = left.game.open
    left.finish(second, event=False)
    resumption = resume(left, accept=True, site={"n_workers": 4})
    take_in(left, resumption)
    assert second.id not in resumption.policy.open_requests
    assert answer(left, resumption) == [second.id]
    state = resumption.policy.state
    assert [label.request for label in state.labels] == [second.id]
    assert first.id in state.open
    assert second.id not in {request.id for request in state.of_kind("calculate")}


def test_a_moved_input_is_no_change_as_long_as_its_checksum_is_known(tmp_path):
    old, new = tmp_path / "old.xyz", tmp_path / "new.xyz"
    new.write_text("the same")
    left = LeftCampaign(tmp_path / "run", structures=[str(old)])
    inputs = [{"path": str(old), "sha256": sha256_file(new)}]
    left.run.provenance.write_text(json.dumps({"inputs": inputs}))
    assert resume(left, structures=[str(new)]).changed == {}
    for lost in ("", "{}", "[]", '{"inputs": 3}', '{"inputs": [{"path": 1}]}', "\0"):
        left.run.provenance.write_text(lost)
        with pytest.raises(ConfigError, match="`structures` stays"):
            resume(left, accept=True, structures=[str(new)])
    left.run.provenance.unlink()
    assert resume(left).changed == {}


def test_a_finished_campaign_is_over_unless_more_is_asked_of_it(left, monkeypatch):
    left.play()
    assert left.game.policy.verdict.state == "finished"
    assert resume(left).is_over
    assert not resume(left, accept=True, audit={"fraction": 0.25}).is_over
    extended = resume(left, stop={"max_labels": 30})
    assert not extended.is_over
    assert extended.changed["config"]["stop"]["max_labels"] == 30
    # Another machine is no reason to go on.
    site = make_site(LaptopSite(n_workers=7))
    monkeypatch.setattr("fff.campaigns.resuming.make_site", lambda section: site)
    assert resume(left).changed["capacity"] == {"shared": 7}
    assert resume(left).is_over


def test_a_campaign_that_failed_tries_again(tmp_path):
    left = LeftCampaign(tmp_path / "run", calculation={"max_consecutive_failures": 1})
    left.game.fail(left.game.open[0], "xtb was not found", "setup")
    left._log()
    resumption = resume(left)
    assert resumption.changed == {"go_on": True}
    assert resumption.notes == [
        "It had failed: 1 reference calculations failed in a row. First: xtb was not found. It tries again."
    ]
    assert not resumption.is_over


# --- rows and events ------------------------------------------------------------------------------------


def left_with_row(tmp_path: Path, source: str) -> tuple[LeftCampaign, Any]:
    """Return a campaign that was killed between a row of the database and its event."""
    left = LeftCampaign(tmp_path / "run", start_model=source == "audit").play(
        lambda game: game.of("calculate", source=source)
    )
    (request, *_) = left.game.of("calculate", source=source)
    left.finish(request, event=False)
    return left, request


@pytest.mark.parametrize("source", ["initial", "active"])
def test_a_row_whose_event_was_lost_answers_its_request(tmp_path, source):
    left, request = left_with_row(tmp_path, source)
    resumption = resume(left)
    assert request.id in resumption.policy.open_requests
    assert answer(left, resumption) == [request.id]
    event = read_events(left.run.events)[-1]
    assert (event.request, event.attempt, event.outcome) == (request.id, request.attempt, "done")
    assert event.values == {"found": "labels.db", "wall_s": 1.5}
    assert resumption.policy.state.labels[-1].request == request.id
    # As if nothing had been lost.
    left.game.finish(request)
    assert resumption.policy.state == left.game.state
    assert resume(left).policy.state == left.game.state


def test_an_audit_that_is_answered_from_its_row_has_the_errors_that_its_task_would_give(tmp_path):
    left, request = left_with_row(tmp_path, "audit")
    resumption = resume(left)
    assert answer(left, resumption) == [request.id]
    values = read_events(left.run.events)[-1].values
    # The label of the row, in the place where the task finds what was calculated before.
    label = labelled(left.run.frames.read(request.args["frame"]).atoms)
    left.run.tasks.mkdir()
    (left.run.tasks / f"{request.id}.npz").write_bytes(labels_to_bytes([label]))
    envelope = tasks.calculate(Call(request.id, str(left.run.path), args=request.args))
    assert envelope["outcome"] == "done", envelope
    for name in ("energy_error", "force_error", "wall_s"):
        assert values[name] == pytest.approx(envelope["values"][name], abs=1e-12)
    # The model says -13.5 eV, to which its refitted reference energies add 0.5 eV; the label says -14 eV.
    assert values["energy_error"] == pytest.approx(1.0 / 3)
    assert values["force_error"] == pytest.approx(0.25)


def test_after_a_power_cut_that_took_several_lines_no_label_is_lost_or_made_again(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=1)
    whole = left.run.events.read_bytes()
    for _ in range(3):
        left.finish(left.game.of("calculate")[0])
    left.run.events.write_bytes(whole)
    resumption = resume(left)
    # The first is open; the others were asked for by nobody, as far as the log tells.
    assert [label["request"] for label in resumption.changed["labels"]] == ["label-00001", "label-00002"]
    take_in(left, resumption)
    assert answer(left, resumption) == ["label-00000"]
    policy = resume(left).policy
    assert sorted(policy.training_set(9)) == ["label-00000", "label-00001", "label-00002"]
    (request,) = policy.open_requests.values()
    assert (request.id, request.args["frame"]) == ("label-00003", "initial:3")


def test_an_answered_request_is_not_sent_and_the_others_are(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=4)
    first, second, *others = left.game.of("calculate")
    left.finish(second, event=False)
    resumption = resume(left)
    assert answer(left, resumption) == [second.id]
    open_ = set(resumption.policy.open_requests)
    assert second.id not in open_
    assert {first.id, *(request.id for request in others)} <= open_


def test_a_row_of_a_lost_try_answers_the_try_that_is_open(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=1)
    (request,) = left.game.open
    left.game.lose(request)
    left._log()
    left.finish(request, event=False)
    resumption = resume(left)
    assert answer(left, resumption) == [request.id]
    assert read_events(left.run.events)[-1].attempt == 2


def test_a_row_without_a_finite_time_is_answered_without_one(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=1)
    (request,) = left.game.open
    with LabelStore(left.run.labels) as labels:
        label = labelled(left.run.frames.read(request.args["frame"]).atoms)
        object.__setattr__(label, "wall_s", float("nan"))
        labels.add(request.id, label, source="initial", method="GFN2-xTB")
    answer(left, resume(left))
    assert read_events(left.run.events)[-1].values == {"found": "labels.db"}


# --- rows that no event tells of ------------------------------------------------------------------------


def test_rows_that_no_request_asks_for_are_taken_in(left):
    label = left.add_row("label-00040", water(900))
    left.add_row("label-00041", water(901), source="audit")
    resumption = resume(left)
    assert resumption.changed["labels"] == [
        {"request": "label-00040", "hash": label.hash, "source": "active"},
        {"request": "label-00041", "hash": water_hash(901), "source": "audit"},
    ]
    (note,) = resumption.notes
    assert note.startswith("labels.db holds 2 labels that events.jsonl does not tell of (label-00040, label-")
    take_in(left, resumption)
    assert resumption.policy.training_set(100)[-2:] == ["label-00040", "label-00041"]


def water_hash(number: int) -> str:
    return labelled(water(number)).hash


def test_many_rows_are_not_all_named(left):
    for number in range(40, 45):
        left.add_row(f"label-{number:05d}", water(900 + number))
    (note,) = resume(left).notes
    assert "5 labels" in note
    assert "label-00042 …" in note
    assert "label-00043" not in note


def test_rows_that_are_taken_in_are_not_taken_in_again(left):
    left.add_row("label-00040", water(900))
    left.game.change(**resume(left).changed)
    left._log()
    resumption = resume(left)
    assert resumption.changed == {}
    assert resumption.notes == []


def test_rows_that_somebody_else_wrote_are_left_alone(left):
    for name in ("mine", "label-x", "label-1", "imported-00077"):
        left.add_row(name, water(900))
    assert resume(left).changed == {}


def test_a_row_of_a_structure_that_the_campaign_has_takes_only_its_id(left):
    known = left.run.frames.read(left.game.state.labels[0].frame).atoms
    left.add_row("label-00003x", known)
    left.add_row("label-00077", known)
    resumption = resume(left)
    assert [label["request"] for label in resumption.changed["labels"]] == ["label-00077"]
    left.game.change(**resumption.changed)
    left._log()
    assert left.game.state.n_own_labels == 9
    assert left.game.state.n_calculations == 78
    # Behind the ids that are taken, it is of no use any more.
    assert resume(left).changed == {}


# --- what does not belong together ----------------------------------------------------------------------


def test_a_database_that_lacks_labels_is_refused(left):
    left.run.labels.unlink()
    with LabelStore(left.run.labels) as labels:
        labels.add("label-00000", labelled(water(1)), source="initial", method="GFN2-xTB")
    error = refused(left)
    assert "it lacks 8 labels that events.jsonl tells of, the first is label-00001" in error.message
    assert "labels: [" in error.hint


def test_a_database_that_is_gone_is_refused_and_not_made_anew(left):
    left.run.labels.unlink()
    assert "it is missing, though events.jsonl tells of 9 labels" in refused(left).message
    assert not left.run.labels.exists()


def test_a_database_that_is_gone_before_the_first_label_is_no_loss(tmp_path):
    left = LeftCampaign(tmp_path / "run")
    left.run.labels.unlink()
    assert resume(left).changed == {}


def test_a_database_of_other_structures_is_refused(left):
    told = left.game.state.labels
    left.run.labels.unlink()
    for number, label in enumerate(told):
        atoms = left.run.frames.read(label.frame).atoms
        left.add_row(label.request, water(999) if number == 3 else atoms, label.source)
    assert f"its row {told[3].request} is of another structure" in refused(left).message


def test_a_row_of_an_open_request_with_another_structure_is_refused(tmp_path):
    left = LeftCampaign(tmp_path / "run", pools=1)
    (request,) = left.game.open
    left.add_row(request.id, water(999))
    assert f"its row {request.id} is of another structure" in refused(left).message


def test_a_file_that_is_no_database_is_refused(left):
    left.run.labels.write_bytes(b"this is no database at all, however long it may be" * 100)
    assert "labels.db cannot be used" in refused(left).message
