"""The test set, the errors on it, and the comparison with random frames."""

from __future__ import annotations

import pytest

from tests.support.playing_campaigns import Game

POOLS = {"gpu": 3, "cpu": 6}


def test_the_test_set_is_made_in_stretches_over_start_structures_and_temperatures():
    game = Game(
        pools={"gpu": 1, "cpu": 20}, n_starts=2, test={"n_frames": 45, "temperatures_K": [300.0, 500.0]}
    )
    stretches = game.of("reference-dynamics")
    assert [r.id for r in stretches] == [f"testset-{i:04d}" for i in range(5)]
    assert [r.args["index"] for r in stretches] == [0, 1, 2, 3, 4]
    assert [r.args["n_frames"] for r in stretches] == [9, 9, 9, 9, 9]
    assert [r.args["temperature_K"] for r in stretches] == [300.0, 500.0, 300.0, 500.0, 300.0]
    assert [r.args["frame"] for r in stretches] == ["start:0", "start:0", "start:1", "start:1", "start:0"]
    assert {r.args["purpose"] for r in stretches} == {"testset"}
    assert len({r.args["seed"] for r in stretches}) == 5


def test_every_start_structure_has_its_share_of_a_test_set_that_is_large_enough():
    game = Game(pools={"gpu": 1, "cpu": 40}, n_starts=20, test={"n_frames": 30, "temperatures_K": [300.0]})
    stretches = game.of("reference-dynamics")
    assert {r.args["frame"] for r in stretches} == {f"start:{i}" for i in range(20)}
    assert sum(r.args["n_frames"] for r in stretches) == 30


def test_a_small_test_set_is_spread_over_the_start_structures():
    game = Game(pools={"gpu": 1, "cpu": 40}, n_starts=20, test={"n_frames": 4, "temperatures_K": [300.0]})
    stretches = game.of("reference-dynamics")
    assert [r.args["frame"] for r in stretches] == ["start:0", "start:5", "start:10", "start:15"]


def test_random_frames_that_failed_are_not_claimed():
    game = Game(
        pools={"gpu": 1, "cpu": 20},
        test={"n_frames": 10, "random_baseline": True},
        stop={"max_labels": 20},
    )
    first = game.of("reference-dynamics", purpose="randomset")[0]
    game.fail(first)
    game.fail(game.of("reference-dynamics", purpose="randomset", index=0)[0])
    game.play()
    (trained, *_) = [r for r in game.asked if r.kind == "train-baseline"]
    assert trained.args["n_labels"] == 10
    assert game.state.errors["baseline"]["n_labels"] == 10


def test_a_given_test_set_is_not_made_again():
    game = Game(pools={"gpu": 1, "cpu": 20}, test_files=["test/given.npz"], test={"n_frames": 45})
    assert game.of("reference-dynamics") == []


def test_without_a_test_set_nothing_is_measured():
    game = Game(test={"n_frames": 0}).play()
    assert not {r.kind for r in game.asked} & {"reference-dynamics", "evaluate"}
    assert game.state.to_evaluate == []


def test_random_frames_are_as_many_as_the_labels_will_be():
    game = Game(
        pools={"gpu": 1, "cpu": 20},
        n_imported=5,
        test={"n_frames": 10, "random_baseline": True},
        stop={"max_labels": 20},
    )
    stretches = [r for r in game.of("reference-dynamics") if r.args["purpose"] == "randomset"]
    assert [r.args["n_frames"] for r in stretches] == [8, 8, 9]
    assert [r.id for r in stretches] == ["randomset-0000", "randomset-0001", "randomset-0002"]
    test = game.of("reference-dynamics", purpose="testset")
    assert stretches[0].args["seed"] != test[0].args["seed"]


def test_a_stretch_that_fails_is_tried_once_more_with_another_draw():
    game = Game(pools={"gpu": 1, "cpu": 20}, test={"n_frames": 20})
    first = game.of("reference-dynamics")[0]
    (again,) = game.fail(first)
    assert (again.id, again.attempt) == (first.id, 2)
    assert again.args["seed"] != first.args["seed"]
    assert {**again.args, "seed": 0} == {**first.args, "seed": 0}
    assert game.fail(again, "no convergence") == []
    assert game.policy.snapshot()["first_failures"] == {"reference-dynamics": "no convergence"}


