"""Probes that look at the machine: packages, executables, accelerators, memory, folders, disk."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fff import __version__
from fff.base.cores import cores_found
from fff.base.errors import FffError, RunDirectoryError
from fff.campaigns.checking.findings import Finding, failed, fine, skipped, warning
from fff.campaigns.inputs import check_run_dir
from fff.campaigns.running import look_at
from fff.compute.sites import make_site
from fff.config import AseReference, PyscfReference, WorkstationSite, XtbCliReference, XtbReference
from fff.config.site import BatchSite
from fff.data.run_directory import RunDirectory
from fff.external import Command, find_executable, parse_command
from fff.reference import make_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fff.campaigns.checking.findings import Known

__all__ = [
    "existing_part",
    "find_accelerators",
    "find_clock",
    "find_executables",
    "find_locks",
    "find_memory",
    "find_packages",
    "find_run_dir",
]

_PACKAGES = ("torch", "schnetpack", "ase", "numpy", "colmena", "parsl", "proxystore")
_IMPORT_LIMIT_S = 180.0
_GB = 1e9
_SKEW_s = 5.0
_LOCK_LIMIT_S = 30.0
_NO_PLACE = "the run directory is there already, or cannot be made: nothing is tried in it"

_WRITE_TO_A_LOCKED_FILE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("INSERT INTO probe VALUES (2)")
except sqlite3.OperationalError as error:
    sys.stdout.write("locked" if "locked" in str(error) else str(error))
else:
    sys.stdout.write("written")
"""


def find_packages(known: Known) -> Iterator[Finding]:
    """Compare the versions of the packages that matter with those that fff asks for."""
    asked = _requirements()
    found, wrong = {"python": platform.python_version(), "fff": __version__}, []
    for name in (*_PACKAGES, *_packages_of(known)):
        requirement = asked.get(canonicalize_name(name))
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if requirement is not None and not requirement.specifier.contains(found[name], prereleases=True):
            wrong.append(f"{name} is {found[name]}, but fff needs {requirement.specifier}")
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    if wrong:
        yield failed(
            "packages", "; ".join(wrong), "Install fff again: pip install --upgrade fff.", versions=found
        )
    else:
        yield fine("packages", versions, versions=found)


def _requirements() -> dict[str, Requirement]:
    """Return what the installed fff asks for; nothing where it runs without having been installed."""
    try:
        texts = importlib.metadata.requires("fff") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def _packages_of(known: Known) -> list[str]:
    reference = known.config.reference
    if isinstance(reference, PyscfReference):
        return ["pyscf", *(["pyscf-dispersion"] if reference.dispersion else [])]
    is_tblite = isinstance(reference, XtbReference) and not isinstance(reference, XtbCliReference)
    return ["tblite"] if is_tblite else []


def find_executables(known: Known) -> Iterator[Finding]:
    """Look for the program that the reference runs, if it runs one."""
    reference = known.config.reference
    known.lacks_executable = True  # until one is found, or none is needed
    if isinstance(reference, XtbCliReference):
        path = find_executable(Command(tuple(reference.command)))
        version = make_reference(reference).settings["version"]
        if version is None:
            hint = "Run it by hand with --version; set reference.command to the program xtb."
            yield failed("executable", f"{path} does not say which version of xtb it is", hint, path=path)
            return
        yield fine("executable", f"xtb {version}, {path}", path=path, version=version)
    elif isinstance(reference, AseReference) and (text := reference.parameters.get("command")):
        command = parse_command(str(text), "reference.parameters.command")
        path = find_executable(command, {**os.environ, **command.environment}.get("PATH"))
        yield fine("executable", path, path=path)
    elif isinstance(reference, AseReference):
        yield skipped(
            "executable", f"the calculator {reference.calculator} knows itself what it runs, if anything"
        )
    else:
        yield skipped("executable", f"kind {reference.kind} runs none")
    known.lacks_executable = False


