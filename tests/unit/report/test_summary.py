"""The summary at the end of a campaign."""

from __future__ import annotations

from typing import Any

import pytest

from fff.report.summary import summary_table


def snapshot(**values: Any) -> dict[str, Any]:
    return {
        "audits": {"made": 4, "passed": 3, "most_in_a_row": 2},
        "errors": {},
        "first_failures": {},
        "round": 0,
        "set_aside": {},
        "usage": {"elapsed_s": 9.0, "busy_fraction": {"shared": 0.5}, "held_back_slot_s": 1.0, "by_kind": {}},
        **values,
    }


@pytest.mark.parametrize(
    ("values", "has_test_set", "why"),
    [
        ({}, False, "no test set was asked for"),
        ({}, True, "no committee was measured on the test set yet"),
        ({"round": None}, True, "no committee was complete yet"),
        ({"first_failures": {"evaluate": "no memory"}}, True, "no memory"),
    ],
)
def test_why_no_error_is_known_is_one_reason(values, has_test_set, why):
    first = summary_table(snapshot(**values), has_test_set=has_test_set).splitlines()[0]
    assert first == f"No error on a test set is known: {why}" + (
        " (test.n_frames is 0)." if not has_test_set else "."
    )


def test_audits_and_idle_workers_are_explained():
    said = summary_table(snapshot(), has_test_set=True)
    assert "Audits: 3 of 4 passed (the reference checks the last frame of a run of dynamics)" in said
    assert "the best trajectory passed 2 one after the other" in said
    assert "left idle until a newer committee chooses labels (calculation.max_ahead): 1 s" in said
