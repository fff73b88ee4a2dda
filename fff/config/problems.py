"""Turns what pydantic found into sentences: the key, the value, the repair."""

from __future__ import annotations

import difflib
import json
import math
import re
from typing import TYPE_CHECKING, Any, get_args

from fff.base.errors import ConfigError
from fff.base.redaction import redact
from fff.config.campaign import ActiveLearningConfig
from fff.config.keys import Place, kinds_of, leaves, locate, named_section_of
from fff.config.section import Section, unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

__all__ = ["config_error", "nearest", "show", "unknown_key"]

_NUMBER = re.compile(r"^\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S.*)?$")
_LEAST_PREFIX = 3
_BOUNDS = (
    ("ge", "at least {}"),
    ("gt", "above {}"),
    ("le", "at most {}"),
    ("lt", "below {}"),
)
_NAME_SIGNS = "_ . , : @ + / -"
_SIGNS = {
    "account": _NAME_SIGNS,
    "partition": _NAME_SIGNS,
    "queue": _NAME_SIGNS,
    "qos": _NAME_SIGNS,
    "constraint": f"{_NAME_SIGNS} = & | * ( ) [ ]",
}
_YES_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def show(value: Any) -> str:
    """Return a value as a user would write it, without passwords, cut to a readable length."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    text = redact(text)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the choice that looks most like `name`, or None if none does; upper case counts less.

    The only one that begins with `name` is meant before all that look like it.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    begun = [lower for lower in by_lower if lower.startswith(name.lower())]
    if len(begun) == 1 and len(name) >= _LEAST_PREFIX:
        return by_lower[begun[0]]
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def config_error(error: ValidationError) -> ConfigError:
    """Return the first problem as an error; the others are in its context as `others`.

    Unknown keys come first: a misspelt key is often why another one is missing.
    """
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problems = [_problem(dict(e)) for e in found]
    unique = list({p.message: p for p in problems}.values())
    first = unique[0]
    first.context["others"] = [(p.message, p.hint) for p in unique[1:]]
    return first


def unknown_key(key: str, value: Any, section: type[Section] | None, kind: str = "") -> ConfigError:
    """Return the error for a key that no section declares, with the nearest that one does."""
    parent, _, name = key.rpartition(".")
    here = list(section.model_fields) if section else []
    where = f" for kind `{kind}`" if kind else ""
    message = f"Unknown key `{key}` (value {show(value)}){where}."
    if others := _kinds_with(key):
        hint = f"It belongs to kind `{others[0]}`: set `{parent}.kind: {others[0]}`, or leave it out."
    elif found := nearest(name, here):
        hint = f"Did you mean `{parent + '.' if parent else ''}{found}`?"
    elif found := _elsewhere(key):
        hint = f"Did you mean `{found}`?"
    else:
        place = f"`{parent}` knows" if parent else "The config knows"
        hint = f"{place} these keys: {', '.join(here)}."
    return ConfigError(message, hint=hint, key=key, value=value)


def _kinds_with(key: str) -> list[str]:
    """Return the kinds of the key's section that do have it."""
    parent, _, name = key.rpartition(".")
    kinds = kinds_of(locate([parent]).field) if parent else {}
    return [kind for kind, section in kinds.items() if name in section.model_fields]


def _elsewhere(key: str) -> str | None:
    """Return a key of another section that was probably meant."""
    every = [known for known, _ in leaves() if known != key]
    name = key.rpartition(".")[2]
    by_name: dict[str, list[str]] = {top: [top] for top in ActiveLearningConfig.model_fields}
    for known in every:
        by_name.setdefault(known.rpartition(".")[2], []).append(known)
    last = nearest(name, by_name, cutoff=0.8)
    if last is not None:
        return nearest(key, by_name[last], cutoff=0.0)
    return nearest(key, every, cutoff=0.75)


def _problem(error: Mapping[str, Any]) -> ConfigError:
    own = error.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return own
    place = locate(error["loc"])
    kind = error["type"]
    value = error.get("input")
    if kind == "extra_forbidden":
        return unknown_key(place.key, value, place.section, _kind_name(place.section))
    for matches, explain in _EXPLANATIONS:
        if re.fullmatch(matches, kind):
            message, hint = explain(place, value)
            break
    else:
        message, hint = f"`{place.key}` is {show(value)}: {error['msg'].lower()}.", _describe(place)
    return ConfigError(message, hint=hint, key=place.key, value=value)


def _kind_name(section: type[Section] | None) -> str:
    kind = (
        section.model_fields.get("kind") if section and section.__name__ != "ActiveLearningConfig" else None
    )
    return str(get_args(kind.annotation)[0]) if kind else ""


