"""Injects faults into a small campaign, one at a time, and judges what it does with each.

Run it as `python -m tests.faults.faults`; names of trials as arguments run these alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from fff.data.events import read_events
from tests.faults import program
from tests.faults.campaign import ROOT, Campaign
from tests.faults.table import Row, say, write_table
from tests.faults.trial import Trial, small_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TRIALS", "main"]

UNRELIABLE = ("--raises", "0.30", "--hangs", "0.05", "--nan", "0.02", "--dies-once", "0.05")
LIMIT_S = 5.0
PAGE = 4096


# --- the reference ----------------------------------------------------------------------------------------


def unreliable_reference(folder: Path) -> Row:
    """A reference that fails for more than a third of all structures."""
    trial = Trial(
        folder,
        "a reference that raises for 30 % of the structures, hangs for 5 %, gives NaN for 2 %",
        flags=UNRELIABLE,
        time_limit_s=LIMIT_S,
        # With this one the first structures alone hold one of each kind.
        seed=53,
        stop={"max_labels": 30},
        start={"n_labels": 12},
        training={"retrain_every": 10},
    )
    with trial:
        trial.begin()
        trial.goes_on()
        campaign = trial.campaign
        options = argparse.Namespace(raises=0.30, hangs=0.05, nan=0.02, dies_once=0.05)
        kinds = {
            kind: {name for _, name in campaign.calculations() if program.kind_of(name, options) == kind}
            for kind in ("raises", "hangs", "nan", "dies-once", "")
        }
        labelled = {row["key"] for row in campaign.rows().values()}
        for kind in ("raises", "hangs", "nan"):
            trial.expect(not labelled & kinds[kind], f"a structure that {kind} has a label")
            trial.expect(kinds[kind], f"no structure met that {kind}")
        failed = [event for event in campaign.events() if event.outcome == "failed"]
        slow = [
            event for event in failed if event.times and event.times["ended"] - event.times["started"] > 60
        ]
        trial.expect(not slow, f"{len(slow)} failures took more than a minute")
        met = ", ".join(f"{len(names)} {kind or 'sound'}" for kind, names in kinds.items())
        return trial.row(f"structures met: {met}; {len(failed)} failures on the way; the budget was reached")


def always_failing_reference(folder: Path) -> Row:
    """A reference that is broken from the beginning."""
    broken = folder / "broken"
    trial = Trial(
        folder,
        "a reference that always fails, from the beginning; then it is put right",
        flags=("--broken-by", str(broken)),
        start={"n_labels": 8},
        calculation={"max_consecutive_failures": 5},
    )
    broken.touch()
    return _stops_and_is_put_right(trial, broken, 0)


def reference_that_breaks(folder: Path) -> Row:
    """A reference that breaks in the middle."""
    broken = folder / "broken"
    trial = Trial(
        folder,
        "a reference that begins to fail always in the middle; then it is put right",
        flags=("--broken-by", str(broken)),
        calculation={"max_consecutive_failures": 3},
        stop={"max_labels": 20},
    )
    return _stops_and_is_put_right(trial, broken, 12)


def _stops_and_is_put_right(trial: Trial, broken: Path, n_events: int) -> Row:
    with trial:
        trial.begin(n_events)
        broken.touch()
        trial.ends(1, says="the parameter file is broken")
        failed = [event for event in trial.campaign.events() if event.outcome == "failed"]
        limit = trial.campaign.settings["calculation"]["max_consecutive_failures"]
        # With several workers others may be on their way when the last one counts.
        trial.expect(len(failed) <= limit + 1, f"it stopped after {len(failed)} failures, not {limit}")
        broken.unlink()
        trial.goes_on()
        return trial.row(f"it stopped after {len(failed)} failures, with the first one's reason")


def missing_reference(folder: Path) -> Row:
    """A program that disappears."""
    wrapper = folder / "program.py"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(program.__file__, wrapper)
    trial = Trial(
        folder,
        "the reference program disappears in the middle; then it is back",
        program=wrapper,
        calculation={"max_consecutive_failures": 3},
        stop={"max_labels": 20},
    )
    with trial:
        trial.begin(10)
        wrapper.rename(folder / "elsewhere.py")
        trial.ends(1, says="in a row")
        (folder / "elsewhere.py").rename(wrapper)
        trial.goes_on()
        return trial.row("it stopped with the first error")


# --- processes --------------------------------------------------------------------------------------------


def lost_worker(folder: Path) -> Row:
    """A worker dies in the middle of a training."""
    with Trial(folder, "SIGKILL to a worker that trains", **LONG_TRAINING) as trial:
        trial.begin(7)
        _wait_for_trainings(trial.campaign)
        worker = _busiest(trial.campaign)
        trial.expect(worker is not None, "there was no worker")
        if worker is not None:
            worker.kill()
        trial.goes_on()
        lost = [e for e in trial.campaign.events() if e.values.get("error") == "LostTask"]
        trial.expect(lost, "no task was lost")
        return trial.row("its task was asked for again")


def lost_idle_worker(folder: Path) -> Row:
    """A worker dies while it waits for work, and takes the lock of the queue with it."""
    trial = Trial(
        folder, "SIGKILL to a worker that waits for a task", site={"n_workers": 4}, start={"n_labels": 6}
    )
    with trial:
        # Two members train, and nothing else can be done before the first of them is there.
        trial.begin(7)
        worker = _laziest(trial.campaign)
        trial.expect(worker is not None, "there was no worker")
        if worker is not None:
            worker.kill()
        trial.goes_on()
        trial.expect("It is started anew" in trial.campaign.log(), "nobody noticed")
        return trial.row("the task server was started anew, what was in flight was asked for again")


def lost_server(folder: Path) -> Row:
    """The task server dies."""
    return _loses(folder, "server", "SIGKILL to the task server")


def lost_interchange(folder: Path) -> Row:
    """Parsl's interchange dies."""
    return _loses(folder, "interchange", "SIGKILL to Parsl's interchange")


