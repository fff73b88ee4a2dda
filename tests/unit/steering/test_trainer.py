"""The rules of the Trainer."""

from __future__ import annotations

import pytest

from tests.support.playing_campaigns import Game, opened

POOLS = {"gpu": 1, "cpu": 4}


def test_a_training_starts_when_the_last_initial_structure_has_its_label():
    game = Game(pools={"gpu": 4, "cpu": 2})
    for _ in range(3):
        game.finish(game.of("calculate")[0])
        assert game.of("train") == []
    new = game.finish(game.of("calculate")[0])
    assert [request.kind for request in new if request.pool == "gpu"] == ["train"] * 3


def test_an_initial_structure_that_failed_is_not_waited_for():
    game = Game(pools=POOLS)
    for request in game.of("calculate")[:3]:
        game.finish(request)
    game.fail(game.of("calculate")[0], failure_class="structure")
    assert [request.args["n_labels"] for request in game.of("train")] == [3]


def test_an_initial_structure_that_is_tried_again_is_waited_for():
    game = Game(pools=POOLS)
    for request in game.of("calculate")[:3]:
        game.finish(request)
    game.fail(game.of("calculate")[0], failure_class="retry")
    assert game.of("train") == []


def test_imported_labels_are_trained_on_at_once_and_no_initial_structure_is_labelled():
    game = Game(pools=POOLS, n_imported=2)
    assert game.kinds() == {"train": 1}
    assert game.of("train")[0].args["n_labels"] == 2


def test_a_single_imported_label_is_joined_by_initial_ones():
    game = Game(pools=POOLS, n_imported=1)
    assert game.kinds() == {"calculate": 4}
    game.finish_all("calculate")
    assert game.of("train")[0].args["n_labels"] == 5


def test_two_labels_are_enough_to_train_on_and_one_is_not():
    game = Game(pools=POOLS, start={"n_labels": 2}, start_model=True)
    one, two = game.of("calculate", source="initial")
    game.finish(one)
    game.fail(two, failure_class="structure")
    game.finish_all("refit")
    assert game.of("train") == []
    game.finish(game.of("dynamics")[0])
    game.finish(game.of("calculate", source="audit")[0])
    assert game.of("train")[0].args["n_labels"] == 2


def test_each_member_of_a_round_trains_on_the_same_labels_from_its_own_draw():
    game = Game(pools={"gpu": 4, "cpu": 2}).play(lambda game: game.of("train"))
    members = game.of("train")
    assert [request.id for request in members] == [f"train-r000-m{member}" for member in range(3)]
    assert [request.args["directory"] for request in members] == [f"round-000/member-{m}" for m in range(3)]
    assert [request.args["member"] for request in members] == [0, 1, 2]
    assert {request.args["round"] for request in members} == {0}
    assert {request.args["n_labels"] for request in members} == {4}
    assert {request.models for request in members} == {("labels:4",)}
    assert len({request.args["seed"] for request in members}) == 3
    assert {request.attempt for request in members} == {1}


def test_draws_differ_from_round_to_round_and_from_seed_to_seed():
    game = Game().play()
    seeds = [request.args["seed"] for request in game.asked if request.kind == "train"]
    assert len(set(seeds)) == len(seeds) == 15
    others = [request.args["seed"] for request in Game(seed=1).play().asked if request.kind == "train"]
    assert not set(seeds) & set(others)


def test_a_member_sent_late_in_a_round_trains_on_the_labels_of_its_round():
    game = Game(pools=POOLS).play(lambda game: game.of("train"))
    game.finish(game.of("train")[0])
    game.finish(game.of("dynamics")[0])
    game.finish(game.of("calculate")[0])
    assert len(game.labels) == 5
    game.finish(game.of("train")[0])
    assert game.of("train", member=2)[0].args["n_labels"] == 4


def test_retraining_starts_with_the_label_that_completes_retrain_every():
    game = Game(pools={"gpu": 3, "cpu": 4}).play_to_committee(0)
    while len(game.labels) < 8:
        assert game.of("train") == []
        game.finish(game.open[0])
    assert [request.args["round"] for request in game.of("train")] == [1] * len(game.of("train"))
    assert game.of("train")[0].args["n_labels"] == 8


def test_new_labels_count_from_the_start_of_the_last_round_not_from_its_end():
    game = Game(pools={"gpu": 8, "cpu": 4}).play(lambda game: game.of("train"))
    game.finish(game.of("train")[0])
    # Two labels come while the other members train.
    game.play(lambda game: len(game.labels) == 6, hold=["train"])
    for request in game.of("train"):
        game.finish(request)
    game.play(lambda game: len(game.labels) == 7)
    assert game.of("train") == []
    game.play(lambda game: len(game.labels) == 8)
    assert game.of("train")[0].args["n_labels"] == 8


