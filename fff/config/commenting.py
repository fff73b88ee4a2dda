"""A preset as a file to edit: what it sets, explained, and beside that what is often changed."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from fff.config.campaign import DEFAULT_KINDS
from fff.config.schema import describe_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fff.config.presets import Preset
    from fff.config.schema import Entry

__all__ = ["OFTEN_CHANGED", "commented"]

OFTEN_CHANGED = (
    "seed",
    "labels",
    "run_dir",
    "model.n_features",
    "model.n_layers",
    "model.cutoff_A",
    "model.start",
    "reference.method",
    "reference.functional",
    "reference.basis",
    "reference.dispersion",
    "reference.charge",
    "reference.multiplicity",
    "reference.command",
    "reference.solvent",
    "reference.time_limit_s",
    "start.n_labels",
    "committee.size",
    "training.retrain_every",
    "training.max_epochs",
    "sampling.n_trajectories",
    "sampling.n_steps",
    "sampling.max_steps",
    "sampling.thermostat",
    "sampling.temperature_K",
    "sampling.timestep_fs",
    "audit.energy_tolerance_eV_per_atom",
    "audit.force_tolerance_eV_per_A",
    "selection.rule",
    "test.labels",
    "test.temperatures_K",
    "test.n_frames",
    "test.random_baseline",
    "stop.max_labels",
    "site.kind",
    "site.n_workers",
)
"""Keys that a commented config offers with their default; it only names all others."""

_WIDTH = 100
_TIE = "\u00a0"
_UNSEEN = ("schema_version", "kind", "name", "model.kind")
_COMMAND = re.compile(r"python run\.py configs/(\S+)\.yaml")


def commented(preset: Preset, *, file_name: str, schema: str) -> str:
    """Return the text of a config file that loads to the same config as the preset.

    Above every key that it sets stands what the key means; below those of a section, with `#` in front, the
    other keys of the section that are often changed; at the end the sections that it leaves alone.

    Args:
        preset: The preset; its own comments stay.
        file_name: Name of the file that the text is for, as shown in commands.
        schema: Where editors find the schema, relative to the file.
    """
    text = preset.path.read_text(encoding="utf-8")
    given = YAML(typ="rt", pure=True).load(text)
    writer = _Writer(given)
    head, body = _split(_COMMAND.sub(f"fff run {file_name}", text))
    lines = [f"# yaml-language-server: $schema={schema}", *head]
    lines += writer.set_part(body, first_line=len(text.splitlines()) - len(body))
    lines += writer.default_part()
    return "\n".join(lines) + "\n"


def _split(text: str) -> tuple[list[str], list[str]]:
    """Divide the lines of a file into the comment at its head, and what follows."""
    lines = text.splitlines()
    n_head = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return lines[:n_head], lines[n_head:]


class _Writer:
    """Puts explanations between the lines of a preset.

    Args:
        given: What the preset sets, with the lines where it does.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        kinds = {name: _kind(name, given) for name in ("reference", "site")}
        self._entries = [
            entry
            for entry in describe_config()
            # Within a name of the user's choice the preset's own comments explain.
            if entry.section.count(".") == 0 and (not entry.kind or entry.kind == kinds[entry.section])
        ]

    def set_part(self, body: Sequence[str], *, first_line: int) -> Iterator[str]:
        """Yield the lines of the preset with explanations above keys, and offers below sections.

        Args:
            body: The lines after the comment at the head.
            first_line: How many lines stand above them.
        """
        above: dict[int, list[str]] = {}
        for key, line in self._places():
            above.setdefault(line - first_line, []).extend(self._explain(key))
        below = dict(self._ends())
        for number, text in enumerate(body):
            yield from above.get(number, ())
            yield text
            if section := below.get(number + first_line):
                yield from self._offers(section, "  # ")

    def default_part(self) -> Iterator[str]:
        """Yield what the preset leaves at its default."""
        yield ""
        yield "# " + "-" * (_WIDTH - 2)
        yield "# All below is at its default. To change a key take away its #, and that of its section."
        yield "# Every key, with meaning, bounds and default: `fff schema --format markdown`."
        yield ""
        yield from self._offers("", "# ")
        for section in dict.fromkeys(entry.section for entry in self._entries):
            if section and section not in self._given:
                offers = list(self._offers(section, "#   "))
                yield from ["", f"# {section}:", *offers] if offers else []
        yield ""
        yield from self._others()

    def _places(self) -> Iterator[tuple[str, int]]:
        """Yield every key that is set, with the line where it is."""
        for name, value in self._given.items():
            inner = value if any(entry.section == name for entry in self._entries) else None
            if inner is None:
                yield name, self._given.lc.key(name)[0]
            else:
                yield from ((f"{name}.{key}", inner.lc.key(key)[0]) for key in inner)

    def _ends(self) -> Iterator[tuple[int, str]]:
        """Yield the last line of every section in which something is set, with its name."""
        for name, value in self._given.items():
            if any(entry.section == name for entry in self._entries):
                yield _last_line(value), name

    def _explain(self, key: str) -> list[str]:
        entry = next(entry for entry in self._entries if entry.key == key)
        indent = "  # " if entry.section else "# "
        if entry.name == "kind":
            return _wrap(f"{entry.meaning}{_other_kinds(entry)}", indent)
        about = _range(entry) if entry.is_required else f"{_range(entry)}; default {_yaml(entry.default)}"
        return _wrap(f"{entry.meaning} [{about}]", indent)

    def _offers(self, section: str, indent: str) -> Iterator[str]:
        """Yield the keys of a section that are often changed and not set, one on a line."""
        given = self._given.get(section, {}) if section else self._given
        offered = [
            entry
            for entry in self._entries
            if entry.section == section and entry.key in OFTEN_CHANGED and entry.name not in given
        ]
        settings = [f"{indent}{entry.name}: {_yaml(entry.default)}" for entry in offered]
        column = max((len(text) for text in settings), default=0) + 2
        for entry, text in zip(offered, settings, strict=True):
            hanging = " " * len(indent.partition("#")[0]) + "#" + " " * (column - indent.index("#") - 1)
            about = f"{entry.meaning}{_other_kinds(entry)}"
            if entry.name != "kind":
                about += f" [{_range(entry)}]"
            yield from _wrap(f"# {about}", f"{text:<{column}}", hanging + "# ")

    def _others(self) -> Iterator[str]:
        """Yield the names of the keys that are neither set nor offered."""
        yield "# Further keys, by section, with their defaults:"
        by_section: dict[str, list[str]] = {}
        for entry in self._entries:
            given = self._given.get(entry.section, {}) if entry.section else self._given
            if entry.key not in OFTEN_CHANGED and entry.key not in _UNSEEN and entry.name not in given:
                setting = f"{entry.name}: {_yaml(entry.default)}".replace(" ", _TIE)
                by_section.setdefault(entry.section, []).append(setting)
        for section, keys in by_section.items():
            lines = _wrap(", ".join(keys), f"#   {section:<12}", f"#   {'':<12}")
            yield from (line.replace(_TIE, " ") for line in lines)


