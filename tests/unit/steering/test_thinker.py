"""The Thinker on real queues, with threads of the test as task server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from colmena.exceptions import TimeoutException
from colmena.models import FailureInformation, Result
from colmena.queue.base import QueueRole

from fff.base.errors import CampaignError
from fff.compute.queues import LocalQueues
from fff.compute.tasks import Call
from fff.data.events import CHANGED, Event, EventLog, read_events
from fff.steering.active_learning import ActiveLearning
from fff.steering.outbox import Outbox
from fff.steering.records import Agent, Request, Verdict
from fff.steering.thinker import RECENT_TASKS, CampaignThinker, Usage
from tests.support.playing_campaigns import answer, opened

pytestmark = pytest.mark.timeout(60)


# What the log for people says about the kinds of task that say something.
FEW: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1, "stop_reason": "max_epochs"},
    "dynamics": {"steps": 1, "reason": "completed", "others": []},
    "score": {},
    "calculate": {},
}


class Scripted:
    """A policy that asks for what it is told to, event by event, and then is over."""

    def __init__(self, *script: list[Request]) -> None:
        self._script = list(script)
        self.events: list[Event] = []
        self.verdict: Verdict | None = None
        self.open_requests: dict[str, Request] = {}
        self.live_models: set[str] = set()
        self.held_back = 0
        self.before_deciding: Callable[[Event], None] = lambda event: None

    def start(self) -> list[Request]:
        return self._next()

    def handle(self, event: Event) -> list[Request]:
        self.before_deciding(event)
        del self.open_requests[event.request]
        self.events.append(event)
        return self._next()

    def snapshot(self) -> dict[str, Any]:
        return {"round": None}

    def _next(self) -> list[Request]:
        requests = self._script.pop(0) if self._script else []
        self.open_requests |= {request.id: request for request in requests}
        if not self._script and not self.open_requests:
            self.verdict = Verdict("finished", "the script is over")
        return requests


class Hand:
    """Cargo that carries nothing and notes what it is asked to do."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []
        self.live: list[tuple[set[str], int]] = []

    def load(self, request: Request):
        self.log.append(("load", request.id))
        return Call(request.id, "nowhere", args=request.args, models=request.models), []

    def read_values(self, envelope):
        return dict(envelope["values"])

    def explain_loss(self, request: Request, call: Call, result: Result) -> dict[str, Any]:
        message = "" if result.failure_info is None else result.failure_info.exception
        values = {"failure_class": "retry", "error": "LostTask", "message": message}
        return {"outcome": "failed", "values": values}

    def note_model(self, request: Request, values) -> None:
        self.log.append(("note", request.id))

    def unload(self, request: Request, values, outcome: str) -> None:
        self.log.append(("unload", request.id, outcome))

    def release(self, call: Call) -> None:
        self.log.append(("release", call.request))

    def set_live(self, live, seq: int) -> None:
        self.live.append((set(live), seq))


def envelope(outcome: str = "done", **values: Any) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "values": values,
        "started": 10.0,
        "ended": 12.5,
        "worker": "node:1",
        "device": "cpu",
    }


