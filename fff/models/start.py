"""The trained model that a campaign fine-tunes: found, read and checked without building it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fff.base.errors import ConfigError, ModelFileError
from fff.config import config_from_dict, nearest, show
from fff.models.files import find_members, read_description, read_member

if TYPE_CHECKING:
    from fff.config import LoadedConfig

__all__ = ["ARCHITECTURE", "StartModel", "read_start_model", "take_architecture"]

ARCHITECTURE = ("kind", "representation", "n_features", "n_layers", "cutoff_A", "n_radial")
"""Keys of the section `model` that a trained model has settled."""

_KEY = "model.start"


@dataclass(frozen=True)
class StartModel:
    """What the files of a given model or committee say.

    Attributes:
        members: The folders of its members.
        architecture: The values of the keys in `ARCHITECTURE`, the same for all members.
        elements: Atomic numbers that all members know.
    """

    members: list[Path]
    architecture: dict[str, Any]
    elements: frozenset[int]


def read_start_model(start: str) -> StartModel:
    """Return what is at a path: a run, round or member directory.

    Raises:
        ConfigError: If there is no model, one is damaged, or the members are not of one architecture.
    """
    path = Path(start)
    try:
        if not path.exists():
            raise _no_path(path)
        members = find_members(path)
        read = [_read(member) for member in members]
    except ModelFileError as error:
        raise _unusable(start, error.message, error.hint) from error
    except OSError as error:
        raise _unusable(start, f"{path} cannot be read: {error.strerror or error}.") from error
    first = read[0][0]
    for member, (other, _) in zip(members, read, strict=True):
        for key in ARCHITECTURE:
            if other[key] != first[key]:
                msg = f"{key} is {show(first[key])} in {members[0]}, but {show(other[key])} in {member}."
                raise _unusable(start, msg, "Name the folder of one member.")
    return StartModel(members, first, frozenset.intersection(*(elements for _, elements in read)))


def take_architecture(loaded: LoadedConfig, model: StartModel) -> LoadedConfig:
    """Return the config with the architecture of the given model, which then is its source.

    Raises:
        ConfigError: If the config gives another value itself, or fff builds no such model.
    """
    config, sources = loaded.config, dict(loaded.sources)
    for name, value in model.architecture.items():
        key = f"model.{name}"
        given = getattr(config.model, name)
        if sources[key] == "default":
            sources[key] = _KEY
        elif given != value:
            msg = f"`{key}` is {show(given)}, but the model that `model.start` names has {show(value)}."
            hint = f"Leave `{key}` out, or train anew without `model.start`."
            raise ConfigError(msg, hint=hint, key=key, value=given)
    values = config.model_dump(mode="json")
    values["model"] |= model.architecture
    try:
        return replace(loaded, config=config_from_dict(values), sources=sources)
    except ConfigError as error:
        raise _unusable(str(config.model.start), f"its model.json does not fit: {error.message}") from error


def _read(member: Path) -> tuple[dict[str, Any], frozenset[int]]:
    """Return the architecture and the elements of a member."""
    try:
        description = read_description(read_member(member))
    except ModelFileError as error:
        raise ModelFileError(f"{member}: {error.message}", hint=error.hint, **error.context) from error
    try:
        architecture = {key: description[key] for key in ARCHITECTURE}
        elements = frozenset(int(number) for number in description["elements"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{member}: model.json describes no model; {type(error).__name__}: {error}."
        raise ModelFileError(msg, path=str(member)) from error
    return architecture, elements


def _no_path(path: Path) -> ModelFileError:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    found = nearest(path.name, siblings)
    hint = f"Did you mean {path.parent / found}?" if found else "Check the path."
    return ModelFileError(f"there is no {path}.", hint=hint, path=str(path))


def _unusable(start: str, reason: str, hint: str = "") -> ConfigError:
    hint = hint or "Name another run directory, a folder such as models/round-003, or a member's folder."
    return ConfigError(f"`model.start`: {reason}", hint=hint, key=_KEY, value=start)
