"""From files and flags to one validated config that knows where each value came from."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fff.base.errors import ConfigError, InputFileError
from fff.config.campaign import ActiveLearningConfig
from fff.config.keys import kinds_of, leaves, locate, path_keys
from fff.config.problems import config_error, nearest, show, unknown_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["LoadedConfig", "config_from_dict", "config_to_yaml", "load_config"]

DEFAULT = "default"
_NAMED = re.compile(r"^[A-Za-z][A-Za-z0-9_-]+:")
_DEEPEST = 50
_MOST_VALUES = 100_000
_LARGEST_BYTES = 4_000_000
_MOST_BITS = 1024
_NO_YAML = (YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What ruamel.yaml raises: explicit tags, as in `!!bool maybe`, bring others than its own errors."""
_KIND_SECTIONS = ("reference", "site")


@dataclass(frozen=True)
class LoadedConfig:
    """A config and where its values came from.

    Attributes:
        config: The validated config.
        sources: For every dotted key: `default`, the config file as it was given, `-o`, or a flag.
        path: The config file, or None.
    """

    config: ActiveLearningConfig
    sources: dict[str, str]
    path: Path | None = None

    @property
    def run_dir(self) -> Path:
        """The absolute path of the run directory; runs/<name> below the current folder by default.

        Raises:
            ConfigError: If a link in it leads to itself.
        """
        config = self.config
        path = Path(config.run_dir) if config.run_dir else Path("runs") / config.name
        try:
            return path.resolve()
        except (OSError, RuntimeError) as error:
            msg = f"The run directory {path} cannot be used: {str(error).rstrip('.')}."
            raise ConfigError(
                msg, hint="Choose another with --run-dir.", key="run_dir", value=str(path)
            ) from None


def config_from_dict(values: Mapping[str, Any]) -> ActiveLearningConfig:
    """Return the validated config of nested values, as `config.model_dump(mode="json")` gives them.

    Raises:
        ConfigError: If a key is unknown, missing or out of bounds, or keys contradict each other.
    """
    try:
        return ActiveLearningConfig.model_validate(dict(values))
    except ValidationError as error:
        raise config_error(error) from None


