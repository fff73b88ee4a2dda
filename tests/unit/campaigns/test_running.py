"""Opening a campaign: the lock, the signals, and one that is over."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

from fff.base.errors import ConfigError, RunDirectoryError
from fff.campaigns.resuming import config_of
from fff.campaigns.running import _Signals, open_campaign
from fff.config import load_config
from tests.support.left_campaigns import LeftCampaign

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> LeftCampaign:
    left = LeftCampaign(tmp_path_factory.mktemp("played") / "run", pools=1)
    return left.play(lambda game: game.state.n_own_labels == 2)


@pytest.fixture
def left(tmp_path, played) -> LeftCampaign:
    return played.copied(tmp_path / "run")


@pytest.fixture
def no_probe(monkeypatch):
    monkeypatch.setattr("fff.campaigns.inputs.probe_reference", lambda section, structures: "GFN2-xTB")


@pytest.fixture
def new(tmp_path, no_probe):
    overrides = ["structures=[molecule:H2O]", "reference={kind: xtb}", f"run_dir={tmp_path / 'new'}"]
    return load_config(None, overrides)


def handlers() -> list:
    return [signal.getsignal(number) for number in BOTH]


# --- the lock -------------------------------------------------------------------------------------------


def test_a_run_directory_belongs_to_one_process_from_the_opening_to_the_end(left):
    loaded = config_of(left.run)
    with open_campaign(loaded, say=pytest.fail) as campaign:
        assert campaign.resumption.policy.state == left.game.state
        assert left.run.lock.exists()
        with pytest.raises(RunDirectoryError, match="is taken"), open_campaign(loaded):
            pytest.fail("two at a time")
        assert left.run.lock.exists()
    assert not left.run.lock.exists()


def test_an_error_gives_the_lock_back(left):
    with pytest.raises(ZeroDivisionError), open_campaign(config_of(left.run)):
        raise ZeroDivisionError
    assert not left.run.lock.exists()


def test_a_campaign_that_cannot_go_on_gives_the_lock_back(left):
    loaded = config_of(left.run, ["seed=9"])
    before = left.run.events.read_bytes()
    with pytest.raises(ConfigError, match="seed"), open_campaign(loaded):
        pytest.fail("another campaign")
    assert not left.run.lock.exists()
    assert left.run.events.read_bytes() == before


def test_of_a_new_campaign_nothing_is_written_but_its_lock(new):
    with open_campaign(new) as campaign:
        assert campaign.inputs.method == "GFN2-xTB"
        assert campaign.resumption is None
        assert [path.name for path in new.run_dir.iterdir()] == ["lock"]
    assert list(new.run_dir.iterdir()) == []


def test_a_campaign_that_another_process_began_meanwhile_is_not_begun_again(new, left, monkeypatch):
    import fff.campaigns.running as running

    load = running.load_inputs

    def slowly(loaded):
        inputs = load(loaded)
        left.run.path.rename(new.run_dir)
        return inputs

    monkeypatch.setattr(running, "load_inputs", slowly)
    with pytest.raises(RunDirectoryError, match="Another process began a campaign"), open_campaign(new):
        pytest.fail("begun twice")
    assert (new.run_dir / "events.jsonl").read_bytes().count(b"\n") == len(left.game.events)


def test_a_campaign_that_is_over_is_not_carried_on(left):
    left.play()
    before = {path: path.read_bytes() for path in left.run.path.rglob("*") if path.is_file()}
    with open_campaign(config_of(left.run)) as campaign:
        outcome = campaign.carry_out(say=pytest.fail)
    assert (outcome.state, outcome.exit_code, outcome.table) == ("finished", 0, "")
    assert "To go on, ask for more with -o stop.max_labels=N" in outcome.message
    assert {path: path.read_bytes() for path in left.run.path.rglob("*") if path.is_file()} == before


def test_a_campaign_whose_last_process_was_killed_at_the_very_end_is_concluded(left):
    left.play()
    run = left.run
    run.store.mkdir()
    (run.store / "an object").write_bytes(b"left by the dead")
    run.status.write_text(json.dumps({"state": "running", "usage": {"elapsed_s": 100.0}}))
    before = run.events.read_bytes()
    with open_campaign(config_of(run)) as campaign:
        outcome = campaign.carry_out(say=pytest.fail)
    assert (outcome.state, outcome.exit_code) == ("finished", 0)
    assert "Time:" in outcome.table
    assert outcome.report.startswith(f"Report: {run.report}")
    assert run.report.is_file()
    assert not run.store.exists()
    status = json.loads(run.status.read_text())
    assert (status["state"], status["resumable"]) == ("finished", False)
    assert status["usage"]["elapsed_s"] >= 100.0
    members = json.loads(run.committee.read_text())["members"]
    assert [name.rpartition("/")[0] for name in members] == [
        f"round-{left.game.state.committee.round:03d}"
    ] * 3
    assert run.events.read_bytes() == before


def test_a_report_that_cannot_be_written_leaves_a_finished_campaign_finished(left):
    left.play()
    left.run.status.write_text(json.dumps({"state": "running"}))
    (left.run.path / ".report.html.probe").mkdir()
    with open_campaign(config_of(left.run)) as campaign:
        outcome = campaign.carry_out(say=pytest.fail)
    assert (outcome.state, outcome.exit_code) == ("finished", 0)
    assert (
        f"The report could not be written: The report {left.run.report} cannot be written" in outcome.report
    )
    assert not left.run.report.exists()


def test_a_walltime_that_is_near_leaves_the_report_to_the_user(left):
    left.play()
    left.run.status.write_text(json.dumps({"state": "running"}))
    with open_campaign(config_of(left.run)) as campaign:
        outcome = campaign.carry_out(say=pytest.fail, walltime_end=time.monotonic() + 50.0)
    assert outcome.state == "finished"
    assert f"fff report {left.run.path}" in outcome.report
    assert not left.run.report.exists()


# --- signals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_stops_in_order_and_the_second_at_once(number):
    stopped = []
    before = handlers()
    with _Signals() as signals:
        signals.stop = lambda reason, at_once: stopped.append((reason, at_once))
        for _ in range(3):
            os.kill(os.getpid(), number)
    name = number.name
    assert stopped == [(f"{name} was received", False), *[(f"{name} was received", True)] * 2]
    assert handlers() == before


def test_a_signal_before_there_is_a_campaign_interrupts_what_is_done():
    before = handlers()
    with pytest.raises(KeyboardInterrupt), _Signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert handlers() == before


def test_a_signal_while_a_campaign_is_opened_gives_the_lock_back(left, monkeypatch):
    monkeypatch.setattr(
        "fff.campaigns.running.look_at", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
    )
    before = handlers()
    with pytest.raises(KeyboardInterrupt), open_campaign(config_of(left.run)):
        pytest.fail("it goes on")
    assert not left.run.lock.exists()
    assert handlers() == before


def test_from_another_thread_the_handlers_of_the_program_stay(left):
    before = handlers()
    seen = []

    def open_there() -> None:
        with open_campaign(config_of(left.run)):
            seen.append(handlers())

    thread = threading.Thread(target=open_there)
    thread.start()
    thread.join()
    assert seen == [before]