def test_every_committee_is_measured_on_the_whole_test_set_once_it_is_there():
    game = Game(pools={"gpu": 3, "cpu": 8}, test={"n_frames": 20})
    first, second = game.of("reference-dynamics")
    game.finish(second, file="test/b.npz")
    game.play_to_committee(1, hold=["reference-dynamics"])
    assert game.of("evaluate") == []
    game.finish(first, file="test/a.npz")
    game.play()
    evaluations = [r for r in game.asked if r.kind == "evaluate"]
    rounds = range(game.state.round + 1)
    n_labels = [r.args["n_labels"] for r in game.asked if r.kind == "train" and r.args["member"] == 0]
    assert len(rounds) > 2
    assert [r.id for r in evaluations] == [f"evaluate-round-{n:03d}" for n in rounds]
    assert [r.models for r in evaluations] == [(f"committee:round-{n:03d}:0-1-2",) for n in rounds]
    assert {tuple(r.args["files"]) for r in evaluations} == {("test/a.npz", "test/b.npz")}
    assert [r.args["n_labels"] for r in evaluations] == n_labels
    name, errors = next(iter(game.policy.snapshot()["errors"].items()))
    assert (name, errors) == ("round-000", {"n_labels": 4, "n_structures": 10, "force_mae_meV_per_A": 50.0})


def test_a_test_set_of_which_a_part_failed_is_measured_on():
    game = Game(pools={"gpu": 3, "cpu": 8}, test={"n_frames": 20})
    game.fail(game.of("reference-dynamics", index=0)[0])
    game.finish(game.of("reference-dynamics", index=1)[0])
    game.play_to_committee(0, hold=["reference-dynamics"])
    assert game.of("evaluate") == []
    game.fail(game.of("reference-dynamics", index=0)[0])
    (evaluation,) = game.of("evaluate")
    assert evaluation.args["files"] == ["test/testset-0001.npz"]


def test_a_test_set_that_failed_altogether_is_not_waited_for():
    game = Game(pools={"gpu": 3, "cpu": 8}, test={"n_frames": 20})
    game.play_to_committee(0, hold=["reference-dynamics"])
    assert len(game.state.to_evaluate) == 1
    while game.of("reference-dynamics"):
        game.fail(game.of("reference-dynamics")[0])
    assert game.state.to_evaluate == []
    game.play()
    assert game.policy.verdict.state == "finished"
    assert game.state.errors == {}
    assert game.state.to_evaluate == []


def test_random_frames_that_failed_leave_the_evaluations_as_they_are():
    game = Game(pools={"gpu": 3, "cpu": 12}, test={"n_frames": 10, "random_baseline": True})
    game.play_to_committee(0, hold=["reference-dynamics"])
    for _ in range(2):
        for request in game.of("reference-dynamics", purpose="randomset"):
            game.fail(request)
    assert len(game.state.to_evaluate) == 1
    game.play()
    assert "round-000" in game.state.errors
    assert "baseline" not in game.state.errors
    assert game.policy.verdict.state == "finished"


def test_a_given_test_set_outlives_random_frames_that_failed():
    game = Game(
        pools={"gpu": 1, "cpu": 12},
        test_files=["test/given.npz"],
        test={"random_baseline": True, "n_frames": 1},
    )
    for _ in range(2):
        for request in game.of("reference-dynamics"):
            game.fail(request)
    game.play()
    assert len(game.state.errors) == game.state.round + 1


def test_an_evaluation_that_fails_is_tried_once_more_and_then_noted():
    game = Game(pools=POOLS, test_files=["test/given.npz"])
    game.play(lambda game: game.of("evaluate"))
    first = game.of("evaluate")[0]
    game.fail(first)
    game.play(lambda game: game.of("evaluate"), hold=["dynamics", "calculate"])
    again = game.of("evaluate")[0]
    assert (again.id, again.attempt, again.models, again.args) == (first.id, 2, first.models, first.args)
    game.fail(again, "no memory")
    game.play()
    assert "round-000" not in game.state.errors
    assert "round-001" in game.state.errors
    assert game.policy.snapshot()["first_failures"] == {"evaluate": "no memory"}
    assert [r.id for r in game.asked].count("evaluate-round-000") == 2
    assert game.policy.verdict.state == "finished"


