"""The rules of the Selector."""

from __future__ import annotations

import pytest

from fff.data.events import Event
from tests.support.playing_campaigns import WORKSTATION, Game, frame

POOLS = {"gpu": 8, "cpu": 6}


def sampling(**options) -> Game:
    """Return a game with a committee, two runs of dynamics open, and nothing else."""
    options = {"pools": POOLS, "sampling": {"n_parallel": 2, "n_trajectories": 12}, **options}
    game = Game(**options).play_to_committee(0, hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    return game


def meet(game: Game, *names: str) -> None:
    """Have a run end that met these frames; nothing of it is audited."""
    game.finish(game.of("dynamics")[0], steps=0, others=[frame(name) for name in names])


def select(game: Game, *names: str) -> None:
    """Have frames met, scored and selected; no label is made of them yet."""
    meet(game, *names)
    while game.of("score") or game.of("choose"):
        for request in game.of("score"):
            game.finish(request)
        for request in game.of("choose"):
            game.finish(request)


def busy(**options) -> Game:
    """Return a game in which every slot for calculations is taken, so that what is selected waits."""
    game = sampling(**options)
    for number in range(4):
        game.finish(game.of("dynamics")[0], last=frame(f"busy-{number}"), others=[])
    assert game.kinds() == {"dynamics": 2, "calculate": 4}
    return game


def free_a_slot(game: Game) -> None:
    """Have one of the calculations end."""
    game.finish(game.of("calculate", source="audit")[0])


def train_round(game: Game) -> None:
    """Have the next round trained, whatever the labels."""
    number = game.state.round + 1
    game.state.n_labels_at_start = -1000
    game.fail(game.of("dynamics")[0])
    game.play_to_committee(number, hold=["dynamics", "score", "choose", "calculate"])


# --- the pool -----------------------------------------------------------------------------------------


def test_a_chunk_is_scored_by_the_whole_committee_as_soon_as_it_is_full():
    game = busy(pools={"gpu": 2, "cpu": 6}, selection={"chunk_size": 2})
    meet(game, "a", "b", "c", "d", "e")
    first, second = game.of("score")
    assert first.args == {"round": 0, "frames": ["a", "b"]}
    assert second.args == {"round": 0, "frames": ["c", "d"]}
    assert first.models == second.models == (game.state.committee.key,)
    assert first.pool == "gpu"
    assert first.id == "score-r000-00001"
    assert second.id == "score-r000-00002"
    assert list(game.state.unscored) == ["e"]
    meet(game, "f")
    game.finish(first)
    game.finish(game.of("choose")[0])
    assert game.of("score")[-1].args["frames"] == ["e", "f"]


def test_nothing_is_scored_before_there_is_a_committee():
    game = Game(pools=POOLS).play(lambda game: game.of("train"))
    game.finish(game.of("train")[0])
    game.finish(game.of("dynamics")[0])
    assert game.of("score") == []
    assert len(game.state.unscored) == 3
    for request in game.of("train"):
        game.finish(request)
    assert len(game.of("score")) == 1


def test_a_frame_whose_structure_has_a_label_or_waits_already_is_not_taken():
    game = busy()
    others = [frame("a"), frame("b", hash_="s-initial-2"), frame("c", hash_="s-a")]
    game.finish(game.of("dynamics")[0], steps=0, others=others)
    assert list(game.state.pool) == ["a"]


def test_a_full_pool_is_left_by_the_oldest_frames():
    game = busy(selection={"chunk_size": 3, "pool_size": 4})
    meet(game, "a", "b")
    assert game.of("score")[0].args["frames"] == ["a", "b"]
    meet(game, "c")
    meet(game, "d", "e", "f")
    assert list(game.state.pool) == ["c", "d", "e", "f"]
    assert game.state.pool_hashes == {"s-c", "s-d", "s-e", "s-f"}
    game.finish(game.of("score")[0])
    assert list(game.state.scored) == []


def test_a_structure_that_left_the_pool_may_be_met_again():
    game = busy(selection={"chunk_size": 1, "pool_size": 1})
    meet(game, "a")
    meet(game, "b")
    game.finish(game.of("dynamics")[0], steps=0, others=[frame("again", hash_="s-a")])
    assert list(game.state.pool) == ["again"]


def test_a_frame_that_left_the_pool_leaves_the_waiting_list():
    game = busy(selection={"chunk_size": 1, "pool_size": 2})
    select(game, "a", "b")
    assert list(game.state.selected) == ["a", "b"]
    meet(game, "c")
    assert list(game.state.selected) == ["b"]


def test_on_workers_that_also_sample_an_incomplete_chunk_waits_while_something_is_selected():
    game = busy(pools=8)
    select(game, "a", "b", "c")
    meet(game, "d")
    assert game.of("score") == []
    meet(game, "e", "f")
    assert game.of("score")[0].args["frames"] == ["d", "e", "f"]


@pytest.mark.parametrize("busy_with", ["score", "choose"])
def test_on_workers_that_also_sample_an_incomplete_chunk_waits_for_the_scoring_or_choice(busy_with):
    game = busy(pools=8)
    meet(game, "a", "b", "c")
    if busy_with == "choose":
        game.finish(game.of("score")[0])
    meet(game, "d")
    assert set(game.kinds()) == {"dynamics", "calculate", busy_with}
    game.finish(
        game.of(busy_with)[0], **({"frames": []} if busy_with == "choose" else {"deviations": [None] * 3})
    )
    assert game.of("score")[0].args["frames"] == ["d"]


def test_an_incomplete_chunk_is_scored_rather_than_leave_an_accelerator_idle():
    game = busy(pools={"gpu": 2, "cpu": 6})
    select(game, "a", "b", "c")
    assert game.state.selected
    meet(game, "d")
    meet(game, "e", "f")
    assert [request.args["frames"] for request in game.of("score")] == [["d"], ["e", "f"]]
    # Both are busy: the next chunk fills meanwhile.
    meet(game, "g")
    meet(game, "h")
    game.finish(game.of("score")[0])
    assert game.of("score")[-1].args["frames"] == ["g", "h"]


@pytest.mark.parametrize("beside", ["dynamics", "calculate"])
def test_an_incomplete_chunk_waits_where_sampling_or_calculation_has_the_same_workers(beside):
    pool_of = {**WORKSTATION, beside: "gpu"}
    game = Game(pools={"gpu": 9, "cpu": 9}, pool_of=pool_of).play_to_committee(0, hold=["dynamics"])
    game.finish(game.of("dynamics")[0], last=frame("x"), others=[frame("a"), frame("b"), frame("c")])
    game.finish(game.of("score")[0])
    meet(game, "d")
    assert game.kinds()["choose"] == 1
    assert game.of("score") == []


def test_a_full_chunk_goes_before_what_only_fills_an_idle_accelerator():
    game = busy(pools={"gpu": 1, "cpu": 6}, selection={"chunk_size": 2})
    meet(game, "a", "b", "c", "d", "e")
    frames = []
    while game.of("score") or game.of("choose"):
        request = [*game.of("score"), *game.of("choose")][0]
        frames += [request.args.get("frames", "choose")]
        game.finish(request)
    assert frames[:2] == [["a", "b"], "choose"]
    assert [chunk for chunk in frames[2:] if chunk != "choose"] == [["c", "d"], ["e"]]


def test_an_incomplete_chunk_is_scored_when_nothing_else_is_on_hand():
    game = busy()
    meet(game, "a")
    assert game.of("score")[0].args["frames"] == ["a"]


def test_nothing_is_scored_or_chosen_once_the_budget_is_on_its_way():
    game = sampling(stop={"max_labels": 5})
    game.finish(game.of("dynamics")[0], others=[])
    assert len(game.of("calculate")) == 1
    meet(game, "a", "b", "c")
    assert game.of("score") == []


# --- scores -------------------------------------------------------------------------------------------


def test_scores_are_kept_with_the_place_where_they_are_found():
    game = busy()
    meet(game, "a", "b", "c")
    (score,) = game.of("score")
    game.finish(score, deviations=[0.3, 0.1, 0.2])
    found = {name: (s.request, s.row, s.deviation) for name, s in game.state.scored.items()}
    assert found == {"a": (score.id, 0, 0.3), "b": (score.id, 1, 0.1), "c": (score.id, 2, 0.2)}


def test_a_frame_that_got_no_score_costs_only_itself():
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0], deviations=[0.3, None, 0.2])
    assert list(game.state.pool) == ["a", "c"]
    assert game.state.scored["c"].row == 2
    assert game.of("choose")[0].args["candidates"].keys() == {"a", "c"}