def find_accelerators(known: Known) -> Iterator[Finding]:
    """Ask torch, in a process of its own, which devices there are, and compare with the config."""
    if isinstance(known.config.site, BatchSite):
        yield skipped("accelerators", "those of the nodes are asked for with the jobs")
        return
    try:
        devices = _devices()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        yield failed("accelerators", f"torch cannot be imported: {said}", "Install fff again.")
        return
    listed = "; ".join(f"{d['id']}: {d['name']}, {d['memory_GB']:.0f} GB" for d in devices)
    site = known.config.site
    wanted = site.devices if isinstance(site, WorkstationSite) else []
    missing = [w for w in wanted if not any(_is(w, d) for d in devices)]
    values = {"devices": devices, "wanted": wanted}
    if missing:
        there = f"there are only {listed}" if devices else "there are none"
        what = "accelerator" if len(missing) == 1 else "accelerators"
        yield failed(
            "accelerators",
            f"the site asks for {what} {', '.join(missing)}, but {there}",
            "Set -o site.n_gpus=0, or install a driver and a torch for it: see `nvidia-smi`.",
            **values,
        )
    elif devices and not wanted:
        hint = f"To use them: --site workstation -o site.n_gpus={len(devices)}."
        yield warning("accelerators", f"{listed}; the site {site.kind} leaves them idle", hint, **values)
    elif devices:
        yield fine("accelerators", f"{listed}; used: {', '.join(wanted)}", **values)
    else:
        yield fine("accelerators", "none: everything runs on the CPU, as the config asks", **values)


def _devices() -> list[dict[str, Any]]:
    # Workers are shown their device by this variable; here all must be seen.
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    with tempfile.TemporaryDirectory(prefix="fff-check-") as folder:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fff.campaigns.checking.devices"],
            capture_output=True,
            text=True,
            timeout=_IMPORT_LIMIT_S,
            check=True,
            cwd=folder,
            env=environment,
        )
    return list(json.loads(done.stdout.strip().splitlines()[-1]))


def _is(wanted: str, device: dict[str, Any]) -> bool:
    uuid = str(device["uuid"])
    return wanted == device["id"] or (
        wanted.startswith("GPU-") and uuid.startswith(wanted.removeprefix("GPU-"))
    )


def find_memory(known: Known) -> Iterator[Finding]:
    """Compare cores and memory with what the workers of the site may take."""
    site = make_site(known.config.site)
    total = psutil.virtual_memory().total
    workers = ", ".join(
        f"{pool.n_workers} {name} {'worker' if pool.n_workers == 1 else 'workers'} of {pool.n_threads} "
        f"{'thread' if pool.n_threads == 1 else 'threads'}"
        for name, pool in site.specification.items()
    )
    cores = cores_found()
    if site.submits_jobs:
        yield fine("machine", f"{cores} cores, {total / _GB:.0f} GB of memory here; on nodes {workers}")
        return
    found = f"{cores} cores, {total / _GB:.0f} GB of memory; {workers}"
    values = {"cores": cores, "memory_GB": round(total / _GB, 1), "workers": site.pools}
    used = sum(pool.n_workers * pool.n_threads for pool in site.specification.values())
    reference = known.config.reference
    if isinstance(reference, PyscfReference):
        n = site.pools[site.pool_of("calculate")]
        need = n * reference.max_memory_MB * 1e6
        if need > total:
            hint = f"Set -o reference.max_memory_MB={int(0.8 * total / n / 1e6)}, or take fewer workers."
            yield warning(
                "machine", f"{found}; {n} calculations may take {need / _GB:.0f} GB", hint, **values
            )
            return
    if used > cores:
        hint = "Take fewer workers, unless they wait for something else than the CPU."
        yield warning("machine", f"{found}: more than there are cores", hint, **values)
    else:
        yield fine("machine", found, **values)


