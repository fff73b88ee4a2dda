"""Walks over the config's sections: which keys there are, what each one is."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fff.config.campaign import ActiveLearningConfig
from fff.config.section import PATH, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Place", "kinds_of", "leaves", "locate", "named_section_of", "path_keys", "sections_of"]


@dataclass(frozen=True)
class Place:
    """Where a pydantic error points to.

    Attributes:
        key: Dotted key as a user writes it.
        section: The section that holds the key, or None where the way left the sections.
        field: The declaration of the key, or None if there is none.
    """

    key: str
    section: type[Section] | None
    field: FieldInfo | None


def sections_of(field: FieldInfo | None) -> list[type[Section]]:
    """Return the sections a field may hold: none for a plain value, several for one with kinds."""
    return _sections(field.annotation) if field is not None else []


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        return _sections(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [found for part in get_args(annotation) for found in _sections(part)]
    return []


def named_section_of(field: FieldInfo | None) -> type[Section] | None:
    """Return the section that a field holds several of, each under a name of the user's choice; or None."""
    annotation = field.annotation if field is not None else None
    if get_origin(annotation) is not Mapping:
        return None
    inner = _sections(get_args(annotation)[1])
    return inner[0] if inner else None


def kinds_of(field: FieldInfo | None) -> dict[str, type[Section]]:
    """Return the sections of a field by their `kind`; empty for fields without kinds."""
    found = {}
    for section in sections_of(field):
        if kind := section.model_fields.get("kind"):
            found[str(get_args(kind.annotation)[0])] = section
    return found


def locate(loc: Sequence[str | int]) -> Place:
    """Return what a pydantic error's location means to a user; tags of unions are left out of the key."""
    key = ""
    section: type[Section] | None = ActiveLearningConfig
    field: FieldInfo | None = None
    tags: dict[str, type[Section]] = {}
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
            continue
        if part in tags:
            section, tags, field = tags[part], {}, None
            continue
        if named := named_section_of(field):
            key = f"{key}.{part}"
            section, field = None, FieldInfo(annotation=named, description=named.__doc__)
            continue
        if field is not None:
            inner = sections_of(field)
            section = inner[0] if len(inner) == 1 else None
        key = f"{key}.{part}" if key else part
        field = section.model_fields.get(part) if section else None
        tags = kinds_of(field) if len(sections_of(field)) > 1 else {}
    return Place(key, section, field)


def leaves(
    section: type[Section] = ActiveLearningConfig, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key that holds a value, with its declaration; kinds one after the other."""
    for name, field in section.model_fields.items():
        inner = sections_of(field)
        if not inner:
            yield prefix + name, field
        for part in inner:
            yield from leaves(part, f"{prefix}{name}.")


@functools.cache
def path_keys() -> dict[str, bool]:
    """Return the dotted keys that hold paths, each with whether it holds a list of them."""
    return {
        key: get_origin(field.annotation) is list
        for key, field in leaves()
        if field.json_schema_extra == PATH
    }
