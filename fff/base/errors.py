"""Every error that fff raises on purpose.

The tree::

    FffError
    ├── ConfigError (ValueError)             a key of the config is unknown, missing or out of bounds
    ├── InputFileError (OSError)             a file or folder that the config names is missing or unreadable
    ├── StructureError (ValueError)          a structure cannot be used: empty, unknown element, …
    ├── ModelFileError (ValueError)          a stored model is missing, damaged or does not fit
    ├── RunDirectoryError (RuntimeError)     the run directory cannot be used as asked
    │   └── LogDamagedError                  events.jsonl is damaged in the middle
    ├── PortError (OSError)                  the page cannot be served on that port
    ├── CampaignError (RuntimeError)         the campaign cannot go on
    │   └── SiteError                        its site gives it no workers
    ├── StoreLostError (ConnectionError)     a worker cannot get what the store holds; the task is asked again
    ├── TrainingError (RuntimeError)         a training gave no usable model
    └── ReferenceFailure (RuntimeError)      a reference calculation gave no label
        ├── NotConvergedError                the structure's own: not retried, set aside
        ├── ReferenceSetupError              the set-up's: executable missing, bad option
        ├── TimeLimitError (TimeoutError)    may be retried
        ├── ReferenceLostError               its process died; may be retried
        ├── SlotsTakenError                  its slots did not become free; may be retried
        └── NoSpaceError                     the disk's: full, or a quota used up

Each carries a `hint` that the command line prints, keeps its context as fields, and survives pickling.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "CampaignError",
    "ConfigError",
    "FffError",
    "InputFileError",
    "LogDamagedError",
    "ModelFileError",
    "NoSpaceError",
    "NotConvergedError",
    "PortError",
    "ReferenceFailure",
    "ReferenceLostError",
    "ReferenceSetupError",
    "RunDirectoryError",
    "SiteError",
    "SlotsTakenError",
    "StoreLostError",
    "StructureError",
    "TimeLimitError",
    "TrainingError",
]


class FffError(Exception):
    """Base of all errors of fff.

    Args:
        message: A sentence: what is wrong, the value seen, the bound.
        hint: How to repair it; may be empty.
        **context: Fields of the error, kept in `context` and readable as attributes of that dict.
    """

    def __init__(self, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from message, hint and context, which plain exceptions with keywords cannot."""
        return _rebuild, (type(self), self.message, self.hint, self.context)


def _rebuild(cls: type[FffError], message: str, hint: str, context: dict[str, Any]) -> FffError:
    return cls(message, hint=hint, **context)


class ConfigError(FffError, ValueError):
    """A key of the config is unknown, missing or out of bounds. Context: `key`, `value`."""


class InputFileError(FffError, OSError):
    """A file or folder that the config names is missing or unreadable. Context: `path`."""

    def __str__(self) -> str:
        """The message alone; OSError would print its argument tuple."""
        return self.message


class StructureError(FffError, ValueError):
    """A structure cannot be used: empty, unknown element, atoms on top of each other."""


class ModelFileError(FffError, ValueError):
    """A stored model is missing, damaged or does not fit. Context: `path`."""


class RunDirectoryError(FffError, RuntimeError):
    """The run directory cannot be used as asked. Context: `path`."""


class LogDamagedError(RunDirectoryError):
    """The event log is damaged in the middle. Context: `path`, `line`."""


class PortError(FffError, OSError):
    """The page of a campaign cannot be served on a port. Context: `port`."""

    def __str__(self) -> str:
        """The message alone; OSError would print its argument tuple."""
        return self.message


class CampaignError(FffError, RuntimeError):
    """The campaign cannot go on."""


class SiteError(CampaignError):
    """The site gives no workers, and asking again would not help: its jobs are refused, or end at once."""


class StoreLostError(FffError, ConnectionError):
    """A worker cannot get what the store holds: no fault of the task, which is asked for again."""

    failure_class: ClassVar[str] = "lost"

    def __str__(self) -> str:
        """The message alone; OSError would print its argument tuple."""
        return self.message


class TrainingError(FffError, RuntimeError):
    """A training gave no usable model."""


class ReferenceFailure(FffError, RuntimeError):  # noqa: N818 - the method's own word for it
    """A reference calculation gave no label.

    `failure_class` says whose fault it is: `"retry"` (lost worker, time limit), `"structure"` (never
    retried, set aside), `"disk"` (full) or `"setup"` (counts towards
    `calculation.max_consecutive_failures`).
    """

    failure_class: ClassVar[str] = "structure"


class NotConvergedError(ReferenceFailure):
    """The calculation of this structure did not converge; its numbers are no label."""

    failure_class = "structure"


class ReferenceSetupError(ReferenceFailure):
    """The reference cannot run at all: a missing executable or library, or an option it refuses."""

    failure_class = "setup"


class TimeLimitError(ReferenceFailure, TimeoutError):
    """The calculation ran into its time limit and was killed."""

    failure_class = "retry"


class ReferenceLostError(ReferenceFailure):
    """The process that calculated died: killed, out of memory, or crashed. Context: `exit_code`."""

    failure_class = "retry"


class SlotsTakenError(ReferenceFailure):
    """The slots of a calculation over several nodes did not become free in time."""

    failure_class = "retry"


class NoSpaceError(ReferenceFailure):
    """The disk is full, or a quota is used up: no fault of the structure. Context: `path`."""

    failure_class = "disk"
