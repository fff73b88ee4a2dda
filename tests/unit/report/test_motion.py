"""Dynamics over time."""

import numpy as np
import pytest

from fff.report.drawing import Drawing
from fff.report.motion import draw_motion, drift, read_motion

TABLE = """frame,step,time,temperature,potential_energy,total_energy,deviation
,,fs,K,eV,eV,eV/Å
1,0,0,300,-10.5,-10.25,
2,10,5,310,-10.4,-10.25,0.25
"""


def test_a_table_is_read_and_drawn_with_and_without_a_deviation(tmp_path):
    (tmp_path / "md.csv").write_text(TABLE)
    columns = read_motion(tmp_path / "md.csv")
    assert columns["time"].tolist() == [0, 5]
    assert np.isnan(columns["deviation"][0])
    for threshold, panels in ((None, 2), (1.0, 3)):
        figure = draw_motion(columns, threshold)
        assert len(figure.axes) == panels
        assert Drawing("md", "", figure, []).png().startswith(b"\x89PNG")


def test_the_drift_is_the_slope_of_a_straight_line():
    time = np.arange(0.0, 2000.0, 10.0)
    slope, scatter = drift(time, -100.0 + 2e-6 * time)
    assert slope == pytest.approx(2e-3)
    assert scatter == pytest.approx(0.0, abs=1e-9)


def test_of_two_frames_no_drift_is_known():
    time = np.array([0.0, 10.0])
    assert drift(time, time) == (None, None)