def test_a_trigger_that_falls_into_a_running_round_is_kept():
    game = Game(pools={"gpu": 4, "cpu": 4}).play_to_committee(0)
    game.play(lambda game: len(game.of("train")) == 3, hold=["train"])
    first, *others = game.of("train")
    game.finish(first)
    game.play(lambda game: len(game.labels) >= 13, hold=["train"])
    assert {request.args["round"] for request in game.of("train")} == {1}
    n_labels = len(game.labels)
    for request in others:
        game.finish(request)
    game.play(lambda game: game.of("train"), hold=["calculate", "dynamics"])
    assert {request.args["round"] for request in game.of("train")} == {2}
    assert {request.args["n_labels"] for request in game.of("train")} == {n_labels}


def test_the_first_model_of_a_round_drives_dynamics_and_the_next_ones_do_not_replace_it():
    game = Game(pools={"gpu": 3, "cpu": 4}).play(lambda game: game.of("train"))
    assert game.of("dynamics") == []
    game.finish(game.of("train", member=1)[0])
    assert [request.models for request in game.of("dynamics")] == [("member:round-000:1",)] * 2
    game.finish(game.of("train", member=0)[0])
    game.finish(game.of("dynamics")[0])
    assert game.asked[-1].kind == "calculate"
    assert game.of("dynamics")[-1].models == ("member:round-000:1",)
    assert game.of("dynamics")[-1].args["round"] == 0


def test_the_committee_is_replaced_when_all_of_its_members_are_in():
    game = Game(pools={"gpu": 3, "cpu": 4}).play(lambda game: game.of("train"))
    for member in (2, 0):
        game.finish(game.of("train", member=member)[0])
        assert game.state.committee is None
    game.finish(game.of("train", member=1)[0])
    assert game.state.committee.key == "committee:round-000:2-0-1"
    assert game.state.committee.n_labels == 4
    game.finish(game.of("dynamics")[0])
    assert game.of("dynamics")[-1].models == ("member:round-000:2", "committee:round-000:2-0-1")
    assert game.of("score")[-1].models == ("committee:round-000:2-0-1",)


def test_a_member_that_fails_is_tried_once_more_with_another_draw():
    game = Game(pools={"gpu": 3, "cpu": 4}).play(lambda game: game.of("train"))
    failed = game.of("train", member=1)[0]
    (again,) = game.fail(failed)
    assert (again.id, again.attempt) == (failed.id, 2)
    assert again.args["seed"] != failed.args["seed"]
    assert {**again.args, "seed": 0} == {**failed.args, "seed": 0}


def test_a_failed_member_costs_only_itself():
    game = Game(pools={"gpu": 3, "cpu": 4}).play(lambda game: game.of("train"))
    failed, *others = game.of("train")
    (again,) = game.fail(failed)
    for request in others:
        game.finish(request)
    assert game.state.committee is None
    game.fail(again, "no memory")
    assert game.of("train") == []
    assert game.state.committee.members == (1, 2)
    assert game.policy.snapshot()["first_failures"] == {"train": "no memory"}


def test_a_campaign_whose_first_round_gives_fewer_than_two_models_stops_with_the_first_error():
    game = Game(pools={"gpu": 3, "cpu": 4}).play(lambda game: game.of("train"))
    game.finish(game.of("train")[0])
    for request in [*game.of("train"), *game.of("train")]:
        game.fail(game.of("train", member=request.args["member"])[0], f"{request.args['member']} broke")
    verdict = game.policy.verdict
    assert verdict.state == "failed"
    assert "Round 0 gave 1 of 3 models" in verdict.reason
    assert "First error: 1 broke" in verdict.reason


def fail_round(game: Game) -> None:
    number = game.state.round
    while game.of("train", round=number):
        game.fail(game.of("train", round=number)[0])


@pytest.mark.parametrize("max_ahead", [4, 8])
def test_a_round_that_fails_is_done_again_even_when_no_further_label_may_come(max_ahead):
    game = Game(pools=POOLS, calculation={"max_ahead": max_ahead}).play_to_committee(0)
    game.play(hold=["train"])
    assert game.state.caused == max_ahead
    fail_round(game)
    assert game.policy.verdict is None
    assert [request.id for request in game.of("train")] == ["train-r002-m0"]
    game.play()
    assert game.policy.verdict.state == "finished"


def test_two_rounds_in_a_row_that_give_no_committee_stop_the_campaign():
    game = Game(pools=POOLS).play_to_committee(0).play(hold=["train"])
    fail_round(game)
    game.play_to_committee(2).play(hold=["train"])
    fail_round(game)
    assert game.policy.verdict is None
    game.play(lambda game: game.state.round == 4, hold=["train"])
    fail_round(game)
    assert game.policy.verdict.state == "failed"
    assert "Round 4 gave 0 of 3 models" in game.policy.verdict.reason


def test_a_failed_round_leaves_the_committee_as_it_was():
    game = Game(pools=POOLS).play_to_committee(0)
    committee = game.state.committee
    game.play(hold=["train"])
    fail_round(game)
    assert game.state.committee == committee


