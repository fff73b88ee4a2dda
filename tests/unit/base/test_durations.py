"""Walltimes."""

from __future__ import annotations

import pytest

from fff.base.durations import seconds
from fff.base.errors import ConfigError

GOOD = {
    "90s": 90,
    "30m": 1800,
    "2h": 7200,
    "1d": 86400,
    "1.5h": 5400,
    "1h30m": 5400,
    "1d2h3m4s": 93784,
    " 2h ": 7200,
    "60s": 60,
    "1m": 60,
    "1:30:00": 5400,
    "0:01:00": 60,
    "1:30": 5400,
    "72:00:00": 259200,
    "2-12:00:00": 216000,
    "1-00:00": 86400,
    "00:01": 60,
}
BAD = [
    "",
    " ",
    "1",
    "90",
    "2 h",
    "h",
    "1x",
    "2h!",
    "-2h",
    "1e3s",
    "inf",
    "nan",
    ":30",
    "1:2:3",
    "1:30:00:00",
    "1-2h",
    "soon",
    "2H",
    "٣h",
    "9" * 5000 + "h",
    "9" * 5000 + ":00",
]


@pytest.mark.parametrize(("text", "expected"), GOOD.items())
def test_times_are_read_as_people_and_batch_systems_write_them(text, expected):
    assert seconds(text, "--walltime") == expected


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:12]))
def test_what_is_no_time_is_refused_with_examples(text):
    with pytest.raises(ConfigError, match="is no time") as caught:
        seconds(text, "--walltime")
    assert caught.value.hint == "Write 90s, 30m, 2h, 1d or 1:30:00."


@pytest.mark.parametrize("text", ["0s", "59s", "0.9m", "0:00:59", "0:00"])
def test_less_than_a_minute_is_refused_with_the_bound(text):
    with pytest.raises(ConfigError, match=r"it must be at least 60 s\."):
        seconds(text, "--walltime")
