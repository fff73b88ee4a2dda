"""What can happen to a run directory, and what must come of it: tables for `test_run_directories.py`."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from fff.data.run_lock import _Holder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Mutation(NamedTuple):
    """A change to a run directory.

    Attributes:
        change: Makes it.
        says: What the answer must name.
        when: Which image it is made to.
        arguments: What stands on the command line besides.
    """

    change: Callable[[Path], Any]
    says: tuple[str, ...] = ()
    when: str = "middle"
    arguments: tuple[str, ...] = ()


# --- ways to damage -------------------------------------------------------------------------------------


def nothing(folder: Path) -> None:
    """Leave it as it is."""


def both(*changes: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda folder: [change(folder) for change in changes]


def without(*names: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def holding(name: str, content: bytes | str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def cut(name: str, part: float) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(part * (len(data) - 1))])

    return change


def flipped(name: str, seed: int) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[random.Random(f"{name} {seed}").randrange(len(data))] ^= 1 << seed % 8
        (folder / name).write_bytes(data)

    return change


def folder_instead(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return change


def file_instead(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).write_text("a file")

    return change


def link_instead(name: str, target: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)

    return change


def pipe_instead(name: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


# --- the log --------------------------------------------------------------------------------------------


def lines(change: Callable[[list[bytes]], list[bytes] | None]) -> Callable[[Path], Any]:
    def change_lines(folder: Path) -> None:
        path = folder / "events.jsonl"
        before = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(change(before) or before))

    return change_lines


def line(number: int, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def change_line(found: list[bytes]) -> None:
        found[number] = change(found[number])

    return lines(change_line)


def event(kind: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Change the first event of a kind."""

    def change_lines(found: list[bytes]) -> None:
        for number, text in enumerate(found):
            content = json.loads(text)
            if content["kind"] == kind:
                change(content)
                found[number] = json.dumps(content, separators=(",", ":")).encode() + b"\n"
                return

    return lines(change_lines)


