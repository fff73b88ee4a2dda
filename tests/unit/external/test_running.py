"""Real processes: what they do wrong, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fff.base.errors import ReferenceLostError, ReferenceSetupError, TimeLimitError
from fff.external import STDERR, STDOUT, Command, find_executable, last_lines, run


@pytest.fixture
def script(tmp_path):
    """Write an executable script."""

    def write(text, name="code"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return Command((str(path),))

    return write


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a folder"
    path.mkdir()
    return path


def start(command, folder, time_limit_s=30.0, **more):
    return run(command, folder, environment=os.environ, time_limit_s=time_limit_s, **more)


def ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def read_when_there(path: Path) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end and not (path.exists() and path.read_text().endswith("\n")):
        time.sleep(0.01)
    return path.read_text()


def test_output_and_messages_go_to_files_in_its_folder(script, folder):
    here = Path.cwd()
    result = start(script("pwd; echo a warning >&2; echo kept > result; exit 3"), folder)
    assert result.exit_code == 3
    assert 0 < result.wall_s < 20
    assert (folder / STDOUT).read_text() == f"{folder}\n"
    assert (folder / STDERR).read_text() == "a warning\n"
    assert (folder / "result").read_text() == "kept\n"
    assert Path.cwd() == here
    result.check()


def test_named_files_take_the_place_of_the_others(script, folder):
    (folder / "in").write_text("hello\n")
    command = script("cat; echo a warning >&2")
    start(Command(command.arguments, stdin="in", stdout="out", stderr="out"), folder)
    assert (folder / "out").read_text() == "hello\na warning\n"
    assert {path.name for path in folder.iterdir()} == {"in", "out"}


def test_arguments_arrive_as_they_are(folder):
    words = ["$HOME", "*", "a b", ";", "'", "", "ä"]
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    start(Command((sys.executable, "-c", code, *words)), folder)
    import json

    assert json.loads((folder / STDOUT).read_text()) == words


def test_standard_input_is_empty(script, folder):
    assert start(script("read line && exit 1; exit 0"), folder).exit_code == 0


def test_the_environment_is_what_is_given_and_what_the_command_sets(script, folder):
    command = Command(script("env").arguments, {"OMP_NUM_THREADS": "7"})
    run(command, folder, environment={"PATH": os.environ["PATH"], "GIVEN": "yes"}, time_limit_s=30)
    lines = (folder / STDOUT).read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert "OMP_NUM_THREADS=7" in lines
    assert "GIVEN=yes" in lines
    assert names <= {"PATH", "GIVEN", "OMP_NUM_THREADS", "PWD", "SHLVL", "_", "LC_CTYPE"}


def test_it_leads_a_process_group_away_from_ours(script, folder):
    start(
        Command((sys.executable, "-c", "import os; print(os.getpgrp(), os.getsid(0), os.getpid())")), folder
    )
    group, session, pid = map(int, (folder / STDOUT).read_text().split())
    assert group == pid
    assert session != os.getsid(0)


def test_a_missing_executable_is_the_set_ups_fault(folder):
    with pytest.raises(ReferenceSetupError, match="executable no-such-code was not found") as raised:
        start(Command(("no-such-code",), key="reference.command"), folder)
    assert raised.value.context == {"key": "reference.command", "value": "no-such-code"}
    assert "reference.command" in raised.value.hint
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["./code", "bin/code", "../code"])
def test_a_relative_path_to_an_executable_is_refused_wherever_one_stands(script, monkeypatch, tmp_path, name):
    script("exit 0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReferenceSetupError, match="relative path"):
        find_executable(Command((name,)))


def test_an_executable_is_looked_for_where_the_command_will_run(script, folder, tmp_path):
    script("exit 5", name="mine")
    with pytest.raises(ReferenceSetupError):
        find_executable(Command(("mine",)))
    assert start(Command(("mine",), {"PATH": f"{tmp_path}:{os.environ['PATH']}"}), folder).exit_code == 5


@pytest.mark.parametrize("text", ["#!/no/such/interpreter\n", "\x7fELF is not what this is"])
def test_an_executable_that_cannot_start_is_the_set_ups_fault(folder, tmp_path, text):
    broken = tmp_path / "broken"
    broken.write_text(text)
    broken.chmod(0o755)
    result = start(Command((str(broken),)), folder)
    with pytest.raises(ReferenceSetupError, match="cannot be started"):
        result.check()
    assert f"{broken} cannot be started" in last_lines(folder)


def test_a_script_whose_code_is_missing_is_the_set_ups_fault(script, folder):
    result = start(script("no-such-code"), folder)
    with pytest.raises(ReferenceSetupError):
        result.check()
    assert "no-such-code" in last_lines(folder)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGABRT", "SIGXCPU"])
def test_a_code_killed_by_a_signal_may_be_tried_again(script, folder, name):
    result = start(script(f"kill -{name[3:]} $$"), folder)
    assert result.exit_code == -signal.Signals[name]
    with pytest.raises(ReferenceLostError, match=f"was killed by {name}") as raised:
        result.check()
    assert raised.value.failure_class == "retry"


def test_a_signal_without_a_name_has_its_number(script, folder):
    with pytest.raises(ReferenceLostError, match="was killed by signal 40"):
        start(script("kill -40 $$"), folder).check()


def test_a_code_gets_the_signals_as_a_shell_would_give_them(folder):
    # What Python ignores for itself, a broken pipe among it, would otherwise be ignored by the code too.
    start(Command(("grep", "Sig[IB]", "/proc/self/status")), folder)
    masks = dict(line.split() for line in (folder / STDOUT).read_text().splitlines())
    usual = subprocess.run(["grep", "Sig[IB]", "/proc/self/status"], capture_output=True, check=True)
    expected = dict(line.split() for line in usual.stdout.decode().splitlines())
    assert masks["SigBlk:"] == expected["SigBlk:"]
    # Ctrl-C and hang-ups may be ignored where the tests were started in the background.
    ignored, own = int(masks["SigIgn:"], 16), 1 << signal.SIGINT - 1 | 1 << signal.SIGHUP - 1
    assert ignored | own == int(expected["SigIgn:"], 16) | own
    assert not ignored & 1 << signal.SIGPIPE - 1


def test_an_exit_code_that_looks_like_a_signal_is_an_exit_code(script, folder):
    # NWChem ends with 143 where its input is wrong: a shell could not tell that from SIGTERM.
    result = start(script("exit 143"), folder)
    assert result.exit_code == 143
    result.check()


def test_a_hang_ends_at_the_time_limit(script, folder):
    started = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"its time limit, 0\.3 s, and was killed") as raised:
        start(script("echo $$ > pid; exec sleep 600"), folder, time_limit_s=0.3)
    assert time.monotonic() - started < 5
    assert raised.value.failure_class == "retry"
    assert not psutil.pid_exists(int((folder / "pid").read_text()))


def test_a_code_is_asked_to_end_before_it_is_killed(script, folder):
    with pytest.raises(TimeLimitError):
        start(
            script("trap 'echo farewell > end; exit' TERM; while :; do sleep 0.05; done"),
            folder,
            time_limit_s=0.5,
        )
    assert (folder / "end").read_text() == "farewell\n"


def test_a_code_that_ignores_sigterm_is_killed(script, folder):
    with pytest.raises(TimeLimitError):
        start(
            script("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"),
            folder,
            time_limit_s=0.3,
            grace_s=0.2,
        )
    assert not psutil.pid_exists(int((folder / "pid").read_text()))


def test_what_a_code_leaves_parentless_is_asked_to_end_too(script, folder):
    # As ranks, or another guard, behind a launcher that ends at once.
    inner = "trap 'echo farewell > end; exit' TERM; echo > inner; while :; do sleep 0.05; done"
    (folder / "inner.sh").write_text(inner)
    with pytest.raises(TimeLimitError):
        start(script("setsid sh inner.sh &\nexec sleep 600"), folder, time_limit_s=2.0, grace_s=60.0)
    assert (folder / "end").read_text() == "farewell\n"


OWN_SESSION = "setsid sh -c 'trap \"\" TERM; echo $$ > inner; while :; do sleep 0.05; done' &"


@pytest.mark.parametrize("parent", ["waits", "is gone"])
def test_the_time_limit_reaches_what_was_started_in_another_session(script, folder, parent):
    # An orphan too: its parent ends at once, and the code goes on in another child.
    text = f"{OWN_SESSION}\nwait" if parent == "waits" else f"({OWN_SESSION})\nexec sleep 600"
    with pytest.raises(TimeLimitError):
        start(script(text), folder, time_limit_s=0.5, grace_s=0.2)
    assert not psutil.pid_exists(int((folder / "inner").read_text()))


def test_what_a_code_leaves_in_the_background_ends_with_it(script, folder):
    result = start(script(f"{OWN_SESSION}\nwhile ! test -s inner; do sleep 0.01; done; exit 4"), folder)
    assert result.exit_code == 4
    assert not psutil.pid_exists(int((folder / "inner").read_text()))


def test_a_hundred_megabytes_of_output_are_no_burden(script, folder):
    before = psutil.Process().memory_info().rss
    result = start(script("head -c 100000000 /dev/zero | tr '\\0' 'x'; echo; echo the end; exit 3"), folder)
    assert result.exit_code == 3
    assert (folder / STDOUT).stat().st_size == 100_000_009
    assert last_lines(folder).endswith("\nthe end")
    assert len(last_lines(folder)) < 500
    assert psutil.Process().memory_info().rss - before < 50e6


def test_many_run_at_once(script, folder):
    command = script("sleep 0.1; pwd; exit 2")

    def work(i):
        own = folder / str(i)
        own.mkdir()
        return start(command, own).exit_code, (own / STDOUT).read_text()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(16)))
    assert found == [(2, f"{folder / str(i)}\n") for i in range(16)]


def test_no_descriptor_is_left_open(script, folder):
    command = script("exit 0")
    start(command, folder)
    before = psutil.Process().num_fds()
    for _ in range(5):
        start(command, folder)
    assert psutil.Process().num_fds() == before


def test_an_interrupted_run_leaves_no_process(script, folder, monkeypatch):
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if timeout == 77:
            read_when_there(folder / "pid")
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(script("echo $$ > pid; exec sleep 600"), folder, time_limit_s=77)
    assert ended(int((folder / "pid").read_text()))


OWNER = """
import os, sys
from pathlib import Path
from fff.external import Command, run
run(Command((sys.argv[1],)), Path(sys.argv[2]), environment=os.environ, time_limit_s=600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_code_dies_with_its_owner_also_in_other_sessions(script, folder, number):
    command = script(f"echo $$ > outer\n{OWN_SESSION}\nexec sleep 600")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, command.arguments[0], str(folder)])
    pids = [int(read_when_there(folder / name)) for name in ("outer", "inner")]
    assert all(psutil.pid_exists(pid) for pid in pids)
    owner.send_signal(number)
    owner.wait()
    assert all(ended(pid) for pid in pids)


def test_a_code_dies_with_its_guard(script, folder):
    command = script("echo $$ > outer\nexec sleep 600")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(start, command, folder)
        pid = int(read_when_there(folder / "outer"))
        psutil.Process(pid).parent().kill()
        assert running.result().exit_code == -signal.SIGKILL
    assert ended(pid)