def test_a_chunk_that_fails_is_tried_once_more_and_then_costs_only_itself():
    game = busy(selection={"chunk_size": 2})
    meet(game, "a", "b", "c")
    # The bad chunk stays by itself: a frame that never failed is not joined to it.
    game.fail(game.of("score")[0])
    while game.of("score"):
        request = game.of("score")[0]
        if "a" in request.args["frames"]:
            assert request.args["frames"] == ["a", "b"]
            game.fail(request)
        else:
            game.finish(request)
    attempts = [r.attempt for r in game.asked if r.kind == "score" and "a" in r.args["frames"]]
    assert attempts == [1, 2]
    assert list(game.state.pool) == ["c"]
    assert game.policy.verdict is None


def test_a_chunk_that_works_at_the_second_try_is_scored():
    game = busy()
    meet(game, "a", "b", "c")
    (again,) = game.fail(game.of("score")[0])
    assert (again.attempt, again.args["frames"]) == (2, ["a", "b", "c"])
    game.finish(again)
    assert list(game.state.scored) == ["a", "b", "c"]


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_scores_of_a_replaced_committee_are_discarded(outcome):
    game = busy()
    meet(game, "a", "b", "c")
    (old,) = game.of("score")
    train_round(game)
    (new,) = [request for request in game.of("score") if request is not old]
    assert new.args == {"round": 1, "frames": ["a", "b", "c"]}
    if outcome == "done":
        game.finish(old, deviations=[9.0, 9.0, 9.0])
    else:
        game.fail(old)
    assert game.state.scored == {}
    assert game.state.unscored == {}
    game.finish(new, deviations=[0.3, 0.1, 0.2])
    assert [score.deviation for score in game.state.scored.values()] == [0.3, 0.1, 0.2]


