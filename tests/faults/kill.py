"""Kills a small campaign at many points of its log, goes on each time, and compares what it ends with.

Three kinds of process are killed with SIGKILL, each at as many points as asked for: the steering process, a
worker, the task server. The first is started again with the same command; the others are made good by the
process that lost them. Some points lie right behind an event, the others in the work that follows it: while a
row is written, between a row and its event, between a file and its event. Every fifth kill of the steering
process is followed by another while it starts again; every fifth also cuts the last line of the log in half,
which a process cannot do and a power cut can.

Run it as `python -m tests.faults.kill`; `--points 2` is a quick look.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fff.data.events import CHANGED, OPENED
from fff.steering.replay import replay
from tests.faults.campaign import Campaign
from tests.faults.table import Row, say, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fff.data.events import Event

__all__ = ["Chain", "Point", "Reference", "main", "points_over"]

Mode = Literal["serial", "parallel"]
Moment = Literal["event", "work", "row", "file", "opening", "starting"]

VICTIMS = ("main", "worker", "server")
WORDS = {"main": "the steering process", "worker": "a worker", "server": "the task server"}
WORKERS: dict[Mode, int] = {"serial": 1, "parallel": 2}
MOMENTS: tuple[Moment, ...] = ("event", "work", "row", "file", "work")

# A worker that is killed again and again at the same task is not what is tried here.
MANY_ATTEMPTS = {"calculation": {"max_attempts": 50}}


@dataclass(frozen=True)
class Point:
    """Where to kill.

    Attributes:
        victim: What is killed.
        after: Lines of the log, failures not counted, that must be there first.
        moment: What is waited for then.
        delay_s: And how long after that.
        cut: Whether the last line of the log is cut in half afterwards.
        again_s: When the sitting that goes on is killed too, that long after its start; None for not.
    """

    victim: str
    after: int
    moment: Moment
    delay_s: float
    cut: bool = False
    again_s: float | None = None


@dataclass
class Hit:
    """One kill, and what came of it.

    Attributes:
        point: Where it was meant to be.
        line: Lines in the log when it came.
        running: Requests that were in flight.
        said: What the log says about it.
        back_s: Seconds until work that began afterwards had ended.
        rows: The labels that were there, by request; None where nobody could look.
        noted: Lines in the audit file by then.
    """

    point: Point
    line: int = 0
    running: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    back_s: float = 0.0
    rows: dict[str, dict[str, Any]] | None = None
    noted: int = 0


@dataclass(frozen=True)
class Reference:
    """The campaign that nobody disturbed.

    Attributes:
        rows: Its labels.
        decisions: What its log says, without times.
        n_lines: Lines of its log.
    """

    rows: dict[str, dict[str, Any]]
    decisions: list[tuple[Any, ...]]
    n_lines: int

    @classmethod
    def made_in(cls, folder: Path, mode: Mode, **sections: Any) -> Reference:
        """Run it."""
        site = {"n_workers": WORKERS[mode]}
        with Campaign(folder, site=site, **MANY_ATTEMPTS, **sections) as campaign:
            campaign.start()
            code = campaign.wait()
            if code:
                msg = f"The undisturbed campaign ended with {code}: {campaign.last_line}"
                raise AssertionError(msg)
            return cls(campaign.rows(), decisions(campaign.events()), campaign.n_lines())


def points_over(n_lines: int, victim: str, n: int, seed: int = 0) -> list[Point]:
    """Return `n` points spread over a log of that many lines, the same ones each time."""
    draw = random.Random(f"{victim} {n} {seed}")
    found = []
    for i in range(n):
        moment = MOMENTS[i % len(MOMENTS)]
        longest_s = {"event": 0.005, "work": 0.5, "row": 0.008, "file": 0.02}[moment]
        after = 1 + round((n_lines - 3) * (i + draw.random()) / n)
        cut = victim == "main" and i % 5 == 4
        again_s = 7.0 * draw.random() if victim == "main" and i % 5 == 1 else None
        found.append(Point(victim, after, moment, longest_s * draw.random(), cut, again_s))
    if victim == "main" and n > 10:
        # Also before there is anything to go on with.
        found[:2] = [Point(victim, 0, "opening", delay_s) for delay_s in (0.0, 0.1)]
    return found


class Chain:
    """A campaign that is killed at one point after the other.

    Args:
        folder: Where.
        mode: `serial`: one worker, so that the order is settled; `parallel`: two.
        points: Where to kill, in the order of the log.
        tell: Told what happened at each.
        **sections: Keys of the config that differ, by section.

    Attributes:
        hits: What happened.
        problems: What should not have happened.
    """

    def __init__(
        self,
        folder: Path,
        mode: Mode,
        points: Sequence[Point],
        tell: Callable[[str], None] = say,
        **sections: Any,
    ) -> None:
        self.campaign = Campaign(folder, site={"n_workers": WORKERS[mode]}, **MANY_ATTEMPTS, **sections)
        self.mode = mode
        self.hits: list[Hit] = []
        self.problems: list[str] = []
        self.exit_code: int | None = None
        self._points = list(points)
        self._tell = tell

    def run(self) -> list[Point]:
        """Kill at each point, let the campaign end, and return the points that it never came to."""
        campaign = self.campaign
        with campaign:
            campaign.start()
            while self._points and campaign.is_running:
                point = self._points[0]
                if not self._wait(point):
                    break
                del self._points[0]
                self._kill(point)
            self.exit_code = campaign.wait()
            self._check_end()
        return self._points

    def repeated(self) -> tuple[int, int]:
        """Return how many calculations of labels were begun again, and how many of them had ended before."""
        return self.campaign.n_again("begin"), self.campaign.n_again("end")

    def _wait(self, point: Point) -> bool:
        """Wait for the moment of a point; returns False if the campaign ended first."""
        campaign, run = self.campaign, self.campaign.run
        if point.moment == "opening":
            campaign.wait_until(lambda: run.config.exists() or run.events.exists(), "the opening")
        # What failed since is no progress.
        others = sum(event.outcome == "failed" or event.kind == CHANGED for event in self._events())
        if not campaign.wait_for_events(max(point.after + others, campaign.n_lines())):
            return False
        if point.moment == "row":
            journal = run.path / "labels.db-journal"
            last = campaign.n_lines() + 8
            campaign.wait_until(lambda: journal.exists() or campaign.n_lines() >= last, "a row")
        elif point.moment == "file":
            before = _files(run.path)
            campaign.wait_until(lambda: _files(run.path) != before, "a file")
        time.sleep(point.delay_s)
        return campaign.is_running

    def _kill(self, point: Point) -> None:
        campaign = self.campaign
        hit = Hit(point, running=_in_flight(campaign))
        n_said = len(campaign.log().splitlines())
        # A task server that has just been started has no workers yet.
        if not campaign.wait_until(lambda: campaign.kill(point.victim), f"a {point.victim}"):  # type: ignore[arg-type]
            self._points.insert(0, point)
            return
        killed = time.time()
        if point.victim == "main":
            self._look_at_the_dead(hit)
            killed = time.time()
            campaign.start()
            if point.again_s is not None:
                self.hits.append(hit)
                time.sleep(point.again_s)
                self._kill(replace(point, moment="starting", delay_s=point.again_s, again_s=None))
                return
        else:
            hit.line, hit.noted = campaign.n_lines(), len(campaign.calculations())
            hit.running = list(dict.fromkeys([*hit.running, *_in_flight(campaign)]))
        campaign.wait_until(lambda: self._goes_on(killed), "the next event")
        hit.back_s = time.time() - killed
        hit.said = [_message(line) for line in campaign.log().splitlines()[n_said:] if " WARNING " in line]
        self.hits.append(hit)
        self._tell(self._told(hit))

    def _goes_on(self, killed: float) -> bool:
        time.sleep(0.02)
        return any(
            event.outcome == "done" and event.times.get("ended", 0.0) > killed
            for event in self._events()[-3:]
        )

    def _look_at_the_dead(self, hit: Hit) -> None:
        campaign = self.campaign
        campaign.wait()
        if left := campaign.left():
            self.problems.append(f"{len(left)} processes outlived the steering process: {left}")
        hit.running = _in_flight(campaign)
        # Where a row has no event yet, losing one more event leaves all labels, but not their order.
        if hit.point.cut and campaign.n_lines() > 1 and (self.mode == "parallel" or self._all_told()):
            _cut_last_line(campaign.run.events)
        hit.line, hit.noted = campaign.n_lines(), len(campaign.calculations())
        hit.rows = campaign.rows()
        hit.running = list(dict.fromkeys([*_in_flight(campaign), *hit.running]))

    def _all_told(self) -> bool:
        """Whether the log tells of every row."""
        return self.campaign.rows().keys() <= {event.request for event in self._events()}

    def _events(self) -> list[Event]:
        return self.campaign.events()

    def _told(self, hit: Hit) -> str:
        point = hit.point
        moment = f"{point.moment}, cut" if point.cut else point.moment
        where = f"line {hit.line:3d} +{point.delay_s:.3f} s ({moment})"
        running = ", ".join(hit.running) or "nothing"
        said = "; ".join(hit.said) or "nothing was said"
        return (
            f"{len(self.hits):4d} {self.mode:8s} {point.victim:6s} {where:38s} "
            f"back after {hit.back_s:5.1f} s | in flight: {running} | {said}"
        )

    def _check_end(self) -> None:
        campaign = self.campaign
        rows = campaign.rows()
        self._expect(self.exit_code == 0, f"it ended with exit code {self.exit_code}: {campaign.last_line}")
        self._expect(not (left := campaign.left()), f"processes are left behind: {left}")
        self._expect(not campaign.run.store.exists(), "objects are left in store/")
        self._expect(not campaign.run.lock.exists(), "the lock is left")
        asked = campaign.settings["stop"]["max_labels"]
        self._expect(len(rows) == asked, f"there are {len(rows)} labels, not {asked}")
        hashes = [row["hash"] for row in rows.values()]
        self._expect(len(set(hashes)) == len(hashes), "a structure has two labels")
        for hit in self.hits:
            for request, row in (hit.rows or {}).items():
                self._expect(
                    rows.get(request) == row, f"{request} was there at line {hit.line}, and is not now"
                )
        self._check_repetitions(rows)

    def _check_repetitions(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that only what was in flight at a kill was calculated again."""
        notes = self.campaign.calculations()
        for request, row in rows.items():
            if row["key"] in self.campaign.also_elsewhere:
                continue
            began = [n for n, note in enumerate(notes) if note == ("begin", row["key"])]
            self._expect(bool(began), f"{request} has a label that was never calculated")
            for hit in self.hits:
                if hit.rows is not None and request in hit.rows:
                    again = any(n >= hit.noted for n in began)
                    self._expect(not again, f"{request} was calculated again after it had its label")
            in_flight = sum(request in hit.running for hit in self.hits)
            self._expect(
                len(began) <= 1 + in_flight,
                f"{request} was begun {len(began)} times, and was in flight at {in_flight} kills",
            )

    def _expect(self, so: bool, otherwise: str) -> None:
        if not so and otherwise not in self.problems:
            self.problems.append(otherwise)


