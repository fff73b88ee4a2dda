"""From the files of a stored model to a force field, whichever package its network comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fff.base.errors import ModelFileError
from fff.models.files import DESCRIPTION, read_description
from fff.models.force_field import load_force_field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from fff.models.protocol import ForceField

__all__ = ["BACKENDS", "load_model"]

BACKENDS: dict[str, Callable[[Mapping[str, bytes], torch.device | str | None], ForceField]] = {
    "schnetpack": load_force_field,
}
"""What loads a model, by the `kind` in its description. A backend of another package adds itself here."""


def load_model(files: Mapping[str, bytes], device: torch.device | str | None = None) -> ForceField:
    """Return the force field that `to_files` packed.

    Raises:
        ModelFileError: If a file is missing or damaged, or if the kind or the schema version is unknown.
    """
    kind = str(read_description(files).get("kind"))
    if kind not in BACKENDS:
        msg = f"{DESCRIPTION} describes a model of the kind {kind!r}; known are {', '.join(BACKENDS)}."
        raise ModelFileError(msg, hint="Use the version of fff that made it.", path=DESCRIPTION)
    return BACKENDS[kind](files, device)
