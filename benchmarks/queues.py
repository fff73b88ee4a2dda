"""Round trips through the queues, and through the whole task server: how many a second, how many ms each.

    python benchmarks/queues.py [--server] [--seconds 2]

The other side is a forked process that returns what it gets. Colmena's `PipeQueues` stands beside ours with
one thread only: with four it breaks. `--server` adds the real task server with two workers and empty tasks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import operator
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from colmena.exceptions import KillSignalException
from colmena.queue.base import QueueRole
from colmena.queue.python import PipeQueues

from fff.compute.queues import LocalQueues
from fff.compute.server import start_server, stop_server
from fff.compute.sites import make_site
from fff.config.site import LaptopSite

if TYPE_CHECKING:
    from collections.abc import Callable

    from colmena.queue.base import ColmenaQueues

TOPICS = ["a", "b", "c", "d"]


def echo(queues: ColmenaQueues) -> None:
    """Return the first argument of each request until the kill signal comes."""
    if isinstance(queues, LocalQueues):
        queues.keep(QueueRole.SERVER)
    while True:
        try:
            _, task = queues.get_task()
        except KillSignalException:
            return
        task.deserialize()
        task.set_result(task.args[0])
        task.serialize()
        queues.send_result(task)


def rate(agent: Callable[[str, float], int], topics: list[str], seconds: float) -> float:
    """Return round trips per second of one thread per topic."""
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda topic=topic: counts.append(agent(topic, seconds))) for topic in topics
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def measure_queue(make: Callable[..., ColmenaQueues], n_threads: int, size: int, seconds: float) -> float:
    """Return round trips per second with messages of `size` bytes before packing."""
    queues = make(TOPICS, keep_inputs=False)
    server = multiprocessing.get_context("fork").Process(target=echo, args=(queues,), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.start()
    if isinstance(queues, LocalQueues):
        queues.keep(QueueRole.CLIENT)
    payload = bytes(size)

    def agent(topic: str, seconds: float) -> int:
        count, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            queues.send_inputs(payload, method="echo", topic=topic)
            queues.get_result(topic)
            count += 1
        return count

    found = rate(agent, TOPICS[:n_threads], seconds)
    queues.send_kill_signal()
    server.join()
    if isinstance(queues, LocalQueues):
        queues.close()
    return found


def measure_server(seconds: float) -> None:
    """Print what starting, asking and stopping the real task server takes."""
    with tempfile.TemporaryDirectory() as folder:
        queues = LocalQueues(["calculate"])
        started = time.perf_counter()
        site = make_site(LaptopSite(kind="laptop", n_workers=2))
        server = start_server({"calculate": operator.add}, queues, site, Path(folder))

        def agent(topic: str, seconds: float) -> int:
            count, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                queues.send_inputs(1, 2, method="calculate", topic=topic)
                queues.get_result(topic)
                count += 1
            return count

        agent("calculate", 0.001)
        print(f"task server, first result                 {time.perf_counter() - started:8.2f} s")
        print(
            f"task server, one after the other          {1000 / rate(agent, ['calculate'], seconds):8.2f} ms"
        )
        n_tasks, started = 500, time.perf_counter()
        for _ in range(n_tasks):
            queues.send_inputs(1, 2, method="calculate", topic="calculate")
        for _ in range(n_tasks):
            queues.get_result("calculate")
        rate_at_once = n_tasks / (time.perf_counter() - started)
        print(f"task server, {n_tasks} at once                  {rate_at_once:8.0f} /s")
        started = time.perf_counter()
        stop_server(server, queues, 10)
        print(f"task server, stopping                     {time.perf_counter() - started:8.2f} s")
        queues.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="store_true", help="the real task server too")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each measurement takes")
    options = parser.parse_args()
    for size in (100, 4_000, 1_000_000):
        for make, n_threads in ((LocalQueues, 1), (LocalQueues, 4), (PipeQueues, 1)):
            found = measure_queue(make, n_threads, size, options.seconds)
            label = f"{make.__name__}, {n_threads} threads, {size} bytes"
            print(f"{label:40s}  {found:8.0f} /s")
    if options.server:
        measure_server(options.seconds)


if __name__ == "__main__":
    main()
