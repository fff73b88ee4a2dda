"""Looks before a campaign: what it needs is tried out, each thing by itself, and nothing is left behind."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import FffError
from fff.base.redaction import redact
from fff.campaigns.checking.costs import estimate_disk, estimate_time
from fff.campaigns.checking.findings import Finding, Known, failed, fine
from fff.campaigns.checking.jobs import try_jobs
from fff.campaigns.checking.labelling import find_inputs, find_method, label_smallest
from fff.campaigns.checking.redis import find_server
from fff.campaigns.checking.surroundings import (
    find_accelerators,
    find_clock,
    find_executables,
    find_locks,
    find_memory,
    find_packages,
    find_run_dir,
)
from fff.campaigns.checking.trial import try_site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fff.config import LoadedConfig

__all__ = ["LONGEST_LABEL_S", "Finding", "check"]

LONGEST_LABEL_S = 300.0
"""How long a check waits for its label unless told otherwise, in seconds."""


@dataclass(frozen=True)
class _Probe:
    """One thing to look at.

    Attributes:
        name: What its findings are called if it breaks.
        doing: What it does, for people who wait.
        find: Looks.
    """

    name: str
    doing: str
    find: Callable[[Known], Iterator[Finding]]


def _find_config(known: Known) -> Iterator[Finding]:
    sources = known.loaded.sources
    n_set = sum(source != "default" for source in sources.values())
    path = known.loaded.path or "the flags"
    found = f"{path}: {n_set} keys set, {len(sources) - n_set} at their default"
    yield fine("config", found, path=str(path), n_set=n_set)


_PROBES = (
    _Probe("config", "reading the config", _find_config),
    _Probe("structures", "reading structures and labels", find_inputs),
    _Probe("packages", "looking for packages", find_packages),
    _Probe("executable", "looking for executables", find_executables),
    _Probe("accelerators", "importing torch, looking for accelerators", find_accelerators),
    _Probe("machine", "looking at cores and memory", find_memory),
    _Probe("run directory", "looking at the run directory", find_run_dir),
    _Probe("file system", "trying locks between processes", find_locks),
    _Probe("clock", "comparing clocks", find_clock),
    _Probe("redis", "asking the Redis server", find_server),
    _Probe("method", "setting up the reference method", find_method),
    _Probe("label", "calculating a label of the smallest structure", label_smallest),
    _Probe("jobs", "asking the batch system", try_jobs),
    _Probe("site", "trying the workers: a training, dynamics", try_site),
    _Probe("disk", "estimating the disk that is needed", estimate_disk),
    _Probe("cost", "estimating the time that is needed", estimate_time),
)


def check(
    loaded: LoadedConfig,
    *,
    wait_s: float = LONGEST_LABEL_S,
    announce: Callable[[str], None] = lambda doing: None,  # noqa: ARG005 - nobody is told unless asked for
) -> Generator[Finding]:
    """Yield what is found, each as soon as it is known; a probe that fails does not end the others.

    Nothing is written into the run directory. Close the generator, or let it end: it then has no file and no
    process left. Call it from the main thread: the task server is forked from it.

    Args:
        loaded: A config that was validated.
        wait_s: How long one label may take.
        announce: Called with what is done next, before it is done.
    """
    with tempfile.TemporaryDirectory(prefix="fff-check-", ignore_cleanup_errors=True) as folder:
        known = Known(loaded, Path(folder), wait_s)
        for probe in _PROBES:
            announce(probe.doing)
            yield from _look(probe, known)


def _look(probe: _Probe, known: Known) -> Iterator[Finding]:
    try:
        yield from probe.find(known)
    except FffError as error:
        yield failed(probe.name, redact(error.message), error.hint or "Mend what the message names.")
    except Exception as error:  # noqa: BLE001 - the border of a probe: it becomes a finding, and the next one runs
        reason = redact(" ".join(str(error).split())) or "no message"
        repair = "fff does not know this error; please report it."
        yield failed(probe.name, f"{type(error).__name__}: {reason[:300]}", repair)
