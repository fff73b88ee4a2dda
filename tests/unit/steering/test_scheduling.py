"""The rules of scheduling: who gets a free slot."""

from __future__ import annotations

import itertools

import pytest

from fff.steering.active_learning.state import Audit
from tests.support.playing_campaigns import Game, frame


def sampling(pools=None, **options) -> Game:
    """Return a game with a committee, runs of dynamics open, and nothing else."""
    options = {"sampling": {"n_parallel": 2, "n_trajectories": 12}, **options}
    game = Game(pools=pools or {"gpu": 1, "cpu": 6}, **options).play_to_committee(0, hold=["dynamics"])
    assert set(game.kinds()) == {"dynamics"}
    return game


def audit(game: Game, name: str) -> None:
    """Have a run end in this frame, with nothing else."""
    game.finish(game.of("dynamics")[0], last=frame(name), others=[])


def meet(game: Game, *names: str) -> None:
    """Have a run end that met these frames; nothing of it is audited."""
    game.finish(game.of("dynamics")[0], steps=0, others=[frame(name) for name in names])


# --- slots of sampling and calculation ----------------------------------------------------------------


@pytest.mark.parametrize(("waiting", "change"), [(0, 1), (1, 1), (2, 0), (3, 0), (4, 0), (5, -1), (6, -1)])
def test_a_slot_moves_to_calculation_when_many_audits_wait_and_back_when_few_do(waiting, change):
    game = sampling(queue={"length": 3, "tolerance": 1})
    game.state.sampling_slots = 3
    game.state.audits = [None] * waiting
    game.policy._scheduler.move_slots()
    assert game.state.sampling_slots == 3 + change


@pytest.mark.parametrize(("slots", "waiting", "after"), [(1, 9, 1), (5, 0, 5)])
def test_neither_sampling_nor_calculation_gives_its_last_slot_away(slots, waiting, after):
    game = sampling(queue={"length": 3, "tolerance": 1})
    game.state.sampling_slots = slots
    game.state.audits = [None] * waiting
    game.policy._scheduler.move_slots()
    assert game.state.sampling_slots == after


@pytest.mark.parametrize(
    ("n_cpu", "n_parallel", "slots"), [(6, 2, 2), (6, 9, 5), (2, 9, 1), (2, 1, 1), (1, 1, 1), (1, 9, 1)]
)
def test_sampling_begins_with_as_many_slots_as_it_may_use(n_cpu, n_parallel, slots):
    # Before the first event moves one: a state without any audit has few waiting.
    game = Game(
        pools={"gpu": 1, "cpu": n_cpu},
        sampling={"n_parallel": n_parallel, "n_trajectories": 12},
        queue={"length": 1, "tolerance": 1},
    )
    assert game.state.sampling_slots == slots


def test_of_two_slots_each_has_one_whatever_waits():
    game = sampling({"gpu": 1, "cpu": 2})
    for waiting in (0, 9):
        game.state.audits = [None] * waiting
        game.policy._scheduler.move_slots()
        assert game.state.sampling_slots == 1
    game.state.audits = []


def test_the_only_slot_is_lent_to_calculation_and_no_more_than_that():
    game = sampling({"gpu": 1, "cpu": 1})
    for waiting, slots in ((9, 0), (9, 0), (0, 1), (0, 1)):
        game.state.audits = [None] * waiting
        game.policy._scheduler.move_slots()
        assert game.state.sampling_slots == slots


def test_the_only_slot_of_a_pool_moves_too():
    game = sampling({"gpu": 1, "cpu": 1}, queue={"length": 2, "tolerance": 0})
    assert game.state.sampling_slots == 1
    for name in ("a", "b"):
        audit(game, name)
        assert game.kinds() == {"dynamics": 1}
    audit(game, "c")
    assert game.state.sampling_slots == 0
    assert game.kinds() == {"calculate": 1}
    game.finish(game.open[0])
    assert (len(game.state.audits), game.kinds()) == (1, {"calculate": 1})
    game.finish(game.open[0])
    assert game.kinds() == {"dynamics": 1}