BASELINE = {"n_frames": 10, "random_baseline": True}


@pytest.mark.parametrize("start_model", [False, True])
def test_the_comparison_is_trained_after_the_last_committee_on_as_many_frames(start_model):
    # With accelerators to spare while the last committee is trained.
    game = Game(pools={"gpu": 8, "cpu": 6}, test=BASELINE, start_model=start_model)
    game.play(lambda game: game.of("train-baseline"))
    assert game.state.committee.n_labels == 20
    members = game.of("train-baseline")
    assert [r.id for r in members] == [f"train-baseline-m{i}" for i in range(3)][: len(members)]
    game.play()
    members = [r for r in game.asked if r.kind == "train-baseline"]
    assert [r.args["member"] for r in members] == [0, 1, 2]
    assert [r.args["directory"] for r in members] == [f"baseline/member-{i}" for i in range(3)]
    assert {r.args["n_labels"] for r in members} == {20}
    assert {r.models for r in members} == {("baseline:20", "start") if start_model else ("baseline:20",)}
    assert len({r.args["seed"] for r in members}) == 3
    assert game.state.errors["baseline"]["n_labels"] == 20
    evaluation = game.asked[-1]
    assert (evaluation.id, evaluation.models) == ("evaluate-baseline", ("committee:baseline:0-1-2",))
    assert game.policy.verdict.state == "finished"


def test_the_comparison_waits_for_all_random_frames():
    game = Game(pools=POOLS, test=BASELINE)
    held = []

    def ready(game):
        held[:] = game.of("reference-dynamics", index=1, purpose="randomset")
        return held

    game.play(ready)
    for _ in range(2000):
        others = [r for r in game.open if r not in held]
        if not others:
            break
        game.finish(others[0])
    assert game.open == held
    assert game.policy.verdict is None
    game.finish(held[0])
    assert game.kinds() == {"train-baseline": 3}
    assert game.state.baseline_files == ["test/randomset-0000.npz", "test/randomset-0001.npz"]
    assert game.policy.baseline_files() == game.state.baseline_files
    assert game.state.test_files == ["test/testset-0000.npz", "test/testset-0001.npz"]


def test_the_comparison_is_measured_once_all_of_its_members_are_there():
    game = Game(pools={"gpu": 1, "cpu": 6}, test=BASELINE).play()
    evaluations = [r.models for r in game.asked if r.id == "evaluate-baseline"]
    assert evaluations == [("committee:baseline:0-1-2",)]


def test_a_member_of_the_comparison_that_fails_is_tried_once_more_and_costs_only_itself():
    game = Game(pools=POOLS, test=BASELINE)
    game.play(lambda game: len(game.of("train-baseline")) == 3, hold=["train-baseline"])
    failed = game.of("train-baseline")[1]
    (again,) = game.fail(failed)
    assert (again.id, again.attempt) == (failed.id, 2)
    assert again.args["seed"] != failed.args["seed"]
    game.finish(game.of("train-baseline", member=2)[0])
    game.finish(game.of("train-baseline", member=0)[0])
    assert game.of("evaluate") == []
    (evaluation,) = game.fail(again, "diverged")
    assert evaluation.models == ("committee:baseline:2-0",)
    game.finish(evaluation)
    assert game.policy.verdict.state == "finished"
    assert game.policy.snapshot()["first_failures"] == {"train-baseline": "diverged"}


def test_a_comparison_that_fails_altogether_costs_only_itself():
    game = Game(pools=POOLS, test=BASELINE).play(hold=["train-baseline"])
    while game.of("train-baseline"):
        game.fail(game.of("train-baseline")[0])
    assert game.policy.verdict.state == "finished"
    assert "baseline" not in game.state.errors


def test_the_measurement_of_the_comparison_is_tried_once_more_and_then_done_without():
    game = Game(pools=POOLS, test=BASELINE).play(lambda game: game.of("evaluate", name="baseline"))
    (again,) = game.fail(game.of("evaluate", name="baseline")[0])
    assert again.attempt == 2
    assert game.fail(again) == []
    assert game.policy.verdict.state == "finished"
    assert "baseline" not in game.state.errors


def test_the_comparison_is_not_asked_for_unless_the_config_says_so():
    assert "train-baseline" not in {r.kind for r in Game(test={"n_frames": 20}).play().asked}
