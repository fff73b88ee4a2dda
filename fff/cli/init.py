"""`fff init`: write a preset as a commented config, with the files that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fff.cli.border import Border
from fff.cli.live import tell

if TYPE_CHECKING:
    from fff.config.presets import Preset

__all__ = ["SCHEMA_FILE", "init"]

SCHEMA_FILE = "fff-schema.json"
"""What the schema is called beside a config: one serves all configs of a folder."""


def init(
    preset: Annotated[
        str | None, typer.Argument(metavar="PRESET", help="Which one; without it they are listed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; PRESET.yaml by default.", metavar="FILE")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the presets.")] = False,
) -> None:
    """Write a commented config to start from.

    Nothing is overwritten. Files that the preset names, and the schema for editors, come beside it.
    """
    with Border():
        from fff.config.presets import find_preset

        if preset is None or list_them:
            _list()
            return
        found = find_preset(preset)
        target = output or Path(f"{found.name}.yaml")
        _write(found, target)
        name = target if target.parent != Path() else target.name
        script = next((file for file in found.files() if file.suffix == ".sh"), None)
        submit = {"slurm": "sbatch", "pbs": "qsub"}.get(found.name, "")
        then = f", or edit {script.name} too and `{submit} {script.name} {name}`" if script and submit else ""
        tell(f"Next: edit it, then `fff check {name}` and `fff run {name}`{then}.")


def _list() -> None:
    import textwrap

    from fff.config.presets import presets

    known = presets()
    width = max(len(preset.name) for preset in known) + 2
    for preset in known:
        indent = " " * width
        tell(
            textwrap.fill(
                preset.about, 100, initial_indent=f"{preset.name:<{width}}", subsequent_indent=indent
            )
        )
    tell("\nWrite one with: fff init PRESET")


def _write(preset: Preset, target: Path) -> None:
    """Write the config, the files it names and the schema; all of it or nothing."""
    from fff.base.errors import InputFileError
    from fff.base.files import write_bytes, write_text
    from fff.cli.schema import check_replaceable, write_schema
    from fff.config.commenting import commented

    if target.exists():
        msg = f"There is a file {target} already; nothing is overwritten."
        raise InputFileError(msg, hint="Choose another with -o FILE.", path=str(target))
    content = {target.with_name(file.name): file.read_bytes() for file in preset.files()}
    for path, data in content.items():
        if path.exists() and path.read_bytes() != data:
            msg = f"There is another {path} already, which {preset.name} would bring; nothing is overwritten."
            raise InputFileError(
                msg, hint="Write the config into another folder: -o FOLDER/FILE.", path=str(path)
            )
    schema = target.with_name(SCHEMA_FILE)
    check_replaceable(schema)
    try:
        write_text(target, commented(preset, file_name=target.name, schema=SCHEMA_FILE))
        for path, data in content.items():
            write_bytes(path, data)
        write_schema(schema)
    except OSError as error:
        msg = f"{target} cannot be written: {error.strerror}."
        raise InputFileError(msg, hint="Choose another place with -o FILE.", path=str(target)) from error
    tell(f"Wrote {target}: {preset.about}")
    for path in content:
        tell(f"      {path}, which goes with it")
    tell(f"      {schema}, from which editors complete keys and check values")
