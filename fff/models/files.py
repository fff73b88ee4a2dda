"""Where members of a committee rest: two files each, and which folders make the present committee.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fff.base.errors import ModelFileError, RunDirectoryError
from fff.base.files import inside, write_bytes
from fff.base.ids import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "DESCRIPTION",
    "HISTORY",
    "WEIGHTS",
    "find_members",
    "read_description",
    "read_member",
    "write_member",
]

DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
HISTORY = "history.csv"

SCHEMA_VERSION = 1
_HINT = "Take the model's folder from the run that made it again, or train anew."


def read_member(directory: Path) -> dict[str, bytes]:
    """Return the files of the member in `directory`, by name.

    Raises:
        ModelFileError: If the description or the weights are missing.
    """
    files = {}
    for name in (DESCRIPTION, WEIGHTS, HISTORY):
        path = directory / name
        if path.is_file():
            files[name] = path.read_bytes()
        elif name != HISTORY:
            msg = f"There is no {name} in {directory}."
            raise ModelFileError(msg, hint=_HINT, path=str(path))
    return files


def write_member(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a member; the description last, so that a folder with one is complete."""
    for name in sorted(files, key=lambda name: name == DESCRIPTION):
        write_bytes(directory / name, files[name])


def read_description(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the content of `model.json` after checking it against the weights beside it.

    Raises:
        ModelFileError: If a file is missing, is no JSON object, has another schema version, or if the weights
            are not those that the description was written for.
    """
    missing = [name for name in (DESCRIPTION, WEIGHTS) if name not in files]
    if missing:
        msg = f"A model needs {DESCRIPTION} and {WEIGHTS}; missing: {', '.join(missing)}."
        raise ModelFileError(msg, hint=_HINT, path=missing[0])
    try:
        description = json.loads(files[DESCRIPTION])
    except ValueError as error:
        msg = f"{DESCRIPTION} is not JSON: {error}."
        raise ModelFileError(msg, hint=_HINT, path=DESCRIPTION) from error
    version = description.get("schema_version") if isinstance(description, dict) else None
    if version != SCHEMA_VERSION:
        msg = f"{DESCRIPTION} has schema version {version!r}; this fff reads version {SCHEMA_VERSION}."
        raise ModelFileError(msg, hint=_HINT, path=DESCRIPTION)
    found = sha256_bytes(files[WEIGHTS])
    if description.get("weights_sha256") != found:
        msg = (
            f"{WEIGHTS} is damaged or another model's: {DESCRIPTION} wants another SHA-256 than {found[:7]}."
        )
        raise ModelFileError(msg, hint=_HINT, path=WEIGHTS)
    return dict(description)


def find_members(path: Path) -> list[Path]:
    """Return the folders of the members that `path` names.

    Args:
        path: A member's folder, a round's folder with `member-*` in it, or a run directory. In a run
            directory `models/committee.json` names the members; without it the newest round with at least two
            members counts.

    Raises:
        ModelFileError: If no model is found there.
    """
    if path.is_file() and path.name in {DESCRIPTION, WEIGHTS}:
        path = path.parent
    if (path / DESCRIPTION).is_file():
        return [path]
    members = _members_of_round(path)
    models = path / "models" if (path / "models").is_dir() else path
    if not members and (models / "committee.json").is_file():
        return _pointed_members(models / "committee.json")
    if not members:
        rounds = sorted(models.glob("round-*"), key=_number, reverse=True)
        complete = [found for found in map(_members_of_round, rounds) if len(found) >= 2]
        members = complete[0] if complete else []
    if not members:
        msg = f"No trained model was found at {path}."
        hint = "Give a run directory, a round's folder in its models/, or a member's folder."
        raise ModelFileError(msg, hint=hint, path=str(path))
    return members


def _members_of_round(directory: Path) -> list[Path]:
    found = [path for path in directory.glob("member-*") if (path / DESCRIPTION).is_file()]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    digits = re.search(r"(\d+)$", path.name)
    return int(digits.group(1)) if digits else -1


def _pointed_members(pointer: Path) -> list[Path]:
    try:
        names = json.loads(pointer.read_bytes())["members"]
        members = [inside(pointer.parent, str(name)) for name in names]
    except RunDirectoryError as error:
        raise ModelFileError(error.message, hint=_HINT, path=str(pointer)) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f'{pointer} does not hold {{"members": [...]}}.'
        raise ModelFileError(msg, hint=_HINT, path=str(pointer)) from error
    missing = [str(member) for member in members if not (member / DESCRIPTION).is_file()]
    if missing or not members:
        msg = f"{pointer} names no members, or some that are missing: {', '.join(missing) or 'none named'}."
        raise ModelFileError(msg, hint=_HINT, path=str(pointer))
    return members
