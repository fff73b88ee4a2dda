"""The rules of the Calculator."""

from __future__ import annotations

import pytest

from tests.support.playing_campaigns import Game, frame

POOLS = {"gpu": 8, "cpu": 6}


def sampling(**options) -> Game:
    """Return a game with a committee, two runs of dynamics open, and nothing else."""
    options = {"pools": POOLS, "sampling": {"n_parallel": 2, "n_trajectories": 12}, **options}
    game = Game(**options).play_to_committee(0, hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    return game


def audit(game: Game, name: str, **values) -> None:
    """Have a run end in this frame, with nothing else."""
    game.finish(game.of("dynamics")[0], last=frame(name), others=[], **values)


def select(game: Game, *names: str) -> None:
    """Have frames met, scored and selected."""
    game.finish(game.of("dynamics")[0], steps=0, others=[frame(name) for name in names])
    while game.of("score") or game.of("choose"):
        for request in [*game.of("score"), *game.of("choose")]:
            game.finish(request)


# --- initial labels -----------------------------------------------------------------------------------


def test_without_labels_the_initial_structures_come_first_and_in_their_order():
    game = Game(pools={"gpu": 1, "cpu": 3})
    assert [request.args["frame"] for request in game.open] == ["initial:0", "initial:1", "initial:2"]
    game.finish(game.open[0])
    assert game.open[-1].args == {
        "frame": "initial:3",
        "hash": "s-initial-3",
        "source": "initial",
        "segment": "initial:3",
        "round": -1,
        "generation": -1,
    }


def test_an_initial_structure_that_is_there_twice_is_labelled_once():
    first = Game(pools={"gpu": 1, "cpu": 6}).opened
    size = {"n_atoms": 3, "n_electrons": 10}
    frames = [{"id": f"initial:{i}", "hash": f"s-{h}", **size} for i, h in enumerate("aabbab")]
    first.values["initial_frames"][:] = frames
    game = Game(first)
    assert [request.args["frame"] for request in game.open] == ["initial:0", "initial:2"]
    game.finish_all("calculate")
    assert game.of("train")[0].args["n_labels"] == 2


def test_initial_structures_come_before_audits():
    game = Game(pools={"gpu": 1, "cpu": 3}, start_model=True, start={"n_labels": 3}, n_imported=0)
    assert [r.kind for r in game.open].count("dynamics") == 2
    game.finish(game.of("dynamics")[0])
    assert {request.args["source"] for request in game.of("calculate")} == {"initial"}


def test_a_campaign_without_any_initial_label_stops_with_the_first_error():
    game = Game(pools={"gpu": 1, "cpu": 4})
    for number, request in enumerate(game.of("calculate")):
        assert game.policy.verdict is None
        game.fail(request, f"error {number}", failure_class="structure")
    assert game.policy.verdict.state == "failed"
    assert game.policy.verdict.reason == "No initial structure could be labelled. First: error 0"


def test_a_failed_initial_structure_among_labelled_ones_stops_nothing():
    game = Game(pools={"gpu": 1, "cpu": 4})
    for request in game.of("calculate")[:2]:
        game.fail(request, failure_class="structure")
    game.play()
    assert game.policy.verdict.state == "finished"
    assert game.n_made == 20
    assert game.policy.snapshot()["labels"]["failed"] == 2


def test_a_campaign_with_a_single_initial_label_and_no_model_says_what_went_wrong():
    game = Game(pools={"gpu": 1, "cpu": 4})
    for request in game.of("calculate")[1:]:
        game.fail(request, "no convergence", failure_class="structure")
    game.finish(game.of("calculate")[0])
    assert game.policy.verdict.state == "failed"
    assert game.policy.verdict.reason == (
        "nothing is left to do after 1 of 20 labels: "
        "no structure is left to label and no trajectory can go on. "
        "The first calculation that failed: no convergence"
    )


# --- audit or selection -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "least", "most"), [(0.0, 0, 0), (0.25, 5, 25), (0.75, 35, 57), (1.0, 60, 60)]
)
def test_audits_and_selected_frames_are_drawn_by_their_fraction_when_both_wait(fraction, least, most):
    n_audits = 0
    for seed in range(60):
        game = sampling(audit={"fraction": fraction}, seed=seed)
        for number in range(4):
            audit(game, f"busy-{number}")
        select(game, "a")
        audit(game, "z")
        assert len(game.state.audits) == len(game.state.selected) == 1
        new = game.finish(game.of("calculate")[0])
        (label,) = [request for request in new if request.kind == "calculate"]
        n_audits += label.args["source"] == "audit"
    assert least <= n_audits <= most


