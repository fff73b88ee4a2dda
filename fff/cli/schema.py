"""`fff schema`: what a config may hold, for editors and for people."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fff.cli.border import Border
from fff.cli.live import tell

__all__ = ["check_replaceable", "schema", "write_schema"]


class Form(StrEnum):
    """What the schema is written as."""

    JSON = "json"
    MARKDOWN = "markdown"


def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file; without it the schema is printed.", metavar="FILE"),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="json for editors, markdown for people.", case_sensitive=False)
    ] = Form.JSON,
) -> None:
    """Write the JSON schema of the config.

    Editors complete keys and check values with it. As markdown: a page that lists every key.
    """
    with Border():
        if output is None:
            tell(_text(form).removesuffix("\n"))
            return
        write_schema(output, form)
        typer.echo(f"Wrote {output}", err=True)
        if form is Form.JSON:
            first = f"# yaml-language-server: $schema={output.name}"
            typer.echo(f"First line of a config beside it: {first}", err=True)


def write_schema(path: Path, form: Form = Form.JSON) -> None:
    """Write the schema, also over one that another version of fff has written.

    Raises:
        InputFileError: If the file is something else, or cannot be written.
    """
    from fff.base.errors import InputFileError
    from fff.base.files import write_text

    check_replaceable(path)
    try:
        write_text(path, _text(form))
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}."
        raise InputFileError(msg, hint="Choose another place with -o FILE.", path=str(path)) from error


def check_replaceable(path: Path) -> None:
    """Check that nobody's file would be lost.

    Raises:
        InputFileError: If there is a file that is neither such a schema nor such a page.
    """
    from fff.base.errors import InputFileError
    from fff.config.page import PAGE_TITLE
    from fff.config.schema import SCHEMA_TITLE

    if not path.exists():
        return
    try:
        beginning = path.read_bytes()[:400].decode(errors="replace")
    except OSError:
        beginning = ""
    if not (f'"title": "{SCHEMA_TITLE}"' in beginning or beginning.startswith(f"{PAGE_TITLE}\n")):
        msg = f"{path} is there already, and is no schema of fff; nothing is overwritten."
        raise InputFileError(msg, hint="Move it away, or choose another name.", path=str(path))


def _text(form: Form) -> str:
    from fff.config.page import config_page
    from fff.config.schema import config_schema

    if form is Form.MARKDOWN:
        return config_page()
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"