@contextlib.contextmanager
def task_server(queues: LocalQueues, work: Callable[[Call, str], Any], n_workers: int = 1) -> Iterator[None]:
    """Play the task server: `work` gives an envelope, or an exception for a task that is lost."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                _, task = queues.get_task(timeout=0.05)
            except TimeoutException:
                continue
            task.deserialize()
            value = work(task.args[0], task.method)
            if isinstance(value, Exception):
                task.success = False
                task.failure_info = FailureInformation.from_exception(value)
            else:
                task.set_result(value, 0.0)
            task.serialize()
            queues.send_result(task)

    workers = [threading.Thread(target=serve, daemon=True) for _ in range(n_workers)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        done.set()
        for worker in workers:
            worker.join(10)


@pytest.fixture(autouse=True)
def no_long_wait(monkeypatch):
    """Agents look more often whether the campaign is over."""
    monkeypatch.setattr("fff.steering.thinker.WAIT_S", 0.02)


@pytest.fixture
def queues():
    made = LocalQueues(topics=get_args(Agent))
    yield made
    made.close()


@pytest.fixture
def log(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as made:
        made.append(Event(0, "opened"))
        yield made


def make_thinker(
    queues, log, policy, cargo=None, watch=lambda thinker: None, capacity=None, usage=None, **options
) -> CampaignThinker:
    usage = usage or Usage(capacity or {"cpu": 2, "gpu": 1})
    thinker = CampaignThinker(queues, policy, log, 1, cargo or Hand(), usage, watch, **options)
    # Both roles are played in this process.
    queues.set_role(QueueRole.ANY)
    return thinker


def request(name: str, agent: Agent = "Calculator", **options: Any) -> Request:
    kinds = {"Calculator": "calculate", "Trainer": "train", "Sampler": "dynamics", "Selector": "score"}
    return Request(name, kinds[agent], agent, "gpu" if agent == "Trainer" else "cpu", **options)


def run(thinker: CampaignThinker) -> None:
    thinker.begin(thinker.policy.start())
    thinker.run()


def test_each_request_reaches_a_worker_and_its_result_comes_back_as_an_event(queues, log):
    policy = Scripted(
        [request(f"{agent}-1", agent, args={"n": 1}) for agent in get_args(Agent)],
        [request("Sampler-2", "Sampler")],
    )
    seen = []

    def work(call: Call, method: str):
        seen.append((call.request, method, dict(call.args)))
        return envelope(answer=call.request, **FEW[method])

    with task_server(queues, work):
        run(make_thinker(queues, log, policy))
    assert sorted(seen) == [
        ("Calculator-1", "calculate", {"n": 1}),
        ("Sampler-1", "dynamics", {"n": 1}),
        ("Sampler-2", "dynamics", {}),
        ("Selector-1", "score", {"n": 1}),
        ("Trainer-1", "train", {"n": 1}),
    ]
    assert {event.request for event in policy.events} == {name for name, _, _ in seen}
    assert [event.seq for event in policy.events] == [1, 2, 3, 4, 5]
    for event in policy.events:
        assert event.values == {"answer": event.request, **FEW[event.kind]}
        assert (event.outcome, event.attempt, event.worker, event.device) == ("done", 1, "node:1", "cpu")
        assert (event.times["started"], event.times["ended"]) == (10.0, 12.5)
        assert event.times["queued"] > 1e9
    assert policy.verdict.state == "finished"


def test_an_event_is_in_the_log_before_the_policy_sees_it(queues, log):
    policy = Scripted([request("a"), request("b")], [request("c", "Trainer")])
    logged = []

    def look(event: Event) -> None:
        logged.append(read_events(log.path)[-1] == event)

    policy.before_deciding = look
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(make_thinker(queues, log, policy))
    assert logged == [True, True, True]
    assert read_events(log.path)[1:] == policy.events


def test_data_is_at_rest_and_what_travelled_is_released_before_the_event(queues, log):
    policy = Scripted([request("a")])
    cargo = Hand()
    before = []
    policy.before_deciding = lambda event: before.extend(cargo.log)
    with task_server(queues, lambda call, method: envelope("failed", failure_class="retry", message="no")):
        run(make_thinker(queues, log, policy, cargo))
    assert before == [("load", "a"), ("unload", "a", "failed"), ("release", "a")]


def test_live_models_are_told_with_the_event_after_which_they_are_so(queues, log):
    policy = Scripted([request("a")])
    policy.live_models = {"start"}

    def replace(event: Event) -> None:
        policy.live_models = {"member:round-000:0"}

    policy.before_deciding = replace
    cargo = Hand()
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(make_thinker(queues, log, policy, cargo))
    assert cargo.live == [({"start"}, 0), ({"member:round-000:0"}, 1)]


def test_a_lost_task_is_a_failure_that_may_be_retried(queues, log):
    policy = Scripted([request("a")])
    with task_server(queues, lambda call, method: RuntimeError("worker-lost")):
        run(make_thinker(queues, log, policy))
    (event,) = policy.events
    assert event.outcome == "failed"
    assert event.values["failure_class"] == "retry"
    assert event.values["error"] == "LostTask"
    assert "worker-lost" in event.values["message"]
    assert set(event.times) == {"queued"}


@pytest.mark.parametrize(
    ("attempt", "losses", "delay_s"),
    [(1, 0, 0.0), (2, 0, 2.0), (3, 0, 4.0), (6, 0, 32.0), (50, 0, 60.0), (1, 1, 2.0), (2, 1, 4.0)],
)
def test_a_request_that_is_tried_again_is_sent_after_a_while(
    queues, log, monkeypatch, attempt, losses, delay_s
):
    delays = []

    def put(self, request: Request, *, delay_s: float = 0.0) -> None:
        delays.append(delay_s)

    monkeypatch.setattr(Outbox, "put", put)
    thinker = make_thinker(queues, log, Scripted([]))
    thinker.begin([request("a", attempt=attempt, losses=losses)])
    assert delays == [delay_s]


def test_stop_comes_back_soon_although_tasks_run(queues, log):
    policy = Scripted([request("a"), request("b", "Trainer")], [request("c")])
    release = threading.Event()

    def work(call: Call, method: str):
        thinker.stop("asked to")
        thinker.stop("asked again")
        release.wait(20)
        return envelope(**FEW[method])

    thinker = make_thinker(queues, log, policy)
    started = time.monotonic()
    with task_server(queues, work):
        run(thinker)
        assert time.monotonic() - started < 10
        release.set()
    assert thinker.stop_reason == "asked to"
    assert thinker.error is None
    assert policy.verdict is None
    # A stop is no event.
    assert len(read_events(log.path)) == 1


def test_a_verdict_ends_the_run_although_tasks_are_open(queues, log):
    policy = Scripted([request("a"), request("b", "Trainer")])

    def judge(event: Event) -> None:
        policy.verdict = Verdict("failed", "for good")

    policy.before_deciding = judge
    release = threading.Event()

    def work(call: Call, method: str):
        if method == "train":
            release.wait(20)
        return envelope(**FEW[method])

    thinker = make_thinker(queues, log, policy)
    started = time.monotonic()
    with task_server(queues, work, n_workers=2):
        run(thinker)
        assert time.monotonic() - started < 10
        release.set()
    assert thinker.error is None


@pytest.mark.parametrize("where", ["load", "unload", "decide", "watch"])
def test_an_error_in_any_agent_ends_the_run_and_is_kept(queues, log, where, caplog):
    policy = Scripted([request("a")], [request("b")])
    cargo = Hand()

    def fail(*_: Any) -> None:
        msg = "no space left"
        raise OSError(msg)

    watch = fail if where == "watch" else lambda thinker: None
    if where == "decide":
        policy.before_deciding = fail
    elif where != "watch":
        setattr(cargo, where, fail)
    thinker = make_thinker(queues, log, policy, cargo, watch)

    def work(call: Call, method: str):
        if where == "watch":
            thinker.done.wait(20)
        return envelope(**FEW[method])

    with task_server(queues, work):
        run(thinker)
    assert isinstance(thinker.error, OSError)
    assert "no space left" in caplog.text


def test_usage_adds_up_what_was_busy(queues, log):
    policy = Scripted([request("a"), request("b", "Trainer")])

    flights = []

    def work(call: Call, method: str):
        flights.append(thinker.snapshot()["in_flight"])
        time.sleep(0.3)
        return envelope(**FEW[method]) if method == "train" else envelope("failed", message="no")

    thinker = make_thinker(queues, log, policy)
    before = time.time()
    with task_server(queues, work, n_workers=2):
        run(thinker)
    snapshot = thinker.snapshot()
    usage = snapshot["usage"]
    assert snapshot["round"] is None
    assert snapshot["in_flight"] == []
    flight = max(flights, key=len)[0]
    assert {**flight, "since": 0.0} in [
        {"request": name, "kind": kind, "pool": pool, "attempt": 1, "since": 0.0}
        for name, kind, pool in (("a", "calculate", "cpu"), ("b", "train", "gpu"))
    ]
    assert before <= flight["since"] <= time.time()
    assert usage["by_kind"] == {
        "calculate": {"tasks": 1, "failed": 1, "worker_s": 2.5},
        "train": {"tasks": 1, "failed": 0, "worker_s": 2.5},
    }
    assert usage["elapsed_s"] > 0.2
    assert 0 < usage["busy_fraction"]["cpu"] <= 0.51
    assert 0 < usage["busy_fraction"]["gpu"] <= 1.0
    assert usage["held_back_slot_s"] == 0.0
    assert 0 < snapshot["largest_message_bytes"] < 10_000


def test_a_stop_with_grace_takes_in_what_ends_within_it_and_sends_nothing_new(queues, log):
    policy = Scripted([request("a", "Calculator")], [request("b", "Calculator")])
    begun = threading.Event()
    sent = []

    def work(call: Call, method: str):
        sent.append(call.request)
        begun.set()
        time.sleep(0.3)
        return envelope(**FEW[method])

    def watch(thinker):
        if begun.is_set():
            thinker.stop("asked to", grace_s=30.0)

    thinker = make_thinker(queues, log, policy, watch=watch)
    with task_server(queues, work):
        run(thinker)
    assert sent == ["a"]
    assert [event.request for event in policy.events] == ["a"]
    assert list(policy.open_requests) == ["b"]


def test_a_second_stop_without_grace_ends_the_wait(queues, log):
    policy = Scripted([request("a", "Calculator")])
    begun, go_on = threading.Event(), threading.Event()

    def work(call: Call, method: str):
        begun.set()
        go_on.wait(20)
        return envelope(**FEW[method])

    def watch(thinker):
        if begun.is_set():
            thinker.stop("asked to", grace_s=0.0 if thinker.stop_reason else 30.0)

    thinker = make_thinker(queues, log, policy, watch=watch)
    with task_server(queues, work):
        run(thinker)
        assert policy.events == []
        go_on.set()


def test_after_a_stop_nothing_is_sent_although_much_waits(queues, log):
    names = [f"a{i}" for i in range(5)]
    policy = Scripted([request(name) for name in names], [request("b", "Trainer")])
    cargo = Hand()
    thinker = make_thinker(queues, log, policy, cargo)
    thinker.stop("asked before it began", grace_s=30.0)
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(thinker)
    assert cargo.log == []
    assert policy.events == []
    assert set(policy.open_requests) == set(names)
    assert thinker.stop_reason == "asked before it began"
    assert thinker.error is None


# --- what is no event -----------------------------------------------------------------------------------


def test_an_interrupted_task_is_no_event_and_stays_open(queues, log):
    policy = Scripted([request("a", "Trainer"), request("b", models=("start",))])
    cargo = Hand()
    begun = threading.Event()

    def work(call: Call, method: str):
        begun.set()
        # Both were asked to stop; one was done by then.
        return envelope("interrupted") if method == "train" else envelope(**FEW[method])

    def watch(thinker):
        if begun.is_set():
            thinker.stop("asked to", grace_s=30.0)

    thinker = make_thinker(queues, log, policy, cargo, watch=watch)
    started = time.monotonic()
    with task_server(queues, work, n_workers=2):
        run(thinker)
    # It does not wait for the end of the grace.
    assert time.monotonic() - started < 10
    assert "a" in policy.open_requests
    assert ("release", "a") in cargo.log
    assert not any(entry[:2] == ("unload", "a") for entry in cargo.log)
    assert "a" not in {event.request for event in read_events(log.path)}
    assert thinker.usage.tasks["train"] == 0
    assert thinker.error is None


def test_a_full_disk_ends_it_with_an_error_and_is_no_event(queues, log, caplog):
    policy = Scripted([request("a")])
    cargo = Hand()
    failure = {"failure_class": "disk", "error": "OSError", "message": "No space left on device"}
    thinker = make_thinker(queues, log, policy, cargo)
    with task_server(queues, lambda call, method: envelope("failed", **failure)):
        run(thinker)
    assert isinstance(thinker.error, CampaignError)
    assert thinker.error.message == "a found no space: No space left on device"
    assert thinker.error.hint == "Make room on that disk."
    assert policy.events == []
    assert set(policy.open_requests) == {"a"}
    assert not any(entry[0] == "unload" for entry in cargo.log)
    assert len(read_events(log.path)) == 1


def test_what_is_decided_between_two_sittings_is_in_the_log_before_the_policy_sees_it(queues, log):
    seen = []

    class Noting(Scripted):
        def handle(self, event: Event) -> list[Request]:
            if event.kind == CHANGED:
                seen.append((event, read_events(log.path)[-1] == event))
                return []
            return super().handle(event)

    policy = Noting([request("a")])
    thinker = make_thinker(queues, log, policy)
    change = Event(1, CHANGED, values={"restored": {}})
    thinker.record(change)
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(thinker)
    assert seen == [(change, True)]
    assert [event.seq for event in read_events(log.path)] == [0, 1, 2]
    assert thinker.seq == 3


def test_a_campaign_that_is_over_before_it_begins_ends_at_once(queues, log):
    policy = Scripted([])
    policy.verdict = Verdict("finished", "the script was over before")
    thinker = make_thinker(queues, log, policy)
    started = time.monotonic()
    with task_server(queues, lambda call, method: envelope()):
        run(thinker)
    assert time.monotonic() - started < 10
    assert thinker.error is None


# --- to have a file made again --------------------------------------------------------------------------


def test_a_request_whose_event_is_in_the_log_already_is_carried_out_without_another_event(queues, log):
    policy = Scripted([])
    cargo = Hand()
    thinker = make_thinker(queues, log, policy, cargo)
    watched = []
    with task_server(queues, lambda call, method: envelope(sha256="as it was")):
        values = thinker.ask(request("old", "Trainer"), lambda: watched.append(1))
    assert values == {"sha256": "as it was"}
    assert watched
    assert cargo.log == [("load", "old"), ("release", "old")]
    assert policy.events == []
    assert thinker.seq == 1
    assert len(read_events(log.path)) == 1


@pytest.mark.parametrize("loss", [False, True], ids=["failed", "lost"])
def test_a_request_that_cannot_be_carried_out_again_is_an_error(queues, log, loss):
    thinker = make_thinker(queues, log, Scripted([]))
    outcome = RuntimeError("worker-lost") if loss else envelope("failed", message="no such frame")
    with (
        task_server(queues, lambda call, method: outcome),
        pytest.raises(CampaignError, match=r"old could not be carried out again: .*(worker-lost|no such)"),
    ):
        thinker.ask(request("old", "Trainer"), lambda: None)


@pytest.mark.parametrize("n_losses", [1, 9, 10])
def test_a_file_is_made_again_though_the_block_is_lost_that_makes_it(queues, log, n_losses):
    thinker = make_thinker(queues, log, Scripted([]))
    answers = iter([envelope("failed", failure_class="lost", message="block gone")] * n_losses)
    with task_server(queues, lambda call, method: next(answers, envelope(sha256="made"))):
        if n_losses < 10:
            assert thinker.ask(request("old", "Trainer"), lambda: None) == {"sha256": "made"}
        else:
            with pytest.raises(CampaignError, match="old could not be carried out again: block gone"):
                thinker.ask(request("old", "Trainer"), lambda: None)


def test_a_stop_ends_the_wait_for_a_file_that_is_made_again(queues, log):
    thinker = make_thinker(queues, log, Scripted([]))
    release = threading.Event()

    def work(call: Call, method: str):
        release.wait(20)
        return envelope()

    with task_server(queues, work):
        assert thinker.ask(request("old", "Trainer"), lambda: thinker.stop("asked to", grace_s=30)) is None
        release.set()
    assert thinker.stop_reason == "asked to"


def test_a_file_that_is_not_made_again_since_the_campaign_stops_is_no_error(queues, log):
    thinker = make_thinker(queues, log, Scripted([]))
    with task_server(queues, lambda call, method: envelope("interrupted")):
        # The worker hears of the stop before this process has looked.
        assert thinker.ask(request("old", "Trainer"), lambda: None) is None


# --- the walltime ---------------------------------------------------------------------------------------


def experienced(**took_s: float) -> Usage:
    """Return usage in which tasks of these kinds took so long."""
    usage = Usage({"cpu": 2, "gpu": 1})
    for kind, seconds in took_s.items():
        for shorter in (0.5, 1.0, 0.1):
            times = {"started": 100.0, "ended": 100.0 + shorter * seconds}
            usage.add_task(Event(1, kind, "before", times=times))
    return usage


def test_what_would_not_end_before_the_walltime_is_held_and_the_rest_is_sent(queues, log):
    policy = Scripted([request("long", "Trainer"), request("short"), request("new", "Sampler")])
    cargo = Hand()
    usage = experienced(train=100.0, calculate=0.01)
    thinker = make_thinker(queues, log, policy, cargo, usage=usage, walltime_end=time.monotonic() + 50.0)
    started = time.monotonic()
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(thinker)
    # Of a kind that has not been met nothing is known: it is tried.
    assert {event.request for event in policy.events} == {"short", "new"}
    assert ("load", "long") not in cargo.log
    assert set(policy.open_requests) == {"long"}
    # Nothing else is left, so it does not wait for the walltime.
    assert time.monotonic() - started < 20
    assert thinker.stop_reason == "the walltime is near, and what is left to do would not end before it"
    assert thinker.is_stopped_by_walltime
    assert thinker.error is None


def test_what_comes_after_a_held_request_is_still_sent(queues, log):
    policy = Scripted(
        [request("a"), request("long", "Trainer")], [request("b")], [request("c"), request("d")]
    )
    thinker = make_thinker(
        queues, log, policy, usage=experienced(train=100.0), walltime_end=time.monotonic() + 50.0
    )
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(thinker)
    assert [event.request for event in policy.events] == ["a", "b", "c", "d"]
    assert set(policy.open_requests) == {"long"}


def test_after_the_end_of_the_walltime_nothing_is_sent(queues, log):
    policy = Scripted([request("a"), request("b", "Sampler")])
    cargo = Hand()
    thinker = make_thinker(queues, log, policy, cargo, walltime_end=time.monotonic() - 1.0)
    with task_server(queues, lambda call, method: envelope(**FEW[method])):
        run(thinker)
    assert cargo.log == []
    assert thinker.stop_reason.startswith("the walltime is near")


def test_what_a_task_may_take_is_told_by_the_longest_of_the_last_ones():
    usage = Usage({"cpu": 1})
    assert usage.expected_s("train") == 0.0

    def add(seconds: float, outcome: str = "done") -> None:
        usage.add_task(
            Event(1, "train", "x", outcome=outcome, times={"started": 5.0, "ended": 5.0 + seconds})
        )

    add(70.0)
    add(3.0)
    # One that failed may have failed early, or hung.
    add(900.0, outcome="failed")
    assert usage.expected_s("train") == 70.0
    assert usage.expected_s("calculate") == 0.0
    for _ in range(RECENT_TASKS):
        add(4.0)
    assert usage.expected_s("train") == 4.0


# --- several sittings -----------------------------------------------------------------------------------


def test_the_time_of_earlier_sittings_counts():
    before = {
        "elapsed_s": 100.0,
        "busy_s": {"cpu": 60.0, "gone": 5.0},
        "slot_s": {"cpu": 200.0, "gone": 50.0},
        "held_back_slot_s": 7.0,
    }
    usage = Usage({"cpu": 4}, before)
    summary = usage.summary()
    assert summary["elapsed_s"] == pytest.approx(100.0, abs=1.0)
    assert summary["busy_fraction"]["cpu"] == pytest.approx(0.3, abs=0.01)
    assert summary["slot_s"]["cpu"] == pytest.approx(200.0, abs=4.0)
    assert summary["held_back_slot_s"] == 7.0
    assert set(summary["busy_s"]) == {"cpu"}
    # What one sitting writes the next one reads.
    assert Usage({"cpu": 4}, summary).summary()["busy_s"] == summary["busy_s"]


def test_only_workers_that_are_there_count_where_they_come_and_go(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    policy = Scripted([request("a"), request("b"), request("c")])
    policy.start()
    usage = Usage({"cpu": 4, "gpu": 1})

    def after(seconds: float) -> None:
        nonlocal now
        now += seconds
        usage.advance(policy)

    usage.note_pools({"cpu": {"workers": 0, "jobs_waiting": 2}, "gpu": {"workers": 1}})
    after(50.0)
    assert usage.summary()["slot_s"] == {"cpu": 0.0, "gpu": 50.0}
    assert usage.pools(policy)["cpu"] == {"slots": 4, "workers": 0, "asked_for": 3, "jobs_waiting": 2}
    usage.note_pools({"cpu": {"workers": 2}, "gpu": {"workers": 1}})
    after(10.0)
    # Three tasks are asked for; two workers do them.
    assert usage.summary()["busy_s"]["cpu"] == 20.0
    assert usage.busy_fraction() == {"cpu": 1.0, "gpu": 0.0}


def test_a_task_keeps_all_of_its_slots_busy(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    policy = Scripted([request("a", slots=3), request("b")])
    policy.start()
    usage = Usage({"cpu": 8})
    now = 10.0
    usage.advance(policy)
    assert usage.summary()["busy_s"] == {"cpu": 40.0}


def test_what_is_no_task_says_nothing_about_the_time():
    usage = Usage({"cpu": 1})
    usage.add_task(Event(1, CHANGED, times={"started": 1.0, "ended": 9.0}))
    usage.add_task(Event(0, "opened"))
    assert usage.summary()["by_kind"] == {}


def test_slots_that_are_held_back_are_accounted_for(queues, log):
    policy = Scripted([request("a", "Trainer")])
    policy.held_back = 2

    def work(call: Call, method: str):
        time.sleep(0.3)
        return envelope(**FEW[method])

    thinker = make_thinker(queues, log, policy)
    with task_server(queues, work):
        run(thinker)
    # Two slots for 0.3 s.
    assert thinker.usage.held_back_s >= 0.5


def test_a_campaign_is_played_to_its_end_and_its_log_replays_to_the_same_state(queues, log, tmp_path):
    event = opened(3, start_model=True, test={"n_frames": 10})
    policy = ActiveLearning(event)
    config = policy.state.config
    requests: dict[str, Request] = {}

    class Noting(Hand):
        def load(self, request: Request):
            requests[request.id] = request
            return super().load(request)

    with EventLog(tmp_path / "campaign.jsonl") as campaign_log:
        campaign_log.append(event)
        thinker = make_thinker(queues, campaign_log, policy, Noting(), capacity={"shared": 3})
        with task_server(
            queues, lambda call, method: envelope(**answer(requests[call.request], config)), n_workers=3
        ):
            run(thinker)
    assert thinker.error is None
    assert policy.verdict.state == "finished"
    first, *events = read_events(tmp_path / "campaign.jsonl")
    replayed = ActiveLearning(first)
    replayed.start()
    for event in events:
        replayed.handle(event)
    assert replayed.state == policy.state