def find_run_dir(known: Known) -> Iterator[Finding]:
    """Look where everything would be written: is a campaign there, may the folder be made."""
    path = known.loaded.run_dir
    run = RunDirectory(path)
    if run.is_opened:
        yield _look_at_campaign(run, known)
    else:
        check_run_dir(path)
    above = existing_part(path)
    if path.is_dir():
        # Nothing is written into a run directory that somebody has.
        if not os.access(path, os.W_OK | os.X_OK):
            yield failed("run directory", f"{path} may not be written to", "Choose another with --run-dir.")
        elif not run.is_opened:
            yield fine("run directory", f"{path} is there and empty", path=str(path))
    else:
        _try_to_write(above)
        known.place = above
        yield fine("run directory", f"{path} can be made", path=str(path))
    known.free_bytes = shutil.disk_usage(above).free


def _look_at_campaign(run: RunDirectory, known: Known) -> Finding:
    try:
        resumption = look_at(run, known.loaded)
    except FffError as error:
        hint = error.hint or "Choose another with --run-dir."
        return failed(
            "run directory", f"{run.path} holds a campaign that cannot go on so: {error.message}", hint
        )
    done = resumption.policy.snapshot()["labels"]["done"]
    target = resumption.loaded.config.stop.max_labels
    goes_on = "`fff run` would go on with it"
    if resumption.is_over:
        goes_on = "It is over, and -o stop.max_labels=N asks for more"
    return warning(
        "run directory",
        f"{run.path} holds a campaign with {done} of {target} labels",
        f"{goes_on}; for a new one choose another with --run-dir.",
        path=str(run.path),
        labels=done,
        target=target,
    )


def existing_part(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def _try_to_write(folder: Path) -> None:
    """Write a megabyte beside where the run directory will be, and take it away.

    Raises:
        RunDirectoryError: If that does not work.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1_000_000))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        msg = f"nothing can be written to {folder}: {error.strerror}"
        hint = "Choose another place with --run-dir, or make room and check who owns the folder."
        raise RunDirectoryError(msg, hint=hint, path=str(folder)) from error


def find_locks(known: Known) -> Iterator[Finding]:
    """Try whether a database that one process holds locked is closed to another, where labels.db will be."""
    folder = known.place
    if folder is None:
        yield skipped("file system", _NO_PLACE)
        return
    hint = "Choose a folder on a local disk, or on a network file system with locks, with --run-dir."
    handle, name = tempfile.mkstemp(dir=folder, prefix=".fff-check-", suffix=".db")
    os.close(handle)
    try:
        with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE probe (x)")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("INSERT INTO probe VALUES (1)")
            answer = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _WRITE_TO_A_LOCKED_FILE, name],
                capture_output=True,
                text=True,
                timeout=_LOCK_LIMIT_S,
                check=True,
            ).stdout
            connection.execute("COMMIT")
    except (sqlite3.Error, subprocess.SubprocessError) as error:
        yield failed("file system", f"no database can be kept in {folder}: {str(error).rstrip('.')}", hint)
        return
    finally:
        for path in (name, f"{name}-journal"):
            Path(path).unlink(missing_ok=True)
    if answer == "locked":
        yield fine("file system", f"{folder} keeps databases, and locks hold between processes")
    else:
        yield failed("file system", f"locks do not hold in {folder}: labels.db could be damaged", hint)


def find_clock(known: Known) -> Iterator[Finding]:
    """Compare the clock of this machine with that of the file system; locks are told dead by their age."""
    if known.place is None:
        yield skipped("clock", _NO_PLACE)
        return
    with tempfile.NamedTemporaryFile(dir=known.place, prefix=".fff-check-") as file:
        file.write(b"x")
        file.flush()
        skew_s = time.time() - Path(file.name).stat().st_mtime
    if abs(skew_s) > _SKEW_s:
        hint = "Set the clock of this machine (timedatectl set-ntp true), or ask who runs the file system."
        found = f"the file system's clock differs from this machine's by {abs(skew_s):.0f} s"
        yield warning("clock", found, hint, skew_s=skew_s)
    else:
        yield fine("clock", "this machine and the file system agree", skew_s=round(skew_s, 3))
