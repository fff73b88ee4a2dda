from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fff.base.errors import (
    NoSpaceError,
    NotConvergedError,
    ReferenceFailure,
    ReferenceSetupError,
    TimeLimitError,
)
from fff.external import STDERR, STDOUT, Workplace, last_lines, space_error, tail


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path / "tasks", name="label-00012")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def calculate(place, error, **files):
    """A calculation that writes files and fails."""
    with place.directory() as folder:
        for name, text in (files or {"coord": "H 0 0 0"}).items():
            (folder / name.replace("_", ".")).write_text(text)
        raise error


def fail(place, error=None, *, kind=None, **files):
    error = error or ReferenceFailure("It failed.", hint="Mend it.", exit_code=3)
    with pytest.raises(kind or type(error)) as raised:
        calculate(place, error, **files)
    return raised.value


def test_each_calculation_has_a_folder_of_its_own_which_goes_when_it_is_done(place):
    with place.directory() as first, place.directory() as second:
        assert first != second
        assert first.is_absolute()
        assert names(place.root) == sorted([first.name, second.name])
        assert all(path.name.startswith("running-label-00012-") for path in (first, second))
    assert names(place.root) == []


def test_finished_ones_are_kept_where_that_was_asked_for(place):
    for text in ("one", "two"):
        with place.directory(keep=True) as folder:
            (folder / "result").write_text(text)
    assert names(place.root) == ["label-00012-1", "label-00012-2"]
    assert (place.root / "label-00012-2" / "result").read_text() == "two"


def test_failed_ones_are_kept_and_the_failure_says_where_with_the_last_lines(place):
    failure = fail(place, stdout_txt="working\n", stderr_txt="a warning\n\nno such basis set\n")
    kept = place.root / "failed-label-00012-1"
    assert names(place.root) == [kept.name]
    assert names(kept) == [STDERR, STDOUT]
    assert failure.message == f"It failed. Its files are in {kept}. Last lines: a warning\nno such basis set"
    assert failure.hint == "Mend it."
    assert failure.context == {"exit_code": 3, "work_dir": str(kept)}
    assert pickle.loads(pickle.dumps(failure)).message == failure.message


def test_an_empty_folder_is_no_evidence_and_goes(place):
    error = ReferenceFailure("It failed.")
    with pytest.raises(ReferenceFailure) as raised, place.directory():
        raise error
    assert raised.value is error
    assert names(place.root) == []


@pytest.mark.parametrize("kind", [NotConvergedError, ReferenceSetupError, TimeLimitError])
def test_the_class_of_a_failure_stays(place, kind):
    failure = fail(place, kind("No."))
    assert type(failure) is kind
    assert str(place.root / "failed-label-00012-1") in failure.message


def test_the_second_failure_does_not_hide_the_first(place):
    found = [Path(fail(place, stdout_txt=str(i)).context["work_dir"]) for i in range(3)]
    assert [path.name for path in found] == [f"failed-label-00012-{n}" for n in (1, 2, 3)]
    assert [(path / STDOUT).read_text() for path in found] == ["0", "1", "2"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError(), PermissionError(13, "no")])
def test_whatever_ends_a_calculation_its_files_stay_and_the_error_is_itself(place, error):
    raised = fail(place, error)
    assert raised is error
    assert names(place.root) == ["failed-label-00012-1"]


def test_many_at_once_do_not_get_in_each_others_way(place):
    def work(i):
        return Path(fail(place, stdout_txt=str(i)).context["work_dir"])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(40)))
    assert len(set(found)) == 40
    assert [(path / STDOUT).read_text() for path in found] == [str(i) for i in range(40)]
    assert sorted(names(place.root)) == sorted(f"failed-label-00012-{n}" for n in range(1, 41))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("label-00012", "label-00012"),
        ("", "calculation"),
        ("...", "calculation"),
        ("../../etc/x y;$(z)", "_.._etc_x_y_z_"),
        ("a" * 300, "a" * 100),
        ("Wässer\n", "W_sser_"),
    ],
)
def test_names_of_folders_need_no_quoting_and_lead_nowhere_else(tmp_path, name, stem):
    place = Workplace(tmp_path / "tasks", name=name)
    assert Path(fail(place).context["work_dir"]) == tmp_path / "tasks" / f"failed-{stem}-1"


def test_what_is_kept_can_go_to_another_folder(tmp_path):
    (tmp_path / "kept").mkdir()
    place = Workplace(tmp_path / "running", tmp_path / "kept", prefix="fff-", name="x")
    fail(place)
    assert names(tmp_path / "running") == []
    assert names(tmp_path / "kept") == ["fff-failed-x-1"]


def test_a_workplace_crosses_to_another_process_as_json(tmp_path):
    place = Workplace(tmp_path / "a", tmp_path / "b", prefix="fff-")
    assert Workplace.from_json(place.as_json()) == place
    assert Workplace.from_json(Workplace(tmp_path).as_json()).kept == tmp_path


def test_a_root_that_cannot_be_made_is_the_set_ups_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ReferenceSetupError, match="cannot be made"),
        Workplace(tmp_path / "file" / "tasks").directory(),
    ):
        pass


# --- what was running in a process that is no more -------------------------------------------------------


def running(root, pid, host=None, name="label-3"):
    folder = root / f"running-{name}-{host or socket.gethostname()}-{pid}-0123abcd"
    folder.mkdir(parents=True)
    (folder / STDERR).write_text("half\n")
    return folder