def test_slots_move_with_every_event():
    game = sampling({"gpu": 1, "cpu": 6}, queue={"length": 1, "tolerance": 0})
    assert game.state.sampling_slots == 5
    game.state.audits = [Audit("x:0", "s-x", 0, 0, 10, "member:round-000:0", 0)] * 2
    game.policy._calculator._drop_known = lambda: None
    game.policy._calculator._has_work = lambda: False
    meet(game)
    assert game.state.sampling_slots == 4


def test_beyond_its_slots_sampling_waits_for_calculation():
    game = sampling({"gpu": 1, "cpu": 4}, sampling={"n_parallel": 3, "n_trajectories": 12})
    game.state.sampling_slots = 1
    audit(game, "a")
    assert game.kinds() == {"dynamics": 3, "calculate": 1}
    game.state.sampling_slots = 0
    audit(game, "b")
    assert game.kinds() == {"dynamics": 2, "calculate": 2}


def test_sampling_takes_what_calculation_does_not_need():
    game = sampling({"gpu": 1, "cpu": 4}, sampling={"n_parallel": 4, "n_trajectories": 12})
    assert game.state.sampling_slots == 3
    assert game.kinds() == {"dynamics": 4}


def test_calculation_takes_what_sampling_does_not_need():
    game = sampling({"gpu": 1, "cpu": 3}, sampling={"n_parallel": 1, "n_trajectories": 12})
    game.state.sampling_slots = 2
    for name in ("a", "b", "c"):
        audit(game, name)
    assert game.kinds() == {"dynamics": 1, "calculate": 2}


# --- accelerators -------------------------------------------------------------------------------------


def test_inference_goes_before_training():
    game = sampling({"gpu": 1, "cpu": 6})
    meet(game, "a", "b", "c")
    game.state.n_labels_at_start = -100
    for kind in ("score", "choose"):
        assert [r.kind for r in game.open if r.pool == "gpu"] == [kind]
        game.finish(game.of(kind)[0])
    assert [r.kind for r in game.open if r.pool == "gpu"] == ["train"]


def test_inference_of_a_new_committee_goes_before_the_training_of_the_next():
    game = sampling({"gpu": 1, "cpu": 6})
    for number in range(4):
        audit(game, f"busy-{number}")
    meet(game, "a", "b", "c")
    game.state.n_labels_at_start = -100
    game.play_to_committee(1, hold=["dynamics", "calculate"])
    # The next round is due already.
    game.state.n_labels_at_start = -100
    for kind in ("score", "choose"):
        assert [(r.kind, r.args["round"]) for r in game.open if r.pool == "gpu"] == [(kind, 1)]
        game.finish(game.of(kind)[0])
    assert [(r.kind, r.args["round"]) for r in game.open if r.pool == "gpu"] == [("train", 2)]


def test_a_refit_goes_before_all_else_on_its_pool():
    game = Game(pools=2, start_model=True, n_imported=4)
    assert game.open[0].kind == "refit"


def test_choosing_goes_before_scoring():
    game = sampling({"gpu": 1, "cpu": 6})
    meet(game, "a", "b", "c")
    meet(game, "d", "e", "f")
    game.finish(game.of("score")[0])
    assert [r.kind for r in game.open if r.pool == "gpu"] == ["choose"]


def test_evaluation_waits_for_scoring_and_goes_before_training():
    game = Game(pools={"gpu": 1, "cpu": 6}, test_files=["test/given.npz"])
    game.play(
        lambda game: len(game.of("train")) and game.of("train")[0].args["member"] == 2, hold=["dynamics"]
    )
    meet(game, "a", "b", "c")
    game.state.n_labels_at_start = -100
    game.finish(game.of("train")[0])
    for kind in ("score", "choose", "evaluate"):
        assert [r.kind for r in game.open if r.pool == "gpu"] == [kind]
        game.finish(game.of(kind)[0])
    assert [r.kind for r in game.open if r.pool == "gpu"] == ["train"]


