from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fff.base.errors import ReferenceSetupError
from fff.external import STDERR, STDOUT, Command, parse_command


def parse(text):
    return parse_command(text, "reference.parameters.command")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nwchem", Command(("nwchem",))),
        ("nwchem PREFIX.nwi > PREFIX.nwo", Command(("nwchem", "PREFIX.nwi"), stdout="PREFIX.nwo")),
        ("nwchem PREFIX.nwi>PREFIX.nwo", Command(("nwchem", "PREFIX.nwi"), stdout="PREFIX.nwo")),
        ("g16 < in.com > out.log 2> err", Command(("g16",), stdin="in.com", stdout="out.log", stderr="err")),
        ("code 2>err", Command(("code",), stderr="err")),
        ("code 1> out", Command(("code",), stdout="out")),
        ("code 2 > out", Command(("code", "2"), stdout="out")),
        ("code > out 2>&1", Command(("code",), stdout="out", stderr="out")),
        ("code 2>&1", Command(("code",), stderr=STDOUT)),
        ("code > 'my out'", Command(("code",), stdout="my out")),
        ("mpirun -np 4 code --in=a.b -x", Command(("mpirun", "-np", "4", "code", "--in=a.b", "-x"))),
        ("A=1 B='x y' code C=3", Command(("code", "C=3"), {"A": "1", "B": "x y"})),
        ("A= code", Command(("code",), {"A": ""})),
        (r"'my code' one\ word \"x\" \; '|' a'b'c", Command(("my code", "one word", '"x"', ";", "|", "abc"))),
        ("code a~b c#d", Command(("code", "a~b", "c#d"))),
    ],
)
def test_a_line_of_shell_becomes_a_list(text, expected):
    command = parse(text)
    assert (command.arguments, dict(command.environment)) == (expected.arguments, dict(expected.environment))
    assert (command.stdin, command.stdout, command.stderr) == (
        expected.stdin,
        expected.stdout,
        expected.stderr,
    )
    assert command.key == "reference.parameters.command"


def test_what_is_not_redirected_goes_to_files_and_nothing_comes_in():
    command = parse("code")
    assert (command.stdin, command.stdout, command.stderr) == (os.devnull, STDOUT, STDERR)


@pytest.mark.parametrize(
    "text",
    [
        "code | tee out",
        "module load code; code",
        "cd x && code",
        "code || true",
        "code &",
        "code &> out",
        "code $(cat options)",
        "code `cat options`",
        "code $HOME/in",
        'code "$HOME/in"',
        "code *.in",
        "code ~/in",
        "code {a,b}",
        "code >> out",
        "code << END",
        "code <<< in",
        "code 3> out",
        "code >&2",
        "(code)",
        "code # a comment",
        "code 'open",
        'code "open',
        "code \\",
        "code\ncode",
        "code >",
        "code > > out",
        "> out",
        "A=1",
        "",
        "   ",
    ],
)
def test_what_needs_a_shell_is_refused_with_the_key_and_a_way_out(text):
    with pytest.raises(ReferenceSetupError) as raised:
        parse(text)
    assert raised.value.context == {"key": "reference.parameters.command", "value": text}
    assert "reference.parameters.command is" in raised.value.message
    assert repr(text)[1:-1] in raised.value.message
    assert "script" in raised.value.hint


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc"]), max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_what_was_quoted_comes_back_whole_or_is_refused(words):
    try:
        command = parse(shlex.join(words))
    except ReferenceSetupError:
        # A word that begins with NAME= is a variable, and there may be nothing else.
        assert all("=" in word for word in words)
        return
    variables = [f"{name}={value}" for name, value in command.environment.items()]
    assert set(variables) <= set(words)
    assert list(command.arguments) == words[len(words) - len(command.arguments) :]


@given(st.text("ab '\"\\>&<12=|;$", max_size=12))
def test_a_line_that_is_taken_means_what_it_means_to_a_shell(line):
    try:
        command = parse("printf '[%s]' " + line)
    except ReferenceSetupError:
        return
    if command.stdin != os.devnull or command.stdout != STDOUT or command.stderr != STDERR:
        return
    with TemporaryDirectory() as folder:
        shell = ["sh", "-c", "printf '[%s]' " + line]
        said = subprocess.run(shell, capture_output=True, check=False, cwd=folder).stdout
        assert not list(Path(folder).iterdir())
    assert said.decode() == "".join(f"[{word}]" for word in command.arguments[2:] or [""])
