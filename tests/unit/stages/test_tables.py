from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fff.stages import Table

WHOLE = "epoch,loss,mae\n,,eV/Å\n1,0.5,\n2,0.25,1e-07\n4,0.125,3\n"


@pytest.fixture
def table():
    return Table("history.csv", {"epoch": "", "loss": "", "mae": "eV/Å"})


def _fill(table):
    table.append(1, 0.5, None)
    table.append(2, 0.25, 1e-7)
    table.append(4, 0.125, 3.0)


def test_names_units_and_rows(table):
    _fill(table)
    assert table.text() == WHOLE
    assert table.last == 4


def test_the_file_grows_row_by_row(table, tmp_path):
    table.open(tmp_path, through=0)
    path = tmp_path / "history.csv"
    assert path.read_text() == table.text()
    table.append(1, 0.5, None)
    assert path.read_text().endswith("\n1,0.5,\n")
    _ = [table.append(2, 0.25, 1e-7), table.append(4, 0.125, 3.0)]
    assert path.read_text() == WHOLE


@pytest.mark.parametrize(
    ("found", "through", "kept", "is_whole"),
    [
        (WHOLE, 4, [1, 2, 4], True),
        (WHOLE, 2, [1, 2], True),
        (WHOLE, 0, [], True),
        (WHOLE, 3, [1, 2], False),
        (WHOLE + "5,0.1", 4, [1, 2, 4], True),
        (WHOLE[:-2], 4, [1, 2], False),
        (WHOLE[:-1], 4, [1, 2], False),
        (WHOLE + "1,0.5,\n2,0.25,1e-07\n", 4, [1, 2, 4], True),
        (WHOLE + "rubbish\n\x00\x00", 4, [1, 2, 4], True),
        ("epoch,loss\n,\n1,0.5\n", 1, [], False),
        ("", 2, [], False),
    ],
)
def test_rows_beyond_the_resumed_one_and_broken_ones_are_cut(table, tmp_path, found, through, kept, is_whole):
    path = tmp_path / "history.csv"
    path.write_text(found)
    assert table.open(tmp_path, through) is is_whole
    assert [int(row.split(",")[0]) for row in path.read_text().splitlines()[2:]] == kept
    assert path.read_text() == table.text()
    table.append(5, 0.0, None)
    assert path.read_text().endswith("\n5,0,\n")


def test_a_row_that_found_no_space_is_written_with_the_next_save(table, tmp_path, monkeypatch):
    table.open(tmp_path, through=0)
    path = tmp_path / "history.csv"
    table.append(1, 0.5, None)

    def full(self, *arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        table.append(2, 0.25, 1e-7)
    # What a full disk may leave of a row.
    path.write_text(path.read_text() + "2,0.")
    table.append(4, 0.125, 3.0)
    assert table.text() == WHOLE
    table.save()
    assert path.read_text() == WHOLE


@pytest.mark.parametrize("row", [(2, 0.5, None), (1, 0.5, None), (3, 0.5), (3, 0.5, None, None)])
def test_a_row_out_of_order_or_of_another_width_is_refused(table, row):
    table.append(2, 0.25, None)
    with pytest.raises(ValueError, match=f"Row {row[0]} with {len(row)} cells cannot follow row 2"):
        table.append(*row)