def test_on_accelerators_of_their_own_all_members_train_at_once():
    game = Game(pools={"gpu": 3, "cpu": 2}).play(lambda game: game.of("train"))
    assert game.kinds() == {"train": 3}


# --- a pool that all share ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_slots", [2, 3, 4])
def test_training_leaves_a_slot_of_a_shared_pool_to_the_others(n_slots):
    game = Game(pools=n_slots, committee={"size": 8}, stop={"max_labels": 12}, test={"n_frames": 200})
    while not game.of("train"):
        game.finish(game.of("calculate")[0])
    while len(game.of("train")) < n_slots - 1:
        game.finish(game.of("reference-dynamics")[0])
    assert game.kinds() == {"train": n_slots - 1, "reference-dynamics": 1}
    game.finish(game.of("reference-dynamics")[0])
    assert game.kinds() == {"train": n_slots - 1, "reference-dynamics": 1}


def test_trainings_of_the_comparison_leave_a_slot_too():
    game = Game(pools=3, committee={"size": 8}, test={"n_frames": 10, "random_baseline": True})
    game.play(lambda game: len(game.of("train-baseline")) == 3, hold=["train-baseline"])
    game.policy._tester._plan("testset", 100)
    game.finish(game.open[0])
    assert game.kinds() == {"train-baseline": 2, "reference-dynamics": 1}
    game.finish(game.of("reference-dynamics")[0])
    assert game.kinds() == {"train-baseline": 2, "reference-dynamics": 1}


def test_training_takes_a_slot_that_nobody_else_wants():
    game = Game(pools=3, committee={"size": 8}).play(lambda game: game.of("train"), hold=["train"])
    assert game.kinds() == {"train": 3}
    # When one of them is done there is a model to sample with: the others get their slot back.
    game.finish(game.of("train")[0])
    assert game.kinds() == {"train": 2, "dynamics": 1}


def test_trainings_take_turns_with_the_others_on_a_single_slot():
    game = Game(pools=1, committee={"size": 4}, stop={"max_labels": 12}, test={"n_frames": 100})
    kinds = []
    while not game.state.committee:
        (request,) = game.open
        kinds.append(request.kind)
        game.finish(request)
    first = kinds.index("train")
    turns = kinds[first:]
    assert turns.count("train") == 4
    assert all({a, b} != {"train"} for a, b in itertools.pairwise(turns))
    assert turns[::2] == ["train"] * 4


def test_comparison_trainings_take_turns_on_a_single_slot():
    game = Game(pools=1, test={"n_frames": 10, "random_baseline": True})
    game.play(lambda game: game.of("train-baseline"))
    game.policy._tester._plan("testset", 100)
    kinds = []
    for _ in range(6):
        kinds.append(game.open[0].kind)
        game.finish(game.open[0])
    assert kinds == ["train-baseline", "reference-dynamics"] * 3
    game.play()
    assert game.policy.verdict.state == "finished"
    assert "baseline" in game.state.errors


def test_a_single_slot_is_trained_on_without_turns_when_nobody_else_wants_it():
    game = Game(pools=1).play(lambda game: game.of("train"))
    game.fail(game.open[0])
    assert game.kinds() == {"train": 1}


@pytest.mark.parametrize("pools", [1, 2, 3, {"gpu": 1, "cpu": 1}, {"gpu": 2, "cpu": 3}])
def test_every_slot_is_used_while_there_is_work_for_it(pools):
    game = Game(pools=pools, test={"n_frames": 2000}, stop={"max_labels": 12})
    for _ in range(60):
        cpu_pool = game.state.pool_of["calculate"]
        assert game.state.free[cpu_pool] == 0
        game.finish(game.open[0])