def decisions(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """Return what a log says happened, without times, failures and what a resumed campaign adds."""
    passing = ("wall_s", "found", "file")
    return [
        (event.kind, event.request, {key: v for key, v in event.values.items() if key not in passing})
        for event in events
        if event.outcome == "done" and event.kind not in (OPENED, CHANGED)
    ]


def differences(chain: Chain, reference: Reference) -> list[str]:
    """Return in what a serial chain ended otherwise than the campaign that nobody disturbed."""
    rows = chain.campaign.rows()
    found = []
    if list(rows) != list(reference.rows):
        found.append(f"the labels are {list(rows)}, undisturbed {list(reference.rows)}")
    for request, row in reference.rows.items():
        other = rows.get(request, {})
        keys = sorted(key for key in {*row, *other} if row.get(key) != other.get(key))
        if keys:
            found.append(f"{request} differs in {', '.join(keys)}")
    mine = decisions(chain.campaign.events())
    if mine != reference.decisions:
        first = next(
            (i for i, (a, b) in enumerate(zip(mine, reference.decisions, strict=False)) if a != b),
            min(len(mine), len(reference.decisions)),
        )
        a, b = mine[first : first + 1], reference.decisions[first : first + 1]
        found.append(f"the logs part at event {first + 1}: {a} instead of {b}")
    return found


def _cut_last_line(path: Path) -> None:
    data = path.read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(data[: start + (len(data) - start) // 2])


def _files(run: Path) -> int:
    return sum(1 for name in ("tasks", "frames", "scores", "models", "test") for _ in (run / name).rglob("*"))


def _in_flight(campaign: Campaign) -> list[str]:
    events = campaign.events()
    return list(replay(events, campaign.run.events).policy.open_requests) if events else []


def _message(line: str) -> str:
    return line.partition(" WARNING ")[2].partition(": ")[2]


# --- the command ------------------------------------------------------------------------------------------


def kill_test(folder: Path, mode: Mode, n_points: int, victims: Sequence[str]) -> list[Row]:
    """Kill at `n_points` points for each kind of process, and return a row of the table for each kind."""
    started = time.monotonic()
    reference = Reference.made_in(folder / f"{mode}-undisturbed", mode)
    say(
        f"{mode}: the undisturbed campaign took {time.monotonic() - started:.0f} s, {reference.n_lines} lines"
    )
    rows = []
    for victim in victims:
        started = time.monotonic()
        todo = points_over(reference.n_lines, victim, n_points)
        chains: list[Chain] = []
        problems: list[str] = []
        while todo:
            chain = Chain(folder / f"{mode}-{victim}-{len(chains)}", mode, todo)
            chains.append(chain)
            left = chain.run()
            problems += chain.problems
            if mode == "serial":
                problems += differences(chain, reference)
            if problems or len(left) == len(todo):
                break
            todo = points_over(reference.n_lines, victim, len(left), seed=len(chains)) if left else []
        rows.append(_row(mode, victim, chains, problems, time.monotonic() - started))
    return rows


def _row(mode: Mode, victim: str, chains: Sequence[Chain], problems: Sequence[str], took_s: float) -> Row:
    hits = [hit for chain in chains for hit in chain.hits]
    back = sorted(hit.back_s for hit in hits)
    again = sum(chain.repeated()[0] for chain in chains)
    ended = sum(chain.repeated()[1] for chain in chains)
    median = back[len(back) // 2] if back else float("nan")
    equal = {
        "serial": "labels and log equal those of the undisturbed campaign to the last bit",
        "parallel": "budget met exactly, every label once, each that was ever there is there",
    }[mode]
    return Row(
        injected=f"SIGKILL to {WORDS[victim]} at {len(hits)} points of the log, {mode}",
        happened=f"{equal if not problems else '; '.join(problems)}; running again after {median:.0f} s "
        f"(median; at most {max(back, default=0):.0f} s)",
        exit_code=str(chains[-1].exit_code),
        last_line=chains[-1].campaign.last_line,
        resumed="yes, by the same command" if victim == "main" else "yes, in the same process",
        labels=f"0 lost, {again} begun again, {ended} of which had ended",
        took_s=took_s,
        sound=not problems,
    )


def main() -> int:
    """Run the kill test and return the exit code: 1 if anything was lost."""
    parser = argparse.ArgumentParser(description="Kill a small campaign at many points and go on each time.")
    parser.add_argument(
        "--points", type=int, default=50, help="points for each kind of process and each mode"
    )
    parser.add_argument("--mode", choices=list(WORKERS), action="append", help="both when not given")
    parser.add_argument("--victim", choices=VICTIMS, action="append", help="all when not given")
    parser.add_argument("--write", action="store_true", help="write the table in docs/faults.md")
    parser.add_argument("--keep", type=Path, help="folder to keep the campaigns in, for a look afterwards")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fff-kill-"))
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    rows: list[Row] = []
    for mode in options.mode or list(WORKERS):
        rows += kill_test(folder, mode, options.points, options.victim or VICTIMS)
    for row in rows:
        say(row.text())
    if options.write:
        write_table("kills", rows)
    sound = all(row.sound for row in rows)
    if sound and not options.keep:
        shutil.rmtree(folder)
    else:
        say(f"The campaigns are in {folder}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
