"""The policy as a whole: verdicts, what it tells the thinker, and what it refuses."""

from __future__ import annotations

import pytest

from fff.data.events import Event
from fff.steering.active_learning import ActiveLearning
from fff.steering.active_learning.state import State, committee_key
from tests.support.playing_campaigns import Game, frame, opened

POOLS = {"gpu": 8, "cpu": 6}


def test_an_event_that_answers_no_open_request_is_refused():
    game = Game()
    with pytest.raises(KeyError):
        game.policy.handle(Event(1, "calculate", "label-99999"))


def test_a_campaign_of_another_kind_is_refused(monkeypatch):
    class Other:
        kind = "weighted-ensemble"

    monkeypatch.setattr("fff.steering.active_learning.state.config_from_dict", lambda content: Other())
    with pytest.raises(TypeError, match="The campaign is of kind weighted-ensemble"):
        State.from_opened(opened())


def test_a_campaign_without_structures_has_no_trajectory():
    assert State.from_opened(opened(n_starts=0, n_imported=3)).trajectories == []


def test_a_campaign_in_which_nothing_can_be_done_says_so_at_once():
    game = Game(opened(n_starts=0, n_initial=0))
    assert game.policy.verdict.state == "failed"
    assert game.policy.verdict.reason == (
        "nothing is left to do after 0 of 20 labels: "
        "no structure is left to label and no trajectory can go on"
    )


def test_a_campaign_that_runs_out_of_structures_does_not_wait_for_ever():
    game = Game(opened(n_starts=0)).play()
    assert game.policy.verdict.state == "failed"
    assert "after 4 of 20 labels" in game.policy.verdict.reason


def test_a_finished_campaign_says_how_many_labels_were_made():
    game = Game().play()
    assert game.policy.verdict.state == "finished"
    assert game.policy.verdict.reason == "20 labels were made, as many as stop.max_labels asks for"


def test_after_a_verdict_nothing_is_asked_for_any_more():
    game = Game(pools=POOLS, calculation={"max_consecutive_failures": 1})
    game.play(lambda game: game.of("dynamics") and game.of("calculate"))
    game.fail(game.of("calculate")[0], failure_class="setup")
    verdict = game.policy.verdict
    assert verdict.state == "failed"
    for request in game.open:
        assert game.finish(request) == []
    assert game.policy.verdict == verdict


