"""What a watcher sees comes from files alone, and agrees with what happened."""

import json
import time

import pytest

from fff.data.run_lock import RunLock
from fff.report.view import STRIP_CELLS, View
from tests.support.watched_campaigns import WatchedCampaign


@pytest.fixture
def campaign(tmp_path):
    """A campaign in its second training round; this process holds its lock."""
    made = WatchedCampaign(tmp_path / "run", began=time.time() - 120.0)
    made.play(until=lambda game: game.state.training is not None and game.state.training.number == 1)
    lock = RunLock(made.run.lock)
    lock.take()
    yield made
    lock.release()


def look(campaign):
    seen = View(campaign.run).look()
    json.dumps(seen, allow_nan=False)
    return seen


def test_labels_and_panels_are_those_of_the_campaign(campaign):
    campaign.write_status()
    seen = look(campaign)
    state = campaign.game.state
    assert (seen["state"], seen["notes"]) == ("running", [])
    assert (seen["labels"]["done"], seen["labels"]["target"]) == (state.n_own_labels, 20)
    assert seen["trainer"]["round"] == 0
    assert seen["sampler"]["audits"]["made"] == state.n_audits
    assert len(seen["sampler"]["last_audits"]) == min(10, state.n_audits)
    assert all(audit["passed"] for audit in seen["sampler"]["last_audits"])
    assert seen["selector"]["waiting"]["selected"] == len(state.selected)
    assert seen["calculator"]["method"] == "xtb GFN2-xTB"
    assert seen["calculator"]["seconds_per_label"] == pytest.approx(0.9)
    assert seen["n_events"] == len(campaign.game.events)
    assert seen["events"][-1]["request"] == campaign.game.events[-1].request
    assert seen["warnings"] == []


def test_members_in_training_show_their_last_epoch(campaign):
    (request,) = campaign.game.of("train")[:1]
    stage = campaign.run.tasks / f"{request.id}.stage"
    stage.mkdir(parents=True)
    head = "epoch,wall,learning_rate,train_loss,validation_score,validation_force_mae\n,s,,,,eV/Å\n"
    rows = (
        "".join(f"{n},0.1,0.005,1.0,,\n" for n in range(1, 300)) + "300,0.2,0.005,0.5,0.4,0.125\n301,0.2,0.0"
    )
    (stage / "history.csv").write_text(head + rows)
    campaign.write_status()
    training = look(campaign)["trainer"]["training"]
    assert (training["round"], len(training["members"])) == (1, 3)
    member = next(one for one in training["members"] if one["member"] == request.args["member"])
    assert (member["state"], member["epoch"], member["force_mae_eV_per_A"]) == ("running", 300, 0.125)
    assert member["since"] is not None
    others = [one for one in training["members"] if one["state"] == "waiting"]
    assert all(one["epoch"] is None for one in others)


def test_a_history_that_has_just_begun_or_is_damaged_is_no_error(campaign):
    (request,) = campaign.game.of("train")[:1]
    stage = campaign.run.tasks / f"{request.id}.stage"
    stage.mkdir(parents=True)
    campaign.write_status()
    for content in (
        b"",
        b"epoch",
        b"epoch,validation_force_mae\n,eV/A\n",
        b"\xff\xfe,\n\n,,,\n1",
        b"a,b\nc,d\n",
    ):
        (stage / "history.csv").write_bytes(content)
        members = look(campaign)["trainer"]["training"]["members"]
        assert {one["epoch"] for one in members} <= {None, 0, 10}


def test_members_that_are_done_show_their_error(campaign):
    campaign.finish(campaign.game.of("train")[0])
    campaign.write_status()
    done = [one for one in look(campaign)["trainer"]["training"]["members"] if one["state"] == "done"]
    assert [(one["epoch"], one["force_mae_eV_per_A"]) for one in done] == [(10, 0.1)]


def test_each_worker_has_a_lane_and_what_it_most_likely_does_now(campaign):
    campaign.write_status()
    lanes = look(campaign)["lanes"]
    assert (lanes["n_slots"], [lane["worker"] for lane in lanes["lanes"]]) == (2, ["vm:1", "vm:2"])
    assert all(len(lane["strip"]) == STRIP_CELLS for lane in lanes["lanes"])
    assert sorted(lane["now"]["request"] for lane in lanes["lanes"] if lane["now"]) == sorted(
        request.id for request in campaign.game.open
    )
    assert all(0 < lane["busy"] <= 1 for lane in lanes["lanes"])
    assert "T" in "".join(lane["strip"] for lane in lanes["lanes"])


