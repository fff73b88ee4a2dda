"""The sections about what is labelled: which slots calculations take."""

from __future__ import annotations

import pytest

from fff.base.errors import ConfigError
from fff.config import config_to_yaml, load_config

LEAST = ["structures=[molecule:H2O]", "reference={kind: ase, calculator: nwchem}"]
LAUNCH = "site.mpi_launch=mpiexec -n {ranks}"
KEY = "calculation.nodes_by_size"


def load(*overrides: str):
    return load_config(None, [*LEAST, *overrides]).config


def refused(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load(*overrides)
    return raised.value


def test_every_calculation_takes_one_slot_unless_told_otherwise():
    calculation = load().calculation
    assert calculation.nodes_by_size == [[0, 1]]
    assert (calculation.slots_for(1, 10), calculation.slots_for(10_000, 100_000)) == (1, 1)
    assert calculation.most_slots == 1


@pytest.mark.parametrize(
    ("size_by", "n_atoms", "n_electrons", "slots"),
    [
        ("electrons", 99, 99, 1),
        ("electrons", 1, 100, 2),
        ("electrons", 1, 399, 2),
        ("electrons", 1, 400, 4),
        ("electrons", 1, 99_999, 4),
        ("atoms", 99, 400, 1),
        ("atoms", 100, 1, 2),
        ("atoms", 400, 1, 4),
    ],
)
def test_a_size_takes_the_slots_of_the_last_pair_that_it_reaches(size_by, n_atoms, n_electrons, slots):
    config = load(LAUNCH, f"{KEY}=[[0, 1], [100, 2], [400, 4]]", f"calculation.size_by={size_by}")
    assert config.calculation.slots_for(n_atoms, n_electrons) == slots
    assert config.calculation.most_slots == 4


def test_the_table_survives_the_way_through_a_file(tmp_path):
    config = load(LAUNCH, f"{KEY}=[[0, 1], [100, 2]]")
    path = tmp_path / "again.yaml"
    path.write_text(config_to_yaml(config))
    assert load_config(path).config.calculation == config.calculation


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("[[1, 1]]", ["begins at size 1", "must be 0"]),
        ("[[100, 2], [0, 1]]", ["begins at size 100"]),
        ("[[0, 1], [100, 2], [100, 3]]", ["size 100 after 100", "must rise"]),
        ("[[0, 1], [100, 2], [50, 3]]", ["size 50 after 100", "must rise"]),
        ("[[0, 0]]", ["gives 0 slots", "at least 1"]),
        ("[[0, 1], [10, -2]]", ["gives -2 slots", "at least 1"]),
        ("[]", ["is []", "empty"]),
        ("[[0]]", ["[0]` is [0]", "a size and its slots"]),
        ("[[0, 1], [0, 1, 2]]", ["[1]` is [0, 1, 2]", "a size and its slots"]),
        ("[0, 1]", ["[0]` is 0"]),
        ("[[0, two]]", ["two", "whole number"]),
        ("3", ["is 3", "list"]),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_value_and_the_repair(table, parts):
    error = refused(LAUNCH, f"{KEY}={table}")
    assert error.context["key"].startswith(KEY)
    assert all(part in error.message for part in parts), error.message
    assert error.hint


def test_a_table_with_sizes_as_names_is_refused_with_the_repair():
    error = refused(LAUNCH, f"{KEY}={{0: 1, 100: 2}}")
    assert error.context["key"].startswith(KEY)


def test_several_slots_need_an_external_code():
    error = refused("reference={kind: xtb}", LAUNCH, f"{KEY}=[[0, 1], [100, 2]]")
    assert error.context["key"] == KEY
    assert "`calculation.nodes_by_size` gives 2 slots" in error.message
    assert "xtb" in error.message
    assert "reference.kind: ase" in error.hint


def test_several_slots_need_a_launch_line():
    error = refused(f"{KEY}=[[0, 1], [100, 2]]")
    assert error.context["key"] == "site.mpi_launch"
    assert "not set" in error.message
    assert "mpiexec -n {ranks}" in error.hint
    assert load(LAUNCH, f"{KEY}=[[0, 1], [100, 2]]").calculation.most_slots == 2


def test_a_launch_line_for_several_slots_has_a_placeholder():
    error = refused("site.mpi_launch=mpiexec -n 2", f"{KEY}=[[0, 1], [100, 2]]")
    assert error.context["key"] == "site.mpi_launch"
    assert "'mpiexec -n 2'" in error.message
    assert "{ranks}" in error.hint
    assert load("site.mpi_launch=mpiexec -n 2").calculation.most_slots == 1


@pytest.mark.parametrize("n_slots", [1, 2, 3])
def test_a_pool_with_fewer_slots_than_a_calculation_is_refused(n_slots):
    section = load(LAUNCH, f"{KEY}=[[0, 1], [100, 2], [400, 4]]").calculation
    section.check_fits("cpu", 4)
    with pytest.raises(ConfigError) as raised:
        section.check_fits("cpu", n_slots)
    assert f"gives 4 slots to one calculation, above the {n_slots}" in raised.value.message
    assert "'cpu'" in raised.value.message
    first = 100 if n_slots == 1 else 400
    assert raised.value.hint.startswith(f"Set the slots from size {first} on to at most {n_slots}")
    assert raised.value.context == {"key": KEY, "value": [[0, 1], [100, 2], [400, 4]]}