def lost_manager(folder: Path) -> Row:
    """Parsl's pool of workers dies."""
    return _loses(folder, "manager", "SIGKILL to Parsl's manager of a block")


def lost_guard(folder: Path) -> Row:
    """The guard of the pool dies."""
    return _loses(folder, "guard", "SIGKILL to the guard of a block")


def lost_bookkeeper(folder: Path) -> Row:
    """The process in which a manager keeps its books dies."""
    return _loses(folder, "bookkeeper", "SIGKILL to the process that keeps the books of a manager")


def _loses(folder: Path, victim: str, injected: str) -> Row:
    with Trial(folder, injected) as trial:
        trial.begin(9)
        trial.expect(trial.campaign.kill(victim), f"there was no {victim}")  # type: ignore[arg-type]
        trial.goes_on()
        trial.expect("It is started anew" in trial.campaign.log(), "nobody noticed")
        return trial.row("the task server was started anew, what was in flight was asked for again")


def server_lost_for_good(folder: Path) -> Row:
    """The task server dies as often as it is started."""
    with Trial(folder, "SIGKILL to every task server that is started") as trial:
        trial.begin(9)
        while trial.campaign.is_running:
            trial.campaign.kill("server")
            time.sleep(0.2)
        trial.ends(1, says="died")
        trial.goes_on()
        return trial.row("it tried three more, then it stopped")


def lost_reference(folder: Path) -> Row:
    """The external code is killed in the middle of a calculation."""
    with Trial(folder, "SIGKILL to a reference calculation") as trial:
        trial.campaign.slow_down(1.0)
        trial.begin(2)
        trial.campaign.wait_until(lambda: trial.campaign.kill("reference"), "a calculation")
        trial.goes_on()
        failed = [e for e in trial.campaign.events() if e.outcome == "failed"]
        trial.expect(failed, "no calculation failed")
        return trial.row("the calculation was tried again")


def stopped_main(folder: Path) -> Row:
    """The steering process is held for a while, and somebody tries to take over."""
    with Trial(folder, "SIGSTOP to the steering process for 20 s, and a second one meanwhile") as trial:
        trial.begin(5)
        process = psutil.Process(trial.campaign.process.pid)
        process.suspend()
        code, text = _fff("resume", str(trial.campaign.run.path))
        trial.expect(code == 2, f"the second one ended with {code}: {text}")
        time.sleep(20)
        process.resume()
        trial.goes_on()
        return trial.row("the second one was refused; the first went on")


# --- stopping ---------------------------------------------------------------------------------------------

EPOCHS = 1000
LONG_TRAINING = {"training": {"max_epochs": EPOCHS, "stop_patience": EPOCHS, "plateau_patience": EPOCHS}}


