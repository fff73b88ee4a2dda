"""How many events a second the active-learning policy handles: one core must keep a thousand workers busy.

    python benchmarks/steering.py [--slots 1000] [--events 100000] [--repeat 3] [--profile]

Plays a campaign on a workstation with that many slots, each request ending in the order in which it was
asked for, and counts only the processor time in the policy. Then reads the log from its file and replays it
into a fresh policy, as a resumed campaign does. Promised: 100,000 events are replayed in 5 s.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fff.data.events import Event, read_events
from fff.steering.active_learning import ActiveLearning
from fff.steering.replay import replay
from tests.support.playing_campaigns import answer, opened


def first_event(n_slots: int) -> Event:
    """Return the opening of a campaign that does not end soon."""
    n_gpu = max(1, n_slots // 10)
    n_cpu = n_slots - n_gpu
    return opened(
        {"gpu": n_gpu, "cpu": n_cpu},
        n_starts=100,
        start={"n_labels": 100},
        committee={"size": 8},
        training={"retrain_every": 1000},
        sampling={
            "n_parallel": n_cpu // 2,
            "n_trajectories": n_cpu,
            "n_frames": 10,
            "temperature_K": [300.0, 500.0],
        },
        selection={"chunk_size": 20, "pool_size": 5000},
        queue={"length": 20, "tolerance": 5},
        stop={"max_labels": 1_000_000},
    )


def play(opening: Event, n_events: int) -> tuple[list[Event], float]:
    """Return the events of a campaign, and the seconds that the policy took for them."""
    policy = ActiveLearning(opening)
    config = policy.state.config
    started = time.process_time()
    waiting = deque(policy.start())
    taken = time.process_time() - started
    events = [opening]
    while len(events) < n_events:
        request = waiting.popleft()
        values = answer(request, config)
        event = Event(len(events), request.kind, request.id, request.attempt, values=values)
        events.append(event)
        started = time.process_time()
        waiting.extend(policy.handle(event))
        taken += time.process_time() - started
    return events, taken


def resume(path: Path, n_events: int) -> tuple[float, float]:
    """Return the seconds it takes to read a log, and to take it into a fresh policy."""
    started = time.process_time()
    events = read_events(path)
    read = time.process_time()
    found = replay(events, path)
    ended = time.process_time()
    if len(found.events) != n_events:
        sys.exit(f"{len(found.events)} of {n_events} events were replayed")
    return read - started, ended - read


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3, help="how often the log is read and replayed")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    opening = first_event(arguments.slots)
    profiler = cProfile.Profile()
    events, live = play(opening, arguments.events)
    print(f"{arguments.slots} slots, {len(events)} events")
    print(f"live:   {live:.2f} s in the policy, {len(events) / live:.0f} events/s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.jsonl")
        path.write_text("".join(event.to_line() for event in events))
        if arguments.profile:
            profiler.enable()
        runs = [resume(path, len(events)) for _ in range(arguments.repeat)]
        profiler.disable()
    for name, seconds in (("read:  ", [r for r, _ in runs]), ("replay:", [r for _, r in runs])):
        scale = 1e5 / len(events)
        middle = statistics.median(seconds) * scale
        spread = f"{min(seconds) * scale:.2f} - {max(seconds) * scale:.2f}"
        print(f"{name} {middle:.2f} s for 100,000 events ({spread}, {len(seconds)} times)")
    if arguments.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