def test_selected_frames_are_labelled_in_their_order():
    game = sampling(selection={"chunk_size": 3})
    game.finish(game.of("dynamics")[0], steps=0, others=[frame(name) for name in "abc"])
    game.finish(game.of("score")[0], deviations=[0.1, 0.2, 0.3])
    (score,) = [request for request in game.asked if request.kind == "score"]
    run = game.events[-2].request
    game.finish(game.of("choose")[0], frames=["c", "b"])
    first, second = game.of("calculate")
    assert first.args == {
        "frame": "c",
        "hash": "s-c",
        "source": "active",
        "segment": run,
        "trajectory": int(run[10:13]),
        "model": "member:round-000:0",
        "deviation": 0.3,
        "score": [score.id, 2],
        "round": 0,
        "generation": 0,
    }
    assert second.args["frame"] == "b"
    assert first.id == "label-00004"
    assert second.id == "label-00005"
    assert set(game.state.pool) == {"a"}


def test_audits_are_made_in_the_order_in_which_the_runs_ended():
    game = sampling()
    for number in range(6):
        audit(game, f"z{number}")
    for _ in range(2):
        game.finish(game.of("calculate")[0])
    assert [request.args["frame"] for request in game.of("calculate")] == ["z2", "z3", "z4", "z5"]


def test_an_audit_names_the_model_that_drove_the_run_not_a_newer_one():
    game = sampling(training={"retrain_every": 1}, calculation={"max_ahead": 8})
    old = game.of("dynamics")[1]
    audit(game, "z")
    game.finish(game.of("calculate")[0])
    game.play_to_committee(1, hold=["dynamics", "calculate"])
    game.finish(old, last=frame("late"), others=[])
    (late,) = game.of("calculate", frame="late")
    assert late.args["model"] == "member:round-000:0"
    assert (late.args["round"], late.args["generation"]) == (1, 1)


def test_audits_of_a_given_model_wait_for_its_reference_energies():
    game = Game(pools={"gpu": 1, "cpu": 8}, start_model=True)
    audit(game, "z")
    game.finish_all("calculate")
    assert game.of("calculate") == []
    assert len(game.state.audits) == 1
    game.finish(game.of("refit")[0])
    (request,) = game.of("calculate")
    assert request.args["frame"] == "z"
    assert request.args["model"] == "start"
    assert request.args["energy_shifts_eV"] == {"1": -0.5, "8": 1.5}


def test_audits_of_trained_models_do_not_wait_for_the_refit_and_are_not_shifted():
    game = Game(pools={"gpu": 3, "cpu": 8}, start_model=True, n_imported=3)
    game.finish(game.of("train")[0])
    audit(game, "z-start")
    audit(game, "z-start-2")
    assert game.of("calculate") == []
    audit(game, "z-trained")
    (request,) = game.of("calculate")
    assert request.args["frame"] == "z-trained"
    game.finish(game.of("refit")[0])
    shifts = {request.args["frame"]: request.args["energy_shifts_eV"] for request in game.of("calculate")}
    assert shifts["z-start"] != {}
    assert shifts["z-trained"] == {}
    audit(game, "z-later")
    assert game.of("calculate", frame="z-later")[0].args["energy_shifts_eV"] == {}


# --- nothing twice ------------------------------------------------------------------------------------


def test_a_selected_frame_whose_structure_was_labelled_meanwhile_is_dropped():
    game = sampling()
    for number in range(4):
        audit(game, f"busy-{number}")
    select(game, "a", "b", "c")
    game.state.pool["a"] = game.state.pool["b"]
    game.finish(game.of("dynamics")[0], last=frame("z", hash_="s-b"), others=[])
    game.finish(game.of("calculate")[0])
    game.play(lambda game: not game.state.selected and not game.state.audits)
    hashes = [request.args["hash"] for request in game.asked if request.kind == "calculate"]
    assert len(hashes) == len(set(hashes))


