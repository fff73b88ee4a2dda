"""Failures are counted by their cause."""

import time

from fff.data.events import Event
from fff.report.failures import LEFT_OUT, LONGEST_REASON, Failures


def failed(number, message, kind="calculate", failure_class="structure", **values):
    return Event(
        number,
        kind,
        f"label-{number:05d}",
        outcome="failed",
        values={"failure_class": failure_class, "error": "E", "message": message, **values},
        times={"queued": 1.0 * number, "ended": 2.0 * number},
    )


def causes(*events):
    made = Failures()
    for event in events:
        made.add(event)
    return made.causes()


def test_failures_that_differ_in_numbers_and_paths_are_one_cause():
    first, second = causes(
        failed(1, "SCF of label-00001 took 251 cycles, energy -12.5 eV.\nmore", trace="tasks/a.failure.txt"),
        failed(2, "SCF of label-00002 took 253 cycles, energy 1.5e-3 eV.\nless", trace="tasks/b.failure.txt"),
        failed(3, "xtb was not found in /opt/a", failure_class="setup"),
    )
    assert (first.count, first.reason) == (2, "SCF of label-00001 took 251 cycles, energy -12.5 eV.")
    assert (first.first_seen, first.last_seen) == (2.0, 4.0)
    assert first.traces == ["tasks/a.failure.txt", "tasks/b.failure.txt"]
    assert (second.kind, second.failure_class, second.count) == ("calculate", "setup", 1)


def test_kinds_of_task_and_classes_of_failure_are_told_apart():
    assert (
        len(causes(failed(1, "no"), failed(2, "no", kind="train"), failed(3, "no", failure_class="retry")))
        == 3
    )


def test_the_trace_of_a_task_that_failed_again_is_named_once():
    (cause,) = causes(failed(1, "no", trace="tasks/a"), failed(1, "no", trace="tasks/a"))
    assert (cause.count, cause.traces) == (2, ["tasks/a"])


def test_a_failure_without_words_is_a_cause_too():
    (cause,) = causes(Event(1, "train", "train-r000-m0", outcome="failed"))
    assert (cause.failure_class, cause.reason, cause.count) == ("unknown", "no message", 1)


def test_a_member_that_does_not_count_is_told_of():
    trained = [Event(n, "train", f"train-r001-m{n}") for n in range(3)]
    sound = Event(4, "evaluate", "evaluate-round-001", values={"members_used": [0, 1, 2]})
    less = Event(5, "evaluate", "evaluate-round-001", values={"members_used": [0, 2]})
    assert causes(*trained, sound) == []
    (cause,) = causes(*trained, less)
    assert (cause.kind, cause.failure_class, cause.count) == ("evaluate", LEFT_OUT, 1)
    assert cause.reason == "one member gives no finite numbers on the test set and does not count"


def test_a_message_of_any_length_is_looked_at_in_no_time():
    began = time.process_time()
    (cause,) = causes(failed(1, "a" * 100_000), failed(2, "a" * 100_001))
    assert (cause.count, len(cause.reason)) == (2, LONGEST_REASON + 2)
    assert time.process_time() - began < 0.5
