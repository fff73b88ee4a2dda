"""Work directories of external codes: one per calculation, and the evidence of those that failed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from fff.base.errors import ReferenceFailure, ReferenceSetupError
from fff.external.evidence import last_lines, space_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fff.external.launch import Launch

__all__ = ["Workplace", "is_alive"]


@dataclass
class Workplace:
    """Where calculations get their work directories.

    A directory is called `running-…` until its calculation has ended. Then it is removed, or renamed to
    `NAME-N` where files are to be kept, or, after a failure, always kept as `failed-NAME-N`, unless it is
    empty.

    Attributes:
        root: Folder in which calculations run; made when needed.
        kept: Folder for what is kept, on the same file system; `root` when None.
        prefix: What all names begin with.
        name: What the next calculations are called, for example the id of a request.
        time_limit_s: Time for each of them, or None for the method's own limit.
        launch: Where the ranks of the next calculation run; alone on this machine when None.
    """

    root: Path
    kept: Path | None = None
    prefix: str = ""
    name: str = ""
    time_limit_s: float | None = None
    launch: Launch | None = None

    @classmethod
    def temporary(cls) -> Workplace:
        """Return a workplace among the temporary files."""
        return cls(Path(tempfile.gettempdir()), prefix="fff-")

    @classmethod
    def from_json(cls, values: Mapping[str, str]) -> Workplace:
        """Return what `as_json` described."""
        return cls(Path(values["root"]), Path(values["kept"]), values["prefix"])

    def as_json(self) -> dict[str, str]:
        """Return root, place for what is kept, and prefix, for another process."""
        return {"root": str(self.root), "kept": str(self.kept or self.root), "prefix": self.prefix}

    @contextlib.contextmanager
    def directory(self, *, keep: bool = False) -> Iterator[Path]:
        """Make a work directory for one calculation and give its absolute path.

        A failure that ends the block comes out with the path of the directory and the last lines of the
        code in its message.

        Args:
            keep: Whether to keep the files of a calculation that ended well.

        Raises:
            ReferenceSetupError: If the directory cannot be made.
            NoSpaceError: If the block failed for want of disk space.
            ReferenceFailure: As raised in the block.
        """
        path = self._make()
        try:
            yield path
        except (ReferenceFailure, OSError) as error:
            failure = space_error(error, path) or error
            kept = self._keep(path, self._stem)
            if isinstance(failure, ReferenceFailure) and kept is not None:
                failure = _with_evidence(failure, kept)
            if failure is error:
                raise
            raise failure from error
        except BaseException:
            self._keep(path, self._stem)
            raise
        if keep:
            self._rename(path, self._stem)
        else:
            shutil.rmtree(path, ignore_errors=True)

    def set_aside(self, pid: int | None = None) -> list[Path]:
        """Keep as failed what was running in a process that is no more, and return the paths.

        Args:
            pid: The process; all of this host that have ended when None.
        """
        pattern = re.compile(
            rf"{re.escape(self.prefix)}running-(.+)-{re.escape(_host())}-(\d+)-[0-9a-f]+", re.DOTALL
        )
        kept = []
        for path in sorted(self.root.glob(f"{self.prefix}running-*")):
            found = pattern.fullmatch(path.name)
            if found and (int(found[2]) == pid if pid is not None else not is_alive(int(found[2]))):
                kept.append(self._keep(path, found[1]))
        return [path for path in kept if path is not None]

    @property
    def _stem(self) -> str:
        # Names go into commands and input files: nothing there that needs quoting.
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", self.name).strip(".")[:100] or "calculation"

    def _make(self) -> Path:
        name = f"{self.prefix}running-{self._stem}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
        path = self.root.resolve() / name
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if full := space_error(error, self.root):
                raise full from error
            msg = f"The work directory {path} cannot be made: {error.strerror or error}."
            raise ReferenceSetupError(msg, hint="Look at the folder above it and its permissions.") from error
        return path

    def _keep(self, path: Path, stem: str) -> Path | None:
        """Keep a failed calculation's directory and return its path; None for an empty one, which goes."""
        with contextlib.suppress(OSError):
            path.rmdir()
            return None
        return self._rename(path, f"failed-{stem}")

    def _rename(self, path: Path, stem: str) -> Path | None:
        """Give a directory the next free name; return its path, or None where another process was first."""
        folder = (self.kept or self.root).resolve()
        for n in count(1):
            target = folder / f"{self.prefix}{stem}-{n}"
            try:
                # Making it claims the name; an empty folder gives way to the renamed one.
                target.mkdir()
            except FileExistsError:
                continue
            except OSError:
                # A full disk; what matters is that the path in the message is right.
                break
            try:
                return path.replace(target)
            except FileNotFoundError:
                target.rmdir()
                return None
        return path


def _with_evidence(failure: ReferenceFailure, kept: Path) -> ReferenceFailure:
    """Return the failure with the place of its files and the last lines of the code in its message."""
    message = f"{failure.message} Its files are in {kept}."
    if lines := last_lines(kept):
        message += f" Last lines: {lines}"
    return type(failure)(message, hint=failure.hint, **{**failure.context, "work_dir": str(kept)})


def _host() -> str:
    return socket.gethostname()


def is_alive(pid: int) -> bool:
    """Return whether there is a process of that id on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
