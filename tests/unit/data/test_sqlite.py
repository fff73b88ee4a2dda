from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from fff.data.sqlite import connect


@pytest.fixture
def path(tmp_path):
    """A database in a file whose name means something in an address."""
    path = tmp_path / "a#b?mode=memory %20.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE t (x); INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT x FROM t;"
        )
    return path


def test_a_file_is_opened_whatever_its_name(path):
    with closing(connect(path, wait_s=1)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_what_is_only_read_stays_as_it_is(path):
    before = path.read_bytes()
    with closing(connect(path, wait_s=1, read_only=True)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("INSERT INTO t VALUES (2)")

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_only_read_is_not_made(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "absent.db", wait_s=1, read_only=True)

    assert not list(tmp_path.iterdir())


def test_a_file_that_is_written_is_made(tmp_path):
    with closing(connect(tmp_path / "new.db", wait_s=1)) as connection:
        connection.execute("CREATE TABLE t (x)")

    assert (tmp_path / "new.db").is_file()


def test_a_view_of_the_file_is_not_followed(path):
    with (
        closing(connect(path, wait_s=1)) as connection,
        pytest.raises(sqlite3.OperationalError, match="prohibited"),
    ):
        connection.execute("SELECT * FROM v")


DYING = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,) for _ in range(200)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_half_done_is_undone_before_reading(path):
    done = subprocess.run([sys.executable, "-c", DYING, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0

    with closing(connect(path, wait_s=1, read_only=True)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
