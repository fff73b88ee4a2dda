import pytest

from fff.base.errors import ConfigError
from fff.base.launch_line import PLACEHOLDERS, check_launch_line, fill, placeholders_in


def test_every_placeholder_is_filled_in():
    line = " ".join(f"{name}={{{name}}}" for name in PLACEHOLDERS)
    check_launch_line(line)
    assert placeholders_in(line) == set(PLACEHOLDERS)
    assert fill(line, dict.fromkeys(PLACEHOLDERS, 7)) == " ".join(f"{name}=7" for name in PLACEHOLDERS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("mpiexec -n {rank}", r"the placeholder \{rank\} is unknown"),
        ("mpiexec -n {}", r"the placeholder \{\} is unknown"),
        ("mpiexec -n {ranks.__class__}", "a brace of its own"),
        ("mpiexec -n {ranks", "a brace of its own"),
        ("mpiexec -n ${ranks}}", "a brace of its own"),
    ],
)
def test_other_placeholders_are_refused_with_those_that_there_are(line, said):
    with pytest.raises(ConfigError, match=said) as raised:
        check_launch_line(line)
    assert all(f"{{{name}}}" in raised.value.hint for name in PLACEHOLDERS)
    assert raised.value.context["key"] == "site.mpi_launch"