# --- choices ------------------------------------------------------------------------------------------


def test_a_choice_is_made_from_everything_that_is_scored():
    game = busy(selection={"batch_size": 7})
    meet(game, "a", "b", "c")
    (score,) = game.of("score")
    game.finish(score)
    (choice,) = game.of("choose")
    assert choice.args["candidates"] == {"a": [score.id, 0], "b": [score.id, 1], "c": [score.id, 2]}
    assert choice.args["n"] == 7
    assert choice.args["round"] == 0
    assert choice.models == (game.state.committee.key,)
    assert choice.id == "choose-r000-00001"


def test_choices_are_numbered_and_each_has_its_own_draw():
    game = Game().play()
    choices = [request for request in game.asked if request.kind == "choose"]
    assert [int(request.id[-5:]) for request in choices] == list(range(1, len(choices) + 1))
    assert len({request.args["seed"] for request in choices}) == len(choices)


def test_the_waiting_list_has_the_order_of_the_choice_and_what_it_does_not_name_leaves_it():
    game = busy(selection={"chunk_size": 3, "batch_size": 10})
    select(game, "a", "b", "c")
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    game.finish(game.of("choose")[0], frames=["e", "c", "a"])
    assert list(game.state.selected) == ["e", "c", "a"]
    assert game.state.selected["e"] == game.state.scored["e"]
    assert set(game.state.pool) == {"a", "b", "c", "d", "e", "f"}


def test_a_frame_that_left_while_the_choice_was_made_is_not_selected():
    game = busy(selection={"chunk_size": 2, "pool_size": 2})
    meet(game, "a", "b")
    game.finish(game.of("score")[0])
    meet(game, "c")
    game.finish(game.of("choose")[0], frames=["a", "b"])
    assert list(game.state.selected) == ["b"]


def test_one_choice_is_made_at_a_time():
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    assert len(game.of("choose")) == 1


def test_what_was_scored_while_a_choice_was_made_is_considered_by_the_next():
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    game.finish(game.of("choose")[0], frames=["a"])
    (choice,) = game.of("choose")
    assert list(choice.args["candidates"]) == ["a", "b", "c", "d", "e", "f"]
    game.finish(choice, frames=["a"])
    assert game.of("choose") == []


