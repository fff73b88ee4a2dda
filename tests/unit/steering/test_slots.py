"""Calculations of several slots: they get them all at once, starve nobody, and are starved by nobody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fff.steering.active_learning import ActiveLearning
from fff.steering.active_learning.scheduling import _length
from tests.support.drawing_campaigns import Chance, campaigns
from tests.support.playing_campaigns import EXTERNAL, LAPTOP, WORKSTATION, Game, frame, opened

SMALL_ATOMS, LARGE_ATOMS = 3, 9


def table(slots: int, least: int = 80) -> dict[str, Any]:
    """Return a section by which structures of nine atoms, with ten electrons each, take several slots."""
    return {"nodes_by_size": [[0, 1], [least, slots]]}


def mixed(pools: Any = 4, slots: int = 3, **options: Any) -> Game:
    """Return a game in which every second structure, beginning with the second, is a large one."""
    options = {"sizes": (SMALL_ATOMS, LARGE_ATOMS), "n_starts": 2, **EXTERNAL, **options}
    calculation = {**table(slots), **options.pop("calculation", {})}
    return Game(pools=pools, calculation=calculation, **options)


def sampling(pools: Any, slots: int, **options: Any) -> Game:
    """Return a game with a committee, a small and a large trajectory running, and nothing else."""
    options = {"sampling": {"n_parallel": 2, "n_trajectories": 2}, "start": {"n_labels": 2}, **options}
    game = mixed(pools, slots, **options).play_to_committee(0, hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    return game


def waiting() -> Game:
    """Return a game with one slot free of four, for which nobody has use but one who waits for three."""
    game = mixed(4, 3)
    game.finish(game.of("calculate")[0])
    game.finish(game.of("calculate")[1])
    assert [(request.id, request.slots) for request in game.open] == [("label-00001", 3)]
    assert game.state.free == {"shared": 1}
    assert in_line(game) == ["label-00003"]
    return game


def end_run(game: Game, trajectory: int, name: str) -> None:
    """Have the run of a trajectory end in this frame, with nothing else."""
    game.finish(game.of("dynamics", trajectory=trajectory)[0], last=frame(name), others=[])


def in_line(game: Game) -> list[str]:
    return [request.id for request in game.state.line]


# --- how many slots -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_by", "pairs", "slots"),
    [
        ("atoms", [[0, 1]], [1, 1]),
        ("atoms", [[0, 1], [9, 2]], [1, 2]),
        ("atoms", [[0, 1], [10, 2]], [1, 1]),
        ("atoms", [[0, 2], [3, 1], [4, 3]], [1, 3]),
        ("electrons", [[0, 1], [10, 2]], [2, 2]),
        ("electrons", [[0, 1], [30, 2], [90, 4]], [2, 4]),
        ("electrons", [[0, 1], [31, 2], [91, 4]], [1, 2]),
    ],
)
def test_a_calculation_takes_slots_by_the_atoms_or_electrons_of_its_structure(size_by, pairs, slots):
    game = mixed(8, calculation={"size_by": size_by, "nodes_by_size": pairs}, start={"n_labels": 2})
    assert [request.slots for request in game.of("calculate")] == slots


def test_a_sampled_frame_takes_the_slots_of_the_structure_where_its_trajectory_started():
    game = sampling({"gpu": 1, "cpu": 8}, 3)
    for trajectory, name in ((0, "small"), (1, "large")):
        game.finish(
            game.of("dynamics", trajectory=trajectory)[0],
            last=frame(name),
            others=[frame(f"{name}-{i}") for i in range(3)],
        )
    game.play(lambda game: len(game.of("calculate", source="active")) == 4, hold=["calculate", "dynamics"])
    asked = {(r.args["source"], r.args["trajectory"], r.slots) for r in game.of("calculate")}
    assert asked <= {("audit", 0, 1), ("audit", 1, 3), ("active", 0, 1), ("active", 1, 3)}
    assert {r.slots for r in game.of("calculate")} | {r.slots for r in game.state.line} == {1, 3}


def test_only_reference_calculations_take_several_slots():
    game = mixed(4, 3, test={"n_frames": 20, "random_baseline": True}).play()
    assert game.policy.verdict.state == "finished"
    assert {request.kind for request in game.asked if request.slots > 1} == {
        "calculate",
        "reference-dynamics",
    }


# --- how it waits -------------------------------------------------------------------------------------


def test_a_large_calculation_waits_for_all_its_slots_and_holds_none_of_them():
    game = waiting()
    (large,) = game.open
    assert [r.id for r in game.finish(large)] == ["label-00003"]
    assert in_line(game) == []


def test_slots_are_kept_for_the_one_whose_turn_has_come():
    game = sampling({"gpu": 1, "cpu": 4}, 4, sampling={"n_parallel": 3, "n_trajectories": 6})
    end_run(game, next(r.args["trajectory"] for r in game.open if r.args["trajectory"] % 2), "large")
    while not in_line(game):
        end_run(game, game.of("dynamics")[0].args["trajectory"], f"x{len(game.events)}")
    assert [request.slots for request in game.state.line] == [4]
    waiting = game.state.line[0]
    n_running = len(game.of("dynamics")) + len(game.of("calculate"))
    ended = 0
    while waiting.id not in game.policy.open_requests:
        request = (game.of("calculate") + game.of("dynamics"))[0]
        new = game.finish(request, **({"others": []} if request.kind == "dynamics" else {}))
        ended += 1
        # Nothing else begins on the slots that become free.
        assert [r.id for r in new if r.pool == "cpu"] in ([], [waiting.id])
    assert ended == n_running


def test_what_runs_on_no_slot_of_its_pool_goes_on_while_it_waits():
    game = sampling({"gpu": 2, "cpu": 4}, 4, sampling={"n_parallel": 3, "n_trajectories": 6})
    while not in_line(game):
        end_run(game, game.of("dynamics")[0].args["trajectory"], f"x{len(game.events)}")
    game.finish(game.of("dynamics")[0], steps=0, others=[frame("a"), frame("b"), frame("c")])
    assert game.of("score")


def test_after_a_calculation_on_the_whole_pool_the_others_have_their_turn():
    game = mixed(2, 2, sizes=(LARGE_ATOMS,), start={"n_labels": 2}, committee={"size": 2})
    kinds = []
    while game.policy.verdict is None:
        game.finish(game.open[0])
        kinds.append(game.events[-1].kind)
    assert game.policy.verdict.state == "finished"
    assert game.n_made == 20
    # Training and inference are done as in any campaign, between the calculations.
    assert {"train", "dynamics", "score", "choose", "calculate"} == set(kinds)
    longest = max(map(len, "".join("c" if kind == "calculate" else " " for kind in kinds).split()))
    assert longest <= game.config.max_ahead


def test_large_calculations_begin_in_the_order_of_their_turns():
    game = mixed(3, 3, sizes=(LARGE_ATOMS,))
    assert [request.id for request in game.open] == ["label-00000"]
    begun = []
    while not game.state.initial_done:
        (request,) = game.open
        begun.append(request.id)
        # One at a time has its turn; the others still wait for theirs.
        assert len(game.state.line) <= 1
        game.finish(request)
    assert begun == [f"label-{number:05d}" for number in range(4)]


def test_a_large_calculation_that_was_lost_stands_behind_those_whose_turn_came_before():
    game = waiting()
    (large,) = game.open
    assert [r.id for r in game.lose(large)] == ["label-00003"]
    assert game.state.line == [large.next_attempt()]
    assert game.finish(game.open[0])[0] == large.next_attempt()


def test_a_large_calculation_that_was_lost_begins_anew_at_once_where_nobody_waits():
    game = mixed(4, 3)
    (large,) = [request for request in game.open if request.slots == 3]
    assert game.lose(large) == [large.next_attempt()]


def test_those_in_line_count_into_the_budget_and_into_what_one_committee_may_cause():
    game = sampling({"gpu": 1, "cpu": 4}, 4, training={"retrain_every": 2}, stop={"max_labels": 3})
    end_run(game, 1, "large")
    assert in_line(game) == ["label-00002"]
    assert game.of("calculate") == []
    assert game.policy.snapshot()["labels"]["in_flight"] == 1
    assert game.state.budget_taken
    assert game.state.caused == 1


def test_slots_that_are_kept_are_not_held_back():
    game = sampling(
        {"gpu": 1, "cpu": 6},
        5,
        training={"retrain_every": 1},
        calculation={"max_ahead": 1},
        sampling={"n_parallel": 3, "n_trajectories": 4},
    )
    odd = [r.args["trajectory"] for r in game.of("dynamics") if r.args["trajectory"] % 2]
    end_run(game, odd[0], "large")
    assert in_line(game)
    end_run(game, game.of("dynamics")[0].args["trajectory"], "next")
    assert game.policy._calculator.is_held_back()
    assert game.state.free["cpu"] > 0
    assert game.policy.held_back == 0


def test_people_are_told_who_waits_for_slots():
    game = waiting()
    snapshot = game.policy.snapshot()
    assert snapshot["waiting_for_slots"] == [{"request": "label-00003", "pool": "shared", "slots": 3}]
    assert snapshot["retries"] == 0


# --- long tasks in the same pool ----------------------------------------------------------------------


def training_on_three_of_four(slots: int) -> Game:
    """Return a laptop on which three members train, and a large calculation waits for the fourth slot."""
    game = mixed(
        4,
        slots,
        sizes=(SMALL_ATOMS, SMALL_ATOMS, LARGE_ATOMS),
        n_starts=3,
        committee={"size": 8},
        n_imported=4,
        start_model=True,
        sampling={"n_trajectories": 12},
    )
    game.play(lambda game: len(game.of("train")) == 3 and in_line(game), hold=["train"], limit=50)
    assert len(game.of("train")) == 3
    assert in_line(game)
    return game


def test_short_tasks_run_on_slots_that_a_large_calculation_could_not_use_yet():
    game = training_on_three_of_four(2)
    waiting = in_line(game)[0]
    kinds = []
    for _ in range(8):
        (short,) = [request for request in game.open if request.kind != "train"]
        assert short.slots == 1
        kinds.append(short.kind)
        game.finish(short)
    assert set(kinds) == {"dynamics", "calculate"}
    assert in_line(game) == [waiting]
    # As soon as a training has ended nothing goes before it any more.
    assert game.finish(game.of("train")[0]) == []
    (short,) = [request for request in game.open if request.kind != "train"]
    assert [request.id for request in game.finish(short)] == [waiting]


def test_sampling_and_inference_go_on_beside_a_calculation_that_a_large_one_waits_for():
    game = mixed(
        5,
        3,
        sizes=(LARGE_ATOMS,),
        sampling={"n_parallel": 3, "n_trajectories": 12},
        queue={"length": 0, "tolerance": 0},
    ).play_to_committee(0, hold=["dynamics"])
    game.play(lambda game: game.of("calculate") and in_line(game), hold=["calculate"])
    waiting = in_line(game)[0]
    (running,) = game.of("calculate")
    kinds = []
    for number in range(12):
        short = next(request for request in game.open if request is not running)
        kinds.append(short.kind)
        met = [frame(f"met-{number}-{i}") for i in range(3)]
        game.finish(short, **({"steps": 0, "others": met} if short.kind == "dynamics" else {}))
    assert set(kinds) >= {"dynamics", "score"}
    assert "calculate" not in kinds
    assert in_line(game) == [waiting]
    # With the calculation's slots it has all that it needs, whatever runs beside it.
    assert [request.id for request in game.finish(running)] == [waiting]


def test_what_a_large_calculation_waits_for_gets_ever_shorter():
    game = mixed(
        {"a": 5},
        5,
        pool_of=dict.fromkeys(LAPTOP, "a"),
        committee={"size": 8},
        n_imported=4,
        start_model=True,
        sizes=(SMALL_ATOMS, SMALL_ATOMS, LARGE_ATOMS),
        n_starts=3,
        sampling={"n_parallel": 3, "n_trajectories": 12},
    )
    game.play(lambda game: len(game.of("train")) >= 3 and in_line(game), hold=["train"], limit=100)
    (first, *_) = game.state.line
    waits_for = game.policy._scheduler._waits_for
    lengths = []
    while first.id not in game.policy.open_requests:
        lengths.append(waits_for(first))
        # The longest first: what is shorter takes their places while it may.
        game.finish(max(game.open, key=lambda request: _length(request.kind)))
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 3
    assert len(lengths) <= 4 * 5


def test_no_training_begins_before_a_large_calculation_that_waits_for_trainings():
    game = training_on_three_of_four(4)
    waiting = in_line(game)[0]
    while game.of("train"):
        assert game.of("train-baseline") == []
        assert not any(request.kind == "train" for request in game.finish(game.of("train")[0]))
    while waiting not in game.policy.open_requests:
        game.finish(game.open[0])
    assert [request.id for request in game.open] == [waiting]
    # Then the other members have their turn.
    assert [r.kind for r in game.finish(game.open[0])].count("train") == 3


# --- reference dynamics -------------------------------------------------------------------------------


def test_a_stretch_of_the_test_set_takes_the_slots_of_its_start_structure():
    game = mixed(6, 2, sizes=(LARGE_ATOMS,), test={"n_frames": 30}, n_imported=4, start_model=True)
    assert [request.slots for request in game.of("reference-dynamics")][:1] == [2]


def test_the_test_set_never_takes_the_whole_pool_while_there_is_other_work():
    options = {"sizes": (LARGE_ATOMS,), "test": {"n_frames": 30}, "n_imported": 4, "start_model": True}
    for slots, is_first in ((2, True), (3, False)):
        game = mixed({"gpu": 1, "cpu": 3}, slots, **options)
        assert bool(game.of("reference-dynamics")) == is_first
        game.play()
        assert len(game.state.test_files) == 3
        assert game.policy.verdict.state == "finished"


def test_no_slots_are_kept_for_reference_dynamics_that_only_fills_what_is_left():
    game = mixed(
        {"gpu": 1, "cpu": 4},
        3,
        n_imported=4,
        start_model=True,
        test={"n_frames": 10, "random_baseline": True},
        test_files=["test/given.npz"],
    )
    # Two runs go on. The first stretch is of the small structure; the second would need a slot more.
    assert game.kinds() == {"refit": 1, "dynamics": 2, "reference-dynamics": 1}
    game.finish(game.of("reference-dynamics")[0])
    assert game.kinds() == {"refit": 1, "dynamics": 2}
    assert (game.state.free["cpu"], in_line(game)) == (2, [])
    # What wants them later finds them free.
    game.finish(game.of("refit")[0])
    end_run(game, game.of("dynamics")[0].args["trajectory"], "x")
    assert game.kinds()["dynamics"] == 2
    game.play()
    assert game.policy.verdict.state == "finished"
    assert "baseline" in game.state.errors


# --- other slots, other sizes -------------------------------------------------------------------------


def test_with_fewer_slots_large_calculations_stand_in_line_again_the_youngest_first():
    game = mixed(9, 3, sizes=(LARGE_ATOMS,), test={"n_frames": 0})
    assert [request.id for request in game.open] == ["label-00000", "label-00001", "label-00002"]
    assert in_line(game) == []
    game.move(4)
    assert [request.id for request in game.open] == ["label-00000"]
    assert in_line(game) == ["label-00001", "label-00002"]
    assert game.state.running("calculate") == 3
    assert game.policy.snapshot()["retries"] == 0
    assert [r.id for r in game.finish(game.open[0])] == ["label-00001"]
    game.play()
    assert game.policy.verdict.state == "finished"


def test_one_that_stands_in_line_again_may_be_answered_by_the_database():
    game = mixed(9, 3, sizes=(LARGE_ATOMS,))
    second = game.of("calculate")[1]
    game.move(4)
    assert second.id not in game.policy.open_requests
    found = game.state.find(second.id)
    game.answer(found)
    assert game.state.n_own_labels == 1
    assert in_line(game) == ["label-00002"]
    assert game.state.running("calculate") == 2


def test_those_of_one_slot_keep_it_where_slots_are_fewer():
    game = mixed(9, 3, calculation=table(3, least=1000))
    assert len(game.open) == 4
    game.move(2)
    assert len(game.open) == 4
    assert game.state.free == {"shared": -2}
    assert in_line(game) == []


def test_another_table_counts_at_once_also_for_what_is_open_or_waits():
    game = waiting()
    new = game.change_config(calculation={"nodes_by_size": [[0, 1], [80, 1]]})
    assert {request.slots for request in [*game.open, *game.state.line]} == {1}
    assert "label-00003" in {request.id for request in new}
    game.play()
    assert game.policy.verdict.state == "finished"


def test_other_pools_take_those_in_line_along():
    game = waiting()
    game.move({"gpu": 1, "cpu": 3})
    assert {request.pool for request in [*game.open, *game.state.line]} == {"cpu"}
    game.play()
    assert game.policy.verdict.state == "finished"


@pytest.mark.parametrize("open_first", [False, True])
def test_a_calculation_for_which_there_are_never_slots_enough_ends_the_campaign_with_the_reason(open_first):
    # A site that has too few is refused before anything begins; the policy does not wait for ever either.
    game = mixed(4 if open_first else 2, 3, sizes=(LARGE_ATOMS,) if not open_first else (3, 9))
    if open_first:
        game.move(2)
        game.play()
    assert game.policy.verdict.state == "failed"
    assert "needs 3 slots at once" in game.policy.verdict.reason
    assert "shared has 2" in game.policy.verdict.reason
    # With more of them it goes on.
    game.change(capacity={"shared": 3}, pool_of=LAPTOP, go_on=True)
    game.play()
    assert game.policy.verdict.state == "finished"


def test_reference_dynamics_for_which_there_are_never_slots_enough_are_named_too():
    game = mixed(2, 3, sizes=(LARGE_ATOMS,), n_initial=0, n_imported=4, test={"n_frames": 10})
    game.play()
    assert game.policy.verdict.state == "failed"
    assert "needs 3 slots at once" in game.policy.verdict.reason


# --- in any order -------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(options=campaigns(large=True), seed=st.integers(0, 2**32), data=st.data())
def test_campaigns_that_go_on_with_other_slots_finish_and_replay_to_the_same(options, seed, data):
    # What holds at all times, that nobody is starved among it, is checked by the game after every event.
    game = Game(**options)
    replayed = ActiveLearning(game.opened)
    replayed.start()
    chance = Chance(seed, {"fails": 0.1, "with its block": 0.7})
    most = max(slots for _, slots in game.config.calculation.nodes_by_size)
    calculates = game.state.pool_of["calculate"]
    n_moves = data.draw(st.integers(0, 3))
    moments = {data.draw(st.integers(1, 60)) for _ in range(n_moves)}
    while game.policy.verdict is None:
        assert len(game.events) < 6000
        if len(game.events) in moments:
            least = {pool: most if pool == calculates else 1 for pool in game.state.capacity}
            capacity = {pool: data.draw(st.integers(n, n + 4)) for pool, n in least.items()}
            game.change(capacity=capacity, pool_of=options["pool_of"])
        else:
            chance.step(game)
        replayed.handle(game.events[-1])
        assert replayed.state == game.state
    assert game.policy.verdict.state == "finished"
    assert game.n_made == game.config.stop.max_labels


def test_the_first_event_carries_the_sizes_of_all_structures():
    values = opened(sizes=(3, 9)).values
    assert [one["n_atoms"] for one in values["start_frames"]] == [3, 9]
    assert all(one["n_electrons"] == 10 * one["n_atoms"] for one in values["initial_frames"])


# --- pools --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_sampling", "n_parallel", "running"), [(3, 9, 3), (3, 2, 2), (1, 9, 1)])
def test_sampling_may_use_every_slot_of_a_pool_of_its_own(n_sampling, n_parallel, running):
    pool_of = {**WORKSTATION, "dynamics": "cores"}
    game = Game(
        pools={"gpu": 1, "cpu": 2, "cores": n_sampling},
        pool_of=pool_of,
        sampling={"n_parallel": n_parallel, "n_trajectories": 12},
    ).play_to_committee(0, hold=["dynamics"])
    assert game.kinds() == {"dynamics": running}
    assert game.state.sampling_slots == n_sampling
    for number in range(9):
        end_run(game, game.of("dynamics")[0].args["trajectory"], f"audit-{number}")
    # However many audits wait, no slot of it would be of use for them.
    assert game.kinds() == {"dynamics": running, "calculate": 2}
    assert game.state.sampling_slots == n_sampling


@pytest.mark.parametrize("alone", ["train", "score", "dynamics", "calculate"])
def test_any_kind_of_task_may_have_a_pool_of_its_own(alone):
    along = {
        "train": ["train-baseline", "refit"],
        "score": ["choose", "evaluate"],
        "calculate": ["reference-dynamics"],
    }
    pool_of = {**LAPTOP, **dict.fromkeys([alone, *along.get(alone, [])], "own")}
    game = Game(
        pools={"shared": 2, "own": 2},
        pool_of=pool_of,
        start_model=True,
        test={"n_frames": 20, "random_baseline": True},
    ).play()
    assert game.policy.verdict.state == "finished"
    assert {request.kind: request.pool for request in game.asked} == {
        kind: pool_of[kind] for kind in {request.kind for request in game.asked}
    }
    assert "baseline" in game.state.errors


def test_the_four_groups_of_tasks_in_four_pools_wait_for_nobody_else():
    names = {"train": "t", "train-baseline": "t", "refit": "t", "score": "i", "choose": "i", "evaluate": "i"}
    pool_of = {**names, "dynamics": "s", "calculate": "c", "reference-dynamics": "c"}
    game = Game(pools=dict.fromkeys("tisc", 1), pool_of=pool_of)
    game.play_to_committee(0, hold=["dynamics"])
    game.finish(game.of("dynamics")[0], others=[frame(name) for name in "abc"])
    game.state.n_labels_at_start = -100
    game.finish(game.of("score")[0])
    assert {request.pool for request in game.open} == set("tisc")
