"""The settings of a single step: the sections of a campaign's config, with its defaults, rules and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fff.config import load_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fff.config import LoadedConfig

__all__ = ["load_settings"]

# A config names something to sample and a method; a step that uses neither must not ask for them.
_UNUSED = {"structures": ["molecule:H2O"], "reference": {"kind": "xtb"}}


def load_settings(
    config: Path | None,
    overrides: Sequence[str],
    flags: Mapping[str, tuple[str, Any]],
    *,
    uses: Sequence[str] = (),
) -> LoadedConfig:
    """Return the config of a single step.

    Args:
        config: A campaign's config, whose sections count; None for the defaults.
        overrides: Texts such as `reference.functional=PBE0`.
        flags: Dotted key to (name of the flag, value); a value of None was not given.
        uses: Those of `structures` and `reference` that must be given, by the config or by a flag.

    Raises:
        InputFileError: If the config is missing or unreadable.
        ConfigError: If a key is unknown, missing or out of bounds.
    """
    given = {key: flag for key, flag in flags.items() if flag[1] is not None}
    base = {key: value for key, value in _UNUSED.items() if key not in uses}
    return load_config(config, overrides, flags=given, base=None if config is not None else ("default", base))