@pytest.mark.parametrize(("batch_size", "due"), [(5, False), (6, True), (7, True)])
def test_a_choice_is_due_when_half_of_a_batch_or_less_is_left(batch_size, due):
    game = busy(selection={"batch_size": batch_size})
    select(game, "a", "b", "c")
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    assert bool(game.of("choose")) == due


def test_a_choice_is_due_again_when_enough_were_labelled():
    game = busy(selection={"batch_size": 4})
    select(game, "a", "b", "c")
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    assert game.of("choose") == []
    free_a_slot(game)
    assert len(game.of("choose")) == 1


def test_nothing_is_chosen_when_nothing_new_was_scored():
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    game.finish(game.of("choose")[0], frames=[])
    assert game.of("choose") == []
    game.fail(game.of("dynamics")[0])
    assert game.of("choose") == []


def test_no_choice_is_made_when_what_was_scored_has_left_the_pool():
    game = busy(selection={"chunk_size": 1, "pool_size": 2, "batch_size": 2})
    select(game, "a", "b")
    train_round(game)
    for request in game.of("score"):
        if request.args["frames"] == ["a"]:
            game.finish(request)
    assert list(game.state.scored) == ["a"]
    assert game.of("choose") == []
    meet(game, "c", "d")
    assert game.state.scored == {}
    assert game.of("choose") == []


def test_a_choice_that_fails_is_made_again():
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    (again,) = game.fail(game.of("choose")[0])
    assert list(again.args["candidates"]) == ["a", "b", "c"]
    assert again.id == "choose-r000-00002"


def test_choices_that_fail_again_and_again_end_the_campaign():
    game = busy(calculation={"max_consecutive_failures": 3})
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    game.fail(game.of("choose")[0])
    game.fail(game.of("choose")[0])
    game.finish(game.of("choose")[0])
    meet(game, "d", "e", "f")
    game.state.selected.clear()
    game.finish(game.of("score")[0])
    game.fail(game.of("choose")[0])
    game.fail(game.of("choose")[0])
    assert game.policy.verdict is None
    game.fail(game.of("choose")[0], "singular matrix")
    assert game.policy.verdict.state == "failed"
    assert game.policy.verdict.reason == "Choosing frames failed 3 times in a row: singular matrix"


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_the_choice_of_a_replaced_committee_is_discarded(outcome):
    game = busy()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    (old,) = game.of("choose")
    train_round(game)
    game.finish(game.of("score", round=1)[0])
    if outcome == "done":
        game.finish(old)
    else:
        game.fail(old)
    assert game.state.selected == {}
    assert game.state.consecutive_failures["choose"] == 0
    assert [request.args["round"] for request in game.of("choose")] == [1]


# --- a new committee ----------------------------------------------------------------------------------


def test_a_new_committee_scores_the_waiting_list_first_and_then_the_rest():
    game = busy(pools={"gpu": 3, "cpu": 6}, selection={"chunk_size": 2, "batch_size": 1})
    select(game, "a", "b", "c", "d", "e")
    game.state.selected = {name: game.state.scored[name] for name in ("d", "b", "c")}
    train_round(game)
    assert [request.args["frames"] for request in game.of("score")] == [["b", "c"], ["d"], ["a", "e"]]
    assert {request.args["round"] for request in game.of("score")} == {1}
    assert game.state.scored == {}


def test_the_new_committee_chooses_when_the_waiting_list_is_scored_again():
    game = busy(pools={"gpu": 3, "cpu": 6}, selection={"chunk_size": 2, "batch_size": 4})
    select(game, "a", "b", "c", "d", "e")
    game.state.selected = {name: game.state.scored[name] for name in ("d", "b", "c")}
    train_round(game)
    first, second, rest = game.of("score")
    game.finish(rest)
    game.finish(first)
    assert game.of("choose") == []
    assert list(game.state.selected) == ["d", "b", "c"]
    game.finish(second)
    (choice,) = game.of("choose")
    assert set(choice.args["candidates"]) == {"a", "b", "c", "d", "e"}
    game.finish(choice, frames=["e", "c"])
    assert list(game.state.selected) == ["e", "c"]
    assert game.state.selected["c"].request == first.id