def setting(*keys: str, to: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


# --- the database ---------------------------------------------------------------------------------------


def sql(*statements: str) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "labels.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return change


def last_row(statement: str) -> Callable[[Path], Any]:
    return sql(statement + " WHERE id = (SELECT max(id) FROM systems)")


_DYING = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO text_key_values VALUES ('request', ?, 99)", [("x" * 4000,)] * 200)
os.kill(os.getpid(), signal.SIGKILL)
"""


def writer_killed(folder: Path) -> None:
    """Leave a transaction half done, as a kill in the middle of writing a row does."""
    done = subprocess.run([sys.executable, "-c", _DYING, str(folder / "labels.db")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "labels.db-journal").stat().st_size > 0


# --- the lock -------------------------------------------------------------------------------------------


def lock(content: bytes | str, *, age_s: float = 3600.0) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        holding("lock", content)(folder)
        touched = time.time() - age_s
        os.utime(folder / "lock", (touched, touched))

    return change


def locked_by(age_s: float = 3600.0, **changes: Any) -> Callable[[Path], Any]:
    """Write the lock of this process, with changes."""
    return lock(json.dumps({**asdict(_Holder.me()), **changes}), age_s=age_s)


def dead_lock(folder: Path) -> None:
    """Write the lock that a process of this machine leaves that was killed."""
    mine = _Holder.me()
    locked_by(age_s=1.0, process=f"{mine.process.rpartition(' ')[0]} 1", pid=2**22)(folder)


ELSEWHERE = {"host": "elsewhere", "pid": 7, "process": "other-boot pid:[1] 99"}

# --- refused --------------------------------------------------------------------------------------------

_A_FOLDER = "is a folder, where a file belongs"
_A_LINK = "is a symbolic link"
_NO_FILE = "is no regular file"
_FILES = ("config.yaml", "provenance.json", "status.json", "run.log", "labels.db", "events.jsonl")
_LINE = "events.jsonl is damaged at line"
_APART = "do not belong together"
_UNUSABLE = "labels.db cannot be used"
_ROW = "does not hold the label that it names"

REFUSED = {
    **{f"{name} is a folder": Mutation(folder_instead(name), (f"{name} {_A_FOLDER}",)) for name in _FILES},
    **{f"{name} is a link": Mutation(link_instead(name, "nowhere"), (name, _A_LINK)) for name in _FILES},
    "the log is a link to itself": Mutation(
        link_instead("events.jsonl", "events.jsonl"), ("events.jsonl", _A_LINK)
    ),
    "the database is a link to itself": Mutation(
        link_instead("labels.db", "labels.db"), ("labels.db", _A_LINK)
    ),
    "the log is a pipe": Mutation(pipe_instead("events.jsonl"), (f"events.jsonl {_NO_FILE}",)),
    "the database is a pipe": Mutation(pipe_instead("labels.db"), (f"labels.db {_NO_FILE}",)),
    "the status is a pipe": Mutation(pipe_instead("status.json"), (f"status.json {_NO_FILE}",)),
    "frames are a pipe": Mutation(pipe_instead("frames/start.npz"), (f"start.npz {_NO_FILE}",)),
    "frames are a folder": Mutation(folder_instead("frames/dynamics-t000-r0000.npz"), (_A_FOLDER,)),
    "weights are a folder": Mutation(
        folder_instead("models/round-000/member-0/weights.safetensors"), ("weights.safetensors", _A_FOLDER)
    ),
    "a label is a folder": Mutation(folder_instead("tasks/label-00008.npz"), ("label-00008.npz", _A_FOLDER)),
    "STOP is a folder": Mutation(folder_instead("STOP"), ("STOP", _A_FOLDER)),
    "the folder of models is a file": Mutation(file_instead("models"), ("models is no folder",)),
    "the folder of frames is a file": Mutation(file_instead("frames"), ("frames is no folder",)),
    "the folder of tasks is a file": Mutation(file_instead("tasks"), ("tasks is no folder",)),
    "the folder of scores leads nowhere": Mutation(link_instead("scores", "nowhere"), ("scores", _A_LINK)),
    "the folder of models leads to itself": Mutation(link_instead("models", "models"), ("models", _A_LINK)),
    "the store leads elsewhere": Mutation(link_instead("store", "/tmp"), ("store", _A_LINK)),
    # The log.
    "the log is gone": Mutation(without("events.jsonl"), ("There is no campaign in",)),
    "the log is empty": Mutation(holding("events.jsonl", b""), ("There is no campaign in",)),
    "the log is garbage": Mutation(holding("events.jsonl", b"\xff\0garbage\n" * 9), (f"{_LINE} 1",)),
    "the log is half a line": Mutation(lines(lambda found: [found[0][:99]]), ("There is no campaign in",)),
    "a line was cut": Mutation(line(7, lambda text: text[:50] + b"\n"), (f"{_LINE} 8", "head -n 7")),
    "two lines are one": Mutation(line(7, lambda text: text[:-1]), (f"{_LINE} 8", "head -n 7")),
    "a line is missing": Mutation(lines(lambda found: found[:7] + found[8:]), (f"{_LINE} 8", "8 where 7")),
    "the first line is missing": Mutation(lines(lambda found: found[1:]), (f"{_LINE} 1",)),
    "lines were swapped": Mutation(
        lines(lambda found: [*found[:7], found[8], found[7], *found[9:]]), (f"{_LINE} 8",)
    ),
    "a line is there twice": Mutation(
        lines(lambda found: [*found[:8], *found[7:]]), (f"{_LINE} 9", "head -n 8")
    ),
    "the last line is there twice": Mutation(lines(lambda found: [*found, found[-1]]), (_LINE,)),
    "a line is empty": Mutation(lines(lambda found: [*found[:7], b"\n", *found[7:]]), (f"{_LINE} 8",)),
    "a line of zeros": Mutation(line(7, lambda text: b"\0" * len(text)), (f"{_LINE} 8",)),
    "a byte order mark": Mutation(line(0, lambda text: b"\xef\xbb\xbf" + text), (f"{_LINE} 1",)),
    "a log in UTF-16": Mutation(lines(lambda x: [b"".join(x).decode().encode("utf-16")]), (f"{_LINE} 1",)),
    "a letter in Latin-1": Mutation(line(5, lambda text: text.replace(b"done", b"d\xf6ne")), (f"{_LINE} 6",)),
    "brackets without end": Mutation(
        line(5, lambda text: b"[" * 99_999 + b"\n"), (f"{_LINE} 6", "too deeply")
    ),
    "another sequence number": Mutation(event("train", setting("seq", to=99)), (_LINE, "99 where")),
    "another schema": Mutation(event("train", setting("schema_version", to=2)), (_LINE, "schema version 2")),
    "another policy": Mutation(event("opened", setting("values", "policy_version", to=1)), ("by policy 1",)),
    "an unknown request": Mutation(
        event("train", setting("request", to="train-r009-m0")), (_LINE, "train-r009-m0")
    ),
    "an unknown kind": Mutation(event("train", setting("kind", to="nonsense")), (_LINE, "nonsense")),
    "another attempt": Mutation(event("train", setting("attempt", to=2)), (_LINE, "attempt 2")),
    "another outcome": Mutation(event("dynamics", setting("outcome", to="failed")), (_LINE,)),
    "an outcome that is none": Mutation(event("train", setting("outcome", to="maybe")), (_LINE, "maybe")),
    "a time that is a text": Mutation(event("train", setting("times", to={"started": "x"})), (_LINE,)),
    "a number without end": Mutation(
        event("score", setting("values", "deviations", to=[float("inf")] * 4)), (_LINE,)
    ),
    "too few numbers": Mutation(event("score", setting("values", "deviations", to=[0.5])), (_LINE,)),
    "a value that is missing": Mutation(event("dynamics", setting("values", to={})), (_LINE, "last")),
    "a config that is none": Mutation(
        event("opened", setting("values", "config", "seed", to="x")), (f"{_LINE} 1", "`seed`")
    ),
    "no config": Mutation(event("opened", setting("values", "config", to=None)), ("event log", "config")),
    "a config without end": Mutation(
        event("opened", setting("values", "config", "reference", "parameters", to={"x": nested(500)})),
        (f"{_LINE} 1",),
    ),
    # The database.
    "the database is gone": Mutation(without("labels.db"), ("labels.db", _APART, "missing")),
    "the database is empty": Mutation(holding("labels.db", b""), (_UNUSABLE,)),
    "the database is garbage": Mutation(holding("labels.db", b"no database" * 99), (_UNUSABLE,)),
    "half of the database": Mutation(cut("labels.db", 0.5), (_UNUSABLE,)),
    "the database of a later ASE": Mutation(
        sql("UPDATE information SET value = 99"), (_UNUSABLE, "version 99")
    ),
    "a table is gone": Mutation(sql("DROP TABLE systems"), (_UNUSABLE, "systems")),
    "a row is gone": Mutation(
        both(last_row("DELETE FROM text_key_values"), last_row("DELETE FROM systems")), (_APART, "it lacks 1")
    ),
    "half of a row is gone": Mutation(last_row("DELETE FROM systems"), ("labels.db", _ROW)),
    "a row of another request": Mutation(
        sql(
            "UPDATE text_key_values SET value = 'label-00099' WHERE key = 'request' AND value = 'label-00001'"
        ),
        (_APART, "label-00001"),
    ),
    "two rows of a request": Mutation(
        sql(
            "UPDATE text_key_values SET value = 'label-00000' WHERE key = 'request' AND value = 'label-00001'"
        ),
        (_APART, "label-00001"),
    ),
    "a row of another structure": Mutation(
        sql("UPDATE text_key_values SET value = 's00' WHERE key = 'structure' AND id = 2"),
        (_APART, "another structure"),
    ),
    "other positions": Mutation(last_row("UPDATE systems SET positions = zeroblob(96)"), (_ROW,)),
    "half of the positions": Mutation(last_row("UPDATE systems SET positions = zeroblob(9)"), (_ROW,)),
    "no forces": Mutation(last_row("UPDATE systems SET forces = NULL"), (_ROW,)),
    "no energy": Mutation(last_row("UPDATE systems SET energy = NULL"), (_ROW,)),
    "an energy that is a text": Mutation(last_row("UPDATE systems SET energy = 'low'"), (_ROW,)),
    "a row without event is of another structure": Mutation(
        sql("UPDATE text_key_values SET value = 's00' WHERE key = 'structure'"),
        (_APART, "another structure"),
        "row",
    ),
    "a row without event is damaged": Mutation(last_row("UPDATE systems SET forces = NULL"), (_ROW,), "row"),
    # What the campaign was opened with.
    "the start structures are gone": Mutation(
        without("frames/start.npz"), ("start.npz is missing or damaged",)
    ),
    "the start structures are garbage": Mutation(
        holding("frames/start.npz", b"PK\3\4"), ("start.npz is missing or",)
    ),
    "all frames are gone": Mutation(without("frames"), ("start.npz is missing or damaged",)),
    # The lock.
    "a living process": Mutation(locked_by(), ("is taken: process", "fff stop")),
    "the lock is a folder": Mutation(folder_instead("lock"), (f"lock {_A_FOLDER}",)),
    "the lock leads nowhere": Mutation(link_instead("lock", "nowhere"), ("lock", _A_LINK)),
    "the lock leads to itself": Mutation(link_instead("lock", "lock"), ("lock", _A_LINK)),
    "the lock is a pipe": Mutation(pipe_instead("lock"), (f"lock {_NO_FILE}",)),
    # The config.
    **{
        f"{text} is asked for": Mutation(nothing, (text.partition("=")[0], *says), arguments=("-o", text))
        for text, says in {
            "seed=4": ("3 -> 4", "random"),
            "structures=['bulk:Cu:2x1x1']": ("its trajectories have begun there",),
            "reference.calculator=lj": ("labels of two methods do not mix",),
            "model.n_features=8": ("its models are of that kind",),
            "start.n_labels=5": ("its first labels",),
            "test.n_frames=5": ("two test sets",),
            "sampling.thermostat=nve": ("begun under it",),
            "selection.deviation=energy": ("of that kind",),
            "audit.fraction=0.1": ("--accept-changes",),
            "stop.max_labels=12": ("10 -> 12", "--accept-changes"),
            "run_dir=elsewhere": ("to be resumed is in",),
            "sed=4": ("Unknown key `sed`",),
        }.items()
    },
    "another seed, accepted": Mutation(nothing, ("3 -> 4",), arguments=("-o", "seed=4", "--accept-changes")),
    "another method, accepted": Mutation(
        nothing, ("emt", "lj"), arguments=("-o", "reference.calculator=lj", "--accept-changes")
    ),
    # The place.
    "the folder is empty": Mutation(
        both(shutil.rmtree, lambda folder: folder.mkdir()), ("There is no campaign in",)
    ),
    "the folder is a file": Mutation(
        both(shutil.rmtree, lambda folder: folder.touch()), ("There is no campaign in",)
    ),
    "the folder leads to itself": Mutation(
        both(shutil.rmtree, lambda folder: folder.symlink_to(folder.name)), ("Symlink loop",)
    ),
    "the folder leads nowhere": Mutation(
        both(shutil.rmtree, lambda folder: folder.symlink_to("nowhere")), ("There is no campaign in",)
    ),
    "the folder is gone": Mutation(
        lambda folder: shutil.move(folder, folder.with_name("gone")),
        ("There is no campaign in", "does not exist"),
    ),
    "it never began": Mutation(nothing, ("There is no campaign in",), "opening"),
}
"""Each ends with code 2; nothing is changed."""

# --- taken ----------------------------------------------------------------------------------------------

_AGAIN = "missing or damaged; they are made again"
_CUT_OFF = "was half-written; it is cut off"
_DIED = "which has died, was removed"

TAKEN = {
    "nothing happened": Mutation(nothing, ("goes on after",)),
    "a row without its event": Mutation(nothing, ("whose event was lost; the event is written anew",), "row"),
    "an audited row without its event": Mutation(nothing, ("whose event was lost",), "audit"),
    "and the audited frame is lost": Mutation(
        without("frames/dynamics-t000-r0000.npz", "frames/dynamics-t001-r0000.npz"),
        ("whose event was lost", _AGAIN),
        "audit",
    ),
    "it has finished": Mutation(nothing, ("Finished: 10 labels",), "finished"),
    "it is extended": Mutation(nothing, ("10 -> 12",), "finished", ("-o", "stop.max_labels=12")),
    "the models of a finished one are gone": Mutation(without("models"), ("missing or damaged",), "finished"),
    # The log.
    "half of the last line": Mutation(line(-1, lambda text: text[:50]), (_CUT_OFF,)),
    "the last line without its end": Mutation(line(-1, lambda text: text[:-1]), (_CUT_OFF,)),
    "zeros after the last line": Mutation(lines(lambda found: [*found, b"\0" * 512]), (_CUT_OFF,)),
    "garbage after the last line": Mutation(lines(lambda found: [*found, b"\xff\xfe{"]), (_CUT_OFF,)),
    "the last line is gone": Mutation(lines(lambda found: found[:-1]), ("goes on after",)),
    "half of the lines are gone": Mutation(
        lines(lambda found: found[: len(found) // 2]), ("the campaign takes them in",)
    ),
    "all but the first line are gone": Mutation(
        lines(lambda found: found[:1]), ("the campaign takes them in",)
    ),
    "lines end as on Windows": Mutation(
        lines(lambda x: [text[:-1] + b"\r\n" for text in x]), ("goes on after",)
    ),
    "a model of another hash": Mutation(event("train", setting("values", "sha256", to="0" * 64)), (_AGAIN,)),
    "frames that lead out": Mutation(
        event("dynamics", setting("values", "last", "id", to="../../x:0")), (_AGAIN,)
    ),
    # The database.
    "another energy": Mutation(last_row("UPDATE systems SET energy = 0.0"), ("goes on after",)),
    "a writer was killed": Mutation(writer_killed, ("goes on after",)),
    "a journal of garbage": Mutation(holding("labels.db-journal", b"garbage" * 99), ("goes on after",)),
    "an empty journal": Mutation(holding("labels.db-journal", b""), ("goes on after",)),
    "another program's journal": Mutation(sql("PRAGMA journal_mode = wal"), ("goes on after",)),
    # Files that can be made again.
    "frames are gone": Mutation(without("frames/dynamics-t000-r0000.npz"), ("dynamics-t000-r0000", _AGAIN)),
    "frames are garbage": Mutation(holding("frames/dynamics-t000-r0000.npz", b"PK\3\4" * 99), (_AGAIN,)),
    "frames lead nowhere": Mutation(link_instead("frames/dynamics-t000-r0000.npz", "nowhere"), (_AGAIN,)),
    "frames lead to themselves": Mutation(
        link_instead("frames/dynamics-t000-r0000.npz", "dynamics-t000-r0000.npz"), (_AGAIN,)
    ),
    "frames of another run": Mutation(
        lambda folder: shutil.copy(folder / "frames/start.npz", folder / "frames/dynamics-t000-r0000.npz"),
        (_AGAIN,),
    ),
    "scores are gone": Mutation(without("scores"), ("score-r000-00001", _AGAIN)),
    "a member is gone": Mutation(without("models/round-000/member-1"), ("train-r000-m1", _AGAIN)),
    "a description is garbage": Mutation(
        holding("models/round-000/member-0/model.json", b"{"), ("train-r000-m0", _AGAIN)
    ),
    "weights of another member": Mutation(
        lambda folder: shutil.copy(
            folder / "models/round-000/member-0/weights.safetensors",
            folder / "models/round-000/member-1/weights.safetensors",
        ),
        ("train-r000-m1", _AGAIN),
    ),
    "all models are gone": Mutation(without("models"), ("train-r000-m0, train-r000-m1", _AGAIN)),
    "the test set is gone": Mutation(without("test"), ("testset-0000", _AGAIN), "tested"),
    "the committee is garbage": Mutation(holding("models/committee.json", b"[" * 999), ("goes on after",)),
    # Files for people.
    "the config is gone": Mutation(without("config.yaml"), ("config.yaml is missing; it is written anew",)),
    "the config is garbage": Mutation(
        holding("config.yaml", b"\xff{"), ("config.yaml is damaged, and left alone",)
    ),
    "the provenance is gone": Mutation(
        without("provenance.json"), ("provenance.json was missing or damaged",)
    ),
    "the provenance is brackets": Mutation(
        holding("provenance.json", "[" * 99_999), ("provenance.json was missing",)
    ),
    "the status is gone": Mutation(without("status.json"), ("goes on after",)),
    "the status is brackets": Mutation(holding("status.json", "[" * 99_999), ("goes on after",)),
    "the status is NaN": Mutation(
        holding("status.json", '{"usage": {"elapsed_s": NaN}}'), ("goes on after",)
    ),
    "the status is without end": Mutation(
        holding("status.json", '{"usage": {"elapsed_s": 1' + "0" * 400 + "}}"), ("goes on after",)
    ),
    "the log for people is garbage": Mutation(holding("run.log", b"\xff\0"), ("goes on after",)),
    "the copies of inputs are gone": Mutation(without("inputs"), ("goes on after",)),
    "the workers' logs are gone": Mutation(without("parsl"), ("goes on after",)),
    # What was left.
    "a label that was half written": Mutation(
        holding("tasks/label-00008.npz", b"PK\3\4"), ("goes on after",)
    ),
    "parts of files": Mutation(
        both(holding(".status.json.x.part", "{"), holding("frames/.start.npz.y.part", b"")),
        ("goes on after",),
    ),
    "parcels in the store": Mutation(holding("store/0.ready", b"garbage"), ("goes on after",)),
    "a stop that was asked for": Mutation(holding("tasks/stopping", b""), ("goes on after",)),
    "files of the user": Mutation(
        both(
            holding("notes.txt", "mine"),
            holding("figures/a.png", b"\x89PNG"),
            holding("frames/notes", "mine"),
        ),
        ("goes on after",),
    ),
    # The lock.
    "a dead process": Mutation(dead_lock, (_DIED,)),
    "a dead process elsewhere": Mutation(locked_by(**ELSEWHERE), ("process 7 on elsewhere", _DIED)),
    "a silent process elsewhere": Mutation(locked_by(age_s=0, **ELSEWHERE), (_DIED,)),
    "a process of a time to come": Mutation(locked_by(age_s=-1e8, **ELSEWHERE), ("Waiting", _DIED)),
    "a lock of garbage": Mutation(lock(b"\0\xff garbage"), ("an unknown process", _DIED)),
    "an empty lock": Mutation(lock(b""), ("an unknown process", _DIED)),
    "a lock of brackets": Mutation(lock("[" * 99_999), ("an unknown process", _DIED)),
    "a lock of no process": Mutation(locked_by(pid=-1), (_DIED,)),
    "a lock without end": Mutation(
        lock(json.dumps(asdict(_Holder.me())).replace('"pid": ', '"pid": 1e999, "x": ')), (_DIED,)
    ),
    # The config.
    **{
        f"{text} is accepted": Mutation(
            nothing, ("Changed: ", text.partition("=")[0]), arguments=("-o", text, "--accept-changes")
        )
        for text in (
            "stop.max_labels=12",
            "audit.fraction=0.1",
            "training.max_epochs=5",
            "selection.rule=random",
            "committee.size=3",
            "site.n_workers=2",
            "site.kind=workstation",
            "reference.time_limit_s=60",
        )
    },
}
"""Each goes on, and says what was repaired."""

# --- one or the other -----------------------------------------------------------------------------------

DATA = (
    "events.jsonl",
    "labels.db",
    "frames/start.npz",
    "frames/dynamics-t000-r0000.npz",
    "scores/score-r000-00001.npz",
    "models/round-000/member-0/model.json",
    "models/round-000/member-0/weights.safetensors",
    "provenance.json",
    "status.json",
)

EITHER = {
    **{f"{name} is cut at {part:.0%}": Mutation(cut(name, part)) for name in DATA for part in (0.01, 0.7)},
    **{f"{name} has a bit turned": Mutation(flipped(name, 1)) for name in DATA},
}
"""Some of these are refused, some go on; none does anything else."""
