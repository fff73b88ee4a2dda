"""Six points of the kill test (`make kill-test`): two for each kind of process, in one campaign."""

from __future__ import annotations

import pytest

from tests.faults.kill import Chain, Point, Reference, differences

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]

SMALL = {"stop": {"max_labels": 13}, "sampling": {"n_frames": 4}}
POINTS = [
    Point("main", 4, "row", 0.004, cut=True),
    Point("server", 7, "work", 0.2),
    Point("worker", 12, "event", 0.002),
    Point("main", 18, "file", 0.01),
    Point("server", 24, "row", 0.002),
    Point("worker", 30, "work", 0.3),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Reference.made_in(tmp_path_factory.mktemp("undisturbed"), "serial", **SMALL)


@pytest.fixture(scope="module")
def chain(tmp_path_factory, undisturbed):
    chain = Chain(tmp_path_factory.mktemp("killed"), "serial", POINTS, **SMALL)
    assert chain.run() == []
    return chain


def test_a_campaign_that_is_killed_six_times_loses_nothing_and_leaves_nothing_behind(chain):
    assert chain.problems == [], chain.problems
    assert len(chain.hits) == len(POINTS)


def test_it_ends_with_the_labels_and_decisions_of_one_that_nobody_disturbed(chain, undisturbed):
    assert differences(chain, undisturbed) == []


def test_no_calculation_that_had_its_label_is_made_again(chain):
    began_again, _ = chain.repeated()
    assert began_again <= sum(any(r.startswith("label") for r in hit.running) for hit in chain.hits)