def _kind(section: str, given: Any) -> str:
    found = given.get(section) or {}
    return str(found.get("kind", DEFAULT_KINDS.get(section, "")))


def _last_line(value: Any) -> int:
    """Return the last line of a section, whose last value may itself have several."""
    last = value.lc.key(list(value)[-1])[0]
    inner = list(value.values())[-1]
    return max(last, _last_line(inner)) if isinstance(inner, dict) and inner else int(last)


def _other_kinds(entry: Entry) -> str:
    if entry.name != "kind" or not entry.kind:
        return ""
    others = [e.kind for e in describe_config() if e.key == entry.key and e.kind != entry.kind]
    return f" Other kinds, with keys of their own: {', '.join(others)}."


def _range(entry: Entry) -> str:
    """Return unit, type and bounds as briefly as a comment allows."""
    values = entry.values.removeprefix("number, ")
    return f"{entry.unit}; {values}" if entry.unit else values


def _yaml(value: Any) -> str:
    """Return a default as YAML in one line."""
    if isinstance(value, list):
        return f"[{', '.join(_yaml(part) for part in value)}]"
    if isinstance(value, float):
        return f"{value:g}" if value != int(value) or abs(value) >= 1e6 else f"{value:.1f}"
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w-]*", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


def _wrap(text: str, first: str, rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