def sigterm(folder: Path) -> Row:
    """SIGTERM in the middle of trainings."""
    return _stops_in_a_training(folder, "SIGTERM", lambda t: t.campaign.process.send_signal(signal.SIGTERM))


def sigint(folder: Path) -> Row:
    """Ctrl-C in the middle of trainings: the whole process group hears it."""
    return _stops_in_a_training(folder, "SIGINT", lambda t: os.killpg(t.campaign.process.pid, signal.SIGINT))


def stop_file(folder: Path) -> Row:
    """A file called STOP."""
    return _stops_in_a_training(folder, "a file STOP", lambda t: t.campaign.run.stop_file.touch())


def fff_stop(folder: Path) -> Row:
    """`fff stop`."""
    return _stops_in_a_training(folder, "`fff stop`", lambda t: _fff("stop", str(t.campaign.run.path)))


def _stops_in_a_training(folder: Path, name: str, stop: Callable[[Trial], object]) -> Row:
    trial = Trial(folder, f"{name}, in the middle of two trainings", stop={"max_labels": 6}, **LONG_TRAINING)
    with trial:
        trial.begin(7)
        _wait_for_trainings(trial.campaign)
        asked = time.monotonic()
        stop(trial)
        trial.ends(3, says="Resume with: fff resume")
        took_s = time.monotonic() - asked
        saved = sorted(trial.campaign.run.tasks.glob("train-*.stage/checkpoint-*"))
        trial.expect(len(saved) == 2, f"two trainings wrote {len(saved)} checkpoints")
        epochs = _epochs(trial.campaign)
        trial.campaign.start("resume", str(trial.campaign.run.path))
        again = _began_again(trial.campaign, epochs)
        trial.expect(not again, f"trainings began again: {again}")
        trial.goes_on()
        done = " and ".join(str(n) for n in sorted(epochs.values()))
        return trial.row(f"over after {took_s:.0f} s; both trainings went on, from epochs {done} of {EPOCHS}")


def sigterm_to_all(folder: Path) -> Row:
    """What batch systems do: every process of a job is told."""

    def tell_all(trial: Trial) -> None:
        for process in trial.campaign.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()

    trial = Trial(folder, "SIGTERM to every process at once, as batch systems send it")
    with trial:
        trial.begin(9)
        tell_all(trial)
        trial.ends(3, says="Resume with: fff resume")
        trial.goes_on()
        return trial.row("it stopped")


def sigterm_at_the_start(folder: Path) -> Row:
    """SIGTERM before there is anything to be stopped, and while a sitting begins."""
    with Trial(folder, "SIGTERM while a sitting begins, after 0.3 s, 1 s, 2 s … 7 s") as trial:
        for delay_s in (0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0):
            trial.campaign.start()
            time.sleep(delay_s)
            trial.campaign.process.terminate()
            trial.ends(3, -signal.SIGTERM)
        trial.campaign.start()
        trial.goes_on()
        return trial.row("each of them was over soon; the last one finished")


def broken_pipe(folder: Path) -> Row:
    """Whoever read what it prints has gone; it prints a line each minute."""
    with Trial(folder, "standard output is a pipe, and its reader goes away") as trial:
        trial.campaign.start(heard=True)
        trial.campaign.wait_for_events(9)
        trial.campaign.process.stdout.close()
        trial.campaign.slow_down(20.0)
        time.sleep(62)
        trial.expect(trial.campaign.is_running, "it ended")
        trial.campaign.slow_down(0.0)
        trial.goes_on()
        return trial.row("it went on; its log tells what it could not print")


def sigint_twice(folder: Path) -> Row:
    """A second Ctrl-C."""
    trial = Trial(folder, "SIGINT, and again", stop={"grace_s": 300.0})
    with trial:
        trial.campaign.slow_down(30.0)
        trial.begin(1)
        trial.campaign.wait_until(trial.campaign.calculations, "a calculation")
        trial.campaign.process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        trial.expect(trial.campaign.is_running, "the first one did not leave time to end")
        asked = time.monotonic()
        trial.campaign.process.send_signal(signal.SIGINT)
        trial.ends(3, says="Resume with: fff resume", timeout_s=60)
        took_s = time.monotonic() - asked
        trial.campaign.slow_down(0.0)
        trial.goes_on()
        return trial.row(f"over {took_s:.0f} s after the second one, though the grace was 300 s")


