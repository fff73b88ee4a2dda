"""From the section `reference` of a config to a reference method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from fff.base.errors import ConfigError
from fff.config.reference import (
    AseReference,
    PyscfReference,
    ReferenceSection,
    XtbCliReference,
    XtbReference,
)
from fff.external import Workplace
from fff.reference.ase import AseMethod
from fff.reference.dft import PyscfMethod
from fff.reference.xtb import XtbMethod
from fff.reference.xtb_cli import XtbCliMethod

if TYPE_CHECKING:
    from fff.reference.protocol import ReferenceMethod

__all__ = ["make_reference"]

_SECTION: TypeAdapter[AseReference | PyscfReference | XtbCliReference | XtbReference] = TypeAdapter(
    ReferenceSection
)


def make_reference(
    section: AseReference | PyscfReference | XtbCliReference | XtbReference | Mapping[str, Any],
    workplace: Workplace | None = None,
) -> ReferenceMethod:
    """Return the reference method that a config names; it calculates in this process.

    Args:
        section: The section `reference`, or the same as a dict.
        workplace: Where external codes calculate; among the temporary files when None.

    Raises:
        ConfigError: If a dict is no such section.

    Example:
        >>> make_reference({"kind": "xtb"}).name
        'GFN2-xTB'
    """
    if isinstance(section, Mapping):
        try:
            section = _SECTION.validate_python(dict(section))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["reference", *(str(part) for part in first["loc"][1:])])
            msg = f"{key} is {first.get('input')!r}: {first['msg']}."
            raise ConfigError(msg, key=key, value=repr(first.get("input"))) from None
    workplace = workplace or Workplace.temporary()
    # Before its parent class.
    if isinstance(section, XtbCliReference):
        return XtbCliMethod(section, workplace)
    if isinstance(section, XtbReference):
        return XtbMethod(section)
    if isinstance(section, PyscfReference):
        return PyscfMethod(section)
    return AseMethod(section, workplace)
