"""A steering process of its own, to be killed by a test: two workers, each busy with children of its own.

Prints the process ids of all it has started, then a line for every result that it receives.
"""

from __future__ import annotations

import operator
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from fff.compute.queues import LocalQueues
from fff.compute.server import start_server
from fff.compute.sites import make_site
from fff.config.site import LaptopSite

# A worker's child, and one that has left its session, as a reference calculation has.
BUSY = "setsid sleep 600 & sleep 600"


def main(run_dir: Path) -> None:
    """Start everything, keep it busy, and wait to be killed; Ctrl-C is for the steering process to judge."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    queues = LocalQueues(["train", "calculate"])
    site = make_site(LaptopSite(kind="laptop", n_workers=2))
    server = start_server({"train": subprocess.call, "calculate": operator.add}, queues, site, run_dir)
    queues.send_inputs(["bash", "-c", BUSY], method="train", topic="train")
    queues.send_inputs(0, 0, method="calculate", topic="calculate")
    queues.get_result("calculate", timeout=60)
    # Either worker may have been the first: the other's task has begun when what it starts is there.
    family = psutil.Process(server.pid).children(recursive=True)
    while sum(process.name() == "sleep" for process in family) < 2:
        time.sleep(0.05)
        family = psutil.Process(server.pid).children(recursive=True)
    pids = [server.pid, *(process.pid for process in family)]
    sys.stdout.write(" ".join(map(str, pids)) + "\n")
    sys.stdout.flush()
    for number in map(int, sys.stdin):
        queues.send_inputs(number, number, method="calculate", topic="calculate")
        sys.stdout.write(f"{queues.get_result('calculate', timeout=60).value}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