def test_a_last_round_that_fails_is_done_again():
    game = Game(pools=POOLS, stop={"max_labels": 8}).play_to_committee(0).play(hold=["train"])
    assert game.n_made == 8
    fail_round(game)
    assert game.policy.verdict is None
    game.play()
    assert game.policy.verdict.state == "finished"
    assert game.state.committee.round == 2


@pytest.mark.parametrize(
    ("options", "models"),
    [
        ({}, [()] * 3),
        ({"start_model": True}, [("start",)] * 3),
        ({"training": {"start_from": "previous"}}, [(f"member:round-000:{m}",) for m in (0, 2, 0)]),
        (
            {"training": {"start_from": "previous"}, "start_model": True},
            [(f"member:round-000:{m}",) for m in (0, 2, 0)],
        ),
    ],
)
def test_rounds_start_from_the_initial_weights_or_from_the_previous_members(options, models):
    training = {"retrain_every": 4, **options.pop("training", {})}
    game = Game(pools=POOLS, training=training, **options)
    first = ("start",) if options else ()
    game.play(lambda game: game.of("train"))
    assert game.of("train")[0].models[1:] == first
    game.finish(game.of("train", member=0)[0])
    game.fail(game.of("train", member=1)[0])
    game.finish(game.of("train", member=2)[0])
    game.fail(game.of("train", member=1)[0])
    assert game.state.committee.members == (0, 2)
    game.play_to_committee(1)
    second = [request for request in game.asked if request.kind == "train" and request.args["round"] == 1]
    assert [request.models[1:] for request in second] == models


def test_the_last_committee_is_trained_on_all_labels_although_few_are_new():
    game = Game(pools=POOLS, stop={"max_labels": 10}, training={"retrain_every": 4})
    game.play()
    rounds = [request.args["n_labels"] for request in game.asked if request.kind == "train"]
    assert rounds == [4] * 3 + [8] * 3 + [10] * 3
    assert game.policy.verdict.state == "finished"


def test_no_last_round_is_trained_when_the_committee_knows_all_labels():
    game = Game(pools=POOLS, stop={"max_labels": 8}).play()
    assert game.state.round == 1
    assert game.policy.verdict.state == "finished"


def test_a_given_model_is_refitted_to_the_first_labels_once_all_of_them_are_there():
    game = Game(pools={"gpu": 1, "cpu": 8}, start_model=True)
    for _ in range(4):
        assert game.of("refit") == []
        game.finish(game.of("calculate", source="initial")[0])
    (refit,) = game.of("refit")
    assert (refit.id, refit.attempt) == ("refit-start", 1)
    assert refit.args == {"n_labels": 4}
    assert refit.models == ("labels:4", "start")
    assert refit.pool == "gpu"
    game.finish(refit)
    assert [request.kind for request in game.asked].count("refit") == 1


def test_a_given_model_is_refitted_to_imported_labels_at_once():
    game = Game(pools=POOLS, start_model=True, n_imported=3)
    assert [request.kind for request in game.asked] == ["refit", "dynamics", "dynamics"]


def test_without_any_label_there_is_no_refit():
    game = Game(pools=POOLS, start={"n_labels": 2}, start_model=True)
    for request in game.of("calculate", source="initial"):
        game.fail(request, failure_class="structure")
    assert game.of("refit") == []


def test_a_given_model_is_not_refitted_to_nothing():
    game = Game(opened(n_initial=0, start_model=True)).play()
    assert "refit" not in {request.kind for request in game.asked}
    assert game.policy.verdict.state == "failed"


def test_a_refit_that_fails_is_tried_once_more_and_then_ends_the_campaign():
    game = Game(pools=POOLS, start_model=True, n_imported=3)
    again = game.fail(game.of("refit")[0], "not a model")[0]
    assert (again.kind, again.id, again.attempt) == ("refit", "refit-start", 2)
    game.fail(again, "not a model")
    assert game.policy.verdict.state == "failed"
    assert "could not be evaluated on the first labels: not a model" in game.policy.verdict.reason


def test_a_refit_that_works_at_the_second_try_is_used():
    game = Game(pools=POOLS, start_model=True, n_imported=3)
    game.fail(game.of("refit")[0])
    game.finish(game.of("refit")[0], shifts_eV={"8": 2.0})
    assert game.state.energy_shifts_eV == {"8": 2.0}
    game.finish(game.of("dynamics")[0])
    assert game.of("calculate", source="audit")[0].args["energy_shifts_eV"] == {"8": 2.0}


def test_a_member_leaves_out_the_same_labels_in_all_rounds_and_no_two_members_do():
    game = Game().play()
    drawn = {(r.args["member"], r.args["split_seed"]) for r in game.asked if r.kind == "train"}
    assert game.state.round > 1
    assert len(drawn) == len({member for member, _ in drawn}) == len({seed for _, seed in drawn}) == 3