def test_an_audit_whose_structure_was_labelled_meanwhile_lets_its_trajectory_start_again():
    game = sampling()
    for number in range(4):
        audit(game, f"busy-{number}")
    trajectories = [game.of("dynamics")[i].args["trajectory"] for i in range(2)]
    for _ in range(2):
        audit(game, "z", steps=10)
    audit(game, "y")
    assert len(game.state.audits) == 3
    game.finish(game.of("calculate")[0])
    assert len(game.of("calculate", frame="z")) == 1
    game.finish(game.of("calculate")[0])
    assert game.state.audits == []
    assert len(game.of("calculate", frame="y")) == 1
    second = game.state.trajectories[trajectories[1]]
    assert second.status in {"idle", "running"}
    assert second.frame == second.start
    assert len(game.of("calculate", frame="z")) == 1


def test_nothing_is_audited_twice_while_audits_of_a_given_model_wait():
    game = Game(
        pools={"gpu": 3, "cpu": 8},
        start_model=True,
        n_imported=3,
        sampling={"n_parallel": 2, "n_trajectories": 8},
    )
    game.finish(game.of("train")[0])
    game.state.caused = game.config.max_ahead
    given = [game.of("dynamics")[0], game.of("dynamics")[1]]
    for request in given:
        audit(game, f"given-{request.id}")
    for number in range(2):
        game.finish(game.of("dynamics")[0], last=frame(f"z{number}", hash_="s-z"), others=[])
    assert len(game.state.audits) == 4
    game.state.caused = 0
    game.fail(game.of("dynamics")[0])
    assert [request.args["frame"] for request in game.of("calculate")] == ["z0"]
    game.finish(game.of("refit")[0])
    assert game.state.audits == []
    assert len(game.of("calculate")) == 3


def test_a_structure_that_was_set_aside_is_never_asked_for_again():
    game = sampling()
    audit(game, "z")
    game.fail(game.of("calculate")[0], "no convergence", failure_class="structure")
    assert game.state.set_aside == {"s-z": "no convergence"}
    game.finish(game.of("dynamics")[0], last=frame("again", hash_="s-z"), others=[frame("too", hash_="s-z")])
    assert game.of("calculate") == []
    assert game.state.pool == {}
    assert game.policy.snapshot()["labels"]["failed"] == 1


def test_imported_structures_are_not_labelled_again():
    game = Game(pools=POOLS, n_imported=4)
    game.play_to_committee(0, hold=["dynamics"])
    game.finish(game.of("dynamics")[0], last=frame("z", hash_="s-imported-1"), others=[])
    assert game.of("calculate") == []


# --- max_ahead ----------------------------------------------------------------------------------------


def calculate_all(game: Game) -> int:
    """Play on without training; return how many labels were asked for meanwhile."""
    before = game.state.n_calculations
    game.play(hold=["train"])
    return game.state.n_calculations - before


def test_a_committee_causes_max_ahead_labels_at_most_audits_included():
    game = sampling(calculation={"max_ahead": 6})
    assert not game.policy.held_back
    assert calculate_all(game) == 6
    assert game.policy.held_back
    assert game.state.selected or game.state.audits


def test_max_ahead_is_twice_retrain_every_by_default():
    assert calculate_all(sampling(training={"retrain_every": 3}, stop={"max_labels": 30})) == 6


def test_the_first_model_of_a_round_lets_labels_be_made_again():
    game = sampling(calculation={"max_ahead": 6}, stop={"max_labels": 30})
    calculate_all(game)
    assert game.state.caused == 6
    before = game.state.n_calculations
    game.finish(game.of("train")[0])
    assert not game.policy.held_back
    game.play(hold=["train"])
    assert game.state.n_calculations - before == 6
    game.finish(game.of("train")[0])
    assert game.policy.held_back


def test_initial_labels_do_not_count():
    game = sampling(calculation={"max_ahead": 4}, start={"n_labels": 6})
    assert game.state.caused == 0
    assert calculate_all(game) == 4


def test_initial_labels_are_made_whatever_a_given_model_caused():
    game = Game(
        pools={"gpu": 8, "cpu": 2}, start_model=True, start={"n_labels": 4}, calculation={"max_ahead": 4}
    )
    game.state.caused = 4
    assert not game.policy.held_back
    game.play(lambda game: game.state.initial_done, hold=["dynamics"])
    assert game.n_made == 4