def _describe(place: Place) -> str:
    return place.field.description or "" if place.field else ""


def _missing(place: Place, value: Any) -> tuple[str, str]:  # noqa: ARG001 - one signature for all
    kinds = kinds_of(place.field)
    if kinds:
        return (
            f"`{place.key}` is missing.",
            f"Add `{place.key}: {{kind: {next(iter(kinds))}}}`; {_offer(kinds)}",
        )
    if named_section_of(place.field):
        return (
            f"`{place.key}` is missing.",
            f"Add it, for example `{place.key}: {{cpu: {{}}}}`. {_describe(place)}",
        )
    return f"`{place.key}` is missing.", f"Add it. {_describe(place)}".strip()


def _offer(kinds: Iterable[str]) -> str:
    return f"the kinds are {', '.join(kinds)}."


def _missing_kind(place: Place, value: Any) -> tuple[str, str]:  # noqa: ARG001 - one signature for all
    kinds = kinds_of(place.field)
    return f"`{place.key}.kind` is missing.", f"Add `kind: {next(iter(kinds))}`; {_offer(kinds)}"


def _wrong_kind(place: Place, value: Any) -> tuple[str, str]:
    kinds = kinds_of(place.field)
    name = value.get("kind") if isinstance(value, dict) else value
    hint = _choose(str(name), kinds)
    return f"`{place.key}.kind` is {show(name)}, which there is not.", hint


def _choose(name: str, choices: Iterable[str]) -> str:
    known = list(choices)
    found = nearest(name, known)
    near = f"Did you mean `{found}`? " if found else ""
    return f"{near}There {'are' if len(known) > 1 else 'is only'} {', '.join(known)}."


def _literal(place: Place, value: Any) -> tuple[str, str]:
    choices = [str(x) for x in _literals(place.field)]
    if place.key == "schema_version":
        return (
            f"`schema_version` is {show(value)}; this version of fff reads {choices[0]}.",
            "Use the version of fff that wrote the file, or leave the key out.",
        )
    return f"`{place.key}` is {show(value)}; that is not one of its values.", _choose(str(value), choices)


def _literals(field: FieldInfo | None) -> list[Any]:
    found: list[Any] = []
    waiting = [field.annotation] if field else []
    while waiting:
        for part in get_args(waiting.pop()):
            if get_args(part):
                waiting.append(part)
            elif part is not type(None):
                found.append(part)
    return found


def _bounds(field: FieldInfo | None) -> str:
    """Return the bounds of a field in words; empty if it has none."""
    marks = _marks(field)
    words = []
    for name, text in _BOUNDS:
        values = [v for mark in marks if (v := getattr(mark, name, None)) is not None]
        words += [text.format(f"{v:g}" if abs(v) < 1e15 else "2^63") for v in values[:1]]
    return " and ".join(words)


def _marks(field: FieldInfo | None) -> list[Any]:
    """Return the constraints of a field, those of its items after its own."""
    marks = list(field.metadata) if field else []
    waiting: list[Any] = [field.annotation] if field else []
    while waiting:
        part = waiting.pop()
        marks += getattr(part, "__metadata__", ())
        waiting += get_args(part)
    # Constraints inside Annotated arrive as FieldInfo, whose own metadata holds them.
    return [inner for mark in marks for inner in (getattr(mark, "metadata", None) or [mark])]


def _out_of_bounds(place: Place, value: Any) -> tuple[str, str]:
    unit = unit_of(re.sub(r"\[\d+\]$", "", place.key))
    suffix = f" {unit}" if unit else ""
    bounds = _bounds(place.field)
    message = f"`{place.key}` is {show(value)}{suffix}; it must be {bounds}{suffix}."
    return message, f"Set `{place.key}` to a value that is {bounds}."


def _not_finite(place: Place, value: Any) -> tuple[str, str]:
    return f"`{place.key}` is {value}; it must be a finite number.", f"Give a number. {_describe(place)}"


def _number(noun: str) -> Callable[[Place, Any], tuple[str, str]]:
    def explain(place: Place, value: Any) -> tuple[str, str]:
        unit = unit_of(re.sub(r"\[\d+\]$", "", place.key))
        expected = f"{noun} in {unit}" if unit else noun
        message = f"`{place.key}` is {show(value)}; it must be {expected}."
        return message, _number_hint(place, value, unit, noun)

    return explain


