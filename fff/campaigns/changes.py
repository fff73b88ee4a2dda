"""What may change in the config of a campaign that has begun, and what may not, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fff.base.errors import ConfigError
from fff.base.ids import sha256_file
from fff.config import config_from_dict, show
from fff.config.keys import path_keys
from fff.reference import make_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fff.config import ActiveLearningConfig, LoadedConfig

__all__ = ["Change", "accept", "find_changes", "settle"]

_NOT_COMPARED = ("schema_version", "name", "run_dir")
"""They say how the file is read and where the campaign lies, not what it does."""

_MAY_CHANGE = (
    "stop",
    "site",
    "redis",
    "committee",
    "training",
    "sampling",
    "audit",
    "selection",
    "calculation",
    "queue",
)
"""Keys and sections that concern only what is still to come: budgets, site, tolerances, limits."""

_MAY_NOT = {
    "kind": "one run directory holds one kind of campaign",
    "seed": "everything random follows from it",
    "structures": "its trajectories have begun there",
    "labels": "its first committee was trained on them",
    "model": "its models are of that kind",
    "start": "its first labels were chosen by it",
    "reference": "labels of two methods do not mix",
    "sampling.thermostat": "its trajectories were begun under it",
    "sampling.n_trajectories": "its trajectories have begun",
    "selection.deviation": "its scores are of that kind",
    "test": "errors on two test sets cannot be compared",
}
"""Keys and sections that are settled with the first event, and why."""


@dataclass(frozen=True)
class Change:
    """A key whose value differs from the one in force.

    Attributes:
        key: Dotted key.
        old: The value in force.
        new: The value asked for.
        same_method: Whether the reference method gives the same numbers with both configs.
    """

    key: str
    old: Any
    new: Any
    same_method: bool = False

    @property
    def refusal(self) -> str | None:
        """Why this key may not change in a campaign that has begun, or None if it may."""
        if _is_in(self.key, "reference") and self.same_method:
            # Limits, commands and the like, which are no part of the method.
            return None
        for prefix, reason in _MAY_NOT.items():
            if _is_in(self.key, prefix):
                return reason
        may = any(_is_in(self.key, prefix) for prefix in _MAY_CHANGE)
        return None if may else "it is settled when a campaign begins"

    def __str__(self) -> str:
        """The line of a diff."""
        return f"{self.key}: {show(self.old)} -> {show(self.new)}"


_PLACES = ("site", "redis")
"""Sections that may change without being asked."""


def settle(loaded: LoadedConfig, in_force: ActiveLearningConfig) -> LoadedConfig:
    """Return the config with what the campaign itself settled where the user says nothing.

    A campaign that fine-tunes a model took the model's architecture into its config.
    """
    if not loaded.config.model.start or loaded.config.model.start != in_force.model.start:
        return loaded
    values = loaded.config.model_dump(mode="json")
    settled = in_force.model.model_dump(mode="json")
    for key, value in settled.items():
        if loaded.sources.get(f"model.{key}") == "default":
            values["model"][key] = value
    return replace(loaded, config=config_from_dict(values))


def find_changes(
    in_force: ActiveLearningConfig, asked: ActiveLearningConfig, inputs: Sequence[Mapping[str, str]]
) -> list[Change]:
    """Return the keys whose values differ.

    Args:
        in_force: The campaign's config.
        asked: The config it is asked to go on with.
        inputs: Path and sha256 of every file that the campaign has copied when it began. A file that was
            moved since, with the same content, is no change.
    """
    old = dict(_leaves(in_force.model_dump(mode="json")))
    new = dict(_leaves(asked.model_dump(mode="json")))
    same_method = _method(in_force) == _method(asked)
    changes = [
        Change(key, old.get(key), new.get(key), same_method)
        for key in dict.fromkeys([*old, *new])
        if key not in _NOT_COMPARED and old.get(key) != new.get(key)
    ]
    hashes = {item["path"]: item["sha256"] for item in inputs}
    return [change for change in changes if not _is_same_content(change, hashes)]


def accept(changes: Sequence[Change], run_dir: Path, *, accepted: bool, finished: bool) -> None:
    """Check that a campaign may go on with these changes.

    Args:
        changes: What differs.
        run_dir: The run directory, for the message.
        accepted: Whether the user accepts what can be taken (`--accept-changes`).
        finished: Whether the campaign has finished: then more labels can only mean that it is extended.

    Raises:
        ConfigError: If one of them may not be made, or they were not accepted.
    """
    refused = [(change, reason) for change in changes if (reason := change.refusal) is not None]
    diff = "".join(f"\n  {change}" for change in changes)
    if refused:
        reasons = "; ".join(f"`{change.key}` stays, since {reason}" for change, reason in refused)
        msg = f"The config differs from the one that the campaign in {run_dir} began with:{diff}\n{reasons}."
        hint = (
            f"Go on as it was with `fff resume {run_dir}`, or begin another campaign with another --run-dir; "
            f"`labels: [{run_dir / 'labels.db'}]` in its config gives it the labels of this one."
        )
        change = refused[0][0]
        raise ConfigError(msg, hint=hint, key=change.key, value=change.new)
    # A config that is run again still asks for what it asked first: after an extension that is fewer.
    extends = finished and all(
        change.key == "stop.max_labels" and change.new > change.old for change in changes
    )
    # Where it runs says nothing about what comes out.
    elsewhere = all(any(_is_in(change.key, place) for place in _PLACES) for change in changes)
    if changes and not (accepted or extends or elsewhere):
        msg = f"The config differs from the one that the campaign in {run_dir} works with:{diff}"
        hint = f"Add --accept-changes to take these values, or go on as it was with `fff resume {run_dir}`."
        raise ConfigError(msg, hint=hint, key=changes[0].key, value=changes[0].new)


def _method(config: ActiveLearningConfig) -> dict[str, Any]:
    """Return all that changes the numbers of the reference method."""
    return make_reference(config.reference).settings


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_in(key: str, prefix: str) -> bool:
    return key == prefix or key.startswith(f"{prefix}.")


def _is_same_content(change: Change, hashes: Mapping[str, str]) -> bool:
    if change.key not in path_keys():
        return False
    old, new = (value if isinstance(value, list) else [value] for value in (change.old, change.new))
    if len(old) != len(new):
        return False
    return all(
        a == b or (isinstance(a, str) and isinstance(b, str) and _same_file(a, b, hashes))
        for a, b in zip(old, new, strict=True)
    )


def _same_file(old: str, new: str, hashes: Mapping[str, str]) -> bool:
    """Whether `new` holds what `old` held when the campaign began; both may end in `@` and a range."""
    old_path, _, old_range = old.partition("@")
    new_path, _, new_range = new.partition("@")
    if old_range != new_range or old_path not in hashes:
        return False
    try:
        return sha256_file(Path(new_path)) == hashes[old_path]
    except OSError:
        return False
