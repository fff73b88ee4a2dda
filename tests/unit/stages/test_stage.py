from __future__ import annotations

import errno
import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fff.stages import DIAGNOSIS, Lifetime, StageResult, checkpoints, stage


def _checkpoints(lifetime):
    return sorted(lifetime.folder.glob("checkpoint-*"))


def _steps(lifetime):
    return [int(path.name.split("-")[1]) for path in _checkpoints(lifetime)]


@pytest.fixture
def no_space(monkeypatch):
    def fail(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        monkeypatch.setattr(checkpoints, "write_bytes", fail)
        monkeypatch.setattr("fff.stages.tables.write_text", fail)

    yield fill
    monkeypatch.undo()


@pytest.fixture
def clock(monkeypatch):
    """Time stands still but for what a test adds."""

    class Clock:
        now = 100.0

        def adds(self, seconds):
            def add(walk):
                self.now += seconds

            return add

    clock = Clock()
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.mark.parametrize("after", range(1, 13))
def test_a_stage_killed_after_any_step_goes_on_as_if_it_had_not_been(after, walk, whole, killed, every_step):
    killed(after)
    again = walk()
    result = again.stage(every_step).run()
    # The death comes after the step, the checkpoint of which was asked for before: nothing is made twice.
    assert again.made == list(range(after + 1, 13))
    assert result == StageResult("finished", 12, after, {})
    assert np.array_equal(again.places, whole.places)
    assert again.table.text() == whole.table.text()
    assert (every_step.folder / "walk.csv").read_text() == whole.table.text()


def test_a_stage_can_be_killed_after_each_step_in_turn(walk, whole, killed, every_step):
    for after in range(1, 13):
        killed(after)
    again = walk()
    again.stage(every_step).run()
    assert np.array_equal(again.places, whole.places)
    assert again.table.text() == whole.table.text()


def test_steps_since_the_last_checkpoint_are_made_again_and_their_rows_are_written_once(
    walk, whole, killed, every_step
):
    killed(11)
    _checkpoints(every_step)[-1].unlink()
    again = walk()
    again.stage(every_step).run()
    assert again.made == [11, 12]
    assert (every_step.folder / "walk.csv").read_text() == whole.table.text()


def test_without_a_lifetime_there_are_no_files(walk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = walk().stage(None).run()
    assert result == StageResult("finished", 12, None, {})
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_come_by_interval(walk, clock, tmp_path):
    lifetime = Lifetime(tmp_path, interval_s=4.0, keep=100)
    walk(on_step=clock.adds(1.0)).stage(lifetime).run()
    assert _steps(lifetime) == [4, 8, 12]


def test_the_last_ones_are_kept(killed, every_step):
    killed(7)
    assert _steps(every_step) == [6, 7]


def test_a_resumed_stage_keeps_as_many_as_one_that_was_not(killed, every_step):
    three = replace(every_step, keep=3)
    killed(7)
    killed(8, lifetime=three)
    assert _steps(every_step) == [6, 7, 8]


def test_a_damaged_newest_checkpoint_is_passed_over_and_reported(walk, whole, killed, every_step, caplog):
    killed(7)
    newest = _checkpoints(every_step)[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    again = walk()
    result = again.stage(every_step).run()
    assert result.resumed_from == 6
    assert np.array_equal(again.places, whole.places)
    assert f"{newest} is damaged" in caplog.text
    assert not newest.exists()


def test_a_flipped_bit_anywhere_is_noticed(killed, every_step):
    killed(2)
    newest = _checkpoints(every_step)[-1]
    sound = newest.read_bytes()
    found = checkpoints.Checkpoints(every_step.folder, keep=2)
    assert found.newest("walk-1").step == 2
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << position % 8
        newest.write_bytes(damaged)
        assert found.newest("walk-1").step == 1


def test_with_no_sound_checkpoint_a_stage_begins_anew(walk, whole, killed, every_step):
    killed(5)
    for path in _checkpoints(every_step):
        path.write_bytes(b"")
    again = walk()
    assert again.stage(every_step).run() == StageResult("finished", 12, None, {})
    assert (every_step.folder / "walk.csv").read_text() == whole.table.text()


def test_a_checkpoint_of_another_identity_is_not_used_but_stays_until_there_is_a_new_one(
    killed, every_step, caplog, no_space
):
    killed(5)
    before = _checkpoints(every_step)
    no_space()
    again = killed(1, identity="walk-2")
    assert again.made == [1]
    assert "of other settings, data or versions" in caplog.text
    assert _checkpoints(every_step) == before


def test_the_first_checkpoint_of_another_identity_takes_the_place_of_all_before(killed, every_step):
    killed(5)
    killed(1, identity="walk-2")
    assert _steps(every_step) == [1]


def test_what_the_caller_names_is_part_of_the_identity(walk, killed, every_step):
    killed(5)
    other = replace(every_step, identity="another model")
    assert walk().stage(other).run().resumed_from is None


def test_a_checkpoint_of_another_schema_is_passed_over(walk, killed, every_step, monkeypatch, caplog):
    killed(5)
    monkeypatch.setattr(checkpoints, "SCHEMA_VERSION", 2)
    assert walk().stage(every_step).run().resumed_from is None
    assert "It has schema version 1; this fff reads 2." in caplog.text


def test_what_a_killed_writer_left_is_cleared_away(walk, killed, every_step):
    killed(5)
    (every_step.folder / ".checkpoint-000000006-ab.safetensors.xyz.part").write_bytes(b"half")
    walk().stage(every_step).run()
    assert not list(every_step.folder.glob(".*"))


def test_a_full_disk_is_reported_once_and_the_stage_finishes(walk, whole, every_step, no_space, caplog):
    no_space()
    walking = walk()
    assert walking.stage(every_step).run().status == "finished"
    assert np.array_equal(walking.places, whole.places)
    assert walking.table.text() == whole.table.text()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0].getMessage()


def test_a_full_disk_keeps_the_older_checkpoints(walk, killed, every_step, no_space):
    killed(5)
    before = _checkpoints(every_step)
    no_space()
    walk().stage(every_step).run()
    assert _checkpoints(every_step) == before


def test_on_a_full_disk_a_request_to_stop_is_an_error(walk, every_step, no_space, clock):
    asked = iter([False, True])
    no_space()
    stopping = replace(every_step, stop=lambda: next(asked))
    with pytest.raises(OSError, match="No space left"):
        walk(on_step=clock.adds(1.0)).stage(stopping).run()


def test_a_stage_that_is_to_stop_writes_a_checkpoint_first(walk, whole, clock, tmp_path):
    asked = iter([False, True])
    lifetime = Lifetime(tmp_path, stop=lambda: next(asked))
    walking = walk(on_step=clock.adds(0.25))
    assert walking.stage(lifetime).run() == StageResult("stopped", 4, None, {})
    assert _steps(lifetime) == [4]
    again = walk()
    assert again.stage(Lifetime(tmp_path)).run() == StageResult("finished", 12, 4, {})
    assert np.array_equal(again.places, whole.places)
    assert (tmp_path / "walk.csv").read_text() == whole.table.text()


def test_somebody_who_wants_to_stop_is_asked_once_a_second(walk, clock, tmp_path):
    asked_at = []
    walking = walk(on_step=clock.adds(0.25))
    walking.stage(Lifetime(tmp_path, interval_s=0.0, stop=lambda: asked_at.append(clock.now))).run()
    assert asked_at == [100.0, 101.0, 102.0, 103.0]


def test_a_stage_that_is_to_stop_before_it_begins_makes_no_step(walk, killed, every_step):
    stopping = replace(every_step, stop=lambda: True)
    walking = walk()
    assert walking.stage(stopping).run() == StageResult("stopped", 0, None, {})
    killed(5)
    before = _checkpoints(every_step)
    assert walking.stage(stopping).run() == StageResult("stopped", 5, 5, {})
    assert walking.made == []
    assert _checkpoints(every_step) == before


def test_numbers_that_are_not_finite_end_a_stage_with_a_diagnosis_beside_the_last_finite_state(
    walk, tmp_path
):
    lifetime = Lifetime(tmp_path)
    result = walk(breaks_at=8).stage(lifetime).run()
    diagnosis = {"loss": "nan", "labels": [{"force": "inf"}, 3]}
    assert result == StageResult("non-finite", 7, None, diagnosis)
    assert _steps(lifetime) == [7]
    assert json.loads((tmp_path / DIAGNOSIS).read_text()) == diagnosis
    again = walk()
    assert again.stage(lifetime).run() == StageResult("finished", 12, 7, {})


def test_in_memory_too_numbers_that_are_not_finite_end_a_stage(walk):
    result = walk(breaks_at=8).stage(None).run()
    assert (result.status, result.step) == ("non-finite", 7)
    assert result.diagnosis["loss"] == "nan"


def test_a_state_that_is_not_finite_is_never_a_checkpoint(walk, every_step, caplog):
    def spoil(walking):
        if walking.step == 5:
            walking.places[1, 2] = np.inf

    walk(on_step=spoil).stage(every_step).run()
    assert _steps(every_step) == [3, 4]
    assert "no checkpoint of step 5: not finite: places" in caplog.text


def test_a_table_that_lost_rows_is_reported(walk, killed, every_step, caplog):
    killed(8)
    (every_step.folder / "walk.csv").unlink()
    again = walk()
    assert again.stage(every_step).run().resumed_from == 8
    assert "walk.csv" in caplog.text
    assert "lacks rows up to 6" in caplog.text
    assert [line.split(",")[0] for line in again.table.text().splitlines()] == ["step", "", "9", "12"]


def test_what_the_steps_raise_is_passed_on(walk, every_step):
    with pytest.raises(ZeroDivisionError):
        walk(on_step=lambda walking: 1 / (4 - walking.step)).stage(every_step).run()
    assert _steps(every_step) == [2, 3]


@pytest.mark.parametrize("changes", [{"interval_s": -1.0}, {"interval_s": float("nan")}, {"keep": 0}])
def test_a_lifetime_without_checkpoints_is_refused(changes, tmp_path):
    with pytest.raises(ValueError, match="Checkpoints need"):
        Lifetime(tmp_path, **changes)
