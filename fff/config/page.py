"""The configuration reference as a Markdown page, made from the schema."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

from fff.config.campaign import ActiveLearningConfig
from fff.config.keys import named_section_of, sections_of
from fff.config.schema import describe_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fff.config.schema import Entry

__all__ = ["PAGE_TITLE", "config_page"]

PAGE_TITLE = "# Configuration of fff"
"""What tells this page from somebody else's file."""

_HEAD = f"""\
{PAGE_TITLE}

Every key that a config file may have. This page is made from the code: `make docs`.

A config needs `structures` (or `labels`) and `reference`; all else has a default. Units are part of the
names. Paths count from the folder of the file that gives them. YAML 1.2: `1e-3` is a number, `no` is a text.

    fff init                      what presets there are
    fff init quickstart           write one, with comments
    fff run quickstart.yaml -o sampling.n_steps=400 --dry-run   every value, and where it comes from
    fff schema -o fff-schema.json the same as this page, for editors
"""


def config_page() -> str:
    """Return the page: a table for every section, and for every kind of those that have kinds."""
    lines = [_HEAD]
    for (section, kind), entries in groupby(describe_config(), key=lambda entry: (entry.section, entry.kind)):
        lines += [_heading(section, kind), "", _about(section, kind), "", *_table(list(entries)), ""]
    return "\n".join(lines)


def _heading(section: str, kind: str) -> str:
    if not section:
        return "## The campaign"
    return f"## `{section}`, kind `{kind}`" if kind else f"## `{section}`"


def _about(section: str, kind: str) -> str:
    if not section:
        return "Keys that stand in no section."
    first, *inner = section.split(".")
    for model in sections_of(ActiveLearningConfig.model_fields[first]):
        if not kind or kind == _kind_of(model):
            named = named_section_of(model.model_fields[inner[0]]) if inner else model
            return (named.__doc__ or "").strip().splitlines()[0]
    return ""


def _kind_of(model: type) -> str:
    fields = getattr(model, "model_fields", {})
    return str(fields["kind"].annotation.__args__[0]) if "kind" in fields else ""


def _table(entries: Sequence[Entry]) -> Iterator[str]:
    yield "| key | value | unit | default | meaning |"
    yield "|---|---|---|---|---|"
    for entry in entries:
        default = "must be given" if entry.is_required else f"`{_json(entry.default)}`"
        cells = (f"`{entry.name}`", entry.values, entry.unit, default, entry.meaning)
        yield f"| {' | '.join(cell.replace('|', '\\|') for cell in cells)} |"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