def config_to_yaml(config: ActiveLearningConfig) -> str:
    """Return the config with all values as YAML that `load_config` reads back to the same config."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000
    text = StringIO()
    text.write(
        f"# Config of the campaign {config.name!r}: every value, the defaults too.\n"
        "# `fff run` takes this file; paths are absolute.\n"
    )
    yaml.dump(config.model_dump(mode="json"), text)
    return text.getvalue()


def load_config(
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, tuple[str, Any]] | None = None,
    base: tuple[str, Mapping[str, Any]] | None = None,
    base_dir: Path | None = None,
) -> LoadedConfig:
    """Return the config of a file, changed by flags and by `key=value` texts, the last one winning.

    Args:
        path: YAML file; None starts from the defaults, or from `base`.
        overrides: Texts such as `sampling.n_steps=400`; the value is read as YAML.
        flags: Dotted key to (name of the flag, value), for options of the command line.
        base: Name of a source and its nested values with absolute paths, in place of a file: the config that
            a campaign has.
        base_dir: Folder from which paths in `overrides` and `flags` count; the current one when None.

    Raises:
        InputFileError: If the file is missing or unreadable.
        ConfigError: If it is no YAML, or a key is unknown, missing or out of bounds.
    """
    here = (base_dir or Path.cwd()).resolve()
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    if path is not None:
        values = _resolve_paths(_read(path), path.resolve().parent)
        given = dict.fromkeys(_flat(values), str(path))
        stem = path.stem.lstrip(".")
        if "name" not in values and stem:
            values["name"] = stem
    elif base is not None:
        name, given_values = base
        _check_tree(given_values)
        values = copy.deepcopy(dict(given_values))
        given = dict.fromkeys(_flat(values), name)
    for key, value, source in _changes(overrides, flags or {}):
        _set(values, given, (key, _resolve_value(key, value, here)), source)
    config = config_from_dict(values)
    return LoadedConfig(config, _sources(config, given), path)


def _changes(
    overrides: Sequence[str], flags: Mapping[str, tuple[str, Any]]
) -> Iterator[tuple[str, Any, str]]:
    """Yield key, value and source; flags first, a key that both set is refused."""
    parsed = [_parse_override(text) for text in overrides]
    for key, (flag, value) in flags.items():
        if any(other == key for other, _ in parsed):
            msg = f"`{flag}` and `-o {key}=...` both set `{key}`."
            raise ConfigError(msg, hint="Give only one of them.", key=key, value=value)
        _check_tree(value, key)
        yield key, value, flag
    for key, value in parsed:
        yield key, value, "-o"


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key):
        msg = f"`-o {text}` is not of the form key=value."
        hint = "Write for example `-o sampling.n_steps=400`, without spaces."
        raise ConfigError(msg, hint=hint, key=key or text, value=text)
    try:
        parsed = _yaml().load(value) if value.strip() else None
    except _NO_YAML as error:
        msg = f"The value of `-o {_short(text)}` is no YAML: {_reason(error)}."
        hint = "Put texts with special characters in quotes: -o 'key=\"value\"'."
        raise ConfigError(msg, hint=hint, key=key, value=value) from None
    _check_tree(parsed, key)
    return key, parsed


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _yaml() -> YAML:
    # Pure: the C parser reads YAML 1.1, where `no` is false and `1e-3` is text.
    return YAML(typ="safe", pure=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _yaml().load(_text(path))
    except FileNotFoundError:
        raise _no_file(path) from None
    except IsADirectoryError:
        msg = f"The config {path} is a folder."
        raise InputFileError(msg, hint="Name the YAML file in it.", path=str(path)) from None
    except UnicodeDecodeError:
        msg = f"The config {path} is not a text file (UTF-8)."
        raise InputFileError(msg, hint="Give a YAML file.", path=str(path)) from None
    except OSError as error:
        msg = f"The config {path} cannot be read: {error.strerror or error}."
        raise InputFileError(msg, hint="Check the path and its permissions.", path=str(path)) from None
    except _NO_YAML as error:
        raise _bad_yaml(path, error) from None
    if values is None:
        msg = f"The config {path} is empty."
        hint = "It needs at least `structures` (or `labels`) and `reference`: `fff init minimal` writes one."
        raise ConfigError(msg, hint=hint, key="", value=None)
    _check_tree(values)
    if not isinstance(values, dict):
        msg = f"The config {path} holds {show(values)}; it must consist of keys with values."
        raise ConfigError(msg, hint="Write one with `fff init minimal`.", key="", value=values)
    return values


def _text(path: Path) -> str:
    """Return the text of a file, which may be a pipe, but no flood."""
    with path.open("rb") as file:
        data = file.read(_LARGEST_BYTES + 1)
    if len(data) > _LARGEST_BYTES:
        msg = f"The config {path} is larger than {_LARGEST_BYTES // 10**6} MB; it would take minutes to read."
        hint = "Put the structures into one file, or into a folder, and name that."
        raise InputFileError(msg, hint=hint, path=str(path))
    return data.decode("utf-8").replace("\r\n", "\n")


def _no_file(path: Path) -> InputFileError:
    siblings: list[str] = []
    if path.parent.is_dir():
        siblings = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    found = nearest(path.name, siblings)
    hint = f"Did you mean {path.parent / found}?" if found else "Check the path; `fff init` lists presets."
    return InputFileError(f"There is no config file {path}.", hint=hint, path=str(path))


def _bad_yaml(path: Path, error: Exception) -> ConfigError:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    line = f", line {mark.line + 1}" if mark else ""
    if isinstance(error, DuplicateKeyError):
        found = re.search(r'found duplicate key "([^"]*)"', str(error))
        key = found.group(1) if found else ""
        msg = f"{path}{line}: the key `{key}` is there twice."
        return ConfigError(msg, hint="Leave one of the two.", key=key, value=None)
    reason = _reason(error)
    hint = "Indent with spaces, put a space after each colon, and quote texts with special characters."
    return ConfigError(f"{path}{line}: this is no YAML: {reason}.", hint=hint, key="", value=None)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, LookupError):
        return f"{error} is no value of its type"
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return str(problem).strip().splitlines()[0].rstrip(".")


def _check_tree(
    value: Any, key: str = "", above: tuple[int, ...] = (), count: list[int] | None = None
) -> None:
    """Refuse what YAML can express and no config means.

    Keys that are no text; values that contain themselves or, by aliases of aliases, stand for millions;
    numbers that Python cannot print.
    """
    count = [0] if count is None else count
    count[0] += 1
    if count[0] > _MOST_VALUES:
        msg = f"`{key.partition('.')[0].partition('[')[0]}` stands for more than {_MOST_VALUES} values."
        raise ConfigError(msg, hint="Do not let aliases (`*name`) multiply.", key=key, value=None)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        msg = f"`{key}` is a number of more than {value.bit_length() * 3 // 10} digits."
        raise ConfigError(msg, hint="Give a smaller one.", key=key, value=None)
    if not isinstance(value, dict | list):
        return
    if id(value) in above:
        msg = f"`{key}` contains itself."
        hint = "Write the value out, where now an alias (`*name`) points to what holds it."
        raise ConfigError(msg, hint=hint, key=key, value=None)
    if len(above) > _DEEPEST:
        msg = f"`{key.partition('.')[0]}` is nested more than {_DEEPEST} levels deep."
        raise ConfigError(msg, hint="No key needs so many.", key=key, value=None)
    inside = (*above, id(value))
    if isinstance(value, list):
        for i, part in enumerate(value):
            _check_tree(part, f"{key}[{i}]", inside, count)
        return
    for name, part in value.items():
        inner = f"{key}.{name}" if key else str(name)
        if not isinstance(name, str):
            msg = f"`{inner}` is a key that is no text."
            hint = f'Every key is a name; in `parameters` put quotes around it: "{inner}".'
            raise ConfigError(msg, hint=hint, key=inner, value=part)
        _check_tree(part, inner, inside, count)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _resolve_paths(values: dict[str, Any], base: Path, prefix: str = "") -> dict[str, Any]:
    return {key: _resolve_value(prefix + key, value, base) for key, value in values.items()}


def _resolve_value(key: str, value: Any, base: Path) -> Any:
    if isinstance(value, dict):
        return _resolve_paths(value, base, f"{key}.")
    is_list = path_keys().get(key)
    if is_list and isinstance(value, list):
        return [_resolve_path(f"{key}[{i}]", x, base) for i, x in enumerate(value)]
    return _resolve_path(key, value, base) if is_list is False else value


def _resolve_path(key: str, value: Any, base: Path) -> Any:
    """Return an absolute path; names such as `molecule:H2O`, and what is no text, stay as they are.

    Raises:
        ConfigError: If it can be no path on this machine.
    """
    if not isinstance(value, str) or not value.strip():
        # Blank texts are refused where empty ones are.
        return value.strip() if isinstance(value, str) else value
    try:
        path = (base / Path(value).expanduser()).resolve()
        exists = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        msg = f"`{key}` is {show(value)}, which cannot be used as a path: {reason.rstrip('.')}."
        name = ", or a name such as molecule:H2O" if key.startswith("structures") else ""
        hint = f"Give the path of a file or folder{name}."
        raise ConfigError(msg, hint=hint, key=key, value=value) from None
    return value if _NAMED.match(value) and not exists else str(path)


def _set(values: dict[str, Any], given: dict[str, str], change: tuple[str, Any], source: str) -> None:
    """Set one dotted key in nested values and note its source."""
    key, value = change
    *parents, last = key.split(".")
    _check_known(key, value, values)
    if len(parents) == 1 and last == "kind" and parents[0] in _KIND_SECTIONS:
        _keep_shared_keys(values, given, parents[0], str(value))
    place = values
    for depth, parent in enumerate(parents):
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        elif not isinstance(inner, dict):
            above = ".".join(parents[: depth + 1])
            msg = f"`{key}` cannot be set: `{above}` is {show(inner)}, not a section."
            raise ConfigError(msg, hint=f"Leave `{above}` out, or give it keys.", key=key, value=value)
        place = inner
    place[last] = value
    for old in [k for k in given if k == key or k.startswith(f"{key}.")]:
        del given[old]
    given.update(dict.fromkeys(_flat({key: value}), source))


def _check_known(key: str, value: Any, values: Mapping[str, Any]) -> None:
    """Refuse a misspelt key before it makes a section that nobody declared."""
    first, *rest = key.split(".")
    section = values.get(first)
    kind = str(section.get("kind")) if isinstance(section, dict) else ""
    tag = [kind] if kind in kinds_of(locate([first]).field) else []
    for depth in range(len(rest) + 1):
        place = locate([first, *(tag if depth else []), *rest[:depth]])
        if place.section is None:
            return
        if place.field is None:
            raise unknown_key(key, value, place.section, tag[0] if tag and depth else "")


def _keep_shared_keys(values: dict[str, Any], given: dict[str, str], name: str, kind: str) -> None:
    """Drop the keys of the section's old kind that the new kind does not have."""
    section = values.get(name)
    wanted = kinds_of(locate([name]).field).get(kind)
    if not isinstance(section, dict) or wanted is None or section.get("kind") == kind:
        return
    for key in [k for k in section if k not in wanted.model_fields]:
        del section[key]
        for old in [k for k in given if k == f"{name}.{key}" or k.startswith(f"{name}.{key}.")]:
            del given[old]


def _sources(config: ActiveLearningConfig, given: Mapping[str, str]) -> dict[str, str]:
    present = set(_flat(config.model_dump(mode="json")))
    sources = {}
    for key, _ in leaves():
        inside = [k for k in present if k == key or k.startswith(f"{key}.")]
        if not inside:
            continue  # a key of another kind
        found = [given[k] for k in given if k == key or k.startswith(f"{key}.")]
        sources[key] = ", ".join(dict.fromkeys(found)) or DEFAULT
    return sources
