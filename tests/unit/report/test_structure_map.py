"""The map of structures: features of one model only."""

from __future__ import annotations

import numpy as np

from fff.report.pictures.structure_map import draw_map
from fff.report.record import read_record
from tests.support.reported_campaigns import ReportedCampaign


def sources_in_map(run) -> set[str]:
    columns = {column.name: column.values for column in draw_map(read_record(run)).columns}
    return set(columns["source"])


def test_the_test_set_is_in_the_map_only_by_the_features_of_the_same_member(tmp_path):
    run = ReportedCampaign(tmp_path / "run").run
    assert "test" in sources_in_map(run)
    path = run.scores / "evaluate-round-002.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    # As of campaigns that kept those of whichever member arrived first.
    del kept["features_member"]
    np.savez(path, **kept)
    assert "test" not in sources_in_map(run)
    assert "The test set is not shown" in draw_map(read_record(run)).caption
