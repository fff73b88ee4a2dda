"""What it took to make a result: versions, host, seed, command and inputs of a run."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fff.base.cores import cores_found
from fff.base.ids import sha256_file
from fff.base.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["collect_provenance"]

_SCHEMA_VERSION = 1
_LIBRARIES = (
    "ase",
    "colmena",
    "numpy",
    "parsl",
    "proxystore",
    "pydantic",
    "pyscf",
    "pyscf-dispersion",
    "safetensors",
    "schnetpack",
    "scipy",
    "tblite",
    "torch",
    "vesin",
)
_GIT_LIMIT_S = 10.0


def collect_provenance(*, seed: int, inputs: Sequence[Path]) -> dict[str, Any]:
    """Return the content of `provenance.json`.

    Imports none of the libraries whose versions it gives.

    Args:
        seed: The seed of the run.
        inputs: Every file that the config names.

    Returns:
        JSON-able: `schema_version`, `started` (UTC, ISO 8601), `versions` (of fff and the main libraries;
        None where one is not installed), `python`, `host`, `platform`, `n_cores`, `git_commit` and
        `git_changed` (of the checkout that fff runs from; None where it is in none), `seed`, `command`
        (passwords left out), and `inputs` (path and sha256).

    Raises:
        OSError: If an input cannot be read.
    """
    commit, changed = _git_state(Path(__file__).resolve().parents[2])
    return {
        "schema_version": _SCHEMA_VERSION,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in ("fff", *_LIBRARIES)},
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "n_cores": cores_found(),
        "git_commit": commit,
        "git_changed": changed,
        "seed": seed,
        "command": [redact(argument) for argument in sys.argv],
        "inputs": [{"path": str(path), "sha256": sha256_file(path)} for path in map(Path, inputs)],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit that is checked out at `root` and whether tracked files differ from it."""
    # Only a checkout of fff itself counts, not a repository that its virtual environment lies in.
    if not (root / ".git").exists():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None, None
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the git that the user runs is the right one
            capture_output=True,
            text=True,
            timeout=_GIT_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