def sighup(folder: Path) -> Row:
    """The terminal is closed."""
    with Trial(folder, "SIGHUP, as when a terminal is closed") as trial:
        trial.begin(5)
        trial.campaign.process.send_signal(signal.SIGHUP)
        trial.ends(-signal.SIGHUP, 3)
        trial.goes_on()
        return trial.row("it died, and so did all that it had started")


def walltime(folder: Path) -> Row:
    """The walltime ends."""
    trial = Trial(folder, "`--walltime 60s`", stop={"max_labels": 20})
    with trial:
        trial.campaign.slow_down(4.0)
        started = time.monotonic()
        trial.begin(0, *trial.campaign.command, "--walltime", "60s")
        trial.ends(3, says="walltime", timeout_s=90)
        took_s = time.monotonic() - started
        trial.expect(took_s < 60, f"it took {took_s:.0f} s")
        trial.campaign.slow_down(0.0)
        trial.goes_on()
        return trial.row(f"over after {took_s:.0f} s")


def second_process(folder: Path) -> Row:
    """A second process on the same run directory."""
    with Trial(folder, "a second process on the same run directory") as trial:
        trial.begin(3)
        code, text = _fff(*trial.campaign.command)
        trial.expect(code == 2, f"it ended with {code}")
        trial.expect("is taken" in text, f"it said {text}")
        trial.goes_on()
        return trial.row(f"the second was refused with exit code {code}; the first went on")


# --- files ------------------------------------------------------------------------------------------------


def full_disk(folder: Path) -> Row:
    """The disk of the run directory is full, at three moments."""
    with small_disk(folder / "disk", "24m") as disk:
        if disk is None:
            return Row("a full disk", "not tried: no file system may be mounted here", "", "", "", "")
        with Trial(folder, "a full disk, at three moments", run_dir=disk / "run") as trial:
            trial.campaign.start()
            for n_events, n_free in ((4, 0), (12, 1), (24, 3)):
                trial.campaign.wait_for_events(max(n_events, trial.campaign.n_lines() + 1))
                _fill(disk / "filler", n_free)
                trial.ends(1, 3)
                trial.expect("disk" in trial.last_line, f"it does not say so: {trial.last_line}")
                code, text = _fff("resume", str(trial.campaign.run.path))
                trial.expect(code in (1, 2, 3), f"on the full disk it went on, to exit code {code}: {text}")
                trial.expect("Traceback" not in text, f"on the full disk a traceback was printed: {text}")
                read_events(trial.campaign.run.events)
                (disk / "filler").unlink()
                trial.campaign.start("resume", str(trial.campaign.run.path))
            trial.goes_on()
            return trial.row("it stopped each time, with a sound log, and went on when there was room")


def locked_for_a_while(folder: Path) -> Row:
    """Somebody reads the labels for 20 s."""
    with Trial(folder, "labels.db locked by another program for 20 s") as trial:
        trial.begin(3)
        with _locking(trial.campaign.run.labels):
            time.sleep(20)
            trial.expect(trial.campaign.is_running, "it did not wait")
        trial.goes_on()
        return trial.row("it waited, and went on")


def locked_for_ever(folder: Path) -> Row:
    """Somebody holds the labels and does not let go."""
    with Trial(folder, "labels.db locked by another program for ever") as trial:
        trial.begin(3)
        with _locking(trial.campaign.run.labels):
            trial.ends(1, says="locked", timeout_s=180)
        trial.goes_on()
        return trial.row("it waited for a minute, then it stopped")


def lost_scores(folder: Path) -> Row:
    """Files that the log tells of disappear."""
    with Trial(folder, "scores/ and the models of a round removed while it runs") as trial:
        trial.begin(16)
        shutil.rmtree(trial.campaign.run.scores)
        for model in trial.campaign.run.models.glob("round-*"):
            shutil.rmtree(model)
        trial.ends(1)
        trial.goes_on()
        return trial.row("it stopped; resumed, it made them again")


def error_in_the_steering(folder: Path) -> Row:
    """Something that nobody thought of, in the steering process itself."""
    with Trial(folder, "an exception in the steering: a folder where committee.json belongs") as trial:
        trial.begin(7)
        committee = trial.campaign.run.committee
        committee.unlink(missing_ok=True)
        (committee / "in the way").mkdir(parents=True)
        trial.ends(1)
        shutil.rmtree(committee)
        trial.goes_on()
        return trial.row("it stopped, resumable")


