"""How many events a second the active-learning policy handles: one core must keep a thousand workers busy.

    python benchmarks/steering.py [--slots 1000] [--events 100000] [--profile]

Plays a campaign on a workstation with that many slots, each request ending in the order in which it was
asked for, and counts only the processor time in the policy. Then replays the log into a fresh policy, as a
resumed campaign does. Promised: 100,000 events are replayed in 5 s.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fff.data.events import Event
from fff.steering.active_learning import ActiveLearning
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
        stop={"max_labels": 10_000_000},
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


def replay(events: list[Event]) -> float:
    """Return the seconds that a fresh policy takes for all events."""
    policy = ActiveLearning(events[0])
    started = time.process_time()
    policy.start()
    for event in events[1:]:
        policy.handle(event)
    return time.process_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    arguments = parser.parse_args()
    opening = first_event(arguments.slots)
    profiler = cProfile.Profile()
    events, live = play(opening, arguments.events)
    print(f"{arguments.slots} slots, {len(events)} events")
    print(f"live:   {live:.2f} s in the policy, {len(events) / live:.0f} events/s")
    if arguments.profile:
        profiler.enable()
    seconds = replay(events)
    profiler.disable()
    print(f"replay: {seconds:.2f} s, {seconds * 1e5 / len(events):.2f} s for 100,000 events")
    if arguments.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
