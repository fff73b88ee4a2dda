"""The rules of the Sampler."""

from __future__ import annotations

from collections import Counter

import pytest

from fff.steering.active_learning.state import Round, Run
from tests.support.playing_campaigns import Game, frame

POOLS = {"gpu": 3, "cpu": 4}


def sampling(**options) -> Game:
    """Return a game with a committee, two runs of dynamics open, and nothing else."""
    game = Game(**{"pools": POOLS, **options}).play_to_committee(0, hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    return game


def next_run(game: Game, index: int):
    """Return the next run of a trajectory that is idle."""
    game.play(lambda game: game.of("dynamics", trajectory=index))
    return game.of("dynamics", trajectory=index)[-1]


def test_nothing_is_sampled_before_there_is_a_model():
    game = Game(pools=POOLS).play(hold=["train"])
    assert [request.kind for request in game.asked] == ["calculate"] * 4 + ["train"] * 3


def test_a_given_model_samples_at_once_without_a_committee():
    game = Game(pools={"gpu": 1, "cpu": 8}, start_model=True)
    assert game.kinds() == {"dynamics": 2, "calculate": 4}
    for request in game.of("dynamics"):
        assert request.models == ("start",)
        assert request.args["round"] == -1


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_as_many_trajectories_run_as_n_parallel_says(n_parallel):
    game = sampling(pools={"gpu": 3, "cpu": 9}, sampling={"n_parallel": n_parallel})
    assert len(game.of("dynamics")) == n_parallel
    game.finish(game.of("dynamics")[0])
    assert len(game.of("dynamics")) == n_parallel


def test_a_trajectory_runs_once_at_a_time_and_not_while_it_waits_for_its_audit():
    game = sampling(sampling={"n_trajectories": 2})
    first, second = game.of("dynamics")
    assert first.args["trajectory"] != second.args["trajectory"]
    game.finish(first)
    assert game.of("dynamics") == [second]
    game.finish(game.of("calculate")[0])
    assert [request.args["trajectory"] for request in game.of("dynamics")] == [
        second.args["trajectory"],
        first.args["trajectory"],
    ]


def test_the_next_trajectory_is_drawn_at_random_from_the_idle_ones():
    first = Counter()
    for seed in range(40):
        game = Game(pools=POOLS, n_imported=4, start_model=True, seed=seed)
        first[game.of("dynamics")[0].args["trajectory"]] += 1
    assert set(first) == {0, 1, 2, 3}
    assert max(first.values()) < 20
    # Within one campaign too.
    game = Game().play()
    assert len({request.args["trajectory"] for request in game.asked if request.kind == "dynamics"}) == 4


def test_trajectories_are_spread_over_the_start_structures():
    game = Game(n_starts=3, sampling={"n_trajectories": 4})
    assert [t.start for t in game.state.trajectories] == ["start:0", "start:1", "start:2", "start:0"]
    assert [t.frame for t in game.state.trajectories] == ["start:0", "start:1", "start:2", "start:0"]


def test_a_run_is_told_where_it_starts_how_long_it_is_and_its_draws():
    game = sampling()
    for request in game.of("dynamics"):
        index = request.args["trajectory"]
        assert request.id == f"dynamics-t{index:03d}-r0000"
        assert request.args["run"] == 0
        assert request.args["frame"] == game.state.trajectories[index].start
        assert request.args["n_steps"] == game.config.sampling.n_steps
        assert request.args["temperature_K"] == 300.0
        assert request.pool == "cpu"
    runs = [request for request in Game().play().asked if request.kind == "dynamics"]
    assert (
        len({request.args["seed"] for request in runs}) == len({request.id for request in runs}) == len(runs)
    )


def test_the_runs_of_a_trajectory_are_numbered():
    game = sampling()
    index = game.of("dynamics")[0].args["trajectory"]
    game.finish(game.of("dynamics")[0])
    again = next_run(game, index)
    assert again.args["run"] == 1
    assert again.id == f"dynamics-t{index:03d}-r0001"


def test_each_run_draws_its_temperature_from_the_list():
    game = Game(sampling={"temperature_K": [300.0, 500.0], "n_parallel": 2, "n_trajectories": 4}).play()
    runs = [request.args for request in game.asked if request.kind == "dynamics"]
    assert {args["temperature_K"] for args in runs} == {300.0, 500.0}
    by_trajectory = Counter((args["trajectory"], args["temperature_K"]) for args in runs)
    assert any(by_trajectory[index, 300.0] and by_trajectory[index, 500.0] for index in range(4))


@pytest.mark.parametrize(
    ("recent", "steps"),
    [
        ([], 200),
        ([(0.003, 100)], 333),
        # the median, not the mean
        ([(0.003, 100), (0.003, 100), (1.0, 1)], 333),
        # the error per step, not the error
        ([(0.003, 50)], 166),
        ([(0.0, 100)], 5000),
        ([(0.0002, 1000)], 5000),
        ([(0.00021, 100)], 4761),
        ([(0.1, 1)], 20),
        ([(0.01, 21)], 21),
    ],
)
def test_run_length_is_tolerance_over_the_median_error_per_step_within_bounds(recent, steps):
    game = sampling()
    game.state.recent_runs = [Run(*run) for run in recent]
    assert game.policy.snapshot()["next_run_steps"] == steps
    game.finish(game.of("dynamics")[0])
    assert game.of("dynamics")[-1].args["n_steps"] == steps


def test_run_length_is_adapted_to_the_last_twenty_audits():
    game = sampling(pools=2, stop={"max_labels": 100}, sampling={"n_frames": 0})
    while len(game.asked) < 250:
        audits = game.of("calculate", source="audit")
        if audits:
            game.finish(audits[0], energy_error=len(game.events) * 1e-5)
        else:
            game.finish(game.open[0])
    audits = [event for event in game.events if "energy_error" in event.values]
    assert len(audits) > 25
    assert [run.energy_error for run in game.state.recent_runs] == [
        event.values["energy_error"] for event in audits[-20:]
    ]


def test_the_last_frame_is_audited_and_the_others_wait_to_be_scored():
    game = sampling()
    run = game.of("dynamics")[0]
    others = [frame("a"), frame("b")]
    game.finish(run, steps=70, last=frame("z", 0.25), others=others)
    (audit,) = game.of("calculate")
    assert audit.args["source"] == "audit"
    assert (audit.args["frame"], audit.args["hash"]) == ("z", "s-z")
    assert (audit.args["trajectory"], audit.args["steps"]) == (run.args["trajectory"], 70)
    assert (audit.args["model"], audit.args["deviation"]) == ("member:round-000:0", 0.25)
    assert audit.args["segment"] == run.id
    assert audit.args["energy_shifts_eV"] == {}
    assert game.of("score")[0].args["frames"] == ["a", "b"]
    waiting = game.state.pool["a"]
    assert (waiting.hash, waiting.segment, waiting.trajectory) == ("s-a", run.id, run.args["trajectory"])
    assert waiting.model == "member:round-000:0"


def test_a_last_frame_without_deviation_is_audited_too():
    game = sampling()
    last = {"id": "z", "hash": "s-z"}
    game.finish(game.of("dynamics")[0], last=last)
    assert game.of("calculate")[0].args["deviation"] is None


def test_a_trajectory_that_passed_its_audit_goes_on_from_where_it_was():
    game = sampling()
    run = game.of("dynamics")[0]
    index = run.args["trajectory"]
    for number in (1, 2):
        game.finish(run, last=frame(f"last-{number}"), others=[])
        game.finish(game.of("calculate", trajectory=index)[0])
        run = next_run(game, index)
        assert run.args["frame"] == f"last-{number}"
        assert game.state.trajectories[index].passed == number
    assert game.policy.snapshot()["audits"]["most_in_a_row"] == 2


@pytest.mark.parametrize(
    ("energy_error", "force_error", "passed"),
    [
        (0.0099, 0.499, True),
        (0.01, 0.1, False),
        (0.001, 0.5, False),
        (0.02, 0.1, False),
        (0.001, 0.6, False),
    ],
)
def test_an_audit_is_passed_below_both_tolerances(energy_error, force_error, passed):
    game = sampling()
    run = game.of("dynamics")[0]
    game.finish(run, last=frame("z"), others=[])
    game.finish(game.of("calculate")[0], energy_error=energy_error, force_error=force_error)
    index = run.args["trajectory"]
    assert next_run(game, index).args["frame"] == ("z" if passed else game.state.trajectories[index].start)
    assert game.state.trajectories[index].passed == int(passed)


@pytest.mark.parametrize(
    ("on_failure", "frame_id", "passed"), [("restart", None, 0), ("last-valid", "one", 1)]
)
@pytest.mark.parametrize("how", ["audit", "reference", "dynamics", "at once", "known"])
def test_a_trajectory_that_did_not_pass_goes_back(on_failure, frame_id, passed, how):
    game = sampling(audit={"on_failure": on_failure})
    run = game.of("dynamics")[0]
    index = run.args["trajectory"]
    game.finish(run, last=frame("one"), others=[])
    game.finish(game.of("calculate", trajectory=index)[0])
    run = next_run(game, index)
    if how == "dynamics":
        game.fail(run)
    elif how == "at once":
        game.finish(run, steps=0, last=frame("two"), others=[])
    elif how == "known":
        game.finish(run, last=frame("two", hash_="s-one"), others=[])
    else:
        game.finish(run, last=frame("two"), others=[])
        (audit,) = game.of("calculate", frame="two")
        if how == "audit":
            game.finish(audit, energy_error=1.0)
        else:
            game.fail(audit, failure_class="structure")
    again = next_run(game, index)
    assert again.args["frame"] == (frame_id or game.state.trajectories[index].start)
    assert game.state.trajectories[index].passed == passed


def test_last_valid_is_the_start_before_any_audit_was_passed():
    game = sampling(audit={"on_failure": "last-valid"})
    run = game.of("dynamics")[0]
    game.finish(run, last=frame("z"), others=[])
    game.finish(game.of("calculate")[0], energy_error=1.0)
    index = run.args["trajectory"]
    assert next_run(game, index).args["frame"] == game.state.trajectories[index].start


def test_a_run_that_ended_at_once_is_not_audited():
    game = sampling()
    game.finish(game.of("dynamics")[0], steps=0, reason="force", others=[])
    assert game.of("calculate") == []
    assert game.state.audits == []


def test_an_audit_without_result_teaches_nothing_about_run_length():
    game = sampling()
    game.finish(game.of("dynamics")[0], others=[])
    game.fail(game.of("calculate")[0], failure_class="structure")
    assert game.state.recent_runs == []
    game.finish(game.of("dynamics")[0], steps=50, others=[])
    game.finish(game.of("calculate")[0], energy_error=0.004)
    assert game.state.recent_runs == [Run(0.004, 50)]


@pytest.mark.parametrize("how", ["fails", "ends at once", "ends where it is known"])
def test_runs_that_give_nothing_again_and_again_end_the_campaign(how):
    game = sampling(sampling={"n_trajectories": 2})
    for count in range(40):
        assert game.policy.verdict is None, count
        run = game.of("dynamics")[0]
        if how == "fails":
            game.fail(run, "the model is broken")
        else:
            steps, name = (0, "z") if how == "ends at once" else (9, "s-initial-0")
            game.finish(run, steps=steps, reason="temperature", last=frame(name, hash_=name), others=[])
    assert game.policy.verdict.state == "failed"
    why = "the model is broken" if how == "fails" else "they end at once (temperature)"
    assert game.policy.verdict.reason.startswith("40 runs of dynamics in a row led to no label")
    assert why in game.policy.verdict.reason


def test_one_usable_run_lets_the_count_of_useless_ones_begin_again():
    game = sampling(sampling={"n_trajectories": 2})
    for _ in range(39):
        game.fail(game.of("dynamics")[0])
    game.finish(game.of("dynamics")[0], steps=50, others=[])
    assert game.state.barren_runs == 0
    game.finish(game.of("calculate")[0])
    for _ in range(39):
        game.fail(game.of("dynamics")[0])
    assert game.policy.verdict is None


def test_frames_that_nobody_chooses_do_not_let_useless_runs_go_on_for_ever():
    game = sampling(sampling={"n_trajectories": 2})
    for count in range(40):
        assert game.policy.verdict is None, count
        game.finish(game.of("dynamics")[0], steps=0, others=[frame(f"new-{count}")])
        for request in game.of("score"):
            game.finish(request)
        for request in game.of("choose"):
            game.finish(request, frames=[])
    assert game.policy.verdict.state == "failed"


@pytest.mark.parametrize("hope", ["training", "calculate"])
def test_useless_runs_do_not_count_while_a_better_model_may_be_on_its_way(hope):
    game = sampling(sampling={"n_trajectories": 2})
    if hope == "training":
        game.state.training = Round(7, 4, [], running={0})
    else:
        game.finish(game.of("dynamics")[0], others=[])
        assert game.kinds() == {"dynamics": 1, "calculate": 1}
    for _ in range(60):
        game.fail(game.of("dynamics")[0])
    assert game.policy.verdict is None


def test_nothing_is_sampled_once_the_budget_is_on_its_way():
    game = sampling(stop={"max_labels": 5})
    game.finish(game.of("dynamics")[0], others=[])
    assert game.kinds() == {"dynamics": 2, "calculate": 1}
    for request in game.of("dynamics"):
        game.finish(request, others=[])
    (audit,) = game.open
    game.fail(audit, failure_class="retry")
    (audit,) = game.open
    # Set aside, it gives its place in the budget back.
    game.fail(audit, failure_class="structure")
    assert game.kinds() == {"dynamics": 2, "calculate": 1}


def test_every_trajectory_has_its_turn_although_the_same_number_is_idle_each_time():
    for seed in range(5):
        game = sampling(seed=seed, sampling={"n_parallel": 1, "n_trajectories": 5})
        turns = Counter()
        for _ in range(60):
            turns[game.of("dynamics")[0].args["trajectory"]] += 1
            game.fail(game.of("dynamics")[0])
        assert set(turns) == {0, 1, 2, 3, 4}
        assert max(turns.values()) < 30


def test_a_waiting_frame_names_the_model_that_drove_its_run_not_the_committee_that_watched():
    game = sampling()
    game.fail(game.of("dynamics")[0])
    watched = game.of("dynamics")[-1]
    assert len(watched.models) == 2
    game.finish(watched, others=[frame("a")])
    assert game.state.pool["a"].model == "member:round-000:0"
    assert game.of("calculate")[0].args["model"] == "member:round-000:0"


@pytest.mark.parametrize("selected", [False, True])
def test_runs_are_not_called_useless_while_selected_frames_wait(selected):
    game = sampling(sampling={"n_trajectories": 2})
    game.state.caused = game.config.max_ahead
    game.finish(game.of("dynamics")[0], steps=0, others=[frame("a"), frame("b"), frame("c")])
    game.finish(game.of("score")[0])
    game.finish(game.of("choose")[0], frames=["a"] if selected else [])
    for _ in range(45):
        if game.of("dynamics"):
            game.fail(game.of("dynamics")[0])
    assert (game.policy.verdict is None) == selected
