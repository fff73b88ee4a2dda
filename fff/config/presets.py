"""Presets: complete configs to start from, and the files that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fff.base.errors import ConfigError
from fff.config.keys import path_keys
from fff.config.loading import load_config
from fff.config.problems import nearest

__all__ = ["Preset", "find_preset", "presets"]

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Preset:
    """A config that fff brings along.

    Attributes:
        name: What `fff init` calls it.
        path: The YAML file.
    """

    name: str
    path: Path

    @property
    def about(self) -> str:
        """What it is for: the first line of the file."""
        return self.path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()

    def files(self) -> list[Path]:
        """Return the files that go with it: those that it names, and a batch script of its name."""
        config = load_config(self.path).config
        named = [value for key in path_keys() for value in _texts(_value(config, key))]
        # `file.xyz@0:10` names some frames of a file.
        paths = [Path(text if Path(text).exists() else text.partition("@")[0]) for text in named]
        return [path for path in (*paths, self.path.with_suffix(".sh")) if path.is_file()]


def presets() -> list[Preset]:
    """Return all presets: those of the installed package, or of the checkout that this runs from."""
    installed = _PACKAGE / "presets"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    return [Preset(path.stem, path) for path in sorted(folder.glob("*.yaml"))]


def find_preset(name: str) -> Preset:
    """Return the preset of a name.

    Raises:
        ConfigError: If there is none.
    """
    known = {preset.name: preset for preset in presets()}
    found = known.get(name.removesuffix(".yaml"))
    if found is None:
        near = nearest(name, known)
        hint = f"Did you mean {near}? " if near else ""
        msg = f"There is no preset {name!r}."
        raise ConfigError(msg, hint=f"{hint}There are {', '.join(known)}.", key="", value=name)
    return found


def _value(config: object, key: str) -> object:
    for part in key.split("."):
        config = getattr(config, part, None)
    return config


def _texts(value: object) -> list[str]:
    return [x for x in (value if isinstance(value, list) else [value]) if isinstance(x, str)]