def test_a_campaign_is_not_over_while_something_is_open():
    game = Game(pools=POOLS, stop={"max_labels": 8})
    game.play(lambda game: game.state.round == 1, hold=["dynamics"])
    game.play(hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    assert game.policy.verdict is None
    game.play()
    assert game.policy.verdict.state == "finished"


# --- models that later requests may name ---------------------------------------------------------------


def test_live_models_are_the_sampling_model_the_committee_and_the_training_set_of_the_round():
    game = Game(pools=POOLS)
    assert game.policy.live_models == set()
    game.play(lambda game: game.of("train"))
    assert game.policy.live_models == {"labels:4"}
    first, second, third = game.of("train")
    game.finish(second)
    assert game.policy.live_models == {"labels:4", "member:round-000:1"}
    game.finish(first)
    game.finish(third)
    assert game.policy.live_models == {"member:round-000:1", "committee:round-000:1-0-2"}


def test_a_given_model_is_live_to_the_end_since_each_round_starts_from_it():
    game = Game(pools=POOLS, start_model=True)
    assert game.policy.live_models == {"start"}
    game.play_to_committee(0)
    assert game.policy.live_models == {"start", "member:round-000:0", "committee:round-000:0-1-2"}


def test_a_replaced_model_is_live_no_more():
    game = Game(pools=POOLS).play_to_committee(1)
    assert game.policy.live_models == {"member:round-001:0", "committee:round-001:0-1-2"}


def test_the_frames_of_the_comparison_are_live_while_members_wait_to_be_trained():
    game = Game(pools={"gpu": 2, "cpu": 2}, test={"n_frames": 10, "random_baseline": True})
    game.play(lambda game: len(game.of("train-baseline")) == 2, hold=["train-baseline"])
    assert "baseline:20" in game.policy.live_models
    game.finish(game.of("train-baseline")[0])
    assert "baseline:20" not in game.policy.live_models


@pytest.mark.parametrize("options", [{}, {"training": {"start_from": "previous"}}, {"start_model": True}])
def test_what_a_request_names_was_made_before(options):
    game = Game(pools=POOLS, test={"n_frames": 20, "random_baseline": True}, **options).play()
    made = {"start"}
    ended = {event.request: event for event in game.events[1:]}
    for request in game.asked:
        for key in request.models:
            kind, _, rest = key.partition(":")
            if kind == "member":
                folder, member = rest.split(":")
                assert f"train-r{folder[-3:]}-m{member}" in ended
            made.add(key)
    assert made > {"start"}


# --- what people see ------------------------------------------------------------------------------------


def test_the_snapshot_counts_what_is_there():
    game = Game(pools=POOLS).play_to_committee(0, hold=["dynamics"])
    game.finish(game.of("dynamics")[0], last=frame("z"), others=[frame(name) for name in "abcd"])
    game.finish(game.of("score", frames=["a", "b", "c"])[0])
    snapshot = game.policy.snapshot()
    assert snapshot["round"] == 0
    assert snapshot["labels"] == {"done": 4, "failed": 0, "in_flight": 1, "target": 20}
    assert snapshot["waiting"] == {"audits": 0, "selected": 0, "unscored": 0, "scored": 3}
    assert snapshot["selected_deviations"] == {
        "kind": "max-force",
        "lowest": None,
        "median": None,
        "highest": None,
    }
    assert (snapshot["training"], snapshot["baseline"], snapshot["retries"]) == (None, None, 0)
    assert snapshot["retrain"] == {"new_labels": 0, "every": 4}
    assert snapshot["trajectories"] == {"running": 2, "waiting": 1, "idle": 1}
    assert snapshot["running"] == {"calculate": 1, "choose": 1, "dynamics": 2, "score": 1}
    assert snapshot["next_run_steps"] == 200
    assert snapshot["errors"] == {}
    assert snapshot["first_failures"] == {}
    assert Game().policy.snapshot()["round"] is None
    assert Game(opened(n_starts=0)).policy.snapshot()["audits"] == {
        "made": 0,
        "passed": 0,
        "most_in_a_row": 0,
    }


# --- purity ---------------------------------------------------------------------------------------------


def test_the_same_events_give_the_same_state_and_requests_at_every_prefix():
    game = Game(pools=2, start_model=True, test={"n_frames": 20, "random_baseline": True}).play()
    fresh = ActiveLearning(game.events[0])
    asked = list(fresh.start())
    for event in game.events[1:]:
        asked += fresh.handle(event)
    assert asked == game.asked
    assert fresh.state == game.state
    for n in range(1, len(game.events), 7):
        one, other = (ActiveLearning(game.events[0]) for _ in range(2))
        for policy in (one, other):
            policy.start()
            for event in game.events[1:n]:
                policy.handle(event)
        assert one.state == other.state


def test_another_seed_gives_another_campaign():
    assert [r.args for r in Game(seed=1).play().asked] != [r.args for r in Game(seed=2).play().asked]


def test_a_request_that_is_asked_for_again_has_the_next_attempt():
    game = Game(pools=3)
    attempts: dict[str, int] = {}
    seen = 0
    for turn in range(400):
        if game.policy.verdict is not None:
            break
        request = game.open[turn % len(game.open)]
        if turn % 5 == 0 and request.attempt == 1:
            game.fail(request)
        else:
            game.finish(request)
        for new in game.asked[seen:]:
            assert new.attempt == attempts.get(new.id, 0) + 1 or new.kind in {"score", "choose"}
            attempts[new.id] = new.attempt
            assert new.id[0].isalpha()
        seen = len(game.asked)
    assert max(attempts.values()) == 2


def test_the_key_of_a_committee_names_its_folder_and_members():
    assert committee_key("round-003", (0, 2, 10)) == "committee:round-003:0-2-10"


def test_the_snapshot_tells_where_each_member_of_a_round_is():
    game = Game(pools=2).play_to_committee(0)
    game.play(until=lambda game: game.of("train"))
    snapshot = game.policy.snapshot()
    training = snapshot["training"]
    assert (training["round"], training["n_labels"]) == (1, 8)
    members = [*training["done"], *training["running"], *training["waiting"]]
    assert sorted(members) == [0, 1, 2]
    assert training["running"]


def test_the_snapshot_tells_the_spread_of_the_deviations_that_wait_for_labels():
    game = Game(pools=1).play_to_committee(0)
    game.play(until=lambda game: len(game.state.selected) >= 2)
    deviations = sorted(score.deviation for score in game.state.selected.values())
    spread = game.policy.snapshot()["selected_deviations"]
    assert (spread["lowest"], spread["highest"]) == (deviations[0], deviations[-1])
    assert deviations[0] <= spread["median"] <= deviations[-1]