def test_a_failure_gives_its_place_back():
    game = sampling(calculation={"max_ahead": 4, "max_consecutive_failures": 50})
    for number in range(4):
        audit(game, f"z{number}")
    assert game.state.caused == 4
    audit(game, "z4")
    assert len(game.of("calculate")) == 4
    new = game.fail(game.of("calculate")[0], failure_class="structure")
    assert [request.args["frame"] for request in new if request.kind == "calculate"] == ["z4"]
    assert game.state.caused == 4


def test_a_failure_that_is_tried_again_keeps_its_place_and_is_not_held_back():
    game = sampling(calculation={"max_ahead": 4})
    for number in range(5):
        audit(game, f"z{number}")
    (again, *_) = game.fail(game.of("calculate")[0], failure_class="retry")
    assert again.attempt == 2
    assert game.state.caused == 4


def test_a_failure_of_an_earlier_committee_gives_the_present_one_nothing():
    game = sampling(calculation={"max_ahead": 5}, pools={"gpu": 8, "cpu": 8})
    for number in range(6):
        audit(game, f"z{number}")
    late, *others = game.of("calculate")
    for request in others:
        game.finish(request)
    game.play(lambda game: len(game.of("train")) == 3, hold=["calculate", "train"])
    assert game.state.caused == 5
    game.finish(game.of("train")[0])
    caused = game.state.caused
    assert caused > 0
    n_open = len(game.of("calculate"))
    new = game.fail(late, failure_class="structure")
    assert game.state.caused == caused + sum(request.kind == "calculate" for request in new)
    assert n_open > 1


def test_a_failed_initial_label_gives_nothing_back():
    game = Game(pools={"gpu": 8, "cpu": 8}, start_model=True)
    game.fail(game.of("calculate", source="initial")[0], failure_class="structure")
    assert game.state.caused == 0


def test_nothing_is_held_back_when_there_is_nothing_to_label_or_no_slot():
    game = sampling(calculation={"max_ahead": 4})
    game.state.caused = 4
    assert not game.policy.held_back
    audit(game, "z")
    assert game.policy.held_back
    free = game.state.free["cpu"]
    for left, held_back in [(0, False), (1, True)]:
        game.state.free["cpu"] = left
        assert game.policy.held_back == held_back
    game.state.free["cpu"] = free


# --- budget -------------------------------------------------------------------------------------------


def test_no_more_labels_are_asked_for_than_the_budget_has_left():
    game = sampling(stop={"max_labels": 6})
    for number in range(2):
        audit(game, f"z{number}")
    audit(game, "z2")
    assert len(game.of("calculate")) == 2
    first, second = game.of("calculate")
    game.fail(first, failure_class="retry")
    assert [request.id for request in game.of("calculate")] == [second.id, first.id]
    game.fail(second, failure_class="structure")
    assert [request.args["frame"] for request in game.of("calculate")] == ["z0", "z2"]


def test_a_calculation_that_waits_to_be_tried_again_keeps_its_place_in_the_budget():
    game = sampling(pools={"gpu": 8, "cpu": 1}, stop={"max_labels": 5}, queue={"length": 3})
    game.finish(game.open[0], last=frame("z0"), others=[])
    game.play(lambda game: game.of("calculate"), hold=[])
    (label,) = game.of("calculate")
    game.fail(label, failure_class="retry")
    # Whatever takes the slot now, it is no other label.
    assert [r.id for r in game.of("calculate")] in ([label.id], [])
    assert game.state.budget_taken


def test_initial_labels_are_paid_from_the_budget_and_imported_ones_are_not():
    game = Game(stop={"max_labels": 8}).play()
    assert len(game.labels) == 8
    game = Game(stop={"max_labels": 8}, n_imported=5).play()
    assert len(game.labels) == 13
    assert game.policy.verdict.reason == "8 labels were made, as many as stop.max_labels asks for"


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure_class", ["retry", "setup"])
def test_a_failure_that_is_not_the_structures_own_is_tried_again(failure_class):
    game = sampling(calculation={"max_attempts": 3})
    audit(game, "z")
    request = game.of("calculate")[0]
    for attempt in (2, 3):
        (again,) = [r for r in game.fail(request, failure_class=failure_class) if r.kind == "calculate"]
        assert again.attempt == attempt
        assert again.id == request.id
        assert again.args == request.args
        assert (again.kind, again.agent, again.pool) == (request.kind, request.agent, request.pool)
        assert game.state.set_aside == {}
        request = again
    game.fail(request, "lost", failure_class=failure_class)
    assert game.of("calculate", frame="z") == []
    assert game.state.set_aside == {"s-z": "lost"}


