"""The JSON schema of the config, for editors; and what it says about each key, for people."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fff.config.campaign import DEFAULT_KINDS, ActiveLearningConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["SCHEMA_TITLE", "Entry", "config_schema", "describe_config"]

SCHEMA_TITLE = "Config of an fff campaign"
"""What tells a schema of ours from somebody else's file."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
)
_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "path": "path",
    "boolean": "true or false",
    "object": "names with values",
    "null": "null",
}
_PLURALS = {"path": "paths", "string": "texts", "array": "lists"}


@dataclass(frozen=True)
class Entry:
    """What the schema says about one key.

    Attributes:
        key: Dotted key.
        kind: The `kind` of its section that has it; empty where the section has no kinds.
        meaning: What it is for.
        unit: Its unit, or nothing.
        values: Type, choices and bounds in words.
        default: The default, of JSON's types.
        is_required: Whether it must be given; then it has no default.
    """

    key: str
    kind: str
    meaning: str
    unit: str
    values: str
    default: Any
    is_required: bool

    @property
    def section(self) -> str:
        """The section it belongs to; empty for keys of none."""
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the key, as it stands in a config file."""
        return self.key.rpartition(".")[2]


def config_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a config file.

    It knows keys, types, bounds, choices, units and defaults. What concerns several keys, and whether files
    are there, `fff run --dry-run` and `fff check` look at.
    """
    schema = _generated()
    definitions = schema.pop("$defs")
    for definition in definitions.values():
        _tidy(definition)
    for key, field in schema["properties"].items():
        _let_be_empty(key, field, definitions)
    _tidy(schema)
    about = {
        "$schema": _DIALECT,
        "title": SCHEMA_TITLE,
        "description": "A campaign: structures in, a trained committee and its labels out.",
    }
    return {**about, **{key: schema[key] for key in schema if key not in about}, "$defs": definitions}


def _generated() -> dict[str, Any]:
    return copy.deepcopy(_model_schema())


@functools.cache
def _model_schema() -> dict[str, Any]:
    return ActiveLearningConfig.model_json_schema()


def _tidy(section: dict[str, Any]) -> None:
    """Leave out what repeats the key, and tell unit and default where editors show them."""
    section.pop("title", None)
    for field in section["properties"].values():
        field.pop("title", None)
        if unit := field.get("unit"):
            field["description"] += f" Unit: {unit}."
        if (default := field.get("default")) is not None:
            field["description"] += f" Default: {json.dumps(default, ensure_ascii=False)}."


def _let_be_empty(key: str, field: dict[str, Any], definitions: Mapping[str, dict[str, Any]]) -> None:
    """Let sections without a value, as `sampling:` alone, pass; and have each kind but the default named."""
    if "oneOf" not in field:
        if "$ref" in field:
            definitions[_name(field["$ref"])]["type"] = ["object", "null"]
        return
    for kind, reference in field["discriminator"]["mapping"].items():
        definition = definitions[_name(reference)]
        if DEFAULT_KINDS.get(key) == kind:
            definition["type"] = ["object", "null"]
        else:
            definition["required"] = ["kind", *(n for n in definition.get("required", ()) if n != "kind")]


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def describe_config() -> list[Entry]:
    """Return all keys in the order of the config, those of kinds one kind after the other."""
    return list(_entries(_model_schema(), "", ""))


def _entries(section: Mapping[str, Any], prefix: str, kind: str) -> Iterator[Entry]:
    definitions = _model_schema()["$defs"]
    for name, field in section["properties"].items():
        if "$ref" in field:
            yield from _entries(definitions[_name(field["$ref"])], f"{name}.", "")
        elif "oneOf" in field:
            for part in field["oneOf"]:
                section_of_kind = definitions[_name(part["$ref"])]
                inner = section_of_kind["properties"]["kind"]["const"]
                yield from _entries(section_of_kind, f"{name}.", inner)
        else:
            yield Entry(
                key=prefix + name,
                kind=kind,
                meaning=field["description"],
                unit=field.get("unit", ""),
                values=_values(field),
                default=field.get("default"),
                is_required=name in section.get("required", ()),
            )
    # After all of its own keys, so that a section is told of in one piece.
    for name, field in section["properties"].items():
        if reference := _named(field):
            yield from _entries(definitions[_name(reference)], f"{prefix}{name}.NAME.", kind)


def _named(field: Mapping[str, Any]) -> str:
    """Return the reference to the section that a field holds several of, by name; empty if it does not."""
    patterns = field.get("patternProperties") or {"": field.get("additionalProperties")}
    inner = next(iter(patterns.values()))
    return str(inner.get("$ref", "")) if isinstance(inner, dict) else ""


def _values(field: Mapping[str, Any]) -> str:
    """Return type, choices and bounds in words.

    Example:
        >>> _values({"type": "integer", "minimum": 2, "maximum": 32})
        'whole number, 2 to 32'
        >>> _values({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]})
        'number, above 0; or null'
    """
    if "anyOf" in field:
        first, second = ({**part, "format": field.get("format")} for part in field["anyOf"])
        if second["type"] == "array" and _values(second["items"]) == _values(first):
            return f"{_values(first)}; or a list of such"
        return f"{_values(first)}; or {_values(second)}"
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return _choices([str(choice) for choice in field["enum"]])
    if field["type"] == "array":
        # Numbers there are device ids, which YAML reads from text without quotes.
        items = field["items"]["anyOf"][0] if "anyOf" in field["items"] else field["items"]
        return f"list of {_PLURALS[_type({**items, 'format': field.get('format')})]}"
    return ", ".join([_NAMES[_type(field)], *_bounds(field)])


def _type(field: Mapping[str, Any]) -> str:
    is_path = field.get("format") == "path" and field["type"] == "string"
    return "path" if is_path else str(field["type"])


def _bounds(field: Mapping[str, Any]) -> list[str]:
    if "minimum" in field and "maximum" in field:
        return [f"{_number(field['minimum'])} to {_number(field['maximum'])}"]
    return [text.format(_number(field[key])) for key, text in _BOUNDS if key in field]


def _choices(choices: list[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if len(choices) > 1 else choices[0]


def _number(value: float) -> str:
    if value == 2**63:
        return "2^63"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
