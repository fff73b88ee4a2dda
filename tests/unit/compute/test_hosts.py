import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fff.base.errors import ReferenceSetupError, SlotsTakenError
from fff.compute.hosts import leased
from fff.external import Launch

# A worker in a process of its own: takes slots, says so, and waits to be told to end.
WORKER = """
import sys
from fff.compute.hosts import leased
with leased(int(sys.argv[1]), None) as launch:
    print(",".join(launch.hosts), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def block(tmp_path):
    """The environment of a block of four nodes."""
    return {
        **os.environ,
        "FFF_SLOT_HOSTS": "n1,n2,n3,n4",
        "FFF_SLOT_LEASES": str(tmp_path),
        "FFF_SLOT_CORES": "16",
    }


@pytest.fixture
def worker(block):
    """Start workers, which are killed in the end."""
    with_pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = []

    def start(n_slots):
        command = [sys.executable, "-c", WORKER, str(n_slots)]
        started.append(subprocess.Popen(command, env=block, **with_pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def hosts_of(process):
    return process.stdout.readline().strip().split(",")


def test_without_a_block_all_slots_are_this_machine():
    with leased(2, "mpiexec -n {ranks}", environment={}) as launch:
        assert launch == Launch.on_this_machine("mpiexec -n {ranks}", 2)


def test_two_calculations_of_a_block_have_different_hosts(block):
    with (
        leased(2, None, environment=block) as first,
        leased(1, None, environment=block) as second,
        leased(1, None, environment=block) as third,
    ):
        assert (first.slots, first.cores) == (2, 16)
        assert sorted(first.hosts + second.hosts + third.hosts) == ["n1", "n2", "n3", "n4"]


def test_slots_lie_on_as_few_hosts_as_may_be(block):
    block["FFF_SLOT_HOSTS"] = "n1,n2,n2,n3,n3,n3"
    with (
        leased(2, None, environment=block) as pair,
        leased(3, None, environment=block) as three,
        leased(1, None, environment=block) as rest,
    ):
        assert (pair.hosts, three.hosts, rest.hosts) == (("n2",) * 2, ("n3",) * 3, ("n1",))


def test_what_is_not_all_free_is_not_taken_at_all(block):
    with leased(3, None, environment=block):
        with (
            pytest.raises(SlotsTakenError, match=r"2 slots .* did not become free within 0\.1 s") as raised,
            leased(2, None, environment=block, wait_s=0.1),
        ):
            pass
        assert raised.value.failure_class == "retry"
        with leased(1, None, environment=block, wait_s=0.1) as launch:
            assert launch.hosts == ("n4",)


def test_slots_of_a_worker_that_was_killed_are_free_again(worker, block):
    first = worker(4)
    assert hosts_of(first) == ["n1", "n2", "n3", "n4"]
    os.kill(first.pid, signal.SIGKILL)
    with leased(4, None, environment=block, wait_s=60) as launch:
        assert launch.slots == 4


def test_who_needs_all_slots_is_not_overtaken_by_those_who_need_one(block):
    order = []

    def small(held):
        with leased(1, None, environment=block, wait_s=60):
            order.append("small")
            held.wait(60)

    def large():
        with leased(4, None, environment=block, wait_s=60):
            order.append("large")

    held = [threading.Event() for _ in range(3)]
    threads = [threading.Thread(target=small, args=(held[0],))]
    threads[0].start()
    wait_until(lambda: order == ["small"])
    threads.append(threading.Thread(target=large))
    threads[1].start()
    # It is in turn now, and three slots are free, which it does not hold.
    wait_until(lambda: turn_is_taken(block))
    threads += [threading.Thread(target=small, args=(each,)) for each in held[1:]]
    for thread in threads[2:]:
        thread.start()
    held[0].set()
    wait_until(lambda: len(order) == 4)
    for event in held:
        event.set()
    for thread in threads:
        thread.join()
    assert order == ["small", "large", "small", "small"]


def turn_is_taken(block):
    turn = Path(block["FFF_SLOT_LEASES"], "turn")
    with turn.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_until(is_so, within_s=60):
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FFF_SLOT_HOSTS", "", "names no host, but FFF_SLOT_LEASES is"),
        ("FFF_SLOT_HOSTS", "n1", "needs 2 slots, but this block has 1"),
        ("FFF_SLOT_LEASES", "", "must name a folder"),
        ("FFF_SLOT_LEASES", "leases", "must name a folder"),
        ("FFF_SLOT_CORES", "0", "a whole number above 0"),
        ("FFF_SLOT_CORES", "many", "a whole number above 0"),
    ],
)
def test_a_block_that_cannot_be_used_is_refused(block, variable, value, said):
    block[variable] = value
    with pytest.raises(ReferenceSetupError, match=said), leased(2, None, environment=block):
        pass
