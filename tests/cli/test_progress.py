"""Progress without a terminal: a line at once, then one a minute, with the time left."""

import fff.cli.progress
from fff.cli.progress import progress


def test_a_line_a_minute_with_the_time_left(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(fff.cli.progress.time, "monotonic", lambda: now[0])
    with progress("Labelling", "structures") as tell:
        tell(10, 40, "")
        now[0] += 30
        tell(15, 40, "a.xyz: labelled")
        now[0] += 30
        tell(20, 40, "b.xyz: labelled")
    assert capsys.readouterr().err.splitlines() == [
        "Labelling: 10 of 40 structures",
        # Ten in a minute since this process began: what was done before says nothing of its pace.
        "Labelling: 20 of 40 structures, 2 min left, b.xyz: labelled",
    ]


def test_who_wants_quiet_hears_nothing(capsys):
    with progress("Labelling", "structures", quiet=True) as tell:
        tell(1, 2, "a")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_in_one_line_whatever_its_width(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for width in ("60", "120"):
        monkeypatch.setenv("COLUMNS", width)
        with progress("Labelling", "structures") as tell:
            tell(10, 40, "[a] 1")
            tell(20, 40, "cluster:H2O:3..6 (2): labelled")
        shown = capsys.readouterr().err
        assert "20 of 40 structures" in shown