def run_directory_gone(folder: Path) -> Row:
    """Somebody removes the run directory."""
    with Trial(folder, "the run directory removed while it runs") as trial:
        trial.begin(5)
        shutil.rmtree(trial.campaign.run.path, ignore_errors=True)
        shutil.rmtree(trial.campaign.run.path, ignore_errors=True)
        trial.ends(1)
        return trial.row("it stopped, and left no process behind")


TRIALS: dict[str, Callable[[Path], Row]] = {
    trial.__name__.replace("_", "-"): trial
    for trial in (
        unreliable_reference,
        always_failing_reference,
        reference_that_breaks,
        missing_reference,
        lost_reference,
        lost_worker,
        lost_idle_worker,
        lost_server,
        server_lost_for_good,
        lost_interchange,
        lost_manager,
        lost_guard,
        lost_bookkeeper,
        stopped_main,
        sigterm,
        sigint,
        sigterm_to_all,
        sigterm_at_the_start,
        broken_pipe,
        sigint_twice,
        sighup,
        stop_file,
        fff_stop,
        walltime,
        second_process,
        full_disk,
        locked_for_a_while,
        locked_for_ever,
        lost_scores,
        error_in_the_steering,
        run_directory_gone,
    )
}


# --- tools ------------------------------------------------------------------------------------------------


def _fff(*arguments: str) -> tuple[int, str]:
    """Run a command of fff and return its exit code and what it printed."""
    command = [sys.executable, "-c", "from fff.cli.app import main; main()", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return ended.returncode, ended.stdout + ended.stderr


def _busiest(campaign: Campaign) -> psutil.Process | None:
    return max(campaign.find("worker"), key=_used, default=None)


def _laziest(campaign: Campaign) -> psutil.Process | None:
    workers = campaign.find("worker")
    before = {worker: _used(worker) for worker in workers}
    time.sleep(3.0)
    return min(workers, key=lambda worker: _used(worker) - before[worker], default=None)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait_for_trainings(campaign: Campaign) -> None:
    """Wait until both members of a committee are well on their way."""

    def are_on_their_way() -> bool:
        return sum(epochs >= 20 for epochs in _epochs(campaign).values()) == 2

    campaign.wait_until(are_on_their_way, "two trainings")


def _epochs(campaign: Campaign) -> dict[str, int]:
    """Return how many epochs each training that runs has noted."""
    found = {}
    for folder in campaign.run.tasks.glob("train-*.stage"):
        with contextlib.suppress(OSError):
            lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
            found[folder.stem] = max(0, len(lines) - 2)
    return found


def _began_again(campaign: Campaign, saved: dict[str, int]) -> dict[str, int]:
    """Watch the trainings until they have ended, and return those that fell behind their checkpoint."""
    least = dict(saved)
    while campaign.is_running and sum(event.kind == "train" for event in campaign.events()) < len(saved):
        for name, epochs in _epochs(campaign).items():
            least[name] = min(least.get(name, epochs), epochs)
        time.sleep(0.05)
    return {name: epochs for name, epochs in least.items() if epochs < saved.get(name, 0)}


def _fill(filler: Path, n_free: int) -> None:
    """Write until the disk is full, but for a few pages: a file may then be cut anywhere."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, PAGE):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
        file.truncate(max(0, file.tell() - n_free * PAGE))


@contextlib.contextmanager
def _locking(path: Path) -> Iterator[None]:
    """Hold a database locked, as a program does that writes and does not come to an end."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


# --- the command ------------------------------------------------------------------------------------------


def main() -> int:
    """Run the trials and return the exit code: 1 if one of them is not as promised."""
    parser = argparse.ArgumentParser(description="Inject faults into a small campaign, one at a time.")
    parser.add_argument("trials", nargs="*", help=f"any of: {', '.join(TRIALS)}; all when none is given")
    parser.add_argument("--write", action="store_true", help="write the table in docs/faults.md")
    parser.add_argument("--keep", type=Path, help="folder to keep the campaigns in, for a look afterwards")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fff-faults-"))
    rows: list[Row] = []
    for name in options.trials or TRIALS:
        shutil.rmtree(folder / name, ignore_errors=True)
        rows.append(TRIALS[name](folder / name))
        say(rows[-1].text())
    if options.write:
        write_table("faults", rows)
    sound = all(row.sound for row in rows)
    if sound and not options.keep:
        shutil.rmtree(folder)
    else:
        say(f"The campaigns are in {folder}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