def test_the_new_committee_chooses_although_the_waiting_list_is_long():
    game = busy(selection={"batch_size": 1})
    select(game, "a", "b", "c")
    assert len(game.state.selected) == 1
    train_round(game)
    for request in game.of("score"):
        game.finish(request)
    assert len(game.of("choose")) == 1


def test_a_frame_without_new_score_does_not_keep_the_new_committee_from_choosing():
    game = busy()
    select(game, "a", "b", "c")
    train_round(game)
    game.finish(game.of("score")[0], deviations=[None, 0.1, 0.2])
    assert list(game.of("choose")[0].args["candidates"]) == ["b", "c"]


def test_a_waiting_frame_that_is_labelled_meanwhile_is_not_waited_for():
    game = busy(selection={"chunk_size": 1})
    select(game, "a", "b")
    train_round(game)
    for request in game.of("score"):
        if request.args["frames"] == ["a"]:
            game.finish(request)
    # The rest of the old waiting list is taken; nothing of it is left to choose from.
    free_a_slot(game)
    free_a_slot(game)
    assert game.of("choose") == []
    assert {request.args["frame"] for request in game.of("calculate", source="active")} == {"a", "b"}


def test_a_selected_frame_is_labelled_with_the_newest_opinion_of_it():
    game = busy(selection={"chunk_size": 1})
    select(game, "a", "b")
    old = game.state.selected["b"]
    train_round(game)
    (new,) = [request for request in game.of("score") if request.args["frames"] == ["a"]]
    game.finish(new, deviations=[0.77])
    free_a_slot(game)
    free_a_slot(game)
    labels = {request.args["frame"]: request for request in game.of("calculate")}
    assert labels["a"].args["score"] == [new.id, 0]
    assert labels["a"].args["deviation"] == 0.77
    assert labels["b"].args["score"] == [old.request, old.row]


def test_attempts_at_scoring_begin_again_with_a_new_committee():
    game = busy()
    meet(game, "a", "b", "c")
    game.fail(game.of("score")[0])
    train_round(game)
    assert {request.attempt for request in game.of("score", round=1)} == {1}


# --- what counts as chosen already --------------------------------------------------------------------


def test_labels_asked_for_since_the_last_committee_count_as_taken():
    game = sampling()
    game.finish(game.of("dynamics")[0], last=frame("z"), others=[frame("a"), frame("b"), frame("c")])
    game.finish(game.of("score")[0])
    (choice,) = game.of("choose")
    assert choice.args["taken"] == ["z"]
    game.finish(choice, frames=["b", "a"])
    assert game.state.taken == ["z", "b", "a"]


def test_initial_labels_are_not_among_the_taken():
    game = sampling()
    meet(game, "a", "b", "c")
    game.finish(game.of("score")[0])
    assert game.of("choose")[0].args["taken"] == []


def test_after_a_new_committee_only_labels_it_does_not_know_count_as_taken():
    game = busy(training={"retrain_every": 2}, calculation={"max_ahead": 9})
    for name in ("busy-0", "busy-1"):
        game.finish(game.of("calculate", frame=name)[0])
    members = game.of("train")
    assert {request.args["n_labels"] for request in members} == {6}
    game.finish(game.of("calculate", frame="busy-2")[0])
    for request in members:
        game.finish(request)
    assert game.state.committee.n_labels == 6
    assert game.state.taken == ["busy-2", "busy-3"]


def test_a_label_that_is_to_be_tried_again_counts_as_taken():
    game = busy(training={"retrain_every": 2}, pools={"gpu": 3, "cpu": 6})
    for name in ("busy-0", "busy-1"):
        game.finish(game.of("calculate", frame=name)[0])
    first, second, last = game.of("train")
    game.finish(first)
    game.finish(second)
    lost = game.of("calculate", frame="busy-3")[0]
    # What is to be tried again waits for a slot.
    game.state.line.append(lost)
    del game.state.open[lost.id]
    game.policy._trainer.receive(Event(0, "train"), last)
    assert game.state.taken == ["busy-2", "busy-3"]