def test_reference_dynamics_fill_what_is_left():
    game = Game(pools={"gpu": 1, "cpu": 6}, test={"n_frames": 30})
    assert game.kinds() == {"calculate": 4, "reference-dynamics": 2}
    game = sampling({"gpu": 1, "cpu": 4}, test={"n_frames": 0})
    game.policy._tester._plan("testset", 30)
    audit(game, "a")
    assert game.kinds() == {"dynamics": 2, "calculate": 1, "reference-dynamics": 1}


def test_each_kind_of_task_goes_to_its_pool():
    game = Game(
        pools={"gpu": 2, "cpu": 3}, start_model=True, test={"n_frames": 10, "random_baseline": True}
    ).play()
    pools = {(request.kind, request.pool) for request in game.asked}
    assert pools == {
        ("train", "gpu"),
        ("train-baseline", "gpu"),
        ("refit", "gpu"),
        ("score", "gpu"),
        ("choose", "gpu"),
        ("evaluate", "gpu"),
        ("dynamics", "cpu"),
        ("calculate", "cpu"),
        ("reference-dynamics", "cpu"),
    }
    agents = {(request.kind, request.agent) for request in game.asked}
    assert agents == {
        ("train", "Trainer"),
        ("train-baseline", "Trainer"),
        ("refit", "Trainer"),
        ("score", "Selector"),
        ("choose", "Selector"),
        ("evaluate", "Selector"),
        ("dynamics", "Sampler"),
        ("calculate", "Calculator"),
        ("reference-dynamics", "Calculator"),
    }


def test_the_test_set_has_one_slot_from_the_first_labels_on():
    game = Game(pools=3, test={"n_frames": 30})
    game.play(lambda game: game.state.initial_done)
    assert game.of("reference-dynamics", purpose="testset")
    game.play(lambda game: "round-000" in game.state.errors)
    assert not game.state.budget_spent


def test_a_single_slot_is_not_given_to_the_test_set_while_others_have_work():
    game = Game(pools=1, test={"n_frames": 30}).play(lambda game: game.state.budget_spent)
    assert "reference-dynamics" not in {request.kind for request in game.asked}
    game.play()
    assert len(game.state.test_files) == 3


def started_with_a_test_set(n_cpu: int = 3, **options) -> Game:
    """Return a game in which sampling wants every slot and reference dynamics wait."""
    sampling = {"n_parallel": 9, "n_trajectories": 12}
    return Game(pools={"gpu": 3, "cpu": n_cpu}, n_imported=4, start_model=True, sampling=sampling, **options)


def test_the_test_set_takes_one_slot_from_sampling_and_no_second():
    game = started_with_a_test_set(test={"n_frames": 30})
    assert game.kinds()["reference-dynamics"] == 1
    assert game.kinds()["dynamics"] == 2
    game.finish(game.of("reference-dynamics")[0])
    assert [request.id for request in game.of("reference-dynamics")] == ["testset-0001"]
    assert game.kinds()["dynamics"] == 2


def test_the_test_set_takes_one_of_two_slots_and_not_the_only_one():
    assert started_with_a_test_set(2, test={"n_frames": 30}).kinds()["reference-dynamics"] == 1
    assert "reference-dynamics" not in started_with_a_test_set(1, test={"n_frames": 30}).kinds()


def test_the_random_frames_of_the_comparison_take_no_slot_from_sampling():
    game = started_with_a_test_set(
        test={"n_frames": 10, "random_baseline": True}, test_files=["test/given.npz"]
    )
    assert game.kinds()["dynamics"] == 3
    assert game.of("reference-dynamics") == []


def test_initial_labels_come_before_the_test_set():
    game = Game(pools={"gpu": 1, "cpu": 3}, test={"n_frames": 30})
    assert game.kinds() == {"calculate": 3}
