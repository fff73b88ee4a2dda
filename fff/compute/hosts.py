"""The hosts of a calculation's slots: those of a block of several nodes, or this machine.

On a block of several nodes the workers live on the first of them and share all. Steering sees to it that no
more slots are in use than there are; which of them are free, the workers settle among themselves, by locks on
files that the system lets go when a process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceSetupError, SlotsTakenError
from fff.compute.lifetime import LEASES_VARIABLE
from fff.external import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["leased"]

WAIT_S = 120.0
"""How long slots may take to become free: several times what ending a code on them takes at most."""
_LOOK_EVERY_S = 0.05


@contextlib.contextmanager
def leased(
    n_slots: int,
    line: str | None,
    *,
    environment: Mapping[str, str] = os.environ,
    wait_s: float = WAIT_S,
) -> Iterator[Launch]:
    """Give a calculation its slots for as long as the block lasts, all or none.

    `FFF_SLOT_HOSTS` names the host of each slot and `FFF_SLOT_LEASES` a folder for the locks; without them
    all slots are on this machine, and nothing is leased. `FFF_SLOT_CORES` says how many cores a slot has.

    Whoever is in turn waits until all its slots are free, and those behind it wait for their turn: nobody
    holds a part of what it needs, and one that needs many is not overtaken by those that need few.

    Args:
        n_slots: How many.
        line: The launch line of the site.
        environment: Where these variables are.
        wait_s: How long to wait.

    Raises:
        ReferenceSetupError: If there are not so many, or the variables are not as a job script sets them.
        SlotsTakenError: If they do not become free in time.
    """
    hosts = [host for host in environment.get("FFF_SLOT_HOSTS", "").split(",") if host]
    cores = _cores(environment)
    leases = environment.get(LEASES_VARIABLE, "")
    if not hosts and leases:
        msg = f"FFF_SLOT_HOSTS names no host, but {LEASES_VARIABLE} is {leases!r}."
        raise ReferenceSetupError(msg, hint="The script of the job sets both, or neither.")
    if not hosts:
        yield Launch.on_this_machine(line, n_slots, cores)
        return
    if n_slots > len(hosts):
        msg = f"A calculation needs {n_slots} slots, but this block has {len(hosts)} (FFF_SLOT_HOSTS)."
        raise ReferenceSetupError(msg, hint="Lower calculation.nodes_by_size, or raise nodes_per_block.")
    if not Path(leases).is_absolute() or not Path(leases).is_dir():
        msg = f"{LEASES_VARIABLE} is {leases!r}; where FFF_SLOT_HOSTS is set, it must name a folder."
        raise ReferenceSetupError(msg, hint="The script of the job makes one on the node's own disk.")
    with contextlib.ExitStack() as held:
        taken = _take(Path(leases), hosts, n_slots, time.monotonic() + wait_s, wait_s, held)
        yield Launch(line, tuple(hosts[slot] for slot in taken), cores)


def _cores(environment: Mapping[str, str]) -> int:
    text = environment.get("FFF_SLOT_CORES", "1")
    if not text.isdecimal() or int(text) < 1:
        msg = f"FFF_SLOT_CORES is {text!r}; it must be a whole number above 0."
        raise ReferenceSetupError(msg, hint="The script of the job sets it.")
    return int(text)


def _take(
    folder: Path,
    hosts: Sequence[str],
    n_slots: int,
    deadline: float,
    wait_s: float,
    held: contextlib.ExitStack,
) -> list[int]:
    """Return the slots whose locks are now held."""
    with contextlib.ExitStack() as turn:
        while not _lock(folder / "turn", turn):
            _wait(deadline, n_slots, wait_s)
        while True:
            # Those that are free are held while looking, which nobody minds: only who is in turn takes any.
            locks = {slot: contextlib.ExitStack() for slot in range(len(hosts))}
            free = [slot for slot, lock in locks.items() if _lock(folder / f"slot-{slot}", lock)]
            chosen = _near_each_other(free, hosts, n_slots) if len(free) >= n_slots else []
            for slot in free:
                if slot in chosen:
                    held.push(locks[slot])
                else:
                    locks[slot].close()
            if chosen:
                return chosen
            _wait(deadline, n_slots, wait_s)


def _near_each_other(free: Sequence[int], hosts: Sequence[str], n_slots: int) -> list[int]:
    """Return free slots on as few hosts as may be; where one host will do, on that with the fewest to spare.

    Example:
        >>> _near_each_other([0, 1, 2], ["n1", "n2", "n2"], 2)
        [1, 2]
    """
    n_free = Counter(hosts[slot] for slot in free)
    enough = [host for host in n_free if n_free[host] >= n_slots]
    order = sorted(enough, key=n_free.__getitem__)[:1] or sorted(n_free, key=lambda host: -n_free[host])
    by_host = [slot for host in order for slot in free if hosts[slot] == host]
    return sorted(by_host[:n_slots])


def _lock(path: Path, held: contextlib.ExitStack) -> bool:
    """Return whether a lock was free; then it is held as long as `held`, or this process, lives."""
    # Not inherited by programs that this process starts: they must not keep it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except BaseException:
        os.close(descriptor)
        raise
    held.callback(os.close, descriptor)
    return True


def _wait(deadline: float, n_slots: int, wait_s: float) -> None:
    if time.monotonic() > deadline:
        msg = f"{n_slots} slots of this block did not become free within {wait_s:g} s."
        hint = "A calculation may not have ended as it was told to; look at what runs on the nodes."
        raise SlotsTakenError(msg, hint=hint)
    time.sleep(_LOOK_EVERY_S)
