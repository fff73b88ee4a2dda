"""What every pool of workers is started with, on this machine or on the nodes of a cluster."""

from __future__ import annotations

import shlex
import sys

from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

from fff.base.cores import THREAD_VARIABLES
from fff.compute.lifetime import wrap

__all__ = ["POLL_MS", "interchange_command", "set_up_lines", "workers_command"]

POLL_MS = 100
"""Longest time in milliseconds that a process of a pool waits before it looks around; messages wake it up."""

_PARSL = "parsl.executors.high_throughput"
# A pool keeps a socket in its folder for temporary files. The path of a socket has at most 107 characters,
# 32 of which its name takes. Decided where the pool runs, since batch systems name that folder there.
_SHORT_TMPDIR = 'if [ "${#TMPDIR}" -gt 75 ]; then export TMPDIR=/tmp; fi'


def workers_command(mode: str, devices: str = "{accelerators}") -> str:
    """Return the launch command of a pool of workers, for Parsl to fill in.

    Args:
        mode: How `fff.compute.lifetime` looks after it: `guard` or `attend`.
        devices: Shell words that name the device of each worker; Parsl's list unless told.
    """
    # As modules, not as the scripts on PATH: it works without an activated environment, and from byte code.
    options = DEFAULT_LAUNCH_CMD.removeprefix("process_worker_pool.py ")
    if devices != "{accelerators}":
        options = options.replace("{accelerators}", _braced(devices))
    # -P: the folder that the user stands in, perhaps somebody else's run directory, must not provide modules.
    workers = wrap(mode, [sys.executable, "-P", "-m", f"{_PARSL}.process_worker_pool"])
    return f"exec {_braced(shlex.join(workers))} {options}"


def _braced(text: str) -> str:
    # Parsl formats the launch command twice.
    return text.replace("{", "{{{{").replace("}", "}}}}")


def interchange_command() -> list[str]:
    """Return the command of an interchange, which dies with the task server."""
    return wrap("follow", [sys.executable, "-P", "-m", f"{_PARSL}.interchange"])


def set_up_lines(n_threads: int, *, has_devices: bool) -> list[str]:
    """Return the shell lines that run before the workers start.

    Args:
        n_threads: Threads that the numerical libraries of each worker may use.
        has_devices: Whether each worker gets an accelerator.
    """
    variables = dict.fromkeys(THREAD_VARIABLES, str(n_threads))
    # Where a calculation has ranks in place of threads.
    variables["FFF_SLOT_CORES"] = str(n_threads)
    if not has_devices:
        # Each worker would open the first device for itself. Parsl sets this for workers that have one.
        variables["CUDA_VISIBLE_DEVICES"] = ""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # Libraries may come from the current folder too: one that torch brings along looks there for CUDA's.
    return [*exports, "cd /", _SHORT_TMPDIR]
