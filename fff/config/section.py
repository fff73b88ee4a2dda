"""What all sections of the config share: frozen, nothing unknown, the unit in the key's name."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

__all__ = [
    "PATH",
    "Fraction",
    "NumberList",
    "PathText",
    "Positive",
    "PositiveInt",
    "Section",
    "TextList",
    "as_list",
    "unit_of",
]

PATH: dict[str, JsonValue] = {"format": "path"}
"""Marks a key whose text is a path: relative ones count from the folder of the file that gives them."""

_UNITS = {
    "eV_per_atom": "eV per atom",
    "eV_per_A": "eV/Å",
    "per_fs": "1/fs",
    "GPa": "GPa",
    "MB": "MB",
    "eV": "eV",
    "fs": "fs",
    "K": "K",
    "A": "Å",
    "s": "s",
}
_SUFFIX = re.compile(rf"_({'|'.join(_UNITS)})$")


def unit_of(key: str) -> str | None:
    """Return the unit that the name of a config key ends with, or None for numbers without unit.

    Example:
        >>> unit_of("sampling.timestep_fs"), unit_of("committee.size")
        ('fs', None)
    """
    found = _SUFFIX.search(key)
    return _UNITS[found.group(1)] if found else None


def _add_units(schema: dict[str, Any]) -> None:
    for key, value in schema.get("properties", {}).items():
        if unit := unit_of(key):
            value["unit"] = unit


class Section(BaseModel):
    """Base of all sections: values never change, and a key that is not declared is an error.

    Strict: a text is never read as a number, so that `300 K` cannot pass for 300.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        json_schema_extra=_add_units,
    )

    def check(self) -> None:
        """Check what concerns several keys; sections with such rules override it.

        Raises:
            ConfigError: If two keys contradict each other.
        """


def as_list(value: Any) -> Any:
    """Return a number or text as a list of one, anything else as it is."""
    return [value] if isinstance(value, int | float | str) else value


def _texts(value: Any) -> Any:
    # YAML reads an unquoted device id as a number.
    if not isinstance(value, list):
        return value
    return [str(x) if isinstance(x, int) and not isinstance(x, bool) else x for x in value]


Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
_Numbers = Annotated[list[Positive], Field(min_length=1, max_length=100)]
NumberList = Annotated[_Numbers, BeforeValidator(as_list, json_schema_input_type=Positive | _Numbers)]
PathText = Annotated[str, Field(min_length=1)]
TextList = Annotated[list[str], BeforeValidator(_texts, json_schema_input_type=list[str | int])]