def test_a_failure_without_class_is_tried_again():
    game = sampling()
    audit(game, "z")
    new = game._handle(game.of("calculate")[0], "failed", {"error": "Error"})
    assert [request.attempt for request in new if request.kind == "calculate"] == [2]
    assert game.policy.snapshot()["first_failures"] == {"calculate": "unknown"}


def test_a_failure_of_the_structure_is_not_tried_again():
    game = sampling()
    audit(game, "z")
    game.fail(game.of("calculate")[0], failure_class="structure")
    assert game.of("calculate") == []
    assert list(game.state.set_aside) == ["s-z"]


def test_what_is_tried_again_comes_first():
    game = sampling()
    for number in range(6):
        audit(game, f"z{number}")
    select(game, "a", "b")
    new = game.fail(game.of("calculate")[0], failure_class="retry")
    assert [(r.args["frame"], r.attempt) for r in new if r.kind == "calculate"] == [("z0", 2)]


def test_what_failed_first_is_tried_again_first():
    game = sampling(pools={"gpu": 8, "cpu": 6})
    for number in range(4):
        audit(game, f"z{number}")
    first, second, third, fourth = game.of("calculate")
    # More is open than there are slots from now on: what fails waits until its turn comes.
    game.move({"gpu": 8, "cpu": 1})
    game.fail(second, failure_class="setup")
    game.fail(first)
    game.finish(third)
    game.finish(fourth)
    game.finish(game.of("dynamics")[0], others=[])
    assert game.state.line == [second.next_attempt(), first.next_attempt()]
    (last,) = game.of("dynamics")
    assert game.finish(last, others=[]) == [second.next_attempt()]
    assert game.finish(second.next_attempt()) == [first.next_attempt()]


@pytest.mark.parametrize("failure_class", ["setup", "structure"])
def test_failures_in_a_row_stop_the_campaign_with_the_first_error(failure_class):
    game = sampling(calculation={"max_consecutive_failures": 3})
    for number in range(4):
        audit(game, f"z{number}")
    game.fail(game.of("calculate")[0], "xtb was not found", failure_class=failure_class)
    game.fail(game.of("calculate")[0], "another", failure_class=failure_class)
    assert game.policy.verdict is None
    game.fail(game.of("calculate")[0], "another", failure_class=failure_class)
    assert game.policy.verdict.state == "failed"
    assert game.policy.verdict.reason == "3 reference calculations failed in a row. First: xtb was not found"


def test_lost_workers_say_nothing_about_the_set_up_until_their_attempts_are_used_up():
    game = sampling(calculation={"max_consecutive_failures": 2, "max_attempts": 3})
    for number in range(2):
        audit(game, f"z{number}")
    for _ in range(2):
        for request in game.of("calculate"):
            game.fail(request, failure_class="retry")
    assert game.policy.verdict is None
    for request in game.of("calculate"):
        game.fail(request, "the worker was lost", failure_class="retry")
    assert game.policy.verdict.state == "failed"


def test_a_label_lets_the_count_of_failures_begin_again():
    game = sampling(calculation={"max_consecutive_failures": 3})
    for number in range(6):
        audit(game, f"z{number}")
    for _ in range(2):
        game.fail(game.of("calculate")[0], failure_class="structure")
    game.finish(game.of("calculate")[0])
    for _ in range(2):
        game.fail(game.of("calculate")[0], failure_class="structure")
    assert game.policy.verdict is None


def test_labels_are_known_in_the_order_in_which_they_came():
    game = sampling()
    audit(game, "z0")
    audit(game, "z1")
    first, second = game.of("calculate")
    game.finish(second)
    game.finish(first)
    assert game.policy.training_set(99)[4:] == [second.id, first.id]
    assert game.policy.training_set(5) == game.labels[:5]
    last = game.state.labels[-1]
    assert (last.request, last.hash, last.source, last.frame) == (first.id, "s-z0", "audit", "z0")