def _number_hint(place: Place, value: Any, unit: str | None, noun: str) -> str:
    if isinstance(value, float) and noun == "a whole number":
        return (
            f"Write {round(value)}, without point or exponent."
            if math.isfinite(value)
            else "Write a whole number."
        )
    found = _NUMBER.match(value) if isinstance(value, str) else None
    if not found:
        bounds = _bounds(place.field)
        return f"Give {noun}{', ' + bounds if bounds else ''}. {_describe(place)}".strip()
    number, given = found.groups()
    if not given:
        return f"Write {number} without quotes."
    if unit is None:
        return f"Write {number} alone; `{place.key}` has no unit."
    if given.replace("A", "Å") == unit.replace("A", "Å"):
        return f"Write {number} alone; the unit, {unit}, is in the name of the key."
    return f"Convert the value to {unit} and write the number alone."


def _boolean(place: Place, value: Any) -> tuple[str, str]:
    meant = _YES_NO.get(str(value).lower())
    hint = f"Write {meant}." if meant else "Write true or false."
    return f"`{place.key}` is {show(value)}; it must be true or false.", hint


def _text(place: Place, value: Any) -> tuple[str, str]:
    if place.key.endswith(".walltime"):
        return f"`{place.key}` is {show(value)}, which is no time.", "Write 90s, 30m, 2h, 1d or 1:30:00."
    return f"`{place.key}` is {show(value)}; it must be text.", f'Put it in quotes: "{value!s}".'


def _list(place: Place, value: Any) -> tuple[str, str]:
    if place.key.startswith("calculation.nodes_by_size"):
        return f"`{place.key}` is {show(value)}; it must be a list.", "Write pairs, as [[0, 1], [100, 2]]."
    hint = (
        f"Write `{place.key}: [{show(value)}]`." if isinstance(value, str | int | float) else _describe(place)
    )
    return f"`{place.key}` is {show(value)}; it must be a list.", hint


def _mapping(place: Place, value: Any) -> tuple[str, str]:
    kinds = kinds_of(place.field)
    if isinstance(value, str) and len(kinds) > 1:
        found = nearest(value, kinds) or next(iter(kinds))
        hint = f"Write `{place.key}: {{kind: {found}}}`; {_offer(kinds)}"
    else:
        hint = "Write its keys below it, indented."
    return f"`{place.key}` is {show(value)}; it must be a section with keys.", hint


def _empty(place: Place, value: Any) -> tuple[str, str]:
    return f"`{place.key}` is {show(value)}; it must not be empty.", _describe(place)


def _too_many(place: Place, value: Any) -> tuple[str, str]:
    most = next(m for mark in _marks(place.field) if (m := getattr(mark, "max_length", None)) is not None)
    return f"`{place.key}` holds {len(value)} values; it must hold at most {most}.", "Leave some out."


def _pattern(place: Place, value: Any) -> tuple[str, str]:
    if place.key.startswith("site.nodes.") and (signs := _SIGNS.get(place.key.rpartition(".")[2])):
        message = f"`{place.key}` is {show(value)}, which a batch script would not hold as it is."
        return message, f"Use letters, digits and {signs} only, no blanks, and no sign but `_` in front."
    if place.key.startswith("site."):
        key = place.key.removesuffix(".[key]")
        if key == place.key:
            return f"`{key}` is {show(value)}; it must be one line.", "Give each line as an item of its own."
        message = f"`{key}` cannot be the name of a kind of node."
        return message, "Use at most 30 letters, digits, `-` or `_`, and a letter first, as cpu or gpu-a100."
    if place.key.endswith(".basis"):
        message = f"`{place.key}` is {show(value)}; it must be the name of a basis set, no path or text."
        return message, "Examples: def2-SVP, def2-TZVP, 6-31++G(d,p), cc-pVDZ."
    message = f"`{place.key}` is {show(value)}; it cannot be the name of a folder."
    return message, "Use at most 100 letters, digits, spaces, dots, `-` or `_`, and no dot in front."


_EXPLANATIONS: tuple[tuple[str, Callable[[Place, Any], tuple[str, str]]], ...] = (
    ("missing", _missing),
    ("union_tag_not_found", _missing_kind),
    ("union_tag_invalid", _wrong_kind),
    ("literal_error", _literal),
    ("greater_than.*|less_than.*", _out_of_bounds),
    ("finite_number", _not_finite),
    ("int_.*", _number("a whole number")),
    ("float_.*", _number("a number")),
    ("bool_.*", _boolean),
    ("string_type|string_sub_type", _text),
    ("list_type", _list),
    ("model_type|model_attributes_type|dict_type|dict_attributes_type", _mapping),
    ("too_short|string_too_short", _empty),
    ("too_long", _too_many),
    ("string_pattern_mismatch|string_too_long", _pattern),
)
