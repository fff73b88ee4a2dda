from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from fff.base.errors import RunDirectoryError
from fff.base.files import inside, private_folder, refuse_links, write_bytes, write_json, write_text


def test_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "file"

    write_text(path, "Å")

    assert path.read_bytes() == "Å".encode()


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced(tmp_path, sync):
    path = tmp_path / "file"

    write_bytes(path, b"a much longer first content", sync=sync)
    write_bytes(path, b"second", sync=sync)

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_ends_with_a_line_end(tmp_path):
    write_json(tmp_path / "file", {"a": [1, None, "x"]})

    text = (tmp_path / "file").read_text()
    assert json.loads(text) == {"a": [1, None, "x"]}
    assert text.endswith("}\n")


def test_json_has_no_numbers_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"a": float("nan")})

    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: steps.append("sync") or fsync(d))
    monkeypatch.setattr(Path, "replace", lambda *a: steps.append("rename") or replace(*a))

    write_bytes(tmp_path / "file", b"a")
    write_bytes(tmp_path / "file", b"b", sync=False)

    assert steps == ["sync", "rename", "rename"]


def test_a_file_has_the_rights_of_any_other(tmp_path):
    write_bytes(tmp_path / "ours", b"")
    (tmp_path / "theirs").touch()

    ours, theirs = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs"))
    assert ours == theirs


def test_a_reader_sees_a_whole_file_at_any_time(tmp_path):
    path = tmp_path / "file"
    contents = {bytes([65 + i]) * 100_000 for i in range(4)}
    write_bytes(path, min(contents))
    done = threading.Event()

    def write():
        for _ in range(20):
            for content in contents:
                write_bytes(path, content, sync=False)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    thread.join()

    assert seen <= contents


@pytest.mark.parametrize("name", ["start.npz", "round-000/member-1", Path("a/b"), "..npz", "a..b"])
def test_a_name_within_a_folder_is_a_path_in_it(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name", ["../x", "..", "a/../../x", "a/..", "/etc/passwd", Path("/x"), "a/\0b"], ids=repr
)
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(RunDirectoryError, match=r"which leads out of that folder\.$"):
        inside(tmp_path, name)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_a_private_folder_is_the_users_alone_whatever_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        folder = private_folder(tmp_path / "store")
    finally:
        os.umask(previous)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_was_open_to_others_becomes_private(tmp_path):
    folder = tmp_path / "parsl"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "server.log").write_text("kept")

    private_folder(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "server.log").read_text() == "kept"


def test_a_link_is_no_private_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "store").symlink_to(elsewhere)

    with pytest.raises(RunDirectoryError, match="is a symbolic link"):
        private_folder(tmp_path / "store")

    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


@pytest.mark.parametrize("target", ["there", "not-there"])
def test_a_file_that_is_a_link_is_refused(tmp_path, target):
    (tmp_path / "there").write_text("theirs")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.log").symlink_to(tmp_path / target)

    with pytest.raises(RunDirectoryError, match=r"run\.log is a symbolic link"):
        refuse_links(folder)


def test_a_folder_may_be_a_link_to_another_disk(tmp_path):
    (tmp_path / "scratch").mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "frames").symlink_to(tmp_path / "scratch")
    (folder / "run.log").write_text("")

    refuse_links(folder)
