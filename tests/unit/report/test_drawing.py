"""Figures are written beside their numbers."""

import csv

import numpy as np
from matplotlib.figure import Figure

from fff.report.drawing import Column, Drawing, drawing, write_drawing


def draw(values):
    with drawing():
        figure = Figure()
        figure.subplots().plot(values)
    columns = [Column("step", "", list(range(len(values)))), Column("energy", "eV", values)]
    return Drawing("energy", "Energy", figure, columns)


def test_a_drawing_is_written_as_png_beside_its_csv(tmp_path):
    path = write_drawing(draw([1.0, 2.5]), tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "energy.csv").read_text() == "step,energy\n,eV\n0,1\n1,2.5\n"


def test_the_same_numbers_give_the_same_picture():
    assert draw([1.0, 2.0]).png() == draw([1.0, 2.0]).png()


def test_a_number_that_is_not_there_is_an_empty_cell():
    columns = [Column("a", "", [None, float("nan"), np.float64("nan"), np.float32(0.5)])]
    assert Drawing("x", "x", Figure(), columns).csv().splitlines()[2:] == ["", "", "", "0.5"]


def test_a_name_with_commas_and_quotes_is_read_back_as_it_was():
    names = ['say "no"', "a, b", "two\nlines"]
    text = Drawing("x", "x", Figure(), [Column("name", "", names), Column("n", "", [1, 2, 3])]).csv()
    assert [row[0] for row in csv.reader(text.splitlines(keepends=True))][2:] == names