def test_a_task_whose_worker_nobody_knows_yet_has_a_lane_of_its_own(tmp_path):
    campaign = WatchedCampaign(tmp_path / "run", began=time.time() - 5.0)
    lock = RunLock(campaign.run.lock)
    lock.take()
    campaign.write_status()
    lanes = look(campaign)["lanes"]["lanes"]
    lock.release()
    assert [(lane["worker"], lane["now"]["kind"]) for lane in lanes] == [("", "calculate")] * 2


def test_what_failed_is_counted_and_seen_in_the_lane(campaign):
    campaign.play(until=lambda game: game.of("calculate"))
    campaign.fail(campaign.game.of("calculate")[0], "SCF took 251 cycles")
    campaign.write_status()
    seen = look(campaign)
    assert [(cause["count"], cause["reason"]) for cause in seen["warnings"]] == [(1, "SCF took 251 cycles")]
    assert "x" in "".join(lane["strip"] for lane in seen["lanes"]["lanes"])
    assert seen["events"][-1]["failed"]


def test_a_second_look_reads_only_what_is_new_and_sees_it(campaign):
    campaign.write_status()
    view = View(campaign.run)
    before = view.look()
    campaign.play(until=lambda game: game.state.training is None)
    campaign.write_status()
    after = view.look()
    assert after["n_events"] > before["n_events"]
    assert after["trainer"]["round"] == 1
    assert after == {**View(campaign.run).look(), "now": after["now"], "elapsed_s": after["elapsed_s"]} | {
        "lanes": after["lanes"]
    }


def test_a_log_that_was_replaced_leaves_nothing_of_the_old_one(campaign, tmp_path):
    campaign.write_status()
    view = View(campaign.run)
    view.look()
    other = WatchedCampaign(tmp_path / "other", began=time.time() - 50.0)
    other.run.events.rename(campaign.run.events)
    seen = view.look()
    assert (seen["n_events"], seen["lanes"]["n_workers"], seen["sampler"]["last_audits"]) == (1, 0, [])


def test_a_status_of_an_older_fff_and_no_status_at_all_are_seen_too(campaign):
    assert look(campaign)["state"] == "starting"
    campaign.write_status()
    old = json.loads(campaign.run.status.read_text())
    for key in (
        "in_flight",
        "training",
        "baseline",
        "retrain",
        "selected_deviations",
        "label_s",
        "sitting_started",
    ):
        del old[key]
    campaign.run.status.write_text(json.dumps(old))
    seen = look(campaign)
    assert seen["labels"]["done"] == campaign.game.state.n_own_labels
    assert seen["trainer"]["training"] is None


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[]], {"a": {}}])
def test_a_status_with_wrong_values_is_no_error(campaign, value):
    campaign.write_status()
    good = json.loads(campaign.run.status.read_text())
    for key in good.keys() - {"schema_version", "state"}:
        campaign.run.status.write_text(json.dumps({**good, key: value}))
        look(campaign)


def test_a_campaign_that_is_stopping_says_so(campaign):
    campaign.write_status()
    campaign.run.stop_file.touch()
    assert look(campaign)["notes"] == ["It was asked to stop."]
    campaign.run.stopping.parent.mkdir(exist_ok=True)
    campaign.run.stopping.touch()
    assert look(campaign)["notes"] == ["It is stopping: nothing new is begun, and what runs may end."]


def test_the_errors_are_in_order_with_the_comparison_last(campaign):
    error = {
        "n_labels": 8,
        "n_structures": 60,
        "force_mae_meV_per_A": 90.0,
        "force_mae_interval_meV_per_A": [70.0, 110.0],
    }
    campaign.write_status(errors={"baseline": error, "round-001": error, "round-000": error})
    errors = look(campaign)["errors"]
    assert [one["name"] for one in errors] == ["round-000", "round-001", "baseline"]
    assert errors[0]["interval_meV_per_A"] == [70.0, 110.0]
    assert [one["is_baseline"] for one in errors] == [False, False, True]


def test_a_finished_campaign_is_seen_as_it_ended(tmp_path):
    campaign = WatchedCampaign(tmp_path / "run", began=time.time() - 5000.0).play()
    campaign.write_status("finished", "20 labels were made")
    seen = look(campaign)
    assert (seen["state"], seen["resumable"]) == ("finished", False)
    assert seen["how_to_go_on"] == f"fff report {campaign.run.path}"
    assert seen["labels"]["eta_s"] is None
    assert all(lane["now"] is None for lane in seen["lanes"]["lanes"])