@pytest.fixture
def dead_pid():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_dead_process_left_is_kept_as_failed(place, dead_pid):
    running(place.root, dead_pid)
    mine = running(place.root, os.getpid(), name="label-4")
    elsewhere = running(place.root, dead_pid, host="another-host", name="label-5")
    assert place.set_aside() == [place.root / "failed-label-3-1"]
    assert names(place.root) == sorted(["failed-label-3-1", mine.name, elsewhere.name])
    assert (place.root / "failed-label-3-1" / STDERR).read_text() == "half\n"
    assert place.set_aside() == []


def test_what_ran_in_one_process_is_kept_when_that_is_asked_for(place):
    running(place.root, os.getpid(), name="label-4")
    assert place.set_aside(os.getpid() + 1) == []
    assert place.set_aside(os.getpid()) == [place.root / "failed-label-4-1"]


def test_folders_of_other_names_are_nobodys_business(place, dead_pid):
    for name in (f"running-x-{dead_pid}", "running-", "running-x-host-12-", "failed-x-1", "label-1.npz"):
        (place.root / name).mkdir(parents=True)
    before = names(place.root)
    assert place.set_aside() == []
    assert names(place.root) == before


def test_without_a_root_there_is_nothing_to_set_aside(tmp_path):
    assert Workplace(tmp_path / "not there").set_aside() == []


def test_two_that_set_the_same_aside_find_it_once(place, dead_pid, monkeypatch):
    running(place.root, dead_pid)
    replace = Path.replace

    def after_another(path, target):
        replace(path, place.root / "taken")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", after_another)
    assert place.set_aside() == []
    assert names(place.root) == ["taken"]


def test_a_failure_whose_files_another_process_has_set_aside_is_still_that_failure(place, monkeypatch):
    def gone(path, target):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "replace", gone)
    assert fail(place).message == "It failed."


# --- the disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_fault_of_the_structure(place, number):
    failure = fail(place, OSError(number, os.strerror(number)), kind=NoSpaceError)
    assert "is full, or a quota is used up" in failure.message
    assert failure.failure_class == "disk"
    assert failure.hint
    assert failure.context["work_dir"] == str(place.root / "failed-label-00012-1")


def test_a_full_disk_is_seen_behind_another_error(place):
    error = ReferenceFailure("The output cannot be read.")
    error.__cause__ = OSError(errno.ENOSPC, "full")
    fail(place, error, kind=NoSpaceError)


@pytest.mark.parametrize("said", ["write: No space left on device", "Disk quota exceeded (122)"])
def test_a_code_that_says_the_disk_is_full_is_believed(place, said):
    failure = fail(place, kind=NoSpaceError, stderr_txt=said)
    assert "It failed." in failure.message
    assert said in failure.message


def test_a_disk_without_space_explains_a_code_that_says_nothing(place, monkeypatch):
    monkeypatch.setattr("fff.external.evidence._free_bytes", lambda folder: 4096.0)
    fail(place, kind=NoSpaceError)


def test_a_missing_executable_is_not_explained_by_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("fff.external.evidence._free_bytes", lambda folder: 0.0)
    assert space_error(ReferenceSetupError("No executable."), tmp_path) is None


def test_errors_that_go_round_in_a_circle_are_looked_at_once(tmp_path):
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert space_error(first, tmp_path) is None


def no_folder(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_root_on_a_full_disk_says_so(place, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", no_folder)
    with pytest.raises(NoSpaceError), place.directory():
        pass


def test_files_that_cannot_be_renamed_stay_where_the_failure_says(place, monkeypatch):
    make = Path.mkdir
    monkeypatch.setattr(
        Path,
        "mkdir",
        lambda path, *more, **named: (no_folder if "fail" in path.name else make)(path, *more, **named),
    )
    folder = Path(fail(place).context["work_dir"])
    assert folder.name.startswith("running-label-00012-")
    assert folder.is_dir()


# --- last lines ------------------------------------------------------------------------------------------


def test_the_last_lines_are_those_of_standard_error_then_of_the_output_then_of_the_newest_text(tmp_path):
    assert last_lines(tmp_path) == ""
    (tmp_path / "input").write_text("the input\n")
    os.utime(tmp_path / "input", ns=(1, 1))
    (tmp_path / STDERR).write_text("\n")
    os.utime(tmp_path / STDERR, ns=(10, 10))
    assert last_lines(tmp_path) == ""
    for time_ns, name in ((20, "older.out"), (30, "newer.out"), (40, "binary")):
        (tmp_path / name).write_bytes(b"of " + name.encode() + b"\0" * (name == "binary"))
        os.utime(tmp_path / name, ns=(time_ns, time_ns))
    assert last_lines(tmp_path) == "of newer.out"
    (tmp_path / STDOUT).write_text("of the output\n")
    assert last_lines(tmp_path) == "of the output"
    (tmp_path / STDERR).write_text("of standard error\n")
    assert last_lines(tmp_path) == "of standard error"


def test_last_lines_are_few_and_short_whatever_was_written(tmp_path):
    (tmp_path / STDERR).write_bytes(b"x" * 100_000 + b"\n\n" + b"\xff" * 300 + b"\nthe last\n\n")
    text = last_lines(tmp_path)
    assert len(text) <= 401
    assert text.endswith("\nthe last")


def test_the_tail_of_what_is_not_there_is_empty(tmp_path):
    assert tail(tmp_path / "nothing") == ""
    assert tail(tmp_path) == ""
